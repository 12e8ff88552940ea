import assert from 'node:assert/strict';
import { BUILD_TIMEOUT_MS, buildKernelPath } from '../support/kernel-path.js';
import {
  DATAPATH,
  carriesByKernel,
  eventuallySends,
  groOf,
  indexOf,
  programPlaces,
  startKernelOverlay,
  xdpOf,
} from '../support/kernel-overlay.js';
import { Netns } from '../support/netns.js';
import type { Overlay } from '../support/overlay.js';
import type { Host } from '../support/rig.js';
import { startStream, tcpTransfer } from '../support/traffic.js';
import { eventually } from '../support/wait.js';

const ROUTER = '192.0.2.1';
const OTHER_ADDRESS = '192.0.2.99';
const OTHER_MACS = ['02:00:00:00:01:01', '02:00:00:00:01:02'];
const PATIENCE_MS = 60_000;

/** Several packets of full size. */
const LEARNING_BYTES = 100_000;

describe(`the kernel path (${DATAPATH}) while the uplink changes`, function () {
  this.timeout(BUILD_TIMEOUT_MS);
  let overlay: Overlay;
  let first: Host;
  let uplink = 'eth0';
  let address: string;

  before(async function () {
    await buildKernelPath(this);
    overlay = await startKernelOverlay();
    first = overlay.rig.host(1);
    address = first.publicIp;
  });
  // There is none if they were skipped.
  after(() => (overlay as Overlay | undefined)?.close());

  /** Brings a change about while TCP flows both ways: each stream is whole, and afterwards all is where it belongs. */
  const survives = async (change: () => Promise<void>): Promise<void> => {
    const [near, far] = [overlay.container(1), overlay.container(2)];
    const streams = await Promise.all([
      startStream(near.netns, far.netns, far.address),
      startStream(far.netns, near.netns, near.address),
    ]);
    await change();
    await settles();
    for (const stream of streams) await stream.stop();
    await carriesByKernel(overlay);
  };

  const settles = async (): Promise<void> => {
    await eventually('both hosts to know of it', async () => {
      assert.equal((await overlay.daemon(1).status()).underlay?.device, uplink);
      assert.equal((await overlay.daemon(2).status()).peers[0]?.publicIp, address);
    });
    for (const number of [1, 2]) {
      const host = overlay.rig.host(number);
      const device = number === 1 ? uplink : 'eth0';
      await eventually(
        `the programs of host ${number} to be at ${device}`,
        async () => {
          const places = [await indexOf(host, device), await indexOf(host, 'flannel0')];
          assert.deepEqual(
            programPlaces(overlay.daemon(number)),
            places.sort((left, right) => left - right),
          );
        },
        { timeoutMs: PATIENCE_MS },
      );
      await eventuallySends(overlay, number, 1);
      if ((await xdpOf(host, device)) !== undefined) assert.equal(await groOf(host, device), 'on');
    }
  };

  /** Makes a veth of the first host whose other end is a port of the switch. */
  const addUplink = async (words: string, port: string): Promise<void> => {
    const theSwitch = new Netns(first.netns.name.replace(/h1$/, 'sw'));
    await first.netns.ip([`link add ${words} type veth peer name ${port} netns ${theSwitch.name}`]);
    await theSwitch.ip([`link set ${port} master br0 up`]);
  };

  const addressUplink = (): string[] => [
    `link set ${uplink} up`,
    `address add ${address}/24 dev ${uplink}`,
    `route replace default via ${ROUTER}`,
  ];

  for (const [number, whose] of [
    [1, 'its'],
    [2, 'the neighbour’s'],
  ] as const) {
    it(`goes on with another MAC, ${whose}`, () =>
      survives(async () => {
        await overlay.rig.host(number).netns.ip([`link set eth0 address ${OTHER_MACS[number - 1] ?? ''}`]);
      }));
  }

  it('follows the MTU', async () => {
    for (const mtu of [1400, 1500]) {
      await survives(async () => {
        for (const { netns } of overlay.rig.hosts) await netns.ip([`link set eth0 mtu ${mtu}`]);
        await eventually('the MTU in subnet.env', () => {
          for (const number of [1, 2]) {
            assert.equal(overlay.daemon(number).subnetEnv()['FLANNEL_MTU'], String(mtu - 28));
          }
        });
        // A container learns of a narrower way from the answer to what is too large for it, which is lost then.
        for (const [source, target] of overlay.pairs) {
          const [near, far] = [overlay.container(source), overlay.container(target)];
          await tcpTransfer(near.netns, far.netns, far.address, { bytes: LEARNING_BYTES });
        }
      });
    }
  });

  it('follows the address', () =>
    survives(async () => {
      await first.netns.ip([`address add ${OTHER_ADDRESS}/24 dev eth0`, `address del ${address}/24 dev eth0`]);
      address = OTHER_ADDRESS;
      // The kernel removes a secondary address together with the first one of its network.
      await first.netns.ip([`address replace ${address}/24 dev eth0`, `route replace default via ${ROUTER}`]);
    }));

  it('is at the device again that was deleted and made anew', async () => {
    const before = await indexOf(first, 'eth0');
    await survives(async () => {
      await first.netns.ip(['link del eth0']);
      await addUplink('eth0', 'h1');
      await first.netns.ip(addressUplink());
    });
    assert.notEqual(await indexOf(first, 'eth0'), before);
  });

  it('is at the device again that was made anew with the same index', () =>
    survives(async () => {
      const index = await indexOf(first, 'eth0');
      await first.netns.ip(['link del eth0']);
      await addUplink(`eth0 index ${index}`, 'h1');
      await first.netns.ip(addressUplink());
    }));

  it('moves to another device, and leaves nothing at the former one', async () => {
    await addUplink('eth1', 'h1b');
    await survives(async () => {
      uplink = 'eth1';
      await first.netns.ip([`address del ${address}/24 dev eth0`, ...addressUplink()]);
    });
    assert.equal(await xdpOf(first, 'eth0'), undefined);
    assert.equal(await groOf(first, 'eth0'), 'off');
  });

  it('has told of each change once', () => {
    for (const number of [1, 2]) {
      const { log } = overlay.daemon(number);
      assert.doesNotMatch(log, /no kernel path/);
      assert.ok((log.match(/the kernel path carries what it can/g) ?? []).length <= 6, log);
    }
  });
});
