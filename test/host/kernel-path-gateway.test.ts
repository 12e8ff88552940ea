import assert from 'node:assert/strict';
import { ctlFile } from '../support/daemon.js';
import { BUILD_TIMEOUT_MS, buildKernelPath } from '../support/kernel-path.js';
import {
  DATAPATH,
  carriesByKernel,
  carriesEverything,
  eventuallySends,
  kernelCounters,
  startKernelOverlay,
} from '../support/kernel-overlay.js';
import { Netns } from '../support/netns.js';
import type { Overlay } from '../support/overlay.js';
import type { Host } from '../support/rig.js';
import { startStream } from '../support/traffic.js';
import { eventually } from '../support/wait.js';

const ROUTER = '192.0.2.1';
/** Another link of the router. */
const FAR = { network: '198.51.100.0/24', router: '198.51.100.1', host: '198.51.100.12' };

describe(`the kernel path (${DATAPATH}) and gateways between hosts`, function () {
  this.timeout(BUILD_TIMEOUT_MS);
  let overlay: Overlay;
  let hosts: readonly Host[];

  before(async function () {
    await buildKernelPath(this);
    overlay = await startKernelOverlay();
    hosts = [overlay.rig.host(1), overlay.rig.host(2)];
    // A router says when it sends packets back to where they came from.
    for (const { netns } of hosts) netns.setParameters({ 'net/ipv4/conf/eth0/accept_redirects': 0 });
  });
  // There is none if they were skipped.
  after(() => (overlay as Overlay | undefined)?.close());

  /** Both ways by the tunnel, and both hosts say why. */
  const goesByTunnel = async (numbers: readonly number[]): Promise<void> => {
    for (const number of numbers) {
      await eventually(`host ${number} to send by the tunnel`, async () => {
        const { peers, tunnels } = await overlay.daemon(number).status();
        assert.equal(tunnels[0]?.kernelPath?.isActive, true);
        assert.deepEqual(peers[0]?.carrier, { carrier: 'tunnel', because: 'off-link' });
      });
    }
    const before = await Promise.all(numbers.map(async (number) => kernelCounters(overlay.daemon(number))));
    await carriesEverything(overlay);
    for (const [index, number] of numbers.entries()) {
      const { sent } = await kernelCounters(overlay.daemon(number));
      assert.equal(sent.packets, before[index]?.sent.packets, `the kernel of host ${number} sends`);
    }
  };

  it('leaves a peer to the tunnel as long as its route has a gateway, and loses nothing', async () => {
    const [near] = hosts;
    assert.ok(near);
    const route = `${overlay.rig.host(2).publicIp}/32`;
    await overlay.withoutLoss(async () => {
      await near.netns.ip([`route add ${route} via ${ROUTER}`]);
      await goesByTunnel([1]);
    });
    const { statusSocket } = overlay.daemon(1);
    const { stdout } = await near.netns.run([
      ...[process.execPath, ctlFile(), 'status', '--status-socket', statusSocket],
    ]);
    assert.match(stdout, /by the tunnel: the peer is not on the link of the uplink/);
    await overlay.withoutLoss(async () => {
      await near.netns.ip([`route del ${route}`]);
      await eventuallySends(overlay, 1, 1);
    });
    await carriesByKernel(overlay);
  });

  it('follows a host behind a router, and from there back onto the link', async () => {
    const [near, far] = [overlay.container(1), overlay.container(2)];
    const { netns, publicIp } = overlay.rig.host(2);
    const { router } = overlay.rig;
    await router.ip([
      `link add far type veth peer name eth1 netns ${netns.name}`,
      `address add ${FAR.router}/24 dev far`,
      'link set far up',
    ]);
    const etcd = new Netns(netns.name.replace(/h2$/, 'etcd'));
    await etcd.ip([`route add ${FAR.network} via ${ROUTER}`]);
    const stream = await startStream(near.netns, far.netns, far.address, { bytesPerSecond: 200_000 });

    await netns.ip([
      `address del ${publicIp}/24 dev eth0`,
      `address add ${FAR.host}/24 dev eth1`,
      'link set eth1 up',
      `route replace default via ${FAR.router}`,
    ]);
    await eventually('the new address in the lease', async () =>
      assert.equal((await overlay.daemon(1).status()).peers[0]?.publicIp, FAR.host),
    );
    await goesByTunnel([1, 2]);

    await netns.ip(['link del eth1', `address add ${publicIp}/24 dev eth0`, `route replace default via ${ROUTER}`]);
    await eventually('the former address in the lease', async () =>
      assert.equal((await overlay.daemon(1).status()).peers[0]?.publicIp, publicIp),
    );
    for (const number of [1, 2]) await eventuallySends(overlay, number, 1);
    await stream.stop();
    await carriesByKernel(overlay);
  });
});
