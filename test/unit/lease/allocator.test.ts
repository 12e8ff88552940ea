import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { NetworkConfig, SubnetRange } from '../../../src/config/network-config.js';
import { IpAddress } from '../../../src/ip/address.js';
import { Prefix } from '../../../src/ip/prefix.js';
import {
  type PlanInput,
  doesFit,
  findOlderRival,
  findOverlapping,
  findRivals,
  listFree,
  planLease,
} from '../../../src/lease/allocator.js';
import type { LeaseRecord } from '../../../src/lease/record.js';
import { formatSubnetKey } from '../../../src/lease/subnet-key.js';
import { ip, net, network } from '../../support/builders.js';
import { badEntry, leaseRecord } from '../../support/lease-world.js';

const dualNetwork = network('udp', {}, true);

function plan(leases: readonly LeaseRecord[], changes: Partial<PlanInput> = {}): ReturnType<typeof planLease> {
  return planLease({
    network: network(),
    publicIp: ip('192.0.2.100'),
    known: { leases, bad: [] },
    wishes: [],
    avoid: [],
    random: () => 0,
    ...changes,
  });
}

describe('planLease', () => {
  it('takes over the lease with the own public address', () => {
    const own = leaseRecord(7, { host: 100 });
    assert.deepEqual(plan([leaseRecord(1), own, leaseRecord(8)]), { kind: 'reuse', lease: own });
  });

  it('prefers a reservation, then the previous subnet, then the first key', () => {
    const [a, b, c] = [
      leaseRecord(3, { host: 100 }),
      leaseRecord(4, { host: 100 }),
      leaseRecord(5, { host: 100, isReservation: true }),
    ];
    assert.deepEqual(plan([a, b, c]), { kind: 'reuse', lease: c });
    assert.deepEqual(plan([a, b], { wishes: [{ subnet: b.subnet }] }), { kind: 'reuse', lease: b });
    assert.deepEqual(plan([a, b]), { kind: 'reuse', lease: a });
  });

  it('takes the previous subnet if it is free and fits', () => {
    assert.deepEqual(plan([leaseRecord(1)], { wishes: [{ subnet: net('10.5.9.0/24') }] }), {
      kind: 'create',
      subnets: { subnet: net('10.5.9.0/24'), ipv6Subnet: undefined },
      source: 'previous',
      replacing: undefined,
      yielding: undefined,
      aside: [],
    });
  });

  for (const [title, previous] of [
    ['is taken', '10.5.1.0/24'],
    ['has another length', '10.5.9.0/25'],
    ['lies below SubnetMin', '10.5.0.0/24'],
    ['lies in another network', '10.6.9.0/24'],
  ] as const) {
    it(`passes the previous subnet over if it ${title}`, () => {
      const result = plan([leaseRecord(1)], { wishes: [{ subnet: net(previous) }] });
      assert.ok(result.kind === 'create');
      assert.equal(result.source, 'free');
      assert.equal(result.subnets.subnet.toString(), '10.5.2.0/24');
    });
  }

  it('chooses among the first hundred free subnets by chance', () => {
    const choose = (random: number): string => {
      const result = plan([leaseRecord(1), leaseRecord(3)], { random: () => random });
      assert.ok(result.kind === 'create');
      return result.subnets.subnet.toString();
    };
    assert.equal(choose(0), '10.5.2.0/24');
    assert.equal(choose(0.5), '10.5.53.0/24');
    assert.equal(choose(0.999_999), '10.5.102.0/24');
  });

  it('counts a key with an unreadable value as taken', () => {
    const result = plan([], { known: { leases: [], bad: [badEntry('junk'), badEntry('10.5.1.0-24')] } });
    assert.ok(result.kind === 'create');
    assert.equal(result.subnets.subnet.toString(), '10.5.2.0/24');
  });

  it('allocates both families in a dual-stack network', () => {
    const result = plan([leaseRecord(1, { isDualStack: true }), leaseRecord(2)], { network: dualNetwork });
    assert.ok(result.kind === 'create');
    assert.equal(result.subnets.subnet.toString(), '10.5.3.0/24');
    assert.equal(result.subnets.ipv6Subnet?.toString(), 'fd00:10:5:2::/64');
  });

  it('keeps the IPv4 subnet when the network becomes dual-stack', () => {
    const own = leaseRecord(7, { host: 100 });
    assert.deepEqual(plan([own, leaseRecord(8)], { network: dualNetwork }), {
      kind: 'create',
      subnets: { subnet: own.subnet, ipv6Subnet: net('fd00:10:5:1::/64') },
      source: 'public-ip',
      replacing: own,
      yielding: undefined,
      aside: [],
    });
  });

  it('keeps the IPv4 subnet when the network ceases to be dual-stack', () => {
    const own = leaseRecord(7, { host: 100, isDualStack: true });
    const result = plan([own]);
    assert.ok(result.kind === 'create');
    assert.equal(result.subnets.subnet, own.subnet);
    assert.equal(result.subnets.ipv6Subnet, undefined);
    assert.equal(result.replacing, own);
  });

  it('takes another subnet, and the old key away, when the own one left the range', () => {
    const own = leaseRecord(200, { host: 100 });
    const narrow: NetworkConfig = { ...network(), ipv4: { ...range('10.5.0.0/16', 24), max: ip('10.5.9.0') } };
    const result = plan([own], { network: narrow });
    assert.ok(result.kind === 'create');
    assert.equal(result.subnets.subnet.toString(), '10.5.1.0/24');
    assert.equal(result.replacing, own);
  });

  it('takes the latest of several wishes that come true', () => {
    const wishes = ['10.5.1.0/24', '10.6.9.0/24', '10.5.30.0/24', '10.5.31.0/24'].map((text) => ({
      subnet: net(text),
    }));
    const result = plan([leaseRecord(1)], { wishes });
    assert.ok(result.kind === 'create');
    assert.equal(result.subnets.subnet.toString(), '10.5.30.0/24');
    assert.equal(result.source, 'previous');
  });

  it('sets an own key of another network aside instead of replacing it', () => {
    const own = leaseRecord(7, { host: 100, subnets: '10.9.7.0-24' });
    const result = plan([own]);
    assert.ok(result.kind === 'create');
    assert.equal(result.replacing, undefined);
    assert.deepEqual(result.aside, [own]);
  });

  it('sets no reservation aside: it stays by itself', () => {
    const result = plan([leaseRecord(7, { host: 100, subnets: '10.9.7.0-24', isReservation: true })]);
    assert.ok(result.kind === 'create');
    assert.deepEqual(result.aside, []);
  });

  it('exchanges an own lease that overlaps an older one of another host', () => {
    const own = leaseRecord(7, { host: 100, revision: 20 });
    const older = leaseRecord(8, { subnets: '10.5.6.0-23', revision: 19 });
    const result = plan([own, older]);
    assert.ok(result.kind === 'create');
    assert.equal(result.replacing, own);
    assert.deepEqual(result.yielding, { lease: own, rival: older.key });
    assert.ok(!older.subnet.overlaps(result.subnets.subnet));
    assert.equal(plan([own, leaseRecord(8, { subnets: '10.5.6.0-23', revision: 21 })]).kind, 'reuse');
  });

  it('takes over what it held under another address, unless somebody has written it since', () => {
    const held = leaseRecord(7, { revision: 20 });
    assert.deepEqual(plan([held], { former: [held] }), { kind: 'reuse', lease: held });
    for (const other of [
      { ...held, revision: '21' },
      { ...held, subnet: net('10.5.8.0/24') },
      { ...held, attributes: leaseRecord(9).attributes },
    ]) {
      assert.equal(plan([other], { former: [held] }).kind, 'create');
    }
  });

  it('gives the subnet of a host that may come back only if there is no other', () => {
    const two: NetworkConfig = { ...network(), ipv4: { ...range('10.5.0.0/16', 24), max: ip('10.5.2.0') } };
    const avoid = [net('10.5.1.0/24')];
    const subnetOf = (result: ReturnType<typeof planLease>): string => {
      assert.ok(result.kind === 'create');
      return result.subnets.subnet.toString();
    };
    assert.equal(subnetOf(plan([], { network: two, avoid })), '10.5.2.0/24');
    assert.equal(subnetOf(plan([], { network: two, avoid, wishes: [{ subnet: net('10.5.1.0/24') }] })), '10.5.2.0/24');
    assert.equal(subnetOf(plan([leaseRecord(2)], { network: two, avoid })), '10.5.1.0/24');
    assert.throws(() => plan([leaseRecord(1), leaseRecord(2)], { network: two, avoid }), {
      code: 'ERR_OUT_OF_SUBNETS',
    });
  });

  it('leaves a reservation that does not fit alone', () => {
    const own = leaseRecord(200, { host: 100, isReservation: true });
    const narrow: NetworkConfig = { ...network(), ipv4: { ...range('10.5.0.0/16', 24), max: ip('10.5.9.0') } };
    const result = plan([own], { network: narrow });
    assert.ok(result.kind === 'create');
    assert.equal(result.replacing, undefined);
  });

  it('does not match hosts without an address', () => {
    const nobody = ip('0.0.0.0');
    const result = plan([leaseRecord(1, { attributes: { publicIp: nobody } })], { publicIp: nobody });
    assert.equal(result.kind, 'create');
  });

  it('says what to do when there is no free subnet', () => {
    const tiny: NetworkConfig = {
      ...network(),
      ipv4: { ...range('10.5.0.0/16', 24), min: ip('10.5.1.0'), max: ip('10.5.2.0') },
    };
    assert.throws(() => plan([leaseRecord(1), leaseRecord(2)], { network: tiny }), {
      code: 'ERR_OUT_OF_SUBNETS',
      message: /every \/24 from 10\.5\.1\.0 to 10\.5\.2\.0 is taken/,
      isRetryable: true,
      hint: /^widen SubnetMin and SubnetMax or Network, raise SubnetLen,/,
    });
    const ipv6 = dualNetwork.ipv6 && { ...dualNetwork.ipv6, max: ip('fd00:10:5:1::') };
    const taken = leaseRecord(1, { subnets: '10.5.1.0-24&fd00:10:5:1::-64' });
    assert.throws(() => plan([taken], { network: { ...dualNetwork, ipv6 } }), {
      hint: /^widen IPv6SubnetMin and IPv6SubnetMax or IPv6Network, raise IPv6SubnetLen,/,
    });
  });

  it('refuses an IPv6-only network', () => {
    assert.throws(() => plan([], { network: { ...dualNetwork, ipv4: undefined } }), { code: 'ERR_NETWORK_CONFIG' });
  });

  it('gives a host the same answer twice, and never a subnet of another host', () => {
    const hosts = fc.uniqueArray(fc.integer({ min: 1, max: 90 }), { maxLength: 40 });
    fc.assert(
      fc.property(
        hosts,
        fc.boolean(),
        fc.boolean(),
        fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
        (taken, wasDual, isDual, random) => {
          const leases = taken.map((n) => leaseRecord(n, { isDualStack: wasDual }));
          const wanted = isDual ? dualNetwork : network();
          const first = plan(leases, { network: wanted, random: () => random });
          assert.ok(first.kind === 'create');
          assert.ok(doesFit(wanted, first.subnets));
          assert.deepEqual(findOverlapping(first.subnets, leases), []);
          const own = leaseRecord(1, { host: 100, subnets: formatSubnetKey(first.subnets) });
          assert.deepEqual(plan([...leases, own], { network: wanted }), { kind: 'reuse', lease: own });
        },
      ),
    );
  });
});

