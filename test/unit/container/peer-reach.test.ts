import assert from 'node:assert/strict';
import type { HostPlace } from '../../../src/container/host-place.js';
import { type PlacedHosts, hostAddresses, placeHosts } from '../../../src/container/peer-reach.js';
import type { Lease } from '../../../src/lease/lease.js';
import { ip, lease, net } from '../../support/builders.js';

const PREFIXES = { direct: [net('10.98.0.0/28')], overlay: [net('10.99.0.0/28'), net('10.99.0.40/32')] };

const place = (n: number, options: Partial<HostPlace> = {}): HostPlace => ({
  addresses: { 4: ip(`192.0.2.${n}`) },
  leaseKey: `10.5.${n}.0-24`,
  ...options,
});

describe('placeHosts', () => {
  const put = (told: HostPlace | undefined, peers: readonly Lease[] = [lease(1), lease(2)]): PlacedHosts =>
    placeHosts(
      { others: new Map([['a', PREFIXES]]), places: new Map(told && [['a', told]]) },
      peers,
      (address) => !address.isMulticast,
    );

  it('finds the peer whose lease a host names', () => {
    const { peers, unplaced } = put(place(2));
    assert.equal(unplaced.length, 0);
    assert.equal(peers.length, 1);
    assert.equal(peers[0]?.lease.subnet.toString(), '10.5.2.0/24');
    assert.deepEqual([peers[0].direct, peers[0].overlay], [PREFIXES.direct, PREFIXES.overlay]);
    assert.equal(peers[0].gateways[4]?.toString(), '192.0.2.2');
    assert.equal(peers[0].gateways[6], undefined);
  });

  for (const [title, told, detail] of [
    ['that does not tell where it is', undefined, /does not tell/],
    ['that names a lease that no peer has', place(3), /10\.5\.3\.0-24, which no peer has/],
    ['that names the lease of another host', place(2, { leaseKey: '10.5.1.0-24' }), /has other addresses/],
    ['that names no address', place(2, { addresses: {} }), /has other addresses/],
  ] as const) {
    it(`sends nothing to a host ${title}`, () => {
      const { peers, unplaced } = put(told);
      assert.deepEqual(peers, []);
      assert.deepEqual(
        unplaced.map(({ host, prefixes }) => [host, prefixes]),
        [['a', 3]],
      );
      assert.match(unplaced[0]?.detail ?? '', detail);
    });
  }

  it('compares the IPv6 address where the lease has one, and else takes one that is fit', () => {
    const dual = [lease(2, { isDualStack: true })];
    const leaseKey = '10.5.2.0-24&fd00:10:5:2::-64';
    const both = (v6: string): HostPlace['addresses'] => ({ 4: ip('192.0.2.2'), 6: ip(v6) });
    assert.equal(put(place(2, { leaseKey, addresses: both('2001:db8::2') }), dual).peers.length, 1);
    assert.equal(put(place(2, { leaseKey, addresses: both('2001:db8::3') }), dual).peers.length, 0);
    const [single] = put(place(2, { addresses: both('2001:db8::9') })).peers;
    assert.equal(single?.gateways[6]?.toString(), '2001:db8::9');
    const [unfit] = put(place(2, { addresses: both('ff02::1') })).peers;
    assert.deepEqual([unfit?.gateways[4]?.toString(), unfit?.gateways[6]], ['192.0.2.2', undefined]);
  });

  it('puts hosts together that name one lease, and peers in the order of their leases', () => {
    const others = new Map([
      ['a', PREFIXES],
      ['b', { direct: [net('10.98.0.16/28')], overlay: [] }],
      ['c', { direct: [], overlay: [net('10.99.0.64/28')] }],
    ]);
    const places = new Map([
      ['a', place(2)],
      ['b', place(2)],
      ['c', place(1)],
    ]);
    const { peers } = placeHosts({ others, places }, [lease(1), lease(2)], () => true);
    assert.deepEqual(
      peers.map((peer) => [peer.lease.subnet.toString(), [...peer.direct, ...peer.overlay].map(String)]),
      [
        ['10.5.1.0/24', ['10.99.0.64/28']],
        ['10.5.2.0/24', ['10.98.0.0/28', '10.98.0.16/28', '10.99.0.0/28', '10.99.0.40/32']],
      ],
    );
  });
});

describe('hostAddresses', () => {
  it('has those of hosts without containers, as far as a lease says the same', () => {
    const v6 = (text: string): HostPlace['addresses'] => ({ 4: ip('192.0.2.1'), 6: ip(text) });
    const places = new Map([
      ['a', place(1, { addresses: v6('2001:db8::1') })],
      ['b', place(2, { leaseKey: '10.5.1.0-24' })],
      ['c', place(3)],
      ['d', place(1, { addresses: v6('ff02::1') })],
    ]);
    const found = hostAddresses(places, [lease(1), lease(2)], (address) => !address.isMulticast);
    assert.deepEqual(found.map(String), ['192.0.2.1', '2001:db8::1', '192.0.2.1']);
  });
});
