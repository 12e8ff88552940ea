import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { netState } from '../support/net-state.js';
import { type Host, Rig } from '../support/rig.js';
import { ping } from '../support/traffic.js';
import { eventually, waitFor } from '../support/wait.js';

const PEERS = 40;

/** A peer that exists as a lease only. */
interface Peer {
  readonly n: number;
  readonly publicIp: string;
  readonly mac: string;
}

const hex = (n: number): string => n.toString(16).padStart(2, '0');

/** 10.5.n.0/24 behind 198.51.100.n. */
const peer = (n: number, change: Partial<Peer> = {}): Peer => ({
  n,
  publicIp: `198.51.100.${n}`,
  mac: `02:00:00:00:00:${hex(n)}`,
  ...change,
});

const numbers = (first: number, count: number): number[] => Array.from({ length: count }, (_, index) => first + index);

describe('a daemon that was down', function () {
  this.timeout(180_000);
  let rig: Rig;
  let host: Host;

  beforeEach(async () => {
    rig = await Rig.create({ hosts: 2 });
    host = rig.host(1);
    await putBackend({ Type: 'vxlan' });
    for (const [index, { publicIp }] of rig.hosts.entries()) {
      const value = JSON.stringify({ PublicIP: publicIp, BackendType: 'host-gw' });
      await rig.etcd.put(`${rig.etcdPrefix}/subnets/10.5.${index + 1}.0-24`, value);
    }
  });

  afterEach(() => rig.close());

  const putBackend = (backend: object): Promise<void> => rig.putConfig({ Network: '10.5.0.0/16', Backend: backend });

  const keyOf = (n: number): string => `${rig.etcdPrefix}/subnets/10.5.${n}.0-24`;

  const putPeers = async (peers: readonly Peer[]): Promise<void> => {
    for (const { n, publicIp, mac } of peers) {
      const data = { VNI: 1, VtepMAC: mac };
      const value = { PublicIP: publicIp, PublicIPv6: null, BackendType: 'vxlan', BackendData: data };
      await rig.etcd.put(keyOf(n), JSON.stringify(value));
    }
  };

  const ready = async (of: Host): Promise<void> => of.daemon?.waitUntilReady();

  /** Everything in the kernel that concerns the peers that exist as leases only. */
  const peerObjects = async (of: Host): Promise<string[]> => {
    const { routes, neighbours, fdb } = await netState(of.netns);
    return [
      ...routes.filter((line) => /^10\.5\.\d\d+\./.test(line)),
      ...neighbours.filter((line) => /^10\.5\.\d\d+\./.test(line)),
      ...fdb.filter((line) => line.startsWith('02:00:00:00:00:')),
    ].sort();
  };

  const objectsOf = (peers: readonly Peer[]): string[] =>
    peers
      .flatMap(({ n, publicIp, mac }) => [
        `10.5.${n}.0/24 via 10.5.${n}.0 dev flannel.1 proto 173 onlink`,
        `10.5.${n}.0 dev flannel.1 lladdr ${mac} PERMANENT`,
        `${mac} dev flannel.1 dst ${publicIp} self permanent`,
      ])
      .sort();

  /** The listing of the leases may arrive after the host became ready with what it knew before. */
  const assertPeers = async (of: Host, peers: readonly Peer[]): Promise<void> =>
    eventually(`the peers of ${of.name}`, async () => {
      assert.deepEqual(await peerObjects(of), objectsOf(peers));
    });

  const deviceNames = async (): Promise<string[]> =>
    (await host.netns.ipJson(['link', 'show']))
      .map(({ ifname }) => String(ifname))
      .filter((name) => name.startsWith('flannel'));

  it('finds half of its peers gone, others joined and some changed, and is as one that starts afresh', async () => {
    await putPeers(numbers(11, PEERS).map((n) => peer(n)));
    await host.startDaemon();
    await ready(host);
    await assertPeers(
      host,
      numbers(11, PEERS).map((n) => peer(n)),
    );

    await host.daemon?.stop();
    assert.equal((await peerObjects(host)).length, 3 * PEERS, 'everything stays while the daemon is down');
    for (const n of numbers(11, PEERS / 2)) await rig.etcd.delete(keyOf(n));
    const peers = [
      ...numbers(31, 4).map((n) => peer(n, { mac: `02:00:00:00:00:${hex(n + 100)}` })),
      ...numbers(35, 4).map((n) => peer(n, { publicIp: `203.0.113.${n}` })),
      ...numbers(39, 4).map((n) => peer(n, { mac: `02:00:00:00:00:${hex(n + 100)}`, publicIp: `203.0.113.${n}` })),
      // Two that exchange their MACs, and one that takes over the MAC and address of one that left.
      peer(43, { mac: peer(44).mac }),
      peer(44, { mac: peer(43).mac }),
      peer(45, { mac: peer(11).mac, publicIp: peer(11).publicIp }),
      ...numbers(46, 5).map((n) => peer(n)),
      ...numbers(51, PEERS / 2).map((n) => peer(n)),
    ];
    await putPeers(peers);

    await host.startDaemon();
    await ready(host);
    await assertPeers(host, peers);
    await rig.host(2).startDaemon();
    await ready(rig.host(2));
    await assertPeers(rig.host(2), peers);
  });

  it('finds the same without its own record of the past', async () => {
    await putPeers(numbers(11, PEERS).map((n) => peer(n)));
    await host.startDaemon();
    await ready(host);
    await host.daemon?.stop();
    rmSync(host.daemon?.stateDirectory ?? '', { recursive: true });
    for (const n of numbers(11, PEERS / 2)) await rig.etcd.delete(keyOf(n));
    await host.startDaemon();
    await ready(host);
    await assertPeers(
      host,
      numbers(31, PEERS / 2).map((n) => peer(n)),
    );
  });

  it('goes over to another VNI that was configured meanwhile', async () => {
    for (const each of rig.hosts) await each.startDaemon();
    for (const each of rig.hosts) await ready(each);
    assert.deepEqual(await deviceNames(), ['flannel.1']);
    for (const each of rig.hosts) await each.daemon?.stop();
    await putBackend({ Type: 'vxlan', VNI: 7 });
    for (const each of rig.hosts) await each.startDaemon();
    for (const each of rig.hosts) await ready(each);
    await eventually('flannel.7 alone', async () => assert.deepEqual(await deviceNames(), ['flannel.7']));
    await waitFor(async () => (await ping(host.netns, '10.5.2.0', { count: 1, waitSeconds: 1 })).received === 1, {
      what: 'a ping over the new VNI',
    });
    await eventually('the route over the new VNI alone', async () => {
      const { routes } = await netState(host.netns);
      assert.deepEqual(
        routes.filter((line) => line.startsWith('10.5.')),
        ['10.5.2.0/24 via 10.5.2.0 dev flannel.7 proto 173 onlink'],
      );
    });
  });

  for (const [from, to] of [
    ['vxlan', 'host-gw'],
    ['host-gw', 'vxlan'],
    ['vxlan', 'udp'],
  ] as const) {
    it(`goes from ${from} to ${to}, which was configured meanwhile, and leaves nothing`, async () => {
      await putBackend({ Type: from });
      for (const each of rig.hosts) await each.startDaemon();
      for (const each of rig.hosts) await ready(each);
      for (const each of rig.hosts) await each.daemon?.stop();
      await putBackend({ Type: to });
      for (const each of rig.hosts) await each.startDaemon();
      for (const each of rig.hosts) await ready(each);
      const expected = {
        'host-gw': ['10.5.2.0/24 via 192.0.2.12 dev eth0 proto 173'],
        vxlan: ['10.5.2.0/24 via 10.5.2.0 dev flannel.1 proto 173 onlink'],
        udp: ['10.5.0.0/16 dev flannel0 proto 173'],
      }[to];
      const devices = { 'host-gw': [], vxlan: ['flannel.1'], udp: ['flannel0'] }[to];
      // Devices of the former backend stay for half a minute, for peers that have not seen the change yet.
      await waitFor(async () => (await deviceNames()).join() === devices.join(), {
        what: `devices ${devices.join()} only`,
        timeoutMs: 45_000,
        intervalMs: 500,
      });
      // The other host may publish its new backend after this one became ready.
      await eventually('the state of the configured backend', async () => {
        const { routes, neighbours } = await netState(host.netns);
        assert.deepEqual(
          routes.filter((line) => line.startsWith('10.5.')),
          expected,
        );
        assert.equal(neighbours.length, to === 'vxlan' ? 1 : 0);
      });
    });
  }
});