function range(text: string, subnetLen: number): SubnetRange {
  const prefix = net(text);
  const step = 1n << BigInt((prefix.family === 4 ? 32 : 128) - subnetLen);
  return { network: prefix, subnetLen, min: prefix.address.add(step), max: prefix.last.add(1n - step) };
}

describe('listFree', () => {
  it('is what trying every subnet in turn would find', () => {
    const taken = fc.array(fc.tuple(fc.integer({ min: 0, max: 1023 }), fc.integer({ min: 18, max: 30 })), {
      maxLength: 25,
    });
    fc.assert(
      fc.property(taken, fc.integer({ min: 24, max: 28 }), (choices, subnetLen) => {
        const within = range('10.5.0.0/22', subnetLen);
        const others = choices.map(([offset, length]) => Prefix.of(ip('10.5.0.0').add(BigInt(offset)), length));
        const expected: string[] = [];
        const step = 1n << BigInt(32 - subnetLen);
        for (let at = within.min.value; at <= within.max.value && expected.length < 100; at += step) {
          const subnet = Prefix.of(IpAddress.fromValue(4, at), subnetLen);
          if (!others.some((other) => other.overlaps(subnet))) expected.push(subnet.toString());
        }
        assert.deepEqual(listFree(within, others).map(String), expected);
      }),
    );
  });

  it('leaves a subnet out of which the first address alone is taken, or the last', () => {
    const within = range('10.5.0.0/22', 24);
    assert.deepEqual(listFree(within, [net('10.5.1.0/32'), net('10.5.3.255/32')]).map(String), ['10.5.2.0/24']);
  });

  it('passes a wide taken range in one step', () => {
    const free = listFree(range('fd00::/16', 64), [net('fd00::/17')]);
    assert.equal(free.length, 100);
    assert.equal(free[0]?.toString(), 'fd00:8000::/64');
  });

  it('ignores the other family', () => {
    assert.equal(listFree(range('10.5.0.0/23', 24), [net('::/0')]).length, 1);
  });
});

