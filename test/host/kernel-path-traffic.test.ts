import assert from 'node:assert/strict';
import { BUILD_TIMEOUT_MS, KernelPathPair, type Receiver, buildKernelPath } from '../support/kernel-path.js';
import { tcpTransfer, udpExchange } from '../support/traffic.js';

/** Around what one packet holds (1444), what a peer's MTU leaves of a fragment, and the largest there is. */
const SIZES = [0, 1, 17, 100, 1000, 1443, 1444, 1445, 1472, 3000, 9000, 65_507];
const BULK_BYTES = 8 << 20;

describe('traffic on the kernel path', function () {
  this.timeout(BUILD_TIMEOUT_MS);
  let pair: KernelPathPair | undefined;

  before(async function () {
    await buildKernelPath(this);
  });
  afterEach(() => pair?.close());

  const combinations: readonly (readonly ['veth' | 'wire', Receiver, Receiver])[] = [
    ['veth', 'xdp', 'xdp'],
    ['wire', 'xdp', 'xdp'],
    ['veth', 'tc', 'tc'],
    ['wire', 'tc', 'xdp'],
    ['veth', 'auto', 'auto'],
    ['wire', 'auto', 'auto'],
    ['wire', 'auto', 'xdp'],
    ['veth', 'tunnel', 'xdp'],
    ['veth', 'tunnel', 'auto'],
    ['wire', 'tunnel', 'tc'],
  ];
  for (const [link, near, far] of combinations) {
    it(`carries everything whole between ${near} and ${far} on a link like ${link}`, async () => {
      pair = await KernelPathPair.create(link);
      await pair.start(near, far);
      const { left, right } = pair;
      for (const [from, to] of [
        [left, right],
        [right, left],
      ] as const) {
        const exchanged = await udpExchange(from.container, to.container, to.address, SIZES);
        assert.deepEqual(exchanged, { lost: [], altered: [] });
        await tcpTransfer(from.container, to.container, to.address, { bytes: BULK_BYTES });
      }
      const [here, there] = await Promise.all([left.carried(), right.carried()]);
      const segments = BULK_BYTES / 1500;
      assert.equal(here.kernel.sent > 0, near !== 'tunnel', inspect(here));
      assert.equal(there.kernel.received > 0, near !== 'tunnel', inspect(there));
      // On a busy machine a transfer may fall below what makes it a stream now and then, on an emulated one it always is.
      if (near === 'auto') assert.ok(here.native.sent > segments / 8, inspect(here));
      // Only fragments are left to the tunnel between two that announce the kernel path.
      if (near === 'xdp' || near === 'tc') {
        assert.ok(here.kernel.sent > segments / 2 && here.native.sent < 200, inspect(here));
      }
      assert.equal(
        there.kernel.sent > segments / 2,
        (far === 'xdp' || far === 'tc') && near !== 'tunnel',
        inspect(there),
      );
    });
  }
});

function inspect(...carried: readonly unknown[]): string {
  return JSON.stringify(carried);
}
