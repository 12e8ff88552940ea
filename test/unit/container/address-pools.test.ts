import assert from 'node:assert/strict';
import type { AddressPoolsOptions } from '../../../src/container/address-pools.js';
import type { AddressRequest, AddressStatus, PoolStatus } from '../../../src/container/addresses.js';
import { type PoolId, formatPoolId } from '../../../src/container/pool-id.js';
import { OverlayError } from '../../../src/errors.js';
import type { MacAddress } from '../../../src/ip/mac.js';
import { type AddressHost, AddressHosts, BOOK } from '../../support/address-hosts.js';
import { ip, mac, net } from '../../support/builders.js';

const LAN = formatPoolId({ name: 'lan', subnet: net('10.10.10.0/24'), range: net('10.10.10.128/25') });
const OTHER = formatPoolId({ name: 'other', subnet: net('10.10.20.0/24'), range: net('10.10.20.0/24') });

describe('AddressPools', () => {
  let hosts: AddressHosts;
  let serial = 0;

  beforeEach(() => {
    hosts = new AddressHosts();
  });

  afterEach(() => hosts.close());

  async function join(host: AddressHost, id: PoolId = LAN): Promise<void> {
    const [name = '', subnet = '', range = ''] = id.split('/').map((each) => each.replace(/-(\d+)$/, '/$1'));
    const request = { pool: net(subnet), range: net(range), name: name === '-' ? undefined : name };
    const given = await hosts.settled(host.pools.requestPool({ ...request, family: net(subnet).family }));
    assert.equal(given.id, id);
  }

  async function member(name: string, options: Partial<AddressPoolsOptions> = {}): Promise<AddressHost> {
    const host = await hosts.start(name, options);
    await join(host);
    return host;
  }

  async function give(host: AddressHost, changes: Partial<AddressRequest> = {}, id: PoolId = LAN): Promise<string> {
    const request: AddressRequest = {
      kind: 'container',
      address: undefined,
      mac: mac(++serial),
      owner: `c${serial}`,
      ...changes,
    };
    return (await hosts.settled(host.pools.requestAddress(id, request))).toString();
  }

  const giveOne = (host: AddressHost, address: string, changes: Partial<AddressRequest> = {}): Promise<string> =>
    give(host, { address: ip(address), ...changes });
  const release = (host: AddressHost, address: string, id: PoolId = LAN): Promise<void> =>
    hosts.settled(host.pools.releaseAddress(id, ip(address)));
  const status = (host: AddressHost): AddressStatus => host.pools.status();
  const poolOf = (host: AddressHost): PoolStatus => {
    const [pool] = status(host).pools;
    assert.ok(pool !== undefined);
    return pool;
  };
  /** All but what hosts tell for people alone. */
  const decisive = (): readonly (readonly [path: string, text: string])[] =>
    [...hosts.values.texts].filter(([path]) => !path.startsWith('container-hosts/'));
  async function restart(host: AddressHost): Promise<void> {
    host.crash();
    await host.start();
  }

  it('gives each host addresses of a block of its own', async () => {
    const [a, b] = [await member('a'), await member('b')];
    assert.deepEqual([await give(a), await give(a)], ['10.10.10.128', '10.10.10.129']);
    assert.deepEqual([await give(b), await give(b)], ['10.10.10.136', '10.10.10.137']);
    assert.deepEqual(poolOf(a).blocks.map(String), ['10.10.10.128/29']);
    assert.deepEqual(poolOf(b).blocks.map(String), ['10.10.10.136/29']);
  });

  it('gives a released address again last, the one that has been free for longest first', async () => {
    const a = await member('a');
    for (let count = 0; count < 3; count++) await give(a);
    await hosts.rest();
    await release(a, '10.10.10.129');
    await release(a, '10.10.10.128');
    const given: string[] = [];
    await hosts.rest();
    for (let count = 0; count < 7; count++) given.push(await give(a));
    assert.deepEqual(given.slice(0, 5), [
      '10.10.10.131',
      '10.10.10.132',
      '10.10.10.133',
      '10.10.10.134',
      '10.10.10.135',
    ]);
    const all: string[] = [...given];
    while (!all.includes('10.10.10.128')) all.push(await give(a));
    assert.ok(all.indexOf('10.10.10.129') < all.indexOf('10.10.10.128'));
  });

  it('gives released addresses again last also after many were in use at once', async () => {
    const a = await member('a');
    const burst: string[] = [];
    for (let count = 0; count < 20; count++) burst.push(await give(a));
    for (const each of burst) await release(a, each);
    await hosts.rest();
    const isIn = (each: string): boolean => poolOf(a).blocks.some((block) => block.contains(ip(each)));
    assert.ok(burst.every(isIn), 'while neighbours still know who had them, no other host gets the blocks');
    await hosts.clock.advance(130_000);
    const returned = burst.filter((each) => !isIn(each));
    assert.ok(returned.length >= 12, 'most blocks were given back');
    const given: string[] = [];
    for (let count = 0; count < 90; count++) given.push(await give(a));
    assert.deepEqual(
      given.filter((each) => returned.includes(each)),
      [],
    );
    while (given.length < 127) given.push(await give(a));
    assert.deepEqual(
      given.filter((each) => returned.includes(each)),
      returned,
    );
  });

  it('does not give an address by itself that was asked for by name, while others are free', async () => {
    const a = await member('a');
    await giveOne(a, '10.10.10.129');
    await release(a, '10.10.10.129');
    const given: string[] = [];
    for (let count = 0; count < 12; count++) given.push(await give(a));
    assert.ok(!given.includes('10.10.10.129'));
  });

  it('gives the same container the same address again, and no other container', async () => {
    const a = await member('a');
    const first = await give(a, { mac: mac(77), owner: 'web' });
    assert.equal(await give(a, { mac: mac(77), owner: 'web' }), first);
    assert.equal(await giveOne(a, first, { mac: mac(77), owner: 'web' }), first);
    assert.equal(await giveOne(a, first, { mac: undefined, owner: undefined }), first);
    await assert.rejects(giveOne(a, first, { mac: mac(78) }), {
      code: 'ERR_ADDRESS_TAKEN',
      message: /container web of this host/,
    });
    assert.equal(poolOf(a).uses.length, 1);
  });

  it('gives an interface without a MAC address of its own the same address again, known by whose it is', async () => {
    const a = await member('a');
    const own = { mac: undefined, owner: 'netns /run/netns/web eth0' };
    const first = await give(a, own);
    assert.equal(await give(a, own), first);
    const others = [
      { mac: undefined, owner: 'netns /run/netns/web eth1' },
      { mac: undefined, owner: undefined },
      { mac: undefined, owner: undefined },
      { mac: mac(77), owner: own.owner },
    ];
    for (const other of others) assert.notEqual(await give(a, other), first);
    assert.equal(poolOf(a).uses.length, 1 + others.length);
    assert.ok(a.pools.isGiven(ip(first), undefined));
    assert.ok(!a.pools.isGiven(ip('10.10.10.99'), undefined));
  });

  it('writes an address down before it is answered', async () => {
    const a = await member('a');
    await give(a);
    const second = await give(a, { owner: 'web' });
    assert.match(a.files.texts.get(BOOK) ?? '', new RegExp(`"address":"${second}","mac":"[^"]+","owner":"web"`));
    a.files.writeErrno = 'ENOSPC';
    await assert.rejects(give(a), { code: 'ERR_ADDRESS_BOOK' });
    a.files.writeErrno = undefined;
    assert.equal(poolOf(a).uses.length, 2);
    assert.equal(await give(a), '10.10.10.130');
  });

  it('gives addresses of its blocks while etcd is away, also after a restart, until it runs out of them', async () => {
    const a = await member('a');
    await give(a);
    await hosts.rest();
    a.store.isAway = true;
    assert.equal(await give(a), '10.10.10.129');
    a.crash();
    const starting = a.start();
    a.store.isAway = true;
    await starting;
    const given = [await give(a), await give(a), await give(a)];
    assert.deepEqual(given, ['10.10.10.130', '10.10.10.131', '10.10.10.132']);
    await assert.rejects(give(a), { code: 'ERR_OUT_OF_ADDRESSES', message: /while etcd is away/ });
    a.store.isAway = false;
    await hosts.rest();
    assert.equal(await give(a), '10.10.10.133');
  });

  it('gives nothing once the lease has run out, until etcd has confirmed that nobody else has it', async () => {
    const a = await member('a');
    const mine = await give(a, { mac: mac(77) });
    await hosts.rest();
    a.store.isAway = true;
    await hosts.clock.advance(61_000);
    assert.equal(status(a).isConfirmed, false);
    assert.deepEqual(
      poolOf(a).uses.map(({ state }) => state),
      ['unconfirmed'],
    );
    await assert.rejects(give(a), { code: 'ERR_ADDRESSES_UNCONFIRMED' });
    await assert.rejects(giveOne(a, mine, { mac: mac(77) }), { code: 'ERR_ADDRESSES_UNCONFIRMED' });
    const b = await member('b');
    assert.equal(await give(b), mine, 'it has come free');
    a.store.isAway = false;
    await hosts.rest();
    assert.deepEqual(
      poolOf(a).uses.map(({ state }) => state),
      ['lost'],
    );
    assert.equal(status(a).counters.lost, 1);
    await assert.rejects(giveOne(a, mine, { mac: mac(77) }), { code: 'ERR_ADDRESS_TAKEN', message: /another host/ });
    assert.notEqual(await give(a), mine);
  });

  it('takes up what nobody has taken when it comes back after its lease', async () => {
    const a = await member('a');
    const mine = [await give(a), await giveOne(a, '10.10.10.20')];
    await hosts.rest();
    a.crash();
    await hosts.clock.advance(61_000);
    assert.deepEqual(
      [...hosts.values.texts.keys()].filter((path) => !path.startsWith('network-records/')),
      [],
    );
    await a.start();
    await hosts.rest();
    assert.deepEqual(
      poolOf(a).uses.map(({ address, state }) => [address.toString(), state]),
      mine.map((each) => [each, 'confirmed']),
    );
    const b = await member('b');
    for (const each of mine) await assert.rejects(giveOne(b, each), { code: 'ERR_ADDRESS_TAKEN', message: /host a/ });
  });

  it('does not believe a saved lease if the clock has gone back', async () => {
    const a = await member('a');
    await give(a);
    await hosts.rest();
    const book = a.files.texts.get(BOOK) ?? '';
    a.files.texts.set(
      BOOK,
      book
        .replace(/"savedAtMs":\d+/, '"savedAtMs":1800000000000')
        .replace(/"expiresAtMs":\d+/, '"expiresAtMs":1800000060000'),
    );
    a.crash();
    const starting = a.start();
    a.store.isAway = true;
    await starting;
    await assert.rejects(give(a), { code: 'ERR_ADDRESSES_UNCONFIRMED' });
  });

  it('takes a single address of another host’s block that it does not give out without asking', async () => {
    const [a, b] = [await member('a'), await member('b')];
    await give(a);
    await hosts.rest();
    assert.equal(await giveOne(b, '10.10.10.135'), '10.10.10.135');
    assert.equal(status(b).counters.asked, 0);
    const given: string[] = [];
    for (let count = 0; count < 9; count++) given.push(await give(a));
    assert.ok(!given.includes('10.10.10.135'));
    await assert.rejects(giveOne(a, '10.10.10.135'), { code: 'ERR_ADDRESS_TAKEN', message: /container of host b/ });
  });

  it('asks the owner of a block for an address that it may give out without asking', async () => {
    const [a, b] = [await member('a'), await member('b')];
    await give(a);
    await hosts.rest();
    assert.equal(await giveOne(b, '10.10.10.130'), '10.10.10.130');
    assert.deepEqual([status(b).counters.asked, status(a).counters.yielded], [1, 1]);
    const given: string[] = [];
    for (let count = 0; count < 5; count++) given.push(await give(a));
    assert.ok(!given.includes('10.10.10.130'));
    await hosts.rest();
    assert.deepEqual(
      [...hosts.values.texts.keys()].filter((path) => path.startsWith('address-requests/')),
      [],
    );
  });

  it('leaves an address that it was asked for alone, also if it has hardly another one', async () => {
    const [a, b] = [await member('a'), await member('b')];
    for (let count = 0; count < 5; count++) await give(a);
    await hosts.rest();
    assert.equal(poolOf(a).free, 3);
    assert.equal(await giveOne(b, '10.10.10.134'), '10.10.10.134');
    await hosts.rest();
    assert.equal(await giveOne(b, '10.10.10.135'), '10.10.10.135');
  });

  it('is refused an address that a container of another host has, and told by whom', async () => {
    const [a, b] = [await member('a'), await member('b')];
    const mine = await give(a);
    await assert.rejects(giveOne(b, mine), { code: 'ERR_ADDRESS_TAKEN', message: /container of host a/ });
    const single = await giveOne(a, '10.10.10.77');
    await assert.rejects(giveOne(b, single), { code: 'ERR_ADDRESS_TAKEN', message: /container of host a/ });
  });

  it('says who does not answer when an owner that is gone may have given an address out', async () => {
    const [a, b] = [await member('a'), await member('b')];
    await give(a);
    await hosts.rest();
    a.crash();
    await assert.rejects(giveOne(b, '10.10.10.130'), {
      code: 'ERR_ADDRESS_TAKEN',
      message: /host a .*does not answer/,
    });
    assert.equal(await giveOne(b, '10.10.10.135'), '10.10.10.135', 'others of its block can be had');
  });

  it('takes single addresses when no block is left', async () => {
    const id = formatPoolId({ name: undefined, subnet: net('10.10.10.0/24'), range: net('10.10.10.64/28') });
    const all: AddressHost[] = [];
    for (const name of ['a', 'b', 'c', 'd', 'e']) all.push(await hosts.start(name));
    for (const host of all) {
      await join(host, id);
      await give(host, {}, id);
      await hosts.rest();
    }
    const last = all.at(-1);
    assert.ok(last !== undefined);
    assert.deepEqual([poolOf(last).blocks.length, poolOf(last).uses.length], [0, 1]);
    const addresses = all.map((host) => poolOf(host).uses[0]?.address.toString());
    assert.equal(new Set(addresses).size, 5);
    for (let count = 0; count < 11; count++) {
      const host = all[count % 4];
      if (host !== undefined) await give(host, {}, id).catch(() => undefined);
      await hosts.rest();
    }
    await assert.rejects(give(last, {}, id), { code: 'ERR_OUT_OF_ADDRESSES', message: /none is free/ });
  });

  it('shares gateway and auxiliary addresses with other hosts, and gives them to no container', async () => {
    const [a, b] = [await member('a'), await member('b')];
    for (const host of [a, b, a]) {
      assert.equal(await giveOne(host, '10.10.10.254', { kind: 'gateway', mac: undefined }), '10.10.10.254');
      assert.equal(await giveOne(host, '10.10.10.128', { kind: 'auxiliary', mac: undefined }), '10.10.10.128');
      assert.equal(await give(host, { kind: 'gateway', mac: undefined }), '10.10.10.1');
    }
    const c = await member('c');
    assert.equal(await give(c), '10.10.10.129');
    for (const each of ['10.10.10.254', '10.10.10.128', '10.10.10.1', '10.10.10.0', '10.10.10.255', '10.10.11.1']) {
      await assert.rejects(
        giveOne(c, each),
        (error: { code: string }) => /ERR_ADDRESS_(TAKEN|POOL)/.test(error.code),
        each,
      );
    }
    await assert.rejects(giveOne(a, '10.10.10.128'), { message: /it is the auxiliary address/ });
    for (const host of [a, b]) {
      await release(host, '10.10.10.254');
      await release(host, '10.10.10.128');
    }
    await hosts.rest();
    assert.equal(await giveOne(c, '10.10.10.254'), '10.10.10.254');
    await assert.rejects(giveOne(a, '10.10.10.254', { kind: 'gateway' }), {
      code: 'ERR_ADDRESS_TAKEN',
      message: /host c/,
    });
  });

  it('takes an auxiliary address out of its own block, and asks another host for one', async () => {
    const [a, b] = [await member('a'), await member('b')];
    await give(a);
    await hosts.rest();
    assert.equal(await giveOne(a, '10.10.10.129', { kind: 'auxiliary', mac: undefined }), '10.10.10.129');
    assert.equal(await giveOne(b, '10.10.10.130', { kind: 'auxiliary', mac: undefined }), '10.10.10.130');
    assert.equal(await give(a), '10.10.10.131');
    await assert.rejects(giveOne(b, '10.10.10.128', { kind: 'auxiliary' }), {
      code: 'ERR_ADDRESS_TAKEN',
      message: /host a/,
    });
  });

  it('takes the request of a starting engine for a container’s address as one that says less', async () => {
    const a = await member('a');
    const mine = await give(a);
    assert.equal(await giveOne(a, mine, { kind: 'auxiliary', mac: undefined, owner: undefined }), mine);
    assert.deepEqual(poolOf(a).shared, []);
    assert.equal(poolOf(a).uses.length, 1);
  });

  it('leases another block before the first one is full, and gives back one that is not needed', async () => {
    const a = await member('a');
    const given: string[] = [];
    for (let count = 0; count < 7; count++) given.push(await give(a));
    await hosts.rest();
    assert.deepEqual(poolOf(a).blocks.map(String), ['10.10.10.128/29', '10.10.10.136/29']);
    for (const each of given) await release(a, each);
    await hosts.rest();
    assert.equal(poolOf(a).blocks.length, 1);
    assert.equal(status(a).counters.blocksReturned, 1);
    assert.equal([...hosts.values.texts.keys()].filter((path) => path.includes('/blocks/')).length, 1);
  });

  it('leaves nothing behind when all is released', async () => {
    const [a, b] = [await member('a'), await member('b')];
    const given = [await give(a), await give(b), await giveOne(a, '10.10.10.20')];
    await giveOne(b, '10.10.10.21', { kind: 'auxiliary' });
    await hosts.rest();
    for (const host of [a, b]) {
      await hosts.settled(host.pools.releasePool(LAN));
      await hosts.rest();
      assert.equal(poolOf(host).isReleased, true, 'addresses in use keep it');
      for (const each of given) await release(host, each);
      await hosts.rest();
      assert.deepEqual(status(host).pools, []);
    }
    assert.deepEqual([...hosts.values.texts], []);
    assert.equal(a.store.discarded.length, 1);
  });

  // A network that was made within a moment of the removal of the last one was refused: "requested lease not found".
  it('is in a network that is wanted while it leaves its last one', async () => {
    for (let delayMs = 50; delayMs < 110; delayMs++) {
      const a = await member(`a${delayMs}`);
      await hosts.rest();
      await hosts.settled(a.pools.releasePool(LAN));
      await hosts.clock.advance(delayMs);
      await join(a, OTHER);
      await hosts.rest();
      const paths = [...hosts.values.texts.keys()].filter((path) => path.endsWith(`/${a.name}`));
      assert.ok(
        paths.some((path) => path.includes('10.10.20.0')),
        `after ${delayMs} ms: ${paths.join()}`,
      );
      await hosts.settled(a.pools.close());
    }
  });

  it('asks etcd nothing while this host is in no network', async () => {
    const a = await hosts.start('a');
    await hosts.rest();
    await hosts.clock.advance(600_000);
    assert.equal(a.store.requests, 1, 'whether it was in any before');
  });

  it('refuses a range that differs from that of other hosts, or from its own', async () => {
    const a = await member('a');
    const other = { pool: net('10.10.10.0/24'), range: net('10.10.10.0/25'), name: 'lan', family: 4 } as const;
    const b = await hosts.start('b');
    const expected = { code: 'ERR_NETWORK_DIFFERS', message: /10\.10\.10\.0\/25.*10\.10\.10\.128\/25/ };
    await assert.rejects(hosts.settled(b.pools.requestPool(other)), expected);
    await assert.rejects(hosts.settled(a.pools.requestPool(other)), { code: 'ERR_NETWORK_DIFFERS' });
    await hosts.settled(a.pools.releasePool(LAN));
    await hosts.rest();
    await hosts.settled(b.pools.requestPool(other));
  });

  it('agrees with other hosts on what a network is, and names both values where they differ', async () => {
    const [a, b] = [await member('a'), await member('b')];
    await hosts.settled(a.pools.agree(LAN, { type: 'macvlan', vlan: '19' }));
    await hosts.settled(b.pools.agree(LAN, { vlan: '19', type: 'macvlan' }));
    await assert.rejects(hosts.settled(b.pools.agree(LAN, { type: 'macvlan', vlan: '20' })), {
      code: 'ERR_NETWORK_DIFFERS',
      message: /vlan 20: host a has it with vlan 19/,
    });
    await assert.rejects(hosts.settled(b.pools.agree(LAN, { type: 'macvlan' })), { message: /no vlan.*vlan 19/ });
    await hosts.settled(b.pools.releasePool(LAN));
    await hosts.rest();
    await hosts.settled(a.pools.agree(LAN, { type: 'ipvlan' }));
    b.crash();
    const many = Object.fromEntries(Array.from({ length: 33 }, (_, index) => [`o${index}`, '']));
    await assert.rejects(hosts.settled(a.pools.agree(LAN, many)), { code: 'ERR_ADDRESS_POOL' });
  });

  it('chooses a new subnet for each request without one', async () => {
    const [a, b] = [await hosts.start('a'), await hosts.start('b')];
    const choose = async (host: AddressHost, name?: string): Promise<string> =>
      (
        await hosts.settled(host.pools.requestPool({ pool: undefined, range: undefined, name, family: 4 }))
      ).subnet.toString();
    assert.deepEqual([await choose(a), await choose(a)], ['10.200.0.0/24', '10.200.1.0/24']);
    assert.equal(await choose(b, 'lan'), '10.200.2.0/24');
    assert.equal(await choose(a, 'lan'), '10.200.2.0/24', 'of the same network');
    await assert.rejects(choose(a, 'lan'), { code: 'ERR_ADDRESS_POOL', message: /overlaps/ });
    const own = formatPoolId({ name: undefined, subnet: net('10.200.0.0/24'), range: net('10.200.0.0/24') });
    await hosts.settled(a.pools.releasePool(own));
    await hosts.rest();
    assert.equal(await choose(a), '10.200.3.0/24');
    const last = formatPoolId({ name: undefined, subnet: net('10.200.3.0/24'), range: net('10.200.3.0/24') });
    await hosts.settled(a.pools.releasePool(last));
    await hosts.rest();
    assert.deepEqual([await choose(a), await choose(a)], ['10.200.0.0/24', '10.200.3.0/24'], 'not the last one again');
    await assert.rejects(choose(a), { code: 'ERR_OUT_OF_ADDRESSES' });
    const without = await hosts.start('c', { range: () => undefined });
    await assert.rejects(choose(without), { code: 'ERR_ADDRESS_POOL', message: /no range/ });
  });

  it('chooses one subnet for a name, and different ones without, when two hosts do so at once', async () => {
    const [a, b] = [await hosts.start('a'), await hosts.start('b')];
    const choose = async (name?: string): Promise<string[]> => {
      const requests = [a, b].map(({ pools }) =>
        pools.requestPool({ pool: undefined, range: undefined, name, family: 4 }),
      );
      return (await hosts.settled(Promise.all(requests))).map(({ subnet }) => subnet.toString());
    };
    assert.deepEqual(await choose('lan'), ['10.200.0.0/24', '10.200.0.0/24']);
    assert.deepEqual((await choose()).sort(), ['10.200.1.0/24', '10.200.2.0/24']);
  });

  it('gives addresses of IPv6 subnets however large they are', async () => {
    const a = await hosts.start('a');
    const id = formatPoolId({ name: undefined, subnet: net('fd00:10::/64'), range: net('fd00:10::/64') });
    await join(a, id);
    assert.equal(await give(a, {}, id), 'fd00:10::2');
    assert.equal(await give(a, { address: ip('fd00:10::dead:beef:0:1') }, id), 'fd00:10::dead:beef:0:1');
    assert.equal(await give(a, { address: ip('fd00:10::ffff:ffff:ffff:ffff') }, id), 'fd00:10::ffff:ffff:ffff:ffff');
    await assert.rejects(give(a, { address: ip('fd00:10::') }, id), { code: 'ERR_ADDRESS_POOL', message: /anycast/ });
    assert.deepEqual(poolOf(a).blocks.map(String), ['fd00:10::/122']);
  });

  it('leaves out an address that a machine on the network has, and tells of it', async () => {
    const taken = new Map<string, MacAddress>([['10.10.10.128', mac(0x99)]]);
    const a = await member('a', { probe: (_pool, address) => Promise.resolve(taken.get(address.toString())) });
    assert.equal(await give(a), '10.10.10.129');
    assert.deepEqual(
      poolOf(a).seen.map(({ address, mac }) => [address.toString(), mac]),
      [['10.10.10.128', mac(0x99)]],
    );
    await assert.rejects(giveOne(a, '10.10.10.128'), { code: 'ERR_ADDRESS_TAKEN', message: new RegExp(mac(0x99)) });
    taken.clear();
    assert.equal(await give(a), '10.10.10.130', 'for a while');
    await hosts.clock.advance(660_000);
    assert.equal(await give(a), '10.10.10.128');
    assert.deepEqual(poolOf(a).seen, []);
  });

  it('goes on without its book with what etcd knows', async () => {
    const a = await member('a');
    const mine = [await give(a), await giveOne(a, '10.10.10.20')];
    await hosts.rest();
    a.files.texts.clear();
    await restart(a);
    await hosts.rest();
    assert.deepEqual(
      poolOf(a)
        .uses.map(({ address }) => address.toString())
        .sort(),
      [...mine].sort(),
    );
    await hosts.clock.advance(120_000);
    const b = await member('b');
    for (const each of mine) await assert.rejects(giveOne(b, each), { code: 'ERR_ADDRESS_TAKEN' });
    for (const each of mine) assert.equal(await giveOne(a, each), each);
  });

  it('asserts what it has again after etcd was wiped', async () => {
    const a = await member('a');
    const mine = [await give(a), await giveOne(a, '10.10.10.20')];
    await hosts.rest();
    hosts.values.wipe();
    await hosts.clock.advance(61_000);
    const b = await member('b');
    for (const each of mine) await assert.rejects(giveOne(b, each), { code: 'ERR_ADDRESS_TAKEN', message: /host a/ });
  });

  it('asserts what it has as soon as etcd has another history', async () => {
    const a = await member('a');
    const mine = [await give(a), await giveOne(a, '10.10.10.20')];
    await hosts.rest();
    const before = decisive();
    hosts.values.wipe();
    a.pools.observe({ epoch: 1 });
    await hosts.rest();
    assert.deepEqual(decisive(), before);
    const b = await member('b');
    for (const each of mine) await assert.rejects(giveOne(b, each), { code: 'ERR_ADDRESS_TAKEN', message: /host a/ });
  });

  it('gives nothing of what it had before etcd had another history, until that has confirmed it', async () => {
    const a = await member('a');
    await give(a);
    await hosts.rest();
    hosts.values.wipe();
    const b = await member('b');
    const others = [await give(b), await give(b), await give(b)];
    assert.equal(others[1], '10.10.10.129', 'of what was the block of the other one');
    a.pools.observe({ epoch: 1 });
    a.store.isAway = true;
    await assert.rejects(give(a), { code: /ERR_(OUT_OF_ADDRESSES|ADDRESSES_UNCONFIRMED)/ });
    a.store.isAway = false;
    assert.ok(!others.includes(await give(a)));
  });

  it('asserts it also if the history changes while all is compared with etcd', async () => {
    const a = await member('a');
    await give(a);
    await hosts.rest();
    const before = decisive();
    a.pools.observe({ epoch: 1 });
    await hosts.clock.advance(5);
    hosts.values.wipe();
    a.pools.observe({ epoch: 2 });
    await hosts.rest();
    assert.deepEqual(decisive(), before);
  });

  it('clears up what a restored etcd has of it that it has given up since', async () => {
    const other = formatPoolId({ name: 'other', subnet: net('10.20.0.0/24'), range: net('10.20.0.0/24') });
    const a = await member('a');
    const mine = await give(a);
    await hosts.rest();
    const before = decisive();
    await join(a, other);
    await give(a, {}, other);
    const given = await giveOne(a, '10.10.10.20');
    await hosts.rest();
    const restore = hosts.values.backup();
    await hosts.settled(a.pools.releasePool(other));
    for (const { address } of status(a).pools.flatMap(({ uses }) => uses)) {
      if (address.toString() !== mine && address.toString() !== given) await release(a, address.toString(), other);
    }
    await release(a, given);
    await hosts.rest();
    assert.deepEqual(decisive(), before);
    restore();
    a.pools.observe({ epoch: 1 });
    await hosts.clock.advance(5000);
    assert.deepEqual(decisive(), before);
  });

  it('gives nothing while another host has the same id, and says so, until one of them is gone', async () => {
    const [one, two] = [await member('a'), await member('a')];
    await hosts.clock.advance(61_000);
    for (const host of [one, two]) {
      await assert.rejects(give(host), { code: 'ERR_HOST_ID_TAKEN', message: /another host is called a too/ });
    }
    await hosts.clock.advance(600_000);
    for (const host of [one, two]) await assert.rejects(give(host), { code: 'ERR_HOST_ID_TAKEN' });
    two.crash();
    await hosts.clock.advance(121_000);
    await give(one);
    await restart(one);
    await hosts.clock.advance(121_000);
    await give(one);
  });

  it('takes no earlier process of its own, of which a restored etcd tells, for another host', async () => {
    const a = await member('a');
    await hosts.rest();
    const restore = hosts.values.backup();
    await restart(a);
    await hosts.clock.advance(61_000);
    restore();
    a.pools.observe({ epoch: 1 });
    await hosts.rest();
    await give(a);
  });

  it('renews its lease in time, however short that is', async () => {
    const a = await member('a');
    await give(a);
    for (let passed = 0; passed < 300; passed++) {
      await hosts.clock.advance(1000);
      assert.equal(status(a).isConfirmed, true);
    }
  });

  it('asserts what it has again after somebody deleted it', async () => {
    const a = await member('a');
    await give(a);
    await giveOne(a, '10.10.10.20');
    await hosts.rest();
    const before = decisive();
    for (const path of hosts.values.texts.keys()) hosts.values.remove(path);
    await hosts.clock.advance(61_000);
    assert.deepEqual(decisive(), before);
  });

  it('writes down as its own only what the lease in the same book has confirmed', async () => {
    const a = await member('a');
    await give(a);
    const second = await give(a);
    await hosts.rest();
    a.store.isAway = true;
    await hosts.clock.advance(61_000);
    const b = await member('b');
    assert.equal(await give(b), '10.10.10.128');
    a.store.listValues = () => Promise.reject(new OverlayError('ERR_ETCD_UNAVAILABLE', 'lost'));
    a.store.isAway = false;
    await hosts.rest();
    assert.equal(status(a).isConfirmed, true, 'it has another lease');
    await release(a, second);
    a.crash();
    const starting = a.start();
    a.store.isAway = true;
    await starting;
    await assert.rejects(give(a), { code: 'ERR_OUT_OF_ADDRESSES', message: /while etcd is away/ });
  });

  it('takes what other hosts wrote for taken where it cannot be read, and gives the rest', async () => {
    const a = await hosts.start('a');
    const base = 'networks/lan/10.10.10.0-24';
    hosts.values.poke(`${base}/blocks/10.10.10.128-29`, '{"host":"x","own":"ff');
    hosts.values.poke(`${base}/blocks/10.10.10.0-8`, '{"host":"a","own":"ff","used":"ff"}');
    hosts.values.poke(`${base}/blocks/${'z'.repeat(5000)}`, 'z'.repeat(100_000));
    hosts.values.poke(`${base}/addresses/10.10.10.136/container`, '');
    hosts.values.poke(`${base}/addresses/10.10.10.999/container`, '');
    hosts.values.poke('network-records/lan/10.10.10.0-24', '{"range":7}');
    hosts.values.poke('address-requests/a/../../x', '');
    await join(a);
    assert.equal(await give(a), '10.10.10.137');
    await assert.rejects(giveOne(a, '10.10.10.130'), { code: 'ERR_ADDRESS_TAKEN', message: /unreadable/ });
    await assert.rejects(giveOne(a, '10.10.10.136'), { code: 'ERR_ADDRESS_TAKEN', message: /unreadable/ });
  });

  it('is not in a network that it was not told of', async () => {
    const a = await hosts.start('a');
    await assert.rejects(give(a), { code: 'ERR_ADDRESS_POOL', message: /not in that network/ });
    await assert.rejects(give(a, {}, 'nonsense' as PoolId), { code: 'ERR_ADDRESS_POOL' });
    await release(a, '10.10.10.1');
    await hosts.settled(a.pools.releasePool(LAN));
  });

  it('answers within its time when etcd does not', async () => {
    const a = await hosts.start('a');
    a.store.listValues = (_path, signal) =>
      new Promise((_resolve, reject) => signal?.addEventListener('abort', () => reject(signal.reason as Error)));
    const before = hosts.clock.monotonicMs();
    await assert.rejects(join(a), { code: 'ERR_ETCD_UNAVAILABLE' });
    assert.ok(hosts.clock.monotonicMs() - before <= 8100);
  });
});
