import assert from 'node:assert/strict';
import type { NetworkProperties } from '../../../src/container/addresses.js';
import type { PoolId } from '../../../src/container/pool-id.js';
import { Prefix } from '../../../src/ip/prefix.js';
import type { FakeClock } from '../../support/fake-clock.js';
import { ip, mac, net } from '../../support/builders.js';
import type { SimFlannel } from '../../support/sim-flannel.js';
import { TestCluster, networkOf } from '../../support/test-cluster.js';
import type { TestDaemon } from '../../support/test-daemon.js';
import { finish } from '../../support/steps.js';

const WEB = { name: 'web', subnet: net('10.99.0.0/24') };

describe('Daemon with containers on other hosts', () => {
  let hosts: TestCluster;
  let clock: FakeClock;
  let cluster: SimFlannel;

  beforeEach(() => {
    hosts = new TestCluster();
    ({ clock, etcd: cluster } = hosts);
  });

  afterEach(() => hosts.close());

  const configure = (type: string): void => cluster.configure(networkOf(type));
  const host = (number: number): TestDaemon => hosts.add(number, { hasContainers: true });
  const start = (...started: readonly TestDaemon[]): Promise<void> => hosts.start(started);

  async function settled<T>(promise: Promise<T>): Promise<T> {
    const state = { isSettled: false };
    const settle = (): void => void (state.isSettled = true);
    promise.then(settle, settle);
    while (!state.isSettled) await clock.advance(20);
    return promise;
  }

  /** Has a host in the network, as `docker network create` would. */
  async function join(daemon: TestDaemon, properties: NetworkProperties, network = WEB): Promise<PoolId> {
    const request = { pool: network.subnet, range: undefined, name: network.name, family: network.subnet.family };
    const { id } = await settled(daemon.pools.requestPool(request));
    await settled(daemon.pools.agree(id, properties));
    return id;
  }

  async function give(daemon: TestDaemon, id: PoolId, n: number, address?: string): Promise<string> {
    const request = {
      kind: 'container',
      address: address === undefined ? undefined : ip(address),
      mac: mac(n),
      owner: `c${n}`,
    } as const;
    return (await settled(daemon.pools.requestAddress(id, request))).toString();
  }

  const rest = (ms = 2500): Promise<void> => clock.advance(ms);

  /** Where packets to an address leave a host: device and gateway, if anywhere. */
  function wayTo({ host: from }: TestDaemon, address: string): string {
    const route = from.routeTo(ip(address));
    if (route === undefined) return 'nowhere';
    return [from.kernel.links.get(route.index)?.name, route.gateway?.toString()].filter(Boolean).join(' ');
  }

  for (const [type, device, gateway] of [
    ['vxlan', 'flannel.1', (b: TestDaemon) => b.subnet?.split('/')[0]],
    ['host-gw', 'eth0', () => '192.0.2.3'],
    ['ipip', 'flannel.ipip', () => '192.0.2.3'],
    ['udp', 'flannel0', () => undefined],
    ['wireguard', 'flannel-wg', () => undefined],
  ] as const) {
    it(`sends to containers of an overlay network through ${type}, also from a host that is not in it`, async () => {
      configure(type);
      const [a, b, c] = [host(1), host(2), host(3)];
      await start(a, b, c);
      const id = await join(b, { type: 'overlay' });
      const address = await give(b, id, 1);
      await rest();
      const expected = [device, gateway(b)].filter(Boolean).join(' ');
      assert.deepEqual([wayTo(a, address), wayTo(c, address)], [expected, expected]);
      assert.equal(wayTo(b, address), 'nowhere', 'the container is not there yet');
      assert.deepEqual(finish(a.daemon.status()).notReadyBecause, []);
    });
  }

  it('tells the tunnel and its source check of containers', async () => {
    configure('udp');
    const [a, b] = [host(1), host(2)];
    await start(a, b);
    await give(b, await join(b, { type: 'overlay' }), 1);
    await give(a, await join(a, { type: 'overlay' }), 2);
    await rest();
    const tunnel = a.host.tunnels[0] ?? assert.fail('no tunnel');
    const [mine, theirs] = [a, b].map(({ pools }) => pools.status().pools[0]?.blocks[0]?.toString());
    assert.ok(
      tunnel.spec.peers.some(
        ({ subnet, publicIp }) => subnet.toString() === theirs && publicIp.toString() === '192.0.2.3',
      ),
    );
    assert.ok(tunnel.spec.ownPrefixes.some((prefix) => prefix.toString() === mine));
  });

  it('tells WireGuard to whom the addresses of containers belong', async () => {
    configure('wireguard');
    const [a, b] = [host(1), host(2)];
    await start(a, b);
    const address = await give(b, await join(b, { type: 'overlay' }), 1);
    await rest();
    const [peer] = [...a.host.kernel.wireguardPeers.values()];
    assert.deepEqual(peer?.allowedIps.map(String).sort(), [b.subnet, Prefix.of(ip(address), 28).toString()].sort());
  });

  for (const properties of [{ type: 'bridge' }, { type: 'ipvlan', mode: 'l3' }] as const) {
    it(`sends to containers of ${JSON.stringify(properties)} over the real network, whatever the backend`, async () => {
      configure('vxlan');
      const [a, b] = [host(1), host(2)];
      await start(a, b);
      const address = await give(b, await join(b, properties), 1);
      await rest();
      assert.equal(wayTo(a, address), 'eth0 192.0.2.3');
      assert.equal(wayTo(b, address), properties.type === 'bridge' ? 'eth0 192.0.2.1' : 'nowhere');
    });
  }

  it('routes nothing of networks that are one segment', async () => {
    configure('vxlan');
    const [a, b] = [host(1), host(2)];
    await start(a, b);
    const address = await give(b, await join(b, { type: 'macvlan' }), 1);
    await rest();
    assert.equal(wayTo(a, address), 'eth0 192.0.2.1', 'as anything else');
  });

  it('has a fixed address follow its container, with no moment at which it goes to the former host', async () => {
    configure('vxlan');
    const all = [host(1), host(2), host(3), host(4)];
    const [a, b, c, d] = all;
    assert.ok(a && b && c && d);
    await start(...all);
    const ids = new Map<TestDaemon, PoolId>();
    for (const daemon of [b, c, d]) ids.set(daemon, await join(daemon, { type: 'overlay' }));
    await give(b, ids.get(b) ?? assert.fail(), 1);
    const fixed = '10.99.0.14'; // in the block of b
    let holder: TestDaemon | undefined;
    const wrong: string[] = [];
    a.host.kernel.subscribe((event) => {
      if (event.type === 'route' && event.route.destination.toString() === `${fixed}/32` && !event.isDeleted) {
        const to = wayTo(a, fixed);
        if (to !== `flannel.1 ${holder?.subnet?.split('/')[0] ?? ''}`) wrong.push(to);
      }
    });
    for (const [n, next] of [c, d, c].entries()) {
      if (holder !== undefined) await settled(holder.pools.releaseAddress(ids.get(holder) ?? assert.fail(), ip(fixed)));
      holder = next;
      assert.equal(await give(next, ids.get(next) ?? assert.fail(), 50 + n, fixed), fixed);
      await rest(300);
      assert.equal(wayTo(a, fixed), `flannel.1 ${next.subnet?.split('/')[0] ?? ''}`);
      assert.equal(wayTo(b, fixed), wayTo(a, fixed), 'also for the host of the block');
    }
    assert.deepEqual(wrong, []);
  });

  it('goes on without etcd over a restart, and forgets what is gone', async () => {
    configure('vxlan');
    const [a, b] = [host(1), host(2)];
    await start(a, b);
    const id = await join(b, { type: 'overlay' });
    const address = await give(b, id, 1);
    await rest(15_000);
    const before = wayTo(a, address);
    assert.match(before, /^flannel\.1 /);
    cluster.setDown(true);
    a.kill();
    await clock.advance(5000);
    const changes = a.host.kernel.applied.length;
    await start(a);
    assert.equal(wayTo(a, address), before);
    assert.equal(a.host.kernel.applied.length, changes, 'nothing was done to the kernel');
    cluster.setDown(false);
    await rest(20_000);
    assert.equal(wayTo(a, address), before);
    await settled(b.pools.releaseAddress(id, ip(address)));
    await settled(b.pools.releasePool(id));
    await rest(30_000);
    assert.equal(wayTo(a, address), 'eth0 192.0.2.1');
  });

  it('keeps sending while hosts tell a wiped etcd again where their containers are', async () => {
    configure('vxlan');
    const [a, b] = [host(1), host(2)];
    await start(a, b);
    const address = await give(b, await join(b, { type: 'overlay' }), 1);
    await rest();
    const before = wayTo(a, address);
    const lost: string[] = [];
    a.host.kernel.subscribe((event) => {
      if (event.type === 'route' && event.isDeleted) lost.push(event.route.destination.toString());
    });
    cluster.etcd.wipe();
    configure('vxlan');
    await rest(120_000);
    assert.equal(wayTo(a, address), before);
    assert.deepEqual(lost, []);
    await rest(600_000);
    assert.equal(wayTo(a, address), before, 'it was told again');
  });

  it('believes no host that names the lease of another, nor a network over the underlay', async () => {
    configure('vxlan');
    const [a, b] = [host(1), host(2)];
    await start(a, b);
    const address = await give(b, await join(b, { type: 'overlay' }), 1);
    await rest();
    const key = '/coreos.com/network-ts/network-places/host2';
    const place = cluster.etcd.get(key)?.value ?? assert.fail();
    cluster.etcd.put(key, place.replace('192.0.2.3', '192.0.2.66'));
    await rest(200);
    assert.equal(wayTo(a, address), 'eth0 192.0.2.1');
    const bad = '/coreos.com/network-ts/network-records/-/192.0.2.0-24';
    cluster.etcd.put(bad, '{"range":"192.0.2.0-24","properties":{"type":"bridge"}}');
    await rest(200);
    assert.equal(a.log.find(/not believed/, 'warn').length, 1);
  });

  it('moves with its host to another address', async () => {
    configure('host-gw');
    const [a, b] = [host(1), host(2)];
    await start(a, b);
    const address = await give(b, await join(b, { type: 'overlay' }), 1);
    const direct = { name: 'direct', subnet: net('10.98.0.0/24') };
    const other = await give(b, await join(b, { type: 'bridge' }, direct), 2);
    await rest();
    b.host.renumber(ip('192.0.2.77'));
    await rest(10_000);
    assert.deepEqual([wayTo(a, address), wayTo(a, other)], ['eth0 192.0.2.77', 'eth0 192.0.2.77']);
  });

  it('says which containers it cannot send to', async () => {
    configure('udp');
    const [a, b] = [host(1), host(2)];
    await start(a, b);
    const v6 = { name: 'six', subnet: net('fd00:99::/64') };
    await give(b, await join(b, { type: 'overlay' }, v6), 1);
    await rest();
    assert.equal(a.log.find(/containers of other hosts cannot be reached/, 'warn').length, 1);
    assert.equal(finish(a.daemon.status()).containerReach?.skipped.length, 1);
    assert.deepEqual(finish(a.daemon.status()).notReadyBecause, []);
  });
});