describe('rivals of a lease', () => {
  const own = leaseRecord(7, { revision: 20, isDualStack: true });

  for (const [title, other, isRival, isOlder] of [
    ['an older key of the same subnet', leaseRecord(8, { key: 'x 10.5.7.0-24', subnets: '10.5.7.0-24' }), true, true],
    ['a younger key around it', leaseRecord(8, { subnets: '10.5.0.0-20', revision: 21 }), true, false],
    ['an older key inside it', leaseRecord(8, { subnets: '10.5.7.64-26' }), true, true],
    ['the same IPv6 subnet', leaseRecord(8, { subnets: '10.5.8.0-24&fd00:10:5:7::-64' }), true, true],
    ['an IPv6 subnet around it', leaseRecord(8, { subnets: '10.5.8.0-24&fd00:10:5::-48' }), true, true],
    ['a neighbour', leaseRecord(8, { isDualStack: true }), false, false],
    ['another key of the same host', leaseRecord(8, { host: 7, subnets: '10.5.0.0-20' }), false, false],
    ['itself', own, false, false],
  ] as const) {
    it(`${isRival ? 'count' : 'do not count'} ${title}`, () => {
      const known = { leases: [other], bad: [] };
      assert.deepEqual(findRivals(own, known), isRival ? [other] : []);
      assert.equal(findOlderRival(own, known), isOlder ? other : undefined);
    });
  }

  it('count an unreadable value under a key that names one of its addresses', () => {
    const [older, younger] = [badEntry('10.5.6.0-23'), badEntry('10.5.7.0-25', 21)];
    const known = { leases: [], bad: [younger, older, badEntry('junk'), badEntry('10.5.8.0-24')] };
    assert.deepEqual(findRivals(own, known), [younger, older]);
    assert.equal(findOlderRival(own, known), older);
  });

  it('count every other key of a network in which hosts have no address', () => {
    const anonymous = leaseRecord(7, { revision: 20, attributes: { publicIp: ip('0.0.0.0') } });
    const other = leaseRecord(8, { subnets: '10.5.6.0-23', attributes: { publicIp: ip('0.0.0.0') } });
    assert.equal(findOlderRival(anonymous, { leases: [anonymous, other], bad: [] }), other);
  });
});

