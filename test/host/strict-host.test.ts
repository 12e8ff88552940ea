import assert from 'node:assert/strict';
import { type Host, Rig } from '../support/rig.js';
import { assertTalking } from '../support/traffic.js';
import { waitFor } from '../support/wait.js';

const NETWORK = '10.5.0.0/16';

describe('hosts with a strict reverse path filter', () => {
  let rig: Rig;

  beforeEach(async () => {
    rig = await Rig.create({ hosts: 2, reversePath: 'strict' });
  });

  afterEach(() => rig.close());

  const filterOf = async (host: Host, device: string): Promise<string> =>
    (await host.netns.run(['sysctl', '-n', `net/ipv4/conf/${device}/rp_filter`])).stdout.trim();

  for (const [type, device] of [
    ['vxlan', 'flannel.1'],
    ['udp', 'flannel0'],
    ['host-gw', 'eth0'],
  ] as const) {
    it(`are served by ${type}, and stay strict`, async () => {
      await rig.putConfig({ Network: NETWORK, Backend: { Type: type } });
      for (const host of rig.hosts) await host.startDaemon();
      await assertTalking(await rig.host(1).addContainer(), await rig.host(2).addContainer());
      for (const host of rig.hosts) {
        assert.deepEqual([await filterOf(host, 'all'), await filterOf(host, device)], ['1', '1']);
      }
    });
  }

  // While a backend is exchanged, what one host sends through the old device is answered through the new one.
  it('carry packets between different backends, and are loosened on our devices only', async () => {
    // Each follows a configuration of its own, as a host does that has not heard of the change.
    const places = [
      { host: rig.host(1), prefix: '/near/network', key: 'subnets/10.5.1.0-24', type: 'vxlan' },
      { host: rig.host(2), prefix: '/far/network', key: 'subnets/10.5.2.0-24', type: 'udp' },
    ] as const;
    for (const { host, prefix, key, type } of places) {
      await rig.etcd.put(`${prefix}/config`, JSON.stringify({ Network: NETWORK, Backend: { Type: type } }));
      await rig.etcd.put(`${prefix}/${key}`, JSON.stringify({ PublicIP: host.publicIp, BackendType: 'host-gw' }));
      await host.startDaemon({ args: [`--etcd-prefix=${prefix}`] });
    }
    const [near, far] = [await rig.host(1).addContainer(), await rig.host(2).addContainer()];
    for (const [from, to] of [places, [places[1], places[0]]] as const) {
      const published = await waitFor(
        async () => {
          const entry = await rig.etcd.get(`${from.prefix}/${from.key}`);
          return entry !== undefined && !entry.value.includes('host-gw') && entry.value;
        },
        { what: `the lease of ${from.host.name} with its backend` },
      );
      await rig.etcd.put(`${to.prefix}/${from.key}`, published);
    }
    await assertTalking(near, far);
    for (const host of rig.hosts) {
      const filters = await Promise.all(['flannel.1', 'flannel0', 'eth0'].map((device) => filterOf(host, device)));
      assert.deepEqual(filters, ['2', '2', '1']);
    }
  });
});
