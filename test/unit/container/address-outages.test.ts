import assert from 'node:assert/strict';
import type { AddressPoolsOptions } from '../../../src/container/address-pools.js';
import type { AddressRequest, AddressUse } from '../../../src/container/addresses.js';
import { readClusterNetworks } from '../../../src/container/cluster-networks.js';
import { formatPoolId } from '../../../src/container/pool-id.js';
import { encodeBlock } from '../../../src/container/records.js';
import { type AddressHost, AddressHosts } from '../../support/address-hosts.js';
import { ip, mac, net } from '../../support/builders.js';
import type { FakeValueStore } from '../../support/fake-shared-values.js';

const SUBNET = net('10.10.10.0/24');
const LAN = formatPoolId({ name: undefined, subnet: SUBNET, range: SUBNET });
const BLOCK = 'networks/-/10.10.10.0-24/blocks/10.10.10.0-28';

/** What is documented: etcd is waited for, and no longer than that. */
const FIRST_LOOK_MS = 5000;
const MINUTE_MS = 60_000;

describe('AddressPools after they, or etcd, were away', () => {
  let hosts: AddressHosts;
  let serial = 0;

  beforeEach(() => {
    hosts = new AddressHosts();
  });

  afterEach(() => hosts.close());

  async function member(name: string, options: Partial<AddressPoolsOptions> = {}): Promise<AddressHost> {
    const host = await hosts.start(name, options);
    await hosts.settled(host.pools.requestPool({ pool: SUBNET, range: undefined, name: undefined, family: 4 }));
    return host;
  }

  async function give(host: AddressHost, changes: Partial<AddressRequest> = {}): Promise<string> {
    const own = { kind: 'container', address: undefined, mac: mac(++serial), owner: `c${serial}` } as const;
    return (await hosts.settled(host.pools.requestAddress(LAN, { ...own, ...changes }))).toString();
  }

  const release = (host: AddressHost, address: string): Promise<void> =>
    hosts.settled(host.pools.releaseAddress(LAN, ip(address)));

  const uses = (host: AddressHost): readonly AddressUse[] => host.pools.status().pools.flatMap((pool) => pool.uses);

  /** As `tsflannelctl docker-networks release` does for a host that is gone. */
  function releaseAll(host: string): void {
    const own = [...hosts.values.texts].filter(
      ([path, text]) => path.endsWith(`/${host}`) || text.includes(`"${host}"`),
    );
    const leases = new Set(own.flatMap(([path]) => hosts.values.list(path).map(({ etcdLeaseId }) => etcdLeaseId)));
    for (const [path] of own) hosts.values.remove(path);
    for (const id of leases) if (id !== undefined) hosts.values.revoke(id);
  }

  describe('a host that comes back after an operator has released what it had', () => {
    it('gives nothing of that before it has found out, however early it is asked', async () => {
      const a = await member('a');
      const mine = [await give(a, { mac: mac(77) }), await give(a)];
      await hosts.rest();
      a.crash();
      releaseAll('a');
      const b = await member('b');
      const theirs = [await give(b), await give(b), await give(b), await give(b)];
      assert.deepEqual(theirs.slice(0, 2), mine, 'they have come free');
      await a.start();
      const again = { address: ip(mine[0] ?? ''), mac: mac(77) };
      await assert.rejects(give(a, again), { code: 'ERR_ADDRESS_TAKEN', message: /another host/ });
      assert.ok(!theirs.includes(await give(a)));
    });

    it('finds out likewise about a single address', async () => {
      const a = await member('a');
      await give(a);
      await hosts.rest();
      a.crash();
      const [entry] = hosts.values.list(BLOCK);
      assert.ok(entry?.etcdLeaseId !== undefined);
      const put = { path: BLOCK, text: encodeBlock({ host: 'a', own: 0b1011n << 2n, used: 1n << 2n }) };
      hosts.values.transact({ conditions: [], puts: [{ ...put, etcdLeaseId: entry.etcdLeaseId }] });
      const b = await member('b');
      assert.equal(await give(b, { address: ip('10.10.10.4') }), '10.10.10.4');
      await a.start();
      const before = hosts.clock.monotonicMs();
      assert.deepEqual([await give(a), await give(a)], ['10.10.10.3', '10.10.10.5']);
      assert.ok(hosts.clock.monotonicMs() - before < FIRST_LOOK_MS, 'as soon as it has found out');
    });

    it('finds out also if etcd can be reached only a moment after the start', async () => {
      const a = await member('a');
      const mine = await give(a);
      await hosts.rest();
      a.crash();
      releaseAll('a');
      const b = await member('b');
      assert.equal(await give(b), mine);
      const starting = a.start();
      a.store.isAway = true;
      await starting;
      const given = give(a, { address: ip(mine), mac: undefined });
      const expected = assert.rejects(given, { code: 'ERR_ADDRESS_TAKEN' });
      await hosts.clock.advance(FIRST_LOOK_MS / 2);
      a.store.isAway = false;
      await expected;
    });

    it('gives what it had all the same when etcd stays away', async () => {
      const a = await member('a');
      await give(a);
      await hosts.rest();
      a.crash();
      const starting = a.start();
      a.store.isAway = true;
      await starting;
      const before = hosts.clock.monotonicMs();
      assert.equal(await give(a), '10.10.10.3');
      assert.ok(hosts.clock.monotonicMs() - before <= FIRST_LOOK_MS + 100);
      const later = hosts.clock.monotonicMs();
      assert.equal(await give(a), '10.10.10.4');
      assert.ok(hosts.clock.monotonicMs() - later < 100, 'it is waited for once');
    });
  });

  it('does not believe, after a crash while etcd is away, what it had before etcd had another history', async () => {
    const a = await member('a');
    await give(a);
    await hosts.rest();
    hosts.values.wipe();
    const b = await member('b');
    assert.equal(await give(b), '10.10.10.2');
    a.store.isAway = true;
    a.pools.observe({ epoch: 1 });
    await hosts.clock.advance(10);
    a.crash();
    const starting = a.start();
    a.store.isAway = true;
    await starting;
    await assert.rejects(give(a), { code: /ERR_(OUT_OF_ADDRESSES|ADDRESSES_UNCONFIRMED)/ });
  });

  describe('while etcd is away for an hour', () => {
    it('containers start and stop on all hosts, each out of its own blocks, and all agree afterwards', async () => {
      const day = { ttlSeconds: 86_400 };
      const lives = [await member('a', day), await member('b', day)].map((host) => ({ host, running: [] as string[] }));
      const first = await Promise.all(lives.map(({ host }) => give(host)));
      await hosts.rest();
      for (const { host } of lives) host.store.isAway = true;
      let started = 0;
      for (let minute = 0; minute < 60; minute++) {
        for (const { host, running } of lives) {
          for (; running.length < 5; started++) running.push(await give(host));
        }
        const held = lives.flatMap(({ host }) => uses(host).map(({ address }) => address.toString()));
        assert.deepEqual([...new Set(held)].sort(), [...first, ...lives.flatMap(({ running }) => running)].sort());
        await hosts.clock.advance(MINUTE_MS);
        for (const { host, running } of lives) {
          for (const each of running.splice(0, 1 + (minute % 5))) await release(host, each);
        }
      }
      assert.ok(started > 300, `${started} were started`);
      for (const { host, running } of lives) for (const each of running) await release(host, each);
      for (const { host } of lives) host.store.isAway = false;
      await hosts.clock.advance(2 * MINUTE_MS);
      for (const [index, { host }] of lives.entries()) {
        assert.deepEqual(
          uses(host).map(({ address, state }) => [address.toString(), state]),
          [[first[index], 'confirmed']],
        );
      }
      const { networks } = await hosts.settled(
        readClusterNetworks(lives[0]?.host.store as FakeValueStore, new AbortController().signal),
      );
      const used = networks.flatMap(({ blocks }) => blocks.flatMap((block) => block.used.map(String)));
      assert.deepEqual(used.sort(), [...first].sort(), 'etcd knows of these alone');
    });

    it('and longer than its lease, a host gives nothing more, another one may, and it finds out when it returns', async () => {
      const [a, b] = [await member('a', { ttlSeconds: 1800 }), await member('b', { ttlSeconds: 1800 })];
      const mine = [await give(a), await give(a)];
      await hosts.rest();
      a.store.isAway = true;
      await hosts.clock.advance(29 * MINUTE_MS);
      await release(a, await give(a));
      await assert.rejects(give(b, { address: ip(mine[0] ?? '') }), { code: 'ERR_ADDRESS_TAKEN' }, 'it is still kept');
      await hosts.clock.advance(2 * MINUTE_MS);
      await assert.rejects(give(a), { code: 'ERR_ADDRESSES_UNCONFIRMED' });
      assert.equal(await give(b, { address: ip(mine[0] ?? '') }), mine[0]);
      await hosts.clock.advance(29 * MINUTE_MS);
      a.store.isAway = false;
      await hosts.rest();
      assert.deepEqual(
        uses(a).map(({ address, state }) => [address.toString(), state]),
        [
          [mine[0], 'lost'],
          [mine[1], 'confirmed'],
        ],
      );
      const next = await give(a);
      assert.ok(!uses(b).some(({ address }) => address.equals(ip(next))));
    });
  });
});