describe('doesFit', () => {
  for (const [title, wanted, subnets, expected] of [
    ['IPv4 in range', network(), ['10.5.1.0/24'], true],
    ['the last subnet', network(), ['10.5.255.0/24'], true],
    ['IPv4 in a network without', { ...dualNetwork, ipv4: undefined }, ['10.5.1.0/24'], false],
    ['below the first', network(), ['10.5.0.0/24'], false],
    ['of another length', network(), ['10.5.2.0/23'], false],
    ['dual-stack in an IPv4 network', network(), ['10.5.1.0/24', 'fd00:10:5:1::/64'], false],
    ['IPv4 in a dual-stack network', dualNetwork, ['10.5.1.0/24'], false],
    ['dual-stack in range', dualNetwork, ['10.5.1.0/24', 'fd00:10:5:1::/64'], true],
    ['dual-stack with IPv6 out of range', dualNetwork, ['10.5.1.0/24', 'fd00:10:6:1::/64'], false],
  ] as const) {
    it(`${expected ? 'accepts' : 'refuses'} ${title}`, () => {
      const [v4 = '', v6] = subnets as readonly string[];
      assert.equal(doesFit(wanted, { subnet: net(v4), ipv6Subnet: v6 === undefined ? undefined : net(v6) }), expected);
    });
  }
});
