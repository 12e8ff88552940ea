import assert from 'node:assert/strict';
import { KERNEL_PATH_DATA } from '../../src/lease/kernel-announcement.js';
import { capture } from '../support/capture.js';
import { BUILD_TIMEOUT_MS, buildKernelPath } from '../support/kernel-path.js';
import { DATAPATH, carriesByKernel, eventuallySends, startKernelOverlay } from '../support/kernel-overlay.js';
import { Netns } from '../support/netns.js';
import { NETWORK, type Overlay } from '../support/overlay.js';
import { ipv4Number } from '../support/packets.js';
import { SteadyPing } from '../support/steady-ping.js';
import { startStream } from '../support/traffic.js';
import { eventually } from '../support/wait.js';

const ROUNDS = 51;
/** Peers that come, move to another address and go, in each round one of the three: a thousand changes. */
const GUESTS = 20;
/** Peer n holds 10.5.(200 + n).0/24 at 192.0.2.(60 + n), and at 192.0.2.(100 + n) once it has moved. */
const FIRST_SUBNET = 200;
const FIRST_HOMES = [60, 100];

describe(`the kernel path (${DATAPATH}) while peers come and go`, function () {
  this.timeout(BUILD_TIMEOUT_MS);
  let overlay: Overlay;

  before(async function () {
    await buildKernelPath(this);
    overlay = await startKernelOverlay({ hosts: 3, config: { ...NETWORK, SubnetMax: '10.5.100.0' } });
  });
  // There is none if they were skipped.
  after(() => (overlay as Overlay | undefined)?.close());

  it('sends no packet to a wrong host, and loses none between those that stay', async () => {
    const { rig } = overlay;
    const guests = Array.from({ length: GUESTS }, (_, n) => n);
    // The addresses exist, and nobody answers there.
    await rig.router.ip(
      FIRST_HOMES.flatMap((home) => guests.map((n) => `address add 192.0.2.${home + n}/24 dev eth0`)),
    );
    const drop = 'chain in { type filter hook prerouting priority -300; udp dport 8285 drop; }';
    await rig.router.run(['nft', '-f', '-'], { input: `table ip guests {\n${drop}\n}` });

    const theSwitch = new Netns(rig.host(1).netns.name.replace(/h1$/, 'sw'));
    // Of the third byte of the inner destination and the last of the outer one.
    const outOfPlace = [
      ...FIRST_HOMES.map(
        (home) => `(ip[19] >= ${home} and ip[19] < ${home + GUESTS} and udp[26] != ip[19] + ${FIRST_SUBNET - home})`,
      ),
      ...[2, 3].map((number) => {
        const subnet = ipv4Number(overlay.container(number).address.replace(/\d+$/, '0'));
        return `(dst host ${rig.host(number).publicIp} and udp[24:4] & 0xffffff00 != ${subnet})`;
      }),
    ];
    const ours = `src host ${rig.host(1).publicIp} and udp dst port 8285`;
    const wrong = await capture(theSwitch, 'h1', `${ours} and (${outOfPlace.join(' or ')})`);
    const right = await capture(theSwitch, 'h1', `${ours} and udp[26] = ${FIRST_SUBNET}`);

    const [near, ...others] = overlay.containers;
    assert.ok(near);
    const staying = others.map(({ address }) => SteadyPing.start(near.netns, address));
    const going = guests.map((n) => SteadyPing.start(near.netns, `10.5.${FIRST_SUBNET + n}.5`, { intervalMs: 20 }));
    const streams = await Promise.all(
      others.map(({ netns, address }) => startStream(near.netns, netns, address, { bytesPerSecond: 4_000_000 })),
    );
    const keys = guests.map((n) => `${rig.etcdPrefix}/subnets/10.5.${FIRST_SUBNET + n}.0-24`);
    for (let round = 0; round < ROUNDS; round++) {
      const home = FIRST_HOMES[round % 3];
      if (home === undefined) await rig.etcd.deleteMany(keys);
      else await rig.etcd.putMany(keys.map((key, n) => [key, guestLease(`192.0.2.${home + n}`)]));
    }
    await eventually('the last change to be known', async () =>
      assert.equal((await overlay.daemon(1).status()).peers.length, 2),
    );
    for (const stream of streams) await stream.stop();
    for (const pinging of going) await pinging.stop();
    for (const pinging of staying) {
      const { sent, received } = await pinging.stop();
      assert.ok(sent > ROUNDS);
      assert.equal(received, sent);
    }
    const seen = await right.stop();
    for (const home of FIRST_HOMES) {
      const count = seen.frames.filter(({ data }) => data[14 + 19] === home).length;
      assert.ok(count > 0, `nothing was sent to 192.0.2.${home}`);
    }
    const misled = await wrong.stop();
    assert.equal(misled.lost, 0);
    assert.deepEqual(
      misled.frames.map(({ data }) => data.toString('hex')),
      [],
    );
    for (const number of [1, 2, 3]) await eventuallySends(overlay, number, 2);
    await carriesByKernel(overlay);
  });
});

/** As a host publishes it that has the kernel path. */
function guestLease(publicIp: string): string {
  return JSON.stringify({ PublicIP: publicIp, BackendType: 'udp', BackendData: KERNEL_PATH_DATA });
}
