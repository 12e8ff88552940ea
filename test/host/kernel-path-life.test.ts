import assert from 'node:assert/strict';
import {
  BUILD_TIMEOUT_MS,
  KernelPathPair,
  type Receiver,
  buildKernelPath,
  kernelPathCommand,
} from '../support/kernel-path.js';
import { ping, startPing, udpExchange } from '../support/traffic.js';

/** Up to what one packet holds. */
const SIZES = [0, 1, 17, 100, 1000, 1443, 1444];

describe('the life of the kernel path', function () {
  this.timeout(BUILD_TIMEOUT_MS);
  let pair: KernelPathPair | undefined;

  before(async function () {
    await buildKernelPath(this);
  });
  afterEach(() => pair?.close());

  const start = async (left: Receiver, right: Receiver): Promise<KernelPathPair> => {
    pair = await KernelPathPair.create('veth');
    await pair.start(left, right);
    return pair;
  };

  it('tells who sends too much for a peer, by the tunnel', async () => {
    const { left, right } = await start('xdp', 'xdp');
    const { received, output } = await ping(left.container, right.address, { size: 1445, dontFragment: true });
    assert.equal(received, 0);
    assert.match(output, /mtu ?= ?1472/);
    assert.equal((await ping(left.container, right.address, { size: 1444, dontFragment: true })).received, 3);
  });

  for (const receiver of ['xdp', 'tc'] as const) {
    it(`does not take what another host was sent, on a promiscuous device with ${receiver}`, async () => {
      const { left, right } = await start(receiver, receiver);
      await right.netns.ip(['link set eth0 promisc on']);
      assert.equal((await ping(left.container, right.address)).received, 3);
      await left.netns.ip([`neighbour replace ${right.publicIp} lladdr 02:00:00:00:00:99 dev eth0`]);
      assert.equal((await ping(left.container, right.address, { waitSeconds: 1 })).received, 0);
    });
  }

  it('counts two hops, and has the tunnel tell when they are too many', async () => {
    const { left, right } = await start('xdp', 'xdp');
    const { output } = await ping(left.container, right.address, { count: 1, ttl: 2, waitSeconds: 1 });
    assert.match(output, /From 10\.5\.1\.0 .*Time to live exceeded/);
    // Host, tunnel in, tunnel out, host; what is left is the container's.
    assert.equal((await ping(left.container, right.address, { ttl: 4, waitSeconds: 1 })).received, 0);
    assert.equal((await ping(left.container, right.address, { ttl: 5 })).received, 3);
  });

  it('leaves a datagram intact for a device that computes no checksums', async () => {
    // A sender on the same machine leaves the inner checksum to the device; what is noted of its place has to be right
    // still when the packet reaches a device that would compute it.
    const { left, right } = await start('xdp', 'xdp');
    await right.netns.run(['ethtool', '-K', 'inside', 'tx', 'off']);
    const exchanged = await udpExchange(left.container, right.container, right.address, SIZES);
    assert.deepEqual(exchanged, { lost: [], altered: [] });
  });

  it('loses no packet while its programs are exchanged', async () => {
    const { left, right } = await start('xdp', 'tc');
    const pinging = startPing(left.container, right.address, { intervalMs: 2 });
    for (let i = 0; i < 20; i++) await Promise.all([left.carried('exchange'), right.carried('exchange')]);
    const { sent, received } = await pinging.stop();
    assert.ok(sent > 0);
    assert.equal(received, sent);
  });

  it('goes as it came, and leaves alone what another has attached', async () => {
    const { left, right } = await start('xdp', 'xdp');
    await left.netns.ip(['address add 192.0.2.11/24 dev eth0']);
    const args = ['flannel1', 'eth0', '192.0.2.11', '10.6.1.0/24', 'xdp'];
    const second = await left.netns.run(kernelPathCommand('carrier', args), { mayFail: true });
    assert.equal(second.code, 1);
    assert.match(second.stderr, /attach XDP program: Device or resource busy/);
    assert.equal((await ping(left.container, right.address)).received, 3);

    await left.stop();
    const { stdout: link } = await left.netns.run(['ip', '-d', 'link', 'show', 'dev', 'eth0']);
    assert.doesNotMatch(link, /xdp/);
    const { stdout: filters } = await left.netns.run(['tc', 'filter', 'show', 'dev', 'eth0', 'ingress']);
    assert.doesNotMatch(filters, /bpf/);
  });
});
