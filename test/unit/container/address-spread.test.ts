import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { AddressPoolsOptions } from '../../../src/container/address-pools.js';
import type { PoolStatus } from '../../../src/container/addresses.js';
import { type PoolId, formatPoolId, parsePoolId } from '../../../src/container/pool-id.js';
import { PoolLayout, addressesIn, blockSizeOf, maskOf } from '../../../src/container/pool-layout.js';
import { PoolPaths, decodeRecord, encodeBlock, encodeRecord } from '../../../src/container/records.js';
import type { MacAddress } from '../../../src/ip/mac.js';
import { type AddressHost, AddressHosts, BOOK } from '../../support/address-hosts.js';
import { ip, mac, net } from '../../support/builders.js';
import { FakeRegister } from '../../support/fake-register.js';

const poolOf = (subnet: string, range = subnet): PoolId =>
  formatPoolId({ name: 'web', subnet: net(subnet), range: net(range) });

const WEB = poolOf('2001:db8:0:1::/66');
const PROPERTIES = { type: 'bridge', 'ndp-proxy': 'true' };
const SPREAD = { ...PROPERTIES, 'shared-low-bits': '24' };

/** The solicited-node multicast group of an address, by the bits that it stands for (RFC 4291 2.7.1). */
const groupOf = (text: string): bigint => ip(text).value & 0xffffffn;

describe('PoolLayout of addresses that are spread', () => {
  for (const [range, size, count] of [
    ['2001:db8::/64', 64, 1024],
    ['2001:db8::/88', 64, 1024],
    ['::/0', 64, 1024],
  ] as const) {
    it(`cuts ${range} into ${count} blocks with ${size} addresses that are given`, () => {
      const layout = new PoolLayout({ subnet: net(range), range: net(range) }, true);
      assert.deepEqual([layout.blockSize, layout.blockCount, layout.isSpread], [size, count, true]);
    });
  }

  it('leaves ranges that have no room for it as they are', () => {
    for (const range of ['2001:db8::/89', '2001:db8::/112', '10.0.0.0/8'].map(net)) {
      const [asked, plain] = [true, false].map((isSpread) => new PoolLayout({ subnet: range, range }, isSpread));
      assert.equal(asked?.isSpread, false);
      assert.equal(asked.block(1).toString(), plain?.block(1).toString());
    }
  });

  it('has blocks beside each other, each of which knows the addresses that are given out of it', () => {
    const indices = fc.tuple(fc.nat(1023), fc.nat(63), fc.bigInt(0n, (1n << 24n) - 1n));
    const layout = new PoolLayout({ subnet: net('2001:db8::/64'), range: net('2001:db8:0:0:4000::/66') }, true);
    fc.assert(
      fc.property(indices, ([index, n, low]) => {
        const block = layout.block(index);
        assert.ok(layout.isBlock(block) && layout.range.covers(block));
        assert.equal(blockSizeOf(block), 64n);
        const address = block.address.add((BigInt(n) << 24n) + low);
        assert.ok(block.equals(layout.blockAround(address)));
        assert.equal(maskOf(block, address), low === 2n ? 1n << BigInt(n) : 0n);
        assert.equal(layout.blockOf(address)?.toString(), low === 2n ? block.toString() : undefined);
        const given = block.address.add((BigInt(n) << 24n) + 2n);
        assert.deepEqual(addressesIn(block, maskOf(block, given)).map(String), [given.toString()]);
      }),
    );
  });

  it('has no block beyond its span, and none of another length', () => {
    const layout = new PoolLayout({ subnet: net('2001:db8::/64'), range: net('2001:db8::/64') }, true);
    assert.equal(layout.blockAround(ip('2001:db8::ff:ffff:ffff'))?.toString(), '2001:db8::ff:c000:0/98');
    assert.equal(layout.blockAround(ip('2001:db8::100:0:0')), undefined);
    assert.deepEqual([layout.isBlock(net('2001:db8::/122')), layout.isBlock(net('2001:db8::/97'))], [false, false]);
    assert.equal(blockSizeOf(net('2001:db8::/97')), undefined);
  });
});

