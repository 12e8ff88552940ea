import assert from 'node:assert/strict';
import fc from 'fast-check';
import {
  accountHost,
  decodeHostName,
  decodeUse,
  encodeHostName,
  encodeUse,
  hostNamePath,
  usePath,
} from '../../../src/container/account-records.js';
import { type HostPlace, decodePlace, placePath } from '../../../src/container/host-place.js';
import type { PoolId } from '../../../src/container/pool-id.js';
import { type AddressHost, AddressHosts } from '../../support/address-hosts.js';
import { ip, mac, net } from '../../support/builders.js';

const LAN = { name: 'lan', subnet: net('10.10.10.0/24') };

describe('what a host tells of its containers', () => {
  let hosts: AddressHosts;
  let a: AddressHost;
  let pool: PoolId;

  beforeEach(async () => {
    hosts = new AddressHosts();
    a = await hosts.start('a', { hostName: 'node-a.example.net' });
    ({ id: pool } = await hosts.settled(
      a.pools.requestPool({ ...LAN, pool: LAN.subnet, range: undefined, family: 4 }),
    ));
  });

  afterEach(() => hosts.close());

  const give = async (number: number): Promise<string> => {
    const request = { kind: 'container', address: undefined, mac: mac(number), owner: `c${number}` } as const;
    return (await hosts.settled(a.pools.requestAddress(pool, request))).toString();
  };

  const told = (): Record<string, unknown> =>
    Object.fromEntries(
      [...hosts.values.texts]
        .filter(([path]) => path.startsWith('container-hosts/'))
        .map(([path, text]) => [path.slice('container-hosts/'.length), JSON.parse(text) as unknown]),
    );

  const pathOf = (address: string): string => usePath('a', LAN, ip(address)).slice('container-hosts/'.length);

  const rest = (): Promise<void> => hosts.clock.advance(3000);

  it('is its name, and whose each address is', async () => {
    const address = await give(1);
    const since = new Date(hosts.clock.wallMs());
    await rest();
    const { [pathOf(address)]: use, ...others } = told();
    assert.deepEqual(others, { 'a/name': { name: 'node-a.example.net' } });
    const { since: toldSince, ...holder } = use as { since: string };
    assert.deepEqual(holder, { owner: 'c1', mac: mac(1) });
    assert.ok(Math.abs(Date.parse(toldSince) - since.getTime()) < 1000);
  });

  it('is gone with the containers, and all of it with the last network, so that the etcd lease can go', async () => {
    const address = await give(1);
    await rest();
    await hosts.settled(a.pools.releaseAddress(pool, ip(address)));
    await rest();
    assert.deepEqual(Object.keys(told()), ['a/name']);
    await hosts.settled(a.pools.releasePool(pool));
    await hosts.clock.advance(10_000);
    assert.deepEqual([...hosts.values.texts], []);
    assert.equal(a.store.discarded.length, 1);
  });

  it('takes at most one write each second, however many containers start, and no answer waits for it', async () => {
    let writes = 0;
    const transact = hosts.values.transact.bind(hosts.values);
    hosts.values.transact = (transaction) => {
      if (transaction.puts?.some(({ path }) => path.startsWith('container-hosts/'))) writes++;
      return transact(transaction);
    };
    const startMs = hosts.clock.monotonicMs();
    for (let number = 1; number <= 60; number++) await give(number);
    await rest();
    assert.equal(Object.keys(told()).length, 61);
    assert.ok(writes <= (hosts.clock.monotonicMs() - startMs) / 1000 + 1, `${writes} writes`);
    await hosts.clock.advance(600_000);
    const before = writes;
    await hosts.clock.advance(600_000);
    assert.equal(writes, before, 'nothing changes');
  });

  it('is told anew after etcd was away, was wiped, or has lost the lease', async () => {
    const first = await give(1);
    await rest();
    a.store.isAway = true;
    const second = await give(2);
    await hosts.clock.advance(20_000);
    a.store.isAway = false;
    await hosts.clock.advance(40_000);
    const all = ['a/name', pathOf(first), pathOf(second)].sort();
    assert.deepEqual(Object.keys(told()).sort(), all);
    hosts.values.wipe();
    a.pools.observe({ epoch: 2 });
    await hosts.clock.advance(5000);
    assert.deepEqual(Object.keys(told()).sort(), all);
    a.store.isAway = true;
    await hosts.clock.advance(61_000);
    assert.deepEqual(told(), {}, 'it ends with the lease');
    a.store.isAway = false;
    await hosts.clock.advance(60_000);
    assert.deepEqual(Object.keys(told()).sort(), all);
  });

  it('is told again within a minute after somebody deleted it', async () => {
    await give(1);
    await rest();
    const before = told();
    for (const path of hosts.values.texts.keys()) {
      if (path.startsWith('container-hosts/')) hosts.values.remove(path);
    }
    await hosts.clock.advance(62_000);
    assert.deepEqual(told(), before);
  });

  it('does not keep what a crash or a lost answer has left', async () => {
    hosts.values.poke(usePath('a', LAN, ip('10.10.10.99')), '{}');
    await give(1);
    a.store.fate = () => 'late';
    await hosts.clock.advance(2500);
    a.store.fate = () => 'answered';
    await hosts.clock.advance(120_000);
    assert.equal(Object.keys(told()).length, 2);
    const address = await give(2);
    await rest();
    a.crash();
    await a.start();
    await hosts.settled(a.pools.releaseAddress(pool, ip(address)));
    await rest();
    assert.equal(Object.keys(told()).length, 2);
  });

  it('is also where it is, as it moves, and another host of a longer name tells its own', async () => {
    let place: HostPlace | undefined;
    const b = await hosts.start('b', { place: () => place });
    const bc = await hosts.start('bc', {
      place: () => ({ addresses: { 4: ip('192.0.2.9') }, leaseKey: '10.5.9.0-24' }),
    });
    for (const { pools } of [b, bc]) {
      await hosts.settled(pools.requestPool({ ...LAN, pool: LAN.subnet, range: undefined, family: 4 }));
    }
    await rest();
    const placeOf = (host: string): HostPlace | undefined => decodePlace(hosts.values.texts.get(placePath(host)) ?? '');
    assert.equal(placeOf('b'), undefined);
    assert.equal(placeOf('bc')?.leaseKey, '10.5.9.0-24');
    for (const n of [1, 2]) {
      place = { addresses: { 4: ip(`192.0.2.${n}`) }, leaseKey: `10.5.${n}.0-24` };
      b.pools.moved();
      await rest();
      assert.deepEqual(placeOf('b'), place);
    }
    await hosts.settled(b.pools.releasePool(pool));
    await hosts.clock.advance(10_000);
    assert.deepEqual([placeOf('b'), placeOf('bc')?.leaseKey], [undefined, '10.5.9.0-24']);
  });

  it('is read as it was written, and cut where it is too long', () => {
    const use = { owner: 'web', mac: mac(1), sinceMs: Date.parse('2026-01-02T03:04:05.000Z') };
    assert.deepEqual(decodeUse(encodeUse(use)), use);
    const bare = { owner: undefined, mac: undefined, sinceMs: 0 };
    assert.deepEqual(decodeUse(encodeUse(bare)), bare);
    assert.equal(decodeUse(encodeUse({ ...use, owner: '\u0001'.repeat(5000) }))?.owner?.length, 256);
    assert.equal(decodeHostName(encodeHostName('x'.repeat(5000)))?.length, 253);
    assert.equal(accountHost(hostNamePath('a')), 'a');
    assert.equal(accountHost(usePath('a', { ...LAN, name: undefined }, ip('10.10.10.7'))), 'a');
  });

  it('is not believed if anything about it is wrong', () => {
    for (const text of [
      '',
      'null',
      '{}',
      '{"since":"yesterday"}',
      '{"since":5}',
      '{"since":"2026-01-02T03:04:05.000Z","mac":"02:42"}',
      '{"since":"2026-01-02T03:04:05.000Z","mac":5}',
      '{"since":"2026-01-02T03:04:05.000Z","owner":{}}',
      JSON.stringify({ since: '2026-01-02T03:04:05.000Z', owner: 'x'.repeat(257) }),
      JSON.stringify({ since: '2026-01-02T03:04:05.000Z', more: 'x'.repeat(3000) }),
    ]) {
      assert.equal(decodeUse(text), undefined, text.slice(0, 60));
      assert.equal(decodeHostName(text), undefined);
    }
    assert.equal(decodeHostName('{"name":""}'), undefined);
    for (const path of [
      'container-hosts/a',
      'container-hosts/a b/name',
      'container-hosts/a/names',
      'container-hosts/a/name/x',
      'container-hosts/a/uses/lan/10.10.10.0-24',
      'container-hosts/a/uses/lan/10.10.10.0-24/10.10.11.7',
      'container-hosts/a/uses/lan/10.10.10.0-24/10.10.10.7/x',
      'container-hosts/a/used/lan/10.10.10.0-24/10.10.10.7',
    ]) {
      assert.equal(accountHost(path), undefined, path);
    }
    fc.assert(fc.property(fc.string(), (text) => decodeUse(text) === undefined && decodeHostName(text) === undefined));
  });
});
