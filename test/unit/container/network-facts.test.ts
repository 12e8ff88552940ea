import assert from 'node:assert/strict';
import fc from 'fast-check';
import { decodePlace, encodePlace, placePath } from '../../../src/container/host-place.js';
import { isSameFact, readFact } from '../../../src/container/network-facts.js';
import { PoolPaths, encodeHolder, encodeRecord } from '../../../src/container/records.js';
import { ip } from '../../support/builders.js';
import { WEB, addressEntry, blockEntry, memberEntry, networkEntry, placeEntry } from '../../support/reach-entries.js';

describe('what keys say of where packets for containers go', () => {
  for (const [properties, expected] of [
    [{ type: 'overlay' }, 'overlay'],
    [{ type: 'bridge' }, 'direct'],
    [{ type: 'ipvlan', mode: 'l3' }, 'direct'],
    [{ type: 'ipvlan', mode: 'l3s' }, 'direct'],
    [{ type: 'ipvlan', mode: 'l2' }, 'none'],
    [{ type: 'ipvlan' }, 'none'],
    [{ type: 'macvlan' }, 'none'],
    [{}, 'none'],
  ] as const) {
    it(`takes a network with ${JSON.stringify(properties)} for ${expected}`, () => {
      const fact = readFact(networkEntry(properties));
      assert.equal(typeof fact === 'object' && fact.kind === 'network' ? fact.routedBy : fact, expected);
    });
  }

  it('knows which networks have a route to the whole subnet on each host', () => {
    const isConnected = (properties: Record<string, string>): unknown => {
      const fact = readFact(networkEntry(properties));
      return typeof fact === 'object' && fact.kind === 'network' && fact.isConnected;
    };
    assert.equal(isConnected({ type: 'bridge' }), true);
    assert.equal(isConnected({ type: 'bridge', address: 'host' }), false);
    assert.equal(isConnected({ type: 'overlay' }), false);
    assert.equal(isConnected({ type: 'ipvlan', mode: 'l3' }), false);
  });

  it('knows which networks are behind rules of the hosts', () => {
    const isFiltered = (properties: Record<string, string>): unknown => {
      const fact = readFact(networkEntry(properties));
      return typeof fact === 'object' && fact.kind === 'network' && fact.isFiltered;
    };
    assert.equal(isFiltered({ type: 'bridge' }), true);
    assert.equal(isFiltered({ type: 'overlay' }), true);
    assert.equal(isFiltered({ type: 'ipvlan', mode: 'l3' }), false);
  });

  it('reads members, blocks, addresses and places', () => {
    const pool = 'web/10.99.0.0-24';
    assert.deepEqual(readFact(memberEntry('a')), { kind: 'member', pool, host: 'a' });
    const block = readFact(blockEntry('a', '10.99.0.16/28', { own: 6n }));
    assert.ok(typeof block === 'object' && block.kind === 'block');
    assert.deepEqual([block.pool, block.host, block.block.toString(), block.own], [pool, 'a', '10.99.0.16/28', 6n]);
    const single = readFact(addressEntry('b', '10.99.0.20'));
    assert.ok(typeof single === 'object' && single.kind === 'address');
    assert.deepEqual([single.pool, single.host, single.address.toString()], [pool, 'b', '10.99.0.20']);
    const place = readFact(placeEntry('b', 2));
    assert.ok(typeof place === 'object' && place.kind === 'place');
    assert.deepEqual([place.host, place.place.leaseKey], ['b', '10.5.2.0-24']);
  });

  it('takes nothing of gateways and auxiliary addresses, which no container has', () => {
    const paths = new PoolPaths(WEB);
    const address = ip('10.99.0.1');
    const shared = {
      path: paths.shared(address, 'a'),
      text: encodeHolder({ host: 'a', kind: 'gateway' }),
      createdAt: '1',
    };
    assert.equal(readFact(shared), 'none');
    const held = {
      path: paths.container(address),
      text: encodeHolder({ host: 'a', kind: 'auxiliary' }),
      createdAt: '1',
    };
    assert.equal(readFact(held), 'none');
  });

  it('calls bad what no host writes', () => {
    const { path: record } = networkEntry({ type: 'bridge' });
    const { path: block, text } = blockEntry('a', '10.99.0.16/28');
    const outside = encodeRecord({ range: WEB.range, properties: { type: 'bridge' } });
    for (const [path, written] of [
      [record, '{'],
      ['network-records/web/10.98.0.0-24', outside],
      [block, '[]'],
      [`${block}0`, text],
      ['networks/web', text],
      ['networks/web/10.99.0.0-24/other/x', text],
      [addressEntry('a', '10.99.0.20').path, 'x'],
      [addressEntry('a', '10.98.0.20').path, addressEntry('a', '10.98.0.20').text],
      [placePath('a/b'), placeEntry('a', 1).text],
      [placePath('a'), '{"v4":"2001:db8::1","lease":"10.5.1.0-24"}'],
      [placePath('a'), '{"v4":"192.0.2.1"}'],
    ] as const) {
      assert.equal(readFact({ path, text: written, createdAt: '1' }), 'bad', `${path} ${written}`);
    }
  });

  it('never throws, whatever somebody wrote', () => {
    const paths = fc.oneof(
      fc.string().map((text) => `networks/${text}`),
      fc.string().map((text) => `network-records/${text}`),
      fc.string().map((text) => `network-places/${text}`),
      fc.constantFrom(networkEntry({}).path, blockEntry('a', '10.99.0.0/28').path, addressEntry('a', '10.99.0.9').path),
    );
    const texts = fc.oneof(fc.string(), fc.json());
    fc.assert(fc.property(paths, texts, (path, text) => void readFact({ path, text, createdAt: '1' })));
  });

  it('reads a place as it was written', () => {
    const octet = fc.integer({ min: 0, max: 255 });
    fc.assert(
      fc.property(octet, octet, fc.boolean(), (a, b, hasV6) => {
        const addresses = { 4: ip(`192.0.${a}.${b}`), ...(hasV6 && { 6: ip(`2001:db8::${a}:${b}`) }) };
        const place = { addresses, leaseKey: `10.${a}.${b}.0-24` };
        assert.deepEqual(decodePlace(encodePlace(place)), place);
      }),
    );
  });

  it('tells apart what matters for packets', () => {
    const fact = (entry: Parameters<typeof readFact>[0]): Exclude<ReturnType<typeof readFact>, string> => {
      const read = readFact(entry);
      assert.ok(typeof read === 'object');
      return read;
    };
    const all = [
      fact(networkEntry({ type: 'bridge' })),
      fact(networkEntry({ type: 'bridge', address: 'host' })),
      fact(networkEntry({ type: 'overlay' })),
      fact(networkEntry({ type: 'bridge', 'shared-low-bits': '24' })),
      fact(networkEntry({ type: 'bridge' }, { createdAt: '6' })),
      fact(memberEntry('a')),
      fact(memberEntry('b')),
      fact(blockEntry('a', '10.99.0.16/28')),
      fact(blockEntry('b', '10.99.0.16/28')),
      fact(blockEntry('a', '10.99.0.16/28', { own: 1n })),
      fact(addressEntry('a', '10.99.0.16')),
      fact(addressEntry('b', '10.99.0.16')),
      fact(placeEntry('a', 1)),
      fact(placeEntry('a', 2)),
    ];
    for (const [i, a] of all.entries()) {
      assert.equal(isSameFact(undefined, a), false);
      for (const [j, b] of all.entries()) assert.equal(isSameFact(a, b), i === j, `${i} ${j}`);
    }
  });
});
