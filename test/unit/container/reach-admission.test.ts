import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { PoolIdentity } from '../../../src/container/pool-id.js';
import {
  type AdmittedFacts,
  MAX_NETWORKS,
  MAX_PER_HOST,
  type ReachContext,
  admitFacts,
  without,
} from '../../../src/container/reach-admission.js';
import { Prefix } from '../../../src/ip/prefix.js';
import { ip, net } from '../../support/builders.js';
import {
  type ReachEntry,
  addressEntry,
  blockEntry,
  factsOf,
  memberEntry,
  networkEntry,
  placeEntry,
} from '../../support/reach-entries.js';

const CONTEXT: ReachContext = {
  host: 'self',
  overlay: [net('10.5.0.0/16')],
  onLink: [net('192.0.2.0/24'), net('2001:db8::/64')],
  guarded: [{ address: ip('198.51.100.7'), owner: 'etcd' }],
  local: [ip('10.77.0.1')],
};

const poolOf = (name: string, subnet: string): PoolIdentity => ({ name, subnet: net(subnet), range: net(subnet) });

describe('admitFacts', () => {
  const admit = (entries: readonly ReachEntry[], context: Partial<ReachContext> = {}): AdmittedFacts =>
    admitFacts(factsOf(entries), { ...CONTEXT, ...context });

  const told = ({ others }: AdmittedFacts): Record<string, readonly string[]> =>
    Object.fromEntries(
      [...others].map(([host, { direct, overlay }]) => [
        host,
        [...direct.map((each) => `direct ${each.toString()}`), ...overlay.map((each) => each.toString())],
      ]),
    );

  const refused = (admitted: AdmittedFacts): readonly string[] =>
    admitted.refused.map(({ reason, what }) => `${reason} ${what}`);

  const texts = (prefixes: readonly Prefix[]): readonly string[] => prefixes.map((each) => each.toString());

  it('sends to the host of a block', () => {
    const admitted = admit([
      networkEntry({ type: 'overlay' }),
      blockEntry('b', '10.99.0.16/28'),
      blockEntry('a', '10.99.0.32/28'),
      blockEntry('a', '10.99.0.0/28'),
      placeEntry('a', 1),
    ]);
    assert.deepEqual(told(admitted), { a: ['10.99.0.0/28', '10.99.0.32/28'], b: ['10.99.0.16/28'] });
    assert.deepEqual([...admitted.places.keys()], ['a']);
    assert.deepEqual(refused(admitted), []);
  });

  it('tells networks whose hosts decide who reaches containers, with containers on others or without', () => {
    const { networks, filtered } = admit([
      networkEntry({ type: 'overlay' }, { pool: poolOf('web', '10.97.0.0/24') }),
      networkEntry({ type: 'ipvlan', mode: 'l3' }, { pool: poolOf('l3', '10.99.0.0/24') }),
    ]);
    assert.deepEqual([texts(networks), texts(filtered)], [['10.99.0.0/24', '10.97.0.0/24'], ['10.97.0.0/24']]);
  });

  it('tells direct ones from those of the overlay', () => {
    const lan = poolOf('lan', '10.98.0.0/24');
    const admitted = admit([
      networkEntry({ type: 'overlay' }),
      blockEntry('a', '10.99.0.0/28'),
      networkEntry({ type: 'bridge' }, { pool: lan }),
      blockEntry('a', '10.98.0.0/28', { pool: lan }),
    ]);
    assert.deepEqual(told(admitted), { a: ['direct 10.98.0.0/28', '10.99.0.0/28'] });
  });

  it('routes nothing of networks whose hosts are on one segment', () => {
    assert.deepEqual(told(admit([blockEntry('a', '10.99.0.0/28')])), {});
  });

  it('sends a single address of another host’s block to its own host', () => {
    const admitted = admit([
      networkEntry({ type: 'overlay' }),
      blockEntry('a', '10.99.0.0/28', { own: 0b110n }),
      addressEntry('b', '10.99.0.5'),
      addressEntry('a', '10.99.0.6'),
      addressEntry('b', '10.99.0.200'),
    ]);
    assert.deepEqual(told(admitted), { a: ['10.99.0.0/28'], b: ['10.99.0.5/32', '10.99.0.200/32'] });
  });

  it('does not believe a single address that the host of the block may give out', () => {
    const admitted = admit([
      networkEntry({ type: 'overlay' }),
      blockEntry('a', '10.99.0.0/28', { own: 1n << 5n }),
      addressEntry('evil', '10.99.0.5'),
    ]);
    assert.deepEqual(told(admitted), { a: ['10.99.0.0/28'] });
    assert.deepEqual(refused(admitted), ['contradiction 10.99.0.5']);
  });

  it('lets nobody take an address that this host may give out', () => {
    const admitted = admit([
      networkEntry({ type: 'overlay' }),
      blockEntry('self', '10.99.0.0/28', { own: 1n << 5n }),
      addressEntry('evil', '10.99.0.5'),
    ]);
    assert.deepEqual(told(admitted), {});
    assert.deepEqual(texts(admitted.own), ['10.99.0.0/28']);
  });

  it('ends packets for what this host has here, but for networks with a route to all of their subnet', () => {
    const entries = [
      blockEntry('self', '10.99.0.0/28'),
      blockEntry('a', '10.99.0.16/28'),
      addressEntry('self', '10.99.0.20'),
      addressEntry('self', '10.99.0.6'),
    ];
    const { ends, own } = admit([networkEntry({ type: 'overlay' }), ...entries]);
    assert.deepEqual(texts(ends), ['10.99.0.0/28', '10.99.0.20/32']);
    assert.deepEqual(texts(own), ['10.99.0.0/28', '10.99.0.20/32']);
    assert.deepEqual(texts(admit([networkEntry({ type: 'bridge' }), ...entries]).ends), []);
    assert.equal(admit([networkEntry({ type: 'bridge', address: 'host' }), ...entries]).ends.length, 2);
  });

  it('does not count an address of its block that another host has as its own', () => {
    const { own, others } = admit([
      networkEntry({ type: 'overlay' }),
      blockEntry('self', '10.99.0.0/28'),
      addressEntry('a', '10.99.0.4'),
    ]);
    assert.deepEqual(texts(own), ['10.99.0.0/30', '10.99.0.5/32', '10.99.0.6/31', '10.99.0.8/29']);
    assert.deepEqual(texts(others.get('a')?.overlay ?? []), ['10.99.0.4/32']);
  });

  for (const [title, subnet, reason] of [
    ['the overlay', '10.5.7.0/24', 'reserved'],
    ['the network of the underlay', '192.0.2.128/25', 'reserved'],
    ['etcd', '198.51.100.0/24', 'reserved'],
    ['an address of this host', '10.77.0.0/24', 'reserved'],
    ['what is only on a link', '169.254.4.0/24', 'reserved'],
    ['this host itself', '127.4.0.0/24', 'reserved'],
    ['what nobody is sent to', '224.0.1.0/24', 'reserved'],
    ['IPv6 on a link', 'fe80::/64', 'reserved'],
    ['everything', '0.0.0.0/0', 'reserved'],
  ] as const) {
    it(`routes nothing of a network that covers ${title}`, () => {
      const pool = poolOf('bad', subnet);
      const block = `${pool.subnet.address.toString()}/${pool.subnet.family === 4 ? (subnet === '0.0.0.0/0' ? 26 : 28) : 122}`;
      const admitted = admit([networkEntry({ type: 'bridge' }, { pool }), blockEntry('evil', block, { pool })]);
      assert.deepEqual(told(admitted), {});
      assert.deepEqual(refused(admitted), [`${reason} bad/${subnet.replace('/', '-')}`]);
    });
  }

  it('routes a network that this host is in although it has addresses there', () => {
    const pool = poolOf('mine', '10.77.0.0/24');
    const entries = [networkEntry({ type: 'bridge' }, { pool }), blockEntry('a', '10.77.0.16/28', { pool })];
    assert.deepEqual(told(admit(entries)), {});
    assert.deepEqual(told(admit([...entries, memberEntry('other', pool)])), {});
    assert.deepEqual(told(admit([...entries, memberEntry('self', pool)])), { a: ['direct 10.77.0.16/28'] });
  });

  describe('of a network within the on-link prefix whose hosts answer for it', () => {
    const pool = poolOf('proxied', '2001:db8:0:0:4000::/66');
    const PROXIED = { type: 'bridge', 'ndp-proxy': 'true' };
    const entries = [networkEntry(PROXIED, { pool }), blockEntry('a', '2001:db8:0:0:4000::40/122', { pool })];

    it('sends to the other hosts of it, where this one is in it', () => {
      const admitted = admit([...entries, memberEntry('self', pool)]);
      assert.deepEqual(told(admitted), { a: ['direct 2001:db8::4000:0:0:40/122'] });
      assert.deepEqual(refused(admitted), []);
      assert.deepEqual(admitted.proxied.map(String), ['2001:db8:0:0:4000::/66']);
    });

    it('takes blocks by whether the hosts have agreed on its addresses being spread', () => {
      const wide = blockEntry('a', '2001:db8:0:0:4000:0:4000:0/98', { pool, own: 1n });
      const own = blockEntry('self', '2001:db8:0:0:4000::/98', { pool, own: 1n });
      // Within blocks, and none of the addresses that these give: one of another host in ours, and of ours in another’s.
      const singles = [
        addressEntry('b', '2001:db8:0:0:4000::3', pool),
        addressEntry('self', '2001:db8:0:0:4000:0:4000:3', pool),
      ];
      const spread = networkEntry({ ...PROXIED, 'shared-low-bits': '24' }, { pool });
      const admitted = admit([spread, ...entries.slice(1), wide, own, ...singles, memberEntry('self', pool)]);
      assert.deepEqual(told(admitted), {
        a: ['direct 2001:db8::4000:0:4000:0/98'],
        b: ['direct 2001:db8::4000:0:0:3/128'],
      });
      assert.deepEqual(refused(admitted), ['outside-network 2001:db8::4000:0:0:40/122']);
      assert.ok(!admitted.own.some((prefix) => prefix.contains(ip('2001:db8:0:0:4000::3'))));
      for (const each of ['2001:db8:0:0:4000::2', '2001:db8:0:0:4000:0:4000:3', '2001:db8:0:0:4000:0:3f00:2'])
        assert.ok(admitted.own.some((prefix) => prefix.contains(ip(each))));
      const taken = addressEntry('b', '2001:db8:0:0:4000:0:4000:2', pool);
      assert.deepEqual(refused(admit([spread, wide, taken, memberEntry('self', pool)])), [
        'contradiction 2001:db8::4000:0:4000:2',
      ]);
      assert.deepEqual(refused(admit([...entries, wide, memberEntry('self', pool)])), [
        'outside-network 2001:db8::4000:0:4000:0/98',
      ]);
    });

    it('leaves it on the link, without a complaint, where this host is not', () => {
      const admitted = admit(entries);
      assert.deepEqual([told(admitted), refused(admitted)], [{}, []]);
    });

    it('has rules tell it from others even so, unless it would take what this host needs', () => {
      assert.deepEqual(admit(entries).filtered.map(String), ['2001:db8:0:0:4000::/66']);
      const guarded = [{ address: ip('2001:db8:0:0:4000::2'), owner: 'etcd' }];
      assert.deepEqual(admit(entries, { guarded }).filtered, []);
    });

    it('refuses it where it would take the whole link, etcd or the overlay', () => {
      for (const [subnet, context] of [
        ['2001:db8::/64', {}],
        ['2001:db8::/63', {}],
        ['2001:db8:0:0:4000::/66', { overlay: [net('2001:db8:0:0:4000::/80')] }],
        ['2001:db8:0:0:4000::/66', { guarded: [{ address: ip('2001:db8:0:0:4000::2'), owner: 'etcd' }] }],
      ] as const) {
        const taken = poolOf('taken', subnet);
        const admitted = admit([networkEntry(PROXIED, { pool: taken }), memberEntry('self', taken)], context);
        assert.equal(admitted.refused[0]?.reason, 'reserved', subnet);
      }
    });

    it('says what it lacks where its hosts do not', () => {
      const admitted = admit([networkEntry({ type: 'bridge' }, { pool }), memberEntry('self', pool)]);
      assert.match(admitted.refused[0]?.detail ?? '', /has no -o ndp-proxy=true/);
    });
  });

  it('routes the older one of networks that overlap, or the one that etcd still has', () => {
    const old = poolOf('old', '10.98.0.0/24');
    const young = poolOf('a-young', '10.98.0.0/22');
    const facts = factsOf([
      networkEntry({ type: 'bridge' }, { pool: young, createdAt: '100' }),
      networkEntry({ type: 'bridge' }, { pool: old, createdAt: '99' }),
      blockEntry('a', '10.98.0.0/28', { pool: old }),
      blockEntry('b', '10.98.0.0/26', { pool: young }),
    ]);
    const both = admitFacts(facts, CONTEXT);
    assert.deepEqual(told(both), { a: ['direct 10.98.0.0/28'] });
    assert.deepEqual(refused(both), ['overlaps-network a-young/10.98.0.0-22']);
    const later = admitFacts(facts, CONTEXT, new Set([networkEntry({}, { pool: old }).path]));
    assert.deepEqual(told(later), { b: ['direct 10.98.0.0/26'] });
  });

  it('refuses blocks that the network is not cut into, and addresses that no host can have', () => {
    const admitted = admit([
      networkEntry({ type: 'overlay' }),
      blockEntry('a', '10.99.0.0/27'),
      blockEntry('a', '10.99.0.0/24'),
      blockEntry('a', '10.98.0.0/28'),
      blockEntry('a', '10.99.0.16/28', { own: 1n << 16n }),
      addressEntry('a', '10.99.0.255'),
      addressEntry('a', '10.99.0.0'),
    ]);
    assert.deepEqual(told(admitted), {});
    assert.equal(admitted.refused.length, 6);
    assert.ok(admitted.refused.every(({ reason }) => reason === 'outside-network'));
  });

  it('bears no more networks, and no more of one host, than it can', () => {
    const wide = poolOf('wide', '10.128.0.0/9');
    const many = Array.from({ length: MAX_PER_HOST + 3 }, (_, index) =>
      addressEntry('a', ip('10.129.0.1').add(BigInt(index)).toString(), wide),
    );
    const admitted = admit([
      networkEntry({ type: 'overlay' }, { pool: wide }),
      ...many,
      blockEntry('b', '10.128.0.0/26', { pool: wide }),
    ]);
    assert.equal(admitted.others.get('a')?.overlay.length, MAX_PER_HOST);
    assert.equal(admitted.others.get('b')?.overlay.length, 1);
    assert.deepEqual(new Set(admitted.refused.map(({ reason }) => reason)), new Set(['too-many']));
    const networks = Array.from({ length: MAX_NETWORKS + 2 }, (_, index) => {
      const pool = { name: undefined, subnet: Prefix.of(ip('10.128.0.0').add(BigInt(index * 256)), 24) };
      return networkEntry({ type: 'overlay' }, { pool: { ...pool, range: pool.subnet } });
    });
    assert.equal(admit(networks).refused.length, 2);
  });

  it('never routes anything that it must not, whatever hosts write', () => {
    const host = fc.constantFrom('self', 'a', 'b', 'c');
    const subnet = fc
      .tuple(
        fc.constantFrom('10.5.0.0', '10.99.0.0', '10.98.0.0', '192.0.2.0', '198.51.100.0', '0.0.0.0'),
        fc.constantFrom(8, 16, 24, 28),
      )
      .map(([address, length]) => Prefix.of(ip(address), length));
    const type = fc.constantFrom('bridge', 'overlay');
    const anything = fc.oneof(
      fc
        .tuple(subnet, type, fc.nat(9))
        .map(([each, kind, age]) =>
          networkEntry(
            { type: kind },
            { pool: { name: undefined, subnet: each, range: each }, createdAt: String(age) },
          ),
        ),
      fc.tuple(subnet, host, fc.nat(40), fc.constantFrom(24, 26, 28, 30)).map(([each, who, n, length]) =>
        blockEntry(who, Prefix.of(each.address.add(BigInt(n * 16)), length).toString(), {
          pool: { name: undefined, subnet: each, range: each },
        }),
      ),
      fc
        .tuple(subnet, host, fc.nat(14))
        .map(([each, who, n]) =>
          addressEntry(who, each.address.add(BigInt(n)).toString(), { name: undefined, subnet: each, range: each }),
        ),
    );
    fc.assert(
      fc.property(fc.array(anything, { maxLength: 40 }), (entries) => {
        const { others, own } = admit(entries);
        const all = [...others].flatMap(([who, { direct, overlay }]) =>
          [...direct, ...overlay].map((each) => ({ who, each })),
        );
        assert.ok(!others.has('self'));
        assert.equal(new Set(all.map(({ each }) => each.toString())).size, all.length, 'two hosts for one prefix');
        for (const { each } of all) {
          assert.ok(each.size <= 64n);
          assert.ok(
            [...CONTEXT.overlay, ...CONTEXT.onLink].every((reserved) => !reserved.overlaps(each)),
            each.toString(),
          );
          assert.ok(!each.contains(ip('198.51.100.7')));
          assert.ok(!own.some((mine) => each.covers(mine)), `${each.toString()} takes this host's own`);
        }
      }),
    );
  });
});

describe('without', () => {
  it('leaves every address but the holes, each once', () => {
    fc.assert(
      fc.property(fc.integer({ min: 26, max: 32 }), fc.array(fc.nat(80), { maxLength: 8 }), (length, numbers) => {
        const prefix = Prefix.of(ip('10.99.0.0'), length);
        const holes = numbers.map((n) => prefix.address.add(BigInt(n)));
        const rest = without(prefix, holes);
        for (let n = 0n; n < prefix.size; n++) {
          const address = prefix.address.add(n);
          const isHole = holes.some((hole) => hole.equals(address));
          assert.equal(rest.filter((each) => each.contains(address)).length, isHole ? 0 : 1);
        }
        assert.ok(rest.every((each) => prefix.covers(each)));
      }),
    );
  });
});
