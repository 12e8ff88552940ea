import assert from 'node:assert/strict';
import fc from 'fast-check';
import { Prefix } from '../../../src/ip/prefix.js';
import { type AdmissionContext, OWN_HOST, type QuarantineReason } from '../../../src/lease/admission.js';
import { type Admission, Candidates } from '../../../src/lease/candidates.js';
import type { LeaseAttributes } from '../../../src/lease/lease.js';
import type { LeaseRecord } from '../../../src/lease/record.js';
import { ip, net } from '../../support/builders.js';
import { type RecordChanges, admissionContext, leaseRecord } from '../../support/lease-world.js';

interface Known {
  readonly lease: LeaseRecord;
  readonly isMissing: boolean;
}

/** Has a list know these leases instead of those that it knows. */
const update = (list: Candidates, before: readonly Known[], known: readonly Known[]): void => {
  const keysNow = new Set(known.map(({ lease }) => lease.key));
  for (const { lease } of before) if (!keysNow.has(lease.key)) list.remove(lease.key);
  for (const { lease, isMissing } of known) list.put(lease.key, lease, isMissing);
};

const admit = (known: readonly Known[], context: AdmissionContext): Admission => {
  const list = new Candidates(context);
  update(list, [], known);
  return list.admission();
};

const there = (...leases: readonly LeaseRecord[]): readonly Known[] =>
  leases.map((lease) => ({ lease, isMissing: false }));

const isSameHost = (a: LeaseRecord, b: LeaseRecord): boolean => a.attributes.publicIp.equals(b.attributes.publicIp);

const keys = (leases: readonly { readonly key: string }[]): string[] => leases.map(({ key }) => key);

/** Leases of few hosts that overlap each other often. */
const entry = fc.record({
  at: fc.integer({ min: 0, max: 255 }),
  length: fc.integer({ min: 20, max: 26 }),
  at6: fc.option(fc.integer({ min: 0, max: 15 })),
  length6: fc.integer({ min: 60, max: 66 }),
  host: fc.integer({ min: 10, max: 14 }),
  createdAt: fc.integer({ min: 1, max: 40 }),
  isMissing: fc.boolean(),
});

const knownOf = (
  { at, length, at6, length6, host, createdAt, isMissing }: typeof entry extends fc.Arbitrary<infer T> ? T : never,
  index: number,
): Known => {
  const subnet = Prefix.of(ip('10.5.32.0').add(BigInt(at) * 64n), length);
  const ipv6Subnet = at6 === null ? undefined : Prefix.of(ip(`fd00:10:5:4${at6.toString(16)}::`), length6);
  const base = leaseRecord(2, { host, key: `${index}`, revision: createdAt });
  return { lease: { ...base, subnet, ipv6Subnet }, isMissing };
};

const CONTEXT = admissionContext({
  guarded: [
    { address: ip('10.5.9.9'), owner: 'etcd' },
    { address: ip('fd00:10:5:9::9'), owner: 'etcd' },
    { address: ip('192.0.2.1'), owner: OWN_HOST },
    { address: ip('192.0.2.201'), owner: OWN_HOST },
    { address: ip('2001:db8::c9'), owner: OWN_HOST },
  ],
  broadcasts: [ip('192.0.2.255')],
});

