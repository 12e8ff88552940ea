import assert from 'node:assert/strict';
import { type Container, type Host, Rig } from '../support/rig.js';
import { SteadyPing } from '../support/steady-ping.js';
import { ping } from '../support/traffic.js';
import { waitFor } from '../support/wait.js';

const NETWORK = { Network: '10.5.0.0/16' };
const PING_INTERVAL_MS = 5;

/** `Backend.Type` of a host's lease as it lies in etcd; udp publishes none. */
async function publishedBackend(host: Host): Promise<string> {
  const subnet = (host.daemon?.subnetEnv().FLANNEL_SUBNET ?? '').replace(/\.1\/24$/, '.0-24');
  const entry = await host.rig.etcd.get(`${host.rig.etcdPrefix}/subnets/${subnet}`);
  return (JSON.parse(entry?.value ?? '{}') as { BackendType?: string }).BackendType ?? 'udp';
}

describe('live change of the configuration', () => {
  let rig: Rig;
  let containers: Container[];

  before(async () => {
    rig = await Rig.create({ hosts: 3 });
    await rig.putConfig({ ...NETWORK, Backend: { Type: 'udp' } });
    containers = await Promise.all(
      rig.hosts.map(async (host) => {
        await host.startDaemon();
        return host.addContainer();
      }),
    );
  });

  after(() => rig.close());

  const container = (number: number): Container => {
    const found = containers[number - 1];
    if (found === undefined) throw new RangeError(`no container ${number}`);
    return found;
  };

  /** Every ordered pair of the three backends, one after the other. */
  const steps = ['vxlan', 'host-gw', 'udp', 'host-gw', 'vxlan', 'udp'];
  for (const [index, to] of steps.entries()) {
    const from = steps[index - 1] ?? 'udp';
    const allowedMs = from === 'host-gw' && to === 'vxlan' ? 0 : 1000;
    it(`goes from ${from} to ${to} with at most ${allowedMs} ms of loss`, async () => {
      const subnets = rig.hosts.map((host) => host.daemon?.subnetEnv().FLANNEL_SUBNET);
      const pairs = [
        [1, 2],
        [2, 3],
        [3, 1],
      ] as const;
      const pings = pairs.map(([a, b]) =>
        SteadyPing.start(container(a).netns, container(b).address, { intervalMs: PING_INTERVAL_MS }),
      );
      await waitFor(async () => (await ping(container(1).netns, container(2).address, { count: 1 })).received === 1, {
        what: 'pings before the change',
      });
      await rig.putConfig({ ...NETWORK, Backend: { Type: to } });
      for (const host of rig.hosts) {
        await waitFor(async () => (await publishedBackend(host)) === to, { what: `${host.name} to publish ${to}` });
      }
      // Everybody has to see everybody's new lease; half a second is many times what that takes.
      await ping(container(1).netns, container(2).address, { count: 50, intervalMs: 10 });
      const results = await Promise.all(pings.map((running) => running.stop()));
      const lostMs = results.map(({ sent, received }) => (sent - received) * PING_INTERVAL_MS);
      console.log(`      ${from} → ${to}: ${lostMs.join(', ')} ms of pings lost`);
      for (const ms of lostMs) assert.ok(ms <= allowedMs, `${ms} ms lost`);
      assert.deepEqual(
        rig.hosts.map((host) => host.daemon?.subnetEnv().FLANNEL_SUBNET),
        subnets,
        'the subnets stay',
      );
      const mtu = { udp: '1472', vxlan: '1450', 'host-gw': '1500' }[to];
      for (const host of rig.hosts) {
        await waitFor(() => host.daemon?.subnetEnv().FLANNEL_MTU === mtu, { what: `MTU ${String(mtu)} in subnet.env` });
      }
    });
  }

  it('takes another VNI and MTU without a restart', async () => {
    await rig.putConfig({ ...NETWORK, Backend: { Type: 'vxlan' } });
    const hasDevice = async (name: string): Promise<boolean> => {
      const links = await rig.host(1).netns.ipJson(['link', 'show']);
      return links.some((link) => link.ifname === name);
    };
    await waitFor(() => hasDevice('flannel.1'), { what: 'flannel.1' });
    await rig.putConfig({ ...NETWORK, Backend: { Type: 'vxlan', VNI: 77, MTU: 1400 } });
    await waitFor(async () => (await hasDevice('flannel.77')) && !(await hasDevice('flannel.1')), {
      what: 'flannel.77 in place of flannel.1',
    });
    await waitFor(() => rig.host(1).daemon?.subnetEnv().FLANNEL_MTU === '1350', { what: 'MTU 1350' });
    await waitFor(async () => (await ping(container(1).netns, container(2).address, { count: 1 })).received === 1, {
      what: 'pings over the new VNI',
    });
    await rig
      .host(1)
      .daemon?.waitForLog(/containers need a restart of Docker .*MTU 1472 → 1450.*systemctl restart docker/);
  });

  it('ignores an invalid configuration, says what is wrong and works on', async () => {
    const daemon = rig.host(1).daemon;
    assert.ok(daemon);
    await rig.putConfig({ ...NETWORK, Backend: { Type: 'gre' } });
    await daemon.waitForLog(/network configuration not valid .*cannot use backend .*gre/);
    await rig.putConfig('{"Network": "10.5.0.0/40"}');
    await daemon.waitForLog(/network configuration not valid .*10\.5\.0\.0\/40/);
    assert.equal((await ping(container(1).netns, container(2).address, { count: 3 })).received, 3);
    await rig.putConfig({ ...NETWORK, Backend: { Type: 'udp' } });
    for (const host of rig.hosts) {
      await waitFor(async () => (await publishedBackend(host)) === 'udp', { what: 'udp again' });
    }
  });

  it('leases another subnet, loudly, when the own one no longer fits', async () => {
    const daemon = rig.host(3).daemon;
    assert.ok(daemon);
    const before = daemon.subnetEnv().FLANNEL_SUBNET;
    await rig.putConfig({ ...NETWORK, SubnetMin: '10.5.240.0', SubnetMax: '10.5.250.0', Backend: { Type: 'udp' } });
    await waitFor(() => daemon.subnetEnv().FLANNEL_SUBNET !== before && daemon.subnetEnv().FLANNEL_SUBNET, {
      what: 'another subnet',
    });
    assert.match(daemon.subnetEnv().FLANNEL_SUBNET ?? '', /^10\.5\.24\d\.1\/24$|^10\.5\.250\.1\/24$/);
    await daemon.waitForLog(/containers need a restart of Docker .*subnet/);
  });
});