describe('AddressPools with -o ndp-proxy=true', () => {
  let hosts: AddressHosts;
  let serial = 0;

  beforeEach(() => {
    hosts = new AddressHosts();
  });

  afterEach(() => hosts.close());

  async function join(host: AddressHost, id: PoolId = WEB): Promise<void> {
    const { name, subnet: pool, range } = parsePoolId(id);
    await hosts.settled(host.pools.requestPool({ name, pool, range, family: 6 }));
  }

  const agree = (host: AddressHost, id: PoolId = WEB, properties: Record<string, string> = PROPERTIES): Promise<void> =>
    hosts.settled(host.pools.agree(id, properties));

  /** As one on which `docker network create` was typed. */
  async function member(
    name: string,
    options: Partial<AddressPoolsOptions> = {},
    id: PoolId = WEB,
  ): Promise<AddressHost> {
    const host = await hosts.start(name, options);
    await join(host, id);
    await agree(host, id);
    return host;
  }

  async function give(host: AddressHost, address?: string, id: PoolId = WEB, of?: MacAddress): Promise<string> {
    const request = { kind: 'container', mac: of ?? mac(++serial), owner: `c${serial}` } as const;
    const wanted = address === undefined ? undefined : ip(address);
    return (await hosts.settled(host.pools.requestAddress(id, { ...request, address: wanted }))).toString();
  }

  const release = (host: AddressHost, address: string): Promise<void> =>
    hosts.settled(host.pools.releaseAddress(WEB, ip(address)));

  function poolOn(host: AddressHost): PoolStatus {
    const [pool] = host.pools.status().pools;
    assert.ok(pool !== undefined);
    return pool;
  }

  const blocksOf = (host: AddressHost): readonly string[] => poolOn(host).blocks.map(String);
  const paths = (id: PoolId = WEB): PoolPaths => new PoolPaths(parsePoolId(id));
  const recorded = (id: PoolId = WEB): unknown =>
    decodeRecord(hosts.values.texts.get(paths(id).record) ?? '')?.properties;
  /** Lengths of all blocks that etcd knows of. */
  const leased = (): readonly number[] =>
    hosts.values.list(paths().blocks).map(({ path }) => Number(path.replace(/.*-/, '')));
  const isConfirmed = (host: AddressHost): boolean => poolOn(host).uses.every(({ state }) => state === 'confirmed');

  /** Founds the network as hosts have done that know of no such addresses, one of which has leased a block. */
  function foundOld(properties: Record<string, string>): void {
    const { range } = parsePoolId(WEB);
    hosts.values.poke(paths().record, encodeRecord({ range, properties }));
    hosts.values.poke(paths().host('old'), 'feed');
    const block = net('2001:db8:0:1::/122');
    hosts.values.poke(paths().block(block), encodeBlock({ host: 'old', own: 0xffn << 2n, used: 4n }));
  }

  it('gives 1000 addresses of one multicast group', async () => {
    const all = [await member('a'), await member('b'), await member('c')];
    const given: string[] = [];
    for (let count = 0; count < 1000; count++) given.push(await give(all[count % 3] ?? assert.fail()));
    assert.equal(new Set(given).size, 1000);
    assert.deepEqual([...new Set(given.map(groupOf))], [2n]);
    assert.ok(given.every((text) => net('2001:db8:0:1::/66').contains(ip(text))));
  }).timeout(60_000);

  it('gives those of one block, and then of the next one', async () => {
    const a = await member('a');
    const b = await member('b');
    const given: string[] = [];
    for (let count = 0; count < 65; count++) given.push(await give(a));
    assert.deepEqual(given.slice(0, 3), ['2001:db8:0:1::2', '2001:db8:0:1::100:2', '2001:db8:0:1::200:2']);
    assert.equal(given[63], '2001:db8:0:1::3f00:2');
    assert.equal(given[64], '2001:db8:0:1::4000:2');
    assert.deepEqual(blocksOf(a), ['2001:db8:0:1::/98', '2001:db8:0:1::4000:0/98']);
    assert.equal(await give(b), '2001:db8:0:1::8000:2');
  });

  for (const id of [poolOf('2001:db8:0:1::/66', '2001:db8:0:1::/112'), poolOf('2001:db8:0:1::/89')]) {
    it(`gives one after the other where there is no room: ${id}`, async () => {
      const a = await member('a', {}, id);
      const [first, second] = [await give(a, undefined, id), await give(a, undefined, id)];
      assert.deepEqual([first, second], ['2001:db8:0:1::2', '2001:db8:0:1::3']);
      assert.deepEqual(recorded(id), PROPERTIES);
    });
  }

  it('gives one after the other without the option', async () => {
    const a = await hosts.start('a');
    await join(a);
    await agree(a, WEB, { type: 'bridge' });
    assert.deepEqual([await give(a), await give(a)], ['2001:db8:0:1::2', '2001:db8:0:1::3']);
  });

  it('is cut by all hosts as the first one has told', async () => {
    const before = [await hosts.start('a'), await hosts.start('b'), await hosts.start('c')] as const;
    for (const host of before) await join(host);
    await hosts.rest(); // by then all have compared what they know with etcd, for some time
    const [a, b, c] = before;
    await agree(a);
    await agree(b);
    assert.deepEqual(recorded(), SPREAD);
    assert.deepEqual([await give(a), await give(b)], ['2001:db8:0:1::2', '2001:db8:0:1::4000:2']);
    const late = await hosts.start('d');
    await join(late);
    assert.equal(await give(late), '2001:db8:0:1::8000:2');
    // One that has the IPAM driver alone is never asked what the network is.
    assert.equal(groupOf(await give(c)), 2n);
    assert.deepEqual([...new Set(leased())], [98]);
  });

  it('is not spread where another host has leased a block otherwise already', async () => {
    const [a, b] = [await hosts.start('a'), await hosts.start('b')];
    for (const host of [a, b]) await join(host);
    assert.equal(await give(b), '2001:db8:0:1::2');
    await agree(a);
    assert.deepEqual(recorded(), PROPERTIES);
    assert.equal(await give(a), '2001:db8:0:1::40');
  });

  it('is cut in one way by a host that tells what it is and one that leases its first block at that moment', async () => {
    for (let seed = 1; seed <= 40; seed++) {
      hosts = new AddressHosts(seed);
      const [a, b] = [await hosts.start('a'), await hosts.start('b')];
      for (const host of [a, b]) await join(host);
      const request = { kind: 'container', mac: mac(1), owner: 'c1', address: undefined } as const;
      const asked = b.pools.requestAddress(WEB, request);
      await hosts.clock.advance(seed / 2);
      await hosts.settled(a.pools.agree(WEB, PROPERTIES));
      const first = await hosts.settled(asked);
      await give(a);
      const lengths = [...blocksOf(a), ...blocksOf(b)].map((text) => net(text).length);
      assert.equal(new Set(lengths).size, 1, `seed ${seed}: ${lengths.join(' ')}`);
      assert.ok(blocksOf(b).some((text) => net(text).contains(first)));
      assert.equal(new Set(leased()).size, 1, `seed ${seed}: ${leased().join(' ')}`);
      await hosts.close();
    }
  });

  it('goes on as it was in a network of hosts that know nothing of it', async () => {
    foundOld(PROPERTIES);
    const a = await member('a');
    assert.deepEqual(recorded(), PROPERTIES);
    assert.equal(await give(a), '2001:db8:0:1::40');
    // Its addresses are asked for by name as before.
    await assert.rejects(give(a, '2001:db8:0:1::2'), { code: 'ERR_ADDRESS_TAKEN' });
  });

  it('is refused to a host that does not know of it, which would cut it otherwise', async () => {
    await member('a');
    const old = await hosts.start('old');
    await join(old);
    await assert.rejects(agree(old, WEB, { ...PROPERTIES, 'shared-low-bits': '16' }), { code: 'ERR_NETWORK_DIFFERS' });
  });

  it('gives the same again after a restart, and goes on', async () => {
    const a = await member('a');
    const own = mac(77);
    const first = await give(a, undefined, WEB, own);
    await give(a);
    await hosts.rest();
    a.crash();
    await a.start();
    assert.equal(await give(a, undefined, WEB, own), first);
    assert.equal(await give(a), '2001:db8:0:1::200:2');
    assert.deepEqual(blocksOf(a), ['2001:db8:0:1::/98']);
    assert.ok(isConfirmed(a));
  });

  it('gives more of its block after a restart while etcd is away', async () => {
    const a = await member('a');
    await give(a);
    await hosts.rest();
    a.crash();
    await a.start();
    a.store.isAway = true;
    await agree(a); // as it did before
    assert.equal(await give(a), '2001:db8:0:1::100:2');
    a.store.isAway = false;
  });

  it('knows by etcd what it had given when its book is lost', async () => {
    const a = await member('a', { register: () => new FakeRegister() });
    await give(a);
    await give(a);
    await hosts.rest();
    a.crash();
    a.files.texts.delete(BOOK);
    await a.start();
    await hosts.rest();
    const uses = poolOn(a).uses.map(({ address }) => address.toString());
    assert.deepEqual(uses, ['2001:db8:0:1::2', '2001:db8:0:1::100:2']);
    assert.equal(await give(a), '2001:db8:0:1::200:2');
  });

  it('gives a released address after those that nobody has had', async () => {
    const a = await member('a');
    const given = [await give(a), await give(a), await give(a)];
    await release(a, given[1] ?? '');
    await hosts.rest();
    const next: string[] = [];
    for (let count = 0; count < 130; count++) next.push(await give(a));
    a.store.isAway = true; // so that no other block can be leased
    while (poolOn(a).free > 0) next.push(await give(a));
    assert.equal(next.indexOf(given[1] ?? ''), next.length - 1);
    await assert.rejects(give(a), { code: 'ERR_OUT_OF_ADDRESSES' });
    a.store.isAway = false;
  });

  it('gives any address that is asked for by name, also in the block of another host', async () => {
    const [a, b] = [await member('a'), await member('b')];
    await give(a);
    await hosts.rest();
    for (const address of ['2001:db8:0:1::300:2', '2001:db8:0:1::300:3', '2001:db8:0:1:3fff::7']) {
      assert.equal(await give(b, address), address);
      await assert.rejects(give(a, address), { code: 'ERR_ADDRESS_TAKEN' });
    }
    await assert.rejects(give(b, '2001:db8:0:1::2'), { code: 'ERR_ADDRESS_TAKEN' });
    const given: string[] = [];
    for (let count = 0; count < 62; count++) given.push(await give(a));
    assert.ok(!given.includes('2001:db8:0:1::300:2'));
    assert.equal(new Set(given).size, 62);
    assert.equal(b.pools.status().counters.asked, 1); // for the one that a could have given
  });

  it('is spread when it is made again, although a block of the former one is not given back yet', async () => {
    const a = await hosts.start('a');
    await join(a);
    await agree(a, WEB, { type: 'bridge' });
    await release(a, await give(a));
    await hosts.settled(a.pools.releasePool(WEB));
    await join(a);
    await agree(a);
    assert.deepEqual(recorded(), SPREAD);
    assert.deepEqual([await give(a), await give(a)].map(groupOf), [2n, 2n]);
    assert.deepEqual(
      hosts.values.list(paths().blocks).map(({ path }) => path),
      [paths().block(net('2001:db8:0:1::4000:0/98'))], // in the first one an address was released just now
    );
  });

  it('stays as it is when it is made again while a container has an address of it', async () => {
    const a = await hosts.start('a');
    await join(a);
    await agree(a, WEB, { type: 'bridge' });
    await give(a);
    await hosts.settled(a.pools.releasePool(WEB));
    await join(a);
    await agree(a);
    assert.deepEqual(recorded(), PROPERTIES);
    assert.equal(await give(a), '2001:db8:0:1::3');
  });

  it('is cut anew when it is made again without the option, and what is in use stays', async () => {
    const a = await member('a');
    assert.deepEqual([await give(a), await give(a)], ['2001:db8:0:1::2', '2001:db8:0:1::100:2']);
    await hosts.settled(a.pools.releasePool(WEB));
    await join(a);
    await agree(a, WEB, { type: 'bridge' });
    await hosts.rest();
    assert.deepEqual(recorded(), { type: 'bridge' });
    assert.ok(isConfirmed(a));
    assert.equal(await give(a), '2001:db8:0:1::3');
    await hosts.rest();
    assert.deepEqual([...new Set(leased())], [122]);
  });

  it('keeps what is in use, and nothing else, where others have cut the network anew while it was away', async () => {
    const a = await hosts.start('a');
    await join(a);
    await agree(a, WEB, { type: 'bridge' });
    const own = mac(78);
    const kept = await give(a, undefined, WEB, own);
    await hosts.rest();
    a.crash();
    await hosts.clock.advance(90_000); // its lease ends
    const b = await member('b');
    assert.equal(await give(b), '2001:db8:0:1::2');
    const other = await give(b);
    await a.start();
    await hosts.clock.advance(70_000);
    assert.deepEqual(recorded(), SPREAD);
    assert.equal(poolOn(a).uses.find(({ address }) => address.toString() === kept)?.state, 'lost');
    assert.deepEqual(blocksOf(a), ['2001:db8:0:1::4000:0/98']);
    assert.equal(await give(a), '2001:db8:0:1::4000:2');
    await assert.rejects(give(a, other), { code: 'ERR_ADDRESS_TAKEN' });
  });

  it('tells etcd anew that it is spread after a wipe', async () => {
    const [a, b] = [await member('a'), await member('b')];
    const given = [await give(a), await give(b)];
    await hosts.rest();
    hosts.values.wipe();
    for (const host of [a, b]) host.pools.observe({ epoch: 1 });
    await hosts.clock.advance(5000);
    assert.deepEqual(recorded(), SPREAD);
    assert.deepEqual(given.map(groupOf), [2n, 2n]);
    assert.ok(isConfirmed(a) && isConfirmed(b));
    assert.deepEqual([await give(a), await give(b)].map(groupOf), [2n, 2n]);
    assert.deepEqual(leased(), [98, 98]);
  });
});
