import assert from 'node:assert/strict';
import fc from 'fast-check';
import { formatPoolId, isNetworkName, parsePoolId, poolPath } from '../../../src/container/pool-id.js';
import { IpAddress } from '../../../src/ip/address.js';
import { Prefix } from '../../../src/ip/prefix.js';
import { net } from '../../support/builders.js';

describe('PoolId', () => {
  const name = fc.option(fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$/), { nil: undefined });
  const subnet = fc
    .tuple(fc.constantFrom(4 as const, 6 as const), fc.bigInt(0n, (1n << 128n) - 1n), fc.nat(128), fc.nat(128))
    .map(([family, value, a, b]) => {
      const [length = 0, rangeLength = 0] = [a, b].map((n) => n % (family === 4 ? 33 : 129)).sort((x, y) => x - y);
      const range = Prefix.of(IpAddress.fromValue(family, value), rangeLength);
      return { subnet: Prefix.of(range.address, length), range };
    });

  it('says name, subnet and range', () => {
    const [subnet, range] = [net('10.10.10.0/24'), net('10.10.10.128/25')];
    assert.equal(formatPoolId({ name: 'lan', subnet, range }), 'lan/10.10.10.0-24/10.10.10.128-25');
    assert.equal(poolPath({ name: undefined, subnet }), '-/10.10.10.0-24');
    const v6 = net('fd00:10:0::/64');
    assert.equal(formatPoolId({ name: undefined, subnet: v6, range: v6 }), '-/fd00:10::-64/fd00:10::-64');
  });

  it('is read as what it was made of', () => {
    fc.assert(
      fc.property(name, subnet, (name, { subnet, range }) => {
        const text = formatPoolId({ name, subnet, range });
        assert.deepEqual(
          JSON.parse(JSON.stringify(parsePoolId(text))),
          JSON.parse(JSON.stringify({ name, subnet, range })),
        );
      }),
    );
  });

  for (const [title, text] of [
    ['host bits', '-/10.10.10.1-24/10.10.10.0-24'],
    ['IPv6 in capitals', '-/FD00::-64/fd00::-64'],
    ['IPv6 that is not canonical', '-/fd00:0::-64/fd00::-64'],
    ['a length with zeros', '-/10.0.0.0-08/10.0.0.0-8'],
    ['a range outside of the subnet', '-/10.10.10.0-24/10.10.11.0-25'],
    ['a range of the other family', '-/10.10.10.0-24/fd00::-64'],
    ['a path in the name', '../10.10.10.0-24/10.10.10.0-24'],
    ['a missing part', 'lan/10.10.10.0-24'],
    ['a further part', 'lan/10.10.10.0-24/10.10.10.0-24/'],
    ['an empty name', '/10.10.10.0-24/10.10.10.0-24'],
    ['a line feed', 'lan/10.10.10.0-24/10.10.10.0-24\n'],
    ['a name that is too long', `${'a'.repeat(64)}/10.10.10.0-24/10.10.10.0-24`],
    ['a megabyte', 'a'.repeat(1024 * 1024)],
  ] as const) {
    it(`is not one with ${title}`, () => {
      assert.throws(() => parsePoolId(text), { code: 'ERR_ADDRESS_POOL' });
    });
  }

  it('is not made of a name that is none, or a range outside of the subnet', () => {
    const subnet = net('10.10.10.0/24');
    for (const bad of ['', '-', '.hidden', 'a/b', 'a b', 'ü', 'a\n']) {
      assert.equal(isNetworkName(bad), false, bad);
      assert.throws(() => formatPoolId({ name: bad, subnet, range: subnet }), { code: 'ERR_ADDRESS_POOL' });
    }
    assert.throws(() => formatPoolId({ name: 'lan', subnet, range: net('10.10.0.0/16') }), /outside/);
  });
});