describe('Candidates', () => {
  it('takes the leases of other hosts for peers, in order of their subnets', () => {
    const { peers, quarantined } = admit(
      there(leaseRecord(30), leaseRecord(4), leaseRecord(1), leaseRecord(12)),
      CONTEXT,
    );
    assert.deepEqual(keys(peers), ['10.5.4.0-24', '10.5.12.0-24', '10.5.30.0-24']);
    assert.deepEqual(quarantined, []);
  });

  const at = (publicIp: string): RecordChanges => ({ attributes: { publicIp: ip(publicIp) } });
  const at6 = (publicIpv6: string): RecordChanges => ({
    isDualStack: true,
    attributes: { publicIpv6: ip(publicIpv6) },
  });
  const named = (subnets: string): RecordChanges => ({ subnets });
  const cases: readonly (readonly [string, RecordChanges, QuarantineReason, RegExp])[] = [
    ['another network', named('10.6.2.0-24'), 'outside-network', /10\.6\.2\.0\/24 is outside 10\.5\.0\.0\/16/],
    ['the network and more', named('10.4.0.0-15'), 'outside-network', /10\.4\.0\.0\/15/],
    ['another IPv6 network', named('10.5.2.0-24&fd00:10:6:2::-64'), 'outside-network', /fd00:10:6:2::\/64/],
    ['the own subnet', named('10.5.1.0-24'), 'overlaps-own', /own subnet 10\.5\.1\.0\/24/],
    ['a part of the own subnet', named('10.5.1.128-26'), 'overlaps-own', /own subnet/],
    ['more than the own subnet', named('10.5.0.0-20'), 'overlaps-own', /own subnet/],
    ['an address of etcd', named('10.5.9.0-24'), 'covers-guarded', /10\.5\.9\.9, an address of etcd/],
    ['an IPv6 address of etcd', named('10.5.2.0-24&fd00:10:5:9::-64'), 'covers-guarded', /fd00:10:5:9::9/],
    ['no address', at('0.0.0.0'), 'bad-public-ip', /0\.0\.0\.0 is unspecified/],
    ['a loopback address', at('127.3.2.1'), 'bad-public-ip', /loopback/],
    ['a multicast address', at('224.0.0.5'), 'bad-public-ip', /multicast/],
    ['an address of "this network"', at('0.1.2.3'), 'bad-public-ip', /"this network"/],
    ['the limited broadcast address', at('255.255.255.255'), 'bad-public-ip', /broadcast/],
    ['the broadcast address of the underlay', at('192.0.2.255'), 'bad-public-ip', /broadcast/],
    ['an address of the overlay', at('10.5.77.1'), 'bad-public-ip', /inside the overlay/],
    ['another address of this host', at('192.0.2.201'), 'bad-public-ip', /address of this host/],
    ['no IPv6 address', at6('::'), 'bad-public-ip', /:: is unspecified/],
    ['the IPv6 loopback address', at6('::1'), 'bad-public-ip', /loopback/],
    ['an IPv6 multicast address', at6('ff02::1'), 'bad-public-ip', /multicast/],
    ['an IPv6 address of the overlay', at6('fd00:10:5:2::1'), 'bad-public-ip', /inside the overlay/],
    ['an IPv6 address of this host', at6('2001:db8::c9'), 'bad-public-ip', /address of this host/],
  ];
  for (const [title, changes, reason, detail] of cases) {
    it(`does not believe a lease of, or with, ${title}`, () => {
      const lease = leaseRecord(2, changes);
      const { peers, quarantined } = admit(there(leaseRecord(3), lease), CONTEXT);
      assert.deepEqual(keys(peers), ['10.5.3.0-24']);
      assert.equal(quarantined.length, 1);
      assert.equal(quarantined[0]?.lease, lease);
      assert.equal(quarantined[0].reason, reason);
      assert.match(quarantined[0].detail, detail);
    });
  }

  it('does not believe a lease in the own IPv6 subnet', () => {
    const own = { subnet: net('10.5.1.0/24'), ipv6Subnet: net('fd00:10:5:1::/64') };
    const { quarantined } = admit(there(leaseRecord(2, named('10.5.2.0-24&fd00:10:5:1::-80'))), { ...CONTEXT, own });
    assert.equal(quarantined[0]?.reason, 'overlaps-own');
  });

  it('believes a lease in a network that was configured a moment ago', () => {
    const networks = [net('10.9.0.0/16'), net('10.5.0.0/16')];
    const { peers } = admit(there(leaseRecord(2), leaseRecord(3, named('10.9.3.0-24'))), { ...CONTEXT, networks });
    assert.equal(peers.length, 2);
  });

  it('takes nothing with the own public address for a peer or for a fault', () => {
    const { peers, quarantined } = admit(there(leaseRecord(9, { host: 1, subnets: '10.77.0.0-24' })), CONTEXT);
    assert.deepEqual([...peers, ...quarantined], []);
  });

  it('tells hosts without an IPv4 address apart by their subnets', () => {
    const anonymous = ip('0.0.0.0');
    const context = { ...CONTEXT, needsIpv4: false, publicIp: anonymous };
    const leases = [1, 2].map((n) => leaseRecord(n, { isDualStack: true, attributes: { publicIp: anonymous } }));
    const { peers, quarantined } = admit(there(...leases), context);
    assert.deepEqual(keys(peers), ['10.5.2.0-24&fd00:10:5:2::-64']);
    assert.deepEqual(quarantined, []);
  });

  describe('of two leases that overlap', () => {
    const wide = leaseRecord(20, { subnets: '10.5.32.0-20', revision: 30 });
    const inside = leaseRecord(40, { revision: 20 });

    it('believes the one whose key is older, in whatever order they come', () => {
      for (const all of [there(wide, inside), there(inside, wide)]) {
        const { peers, quarantined } = admit(all, CONTEXT);
        assert.deepEqual(peers, [inside]);
        assert.deepEqual(
          quarantined.map(({ key, reason, detail }) => [key, reason, detail]),
          [[wide.key, 'overlaps-peer', 'it overlaps 10.5.40.0-24 of 192.0.2.40, which is older']],
        );
      }
    });

    it('goes by when the keys came into being, not by when they were written last', () => {
      const rewritten = { ...inside, revision: '99' };
      assert.deepEqual(admit(there(wide, rewritten), CONTEXT).peers, [rewritten]);
    });

    it('believes the one written last of one host, without a word', () => {
      const other = leaseRecord(40, { subnets: '10.5.32.0-20', revision: 30 });
      const { peers, quarantined } = admit(there(inside, other), CONTEXT);
      assert.deepEqual(peers, [other]);
      assert.deepEqual(quarantined, []);
    });

    it('believes the one that is there rather than one that was', () => {
      const { peers } = admit([{ lease: inside, isMissing: true }, ...there(wide)], CONTEXT);
      assert.deepEqual(peers, [wide]);
    });

    it('looks at IPv6 as well', () => {
      const [a, b] = [
        leaseRecord(2, { ...named('10.5.2.0-24&fd00:10:5:40::-60') }),
        leaseRecord(3, { ...named('10.5.3.0-24&fd00:10:5:47::-64'), revision: 11 }),
      ];
      const { peers, quarantined } = admit(there(a, b), CONTEXT);
      assert.deepEqual(peers, [a]);
      assert.deepEqual(keys(quarantined), [b.key]);
    });

    it('lets nobody lose to a lease that has lost itself', () => {
      const eldest = leaseRecord(3, { subnets: '10.5.33.0-24', revision: 1 });
      const { peers } = admit(there(wide, { ...inside, createdAt: '99' }, eldest), CONTEXT);
      assert.deepEqual(keys(peers), ['10.5.33.0-24', '10.5.40.0-24']);
    });
  });

  it('leaves no two peers that overlap, and no lease out without cause', () => {
    fc.assert(
      fc.property(fc.array(entry, { maxLength: 12 }), (entries) => {
        const candidates = entries.map(knownOf);
        const context = { ...CONTEXT, guarded: [] };
        const { peers, kept, quarantined } = admit(candidates, context);
        const overlap = (a: LeaseRecord, b: LeaseRecord): boolean =>
          a.subnet.overlaps(b.subnet) || (a.ipv6Subnet !== undefined && b.ipv6Subnet?.overlaps(a.ipv6Subnet) === true);
        /** It is missing from the store, and its host has another lease there. */
        const hasMoved = (lease: LeaseRecord): boolean =>
          candidates.some((each) => each.lease === lease && each.isMissing) &&
          candidates.some((each) => !each.isMissing && isSameHost(each.lease, lease));
        const missing = candidates.filter(({ isMissing }) => isMissing).map(({ lease }) => lease);
        assert.deepEqual(
          kept,
          peers.filter((lease) => missing.includes(lease)),
        );
        for (const a of peers) for (const b of peers) assert.ok(a === b || !overlap(a, b), `${a.key} and ${b.key}`);
        for (const { lease } of candidates) {
          if (peers.includes(lease)) continue;
          const rivals = candidates.filter((other) => other.lease !== lease && overlap(other.lease, lease));
          assert.ok(rivals.length > 0 || hasMoved(lease), `${lease.key} overlaps nobody`);
        }
        for (const { key: loser, detail } of quarantined) {
          const lost = candidates.find(({ lease: { key } }) => key === loser);
          const winner = candidates.find(({ lease: { key } }) => detail.startsWith(`it overlaps ${key} `));
          assert.ok(winner !== undefined && lost !== undefined && overlap(winner.lease, lost.lease));
        }
      }),
      { numRuns: 500 },
    );
  });

  it('lets go of what is missing from the store once its host has another lease there', () => {
    const vxlan = (mac: string): Partial<LeaseAttributes> => ({ backendType: 'vxlan', backendData: { VtepMAC: mac } });
    const former = leaseRecord(5, { host: 5, attributes: vxlan('02:00:00:00:00:05') });
    for (const [now, isLetGo] of [
      [leaseRecord(6, { host: 5 }), true],
      [leaseRecord(6, { host: 99, attributes: vxlan('02:00:00:00:00:05') }), true],
      [leaseRecord(6, { host: 99, attributes: vxlan('02:00:00:00:00:99') }), false],
    ] as const) {
      const { peers } = admit([{ lease: former, isMissing: true }, ...there(now)], CONTEXT);
      assert.equal(!peers.includes(former), isLetGo);
      assert.ok(peers.includes(now));
    }
    assert.equal(admit(there(former, leaseRecord(6, { host: 5 })), CONTEXT).peers.length, 2, 'both are in the store');
  });

  it('takes the key that this host holds for its own although it still names a former address', () => {
    const held = leaseRecord(1, { host: 50, revision: 7 });
    const own = { subnet: held.subnet, ipv6Subnet: undefined, revision: held.revision };
    assert.deepEqual(admit(there(held), { ...CONTEXT, own }), { peers: [], kept: [], quarantined: [] });
    const foreign = { ...held, revision: '8' };
    assert.equal(admit(there(foreign), { ...CONTEXT, own }).quarantined[0]?.reason, 'overlaps-own');
  });

  it('comes to the same, whatever it has known before', () => {
    // Of each key, what is known of it at one time: nothing, or one of a few leases, here or missing.
    const data = fc.constantFrom(undefined, { VtepMAC: '02:00:00:00:00:01' }, { VtepMAC: '02:00:00:00:00:02' });
    const time = fc.array(fc.option(fc.record({ entry, data })), { maxLength: 8 });
    const contexts = [CONTEXT, { ...CONTEXT, networks: [net('10.5.40.0/21'), net('fd00:10:5::/48')] }];
    const times = fc.array(fc.record({ time, context: fc.constantFrom(...contexts) }), { maxLength: 6 });
    fc.assert(
      fc.property(times, (all) => {
        const list = new Candidates(CONTEXT);
        let before: readonly Known[] = [];
        for (const { time: entries, context } of all) {
          const known = entries.flatMap((each, index) => {
            if (each === null) return [];
            const { lease, isMissing } = knownOf(each.entry, index);
            const attributes = { ...lease.attributes, backendData: each.data };
            return [{ lease: { ...lease, attributes }, isMissing }];
          });
          list.setContext(context);
          for (const some of [known, known.slice(1), known]) {
            update(list, before, some);
            before = some;
            assert.deepEqual(list.admission(), admit(some, context));
          }
        }
      }),
      { numRuns: 500 },
    );
  });

  it('looks at each lease once as long as the context is the same', () => {
    let looks = 0;
    const networks = new Proxy(CONTEXT.networks, {
      get: (target, name, receiver): unknown => {
        if (name === 'some') looks++;
        return Reflect.get(target, name, receiver);
      },
    });
    const context: AdmissionContext = { ...CONTEXT, guarded: [], networks };
    const candidates = Array.from({ length: 5000 }, (_, index) => {
      const subnets = `10.5.${64 + (index >> 6)}.${(index & 63) << 2}-30`;
      return leaseRecord(2, { subnets, attributes: { publicIp: ip('198.18.0.0').add(BigInt(index)) } });
    });
    const list = new Candidates(context);
    update(list, [], there(...candidates));
    assert.equal(list.admission().peers.length, 5000);
    const first = looks;
    assert.ok(first >= 5000 && first <= 10_000, String(first));
    update(list, [], there(...candidates, leaseRecord(3)));
    assert.equal(list.admission().peers.length, 5001);
    assert.equal(looks - first, first / 5000, 'only the one that is new');
    list.setContext({ ...context });
    assert.equal(looks - first, first + (2 * first) / 5000, 'all of them in another context');
  });
});
