import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { PoolIdentity } from '../../../src/container/pool-id.js';
import { type UpstreamRoutes, aggregate, formatRoute, upstreamRoutes } from '../../../src/container/upstream-routes.js';
import { Prefix } from '../../../src/ip/prefix.js';
import { ip, net } from '../../support/builders.js';
import { type ReachEntry, addressEntry, blockEntry, networkEntry, placeEntry } from '../../support/reach-entries.js';

const read = (entries: readonly ReachEntry[]): UpstreamRoutes =>
  upstreamRoutes(entries.map((entry) => ({ ...entry, revision: '1', etcdLeaseId: undefined })));

const told = ({ routes }: UpstreamRoutes): readonly string[] => routes.map((route) => formatRoute(route, 'linux'));

describe('routes for a router', () => {
  it('lead to blocks via their hosts, neighbouring ones together, and to single addresses elsewhere', () => {
    const entries = [
      networkEntry({ type: 'ipvlan', mode: 'l3' }),
      ...['10.99.0.0/28', '10.99.0.16/28', '10.99.0.48/28'].map((block) => blockEntry('a', block)),
      blockEntry('b', '10.99.0.32/28'),
      addressEntry('b', '10.99.0.5'),
      placeEntry('a', 1),
      placeEntry('b', 2),
    ];
    assert.deepEqual(told(read(entries)), [
      'ip route replace 10.99.0.0/27 via 192.0.2.1',
      'ip route replace 10.99.0.5/32 via 192.0.2.2',
      'ip route replace 10.99.0.32/28 via 192.0.2.2',
      'ip route replace 10.99.0.48/28 via 192.0.2.1',
    ]);
  });

  it('lead nowhere else: the overlay and networks that are one segment need none', () => {
    for (const properties of [{ type: 'overlay' }, { type: 'macvlan' }, { type: 'ipvlan', mode: 'l2' }]) {
      const result = read([networkEntry(properties), blockEntry('a', '10.99.0.0/28'), placeEntry('a', 1)]);
      assert.deepEqual(result, { routes: [], unplaced: [], refused: [] });
    }
  });

  it('name what is left out', () => {
    const six: PoolIdentity = { name: 'six', subnet: net('fd00:99::/64'), range: net('fd00:99::/64') };
    const { routes, unplaced, refused } = read([
      networkEntry({ type: 'bridge' }),
      blockEntry('a', '10.99.0.0/28'),
      networkEntry({ type: 'bridge' }, { pool: six }),
      blockEntry('b', 'fd00:99::/122', { pool: six }),
      placeEntry('b', 2),
      { path: 'network-records/bad/10.97.0.0-24', text: '?', createdAt: '1' },
    ]);
    assert.deepEqual([routes, unplaced, refused], [[], ['a', 'b'], ['network-records/bad/10.97.0.0-24']]);
  });

  for (const [destination, via, linux, cisco, juniper] of [
    [
      '10.99.0.0/27',
      '192.0.2.1',
      'ip route replace 10.99.0.0/27 via 192.0.2.1',
      'ip route 10.99.0.0 255.255.255.224 192.0.2.1',
      'set routing-options static route 10.99.0.0/27 next-hop 192.0.2.1',
    ],
    [
      'fd00:99::40/122',
      '2001:db8::2',
      'ip -6 route replace fd00:99::40/122 via 2001:db8::2',
      'ipv6 route fd00:99::40/122 2001:db8::2',
      'set routing-options rib inet6.0 static route fd00:99::40/122 next-hop 2001:db8::2',
    ],
  ] as const) {
    it(`are told in the words of the router: to ${destination}`, () => {
      const route = { destination: net(destination), via: ip(via) };
      const all = (['linux', 'cisco', 'juniper'] as const).map((format) => formatRoute(route, format));
      assert.deepEqual(all, [linux, cisco, juniper]);
    });
  }
});

describe('aggregate', () => {
  it('has the same addresses in the fewest prefixes', () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.nat(31)), (numbers) => {
        const hosts = numbers.toSorted((a, b) => a - b).map((n) => Prefix.host(ip('10.99.0.0').add(BigInt(n))));
        const merged = aggregate(hosts);
        for (let n = 0; n < 32; n++) {
          const address = ip('10.99.0.0').add(BigInt(n));
          assert.equal(merged.filter((each) => each.contains(address)).length, Number(numbers.includes(n)));
        }
        const halves = new Set(
          merged.map((each) => `${Prefix.of(each.address, each.length - 1).toString()} ${each.length}`),
        );
        assert.equal(halves.size, merged.length, 'two halves of one prefix');
      }),
    );
  });
});
