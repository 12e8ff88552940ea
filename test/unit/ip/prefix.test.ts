import assert from 'node:assert/strict';
import fc from 'fast-check';
import { isOverlayError } from '../../../src/errors.js';
import { IpAddress } from '../../../src/ip/address.js';
import { Prefix } from '../../../src/ip/prefix.js';

const prefix = (text: string): Prefix => Prefix.parse(text);

/** Networks of so few addresses that sets of numbers can stand for them. */
const small = fc
  .tuple(fc.nat(63), fc.integer({ min: 26, max: 32 }))
  .map(([value, length]) => Prefix.of(IpAddress.fromValue(4, BigInt(value)), length));

function members(network: Prefix): Set<bigint> {
  const size = 2 ** (32 - network.length);
  return new Set(Array.from({ length: size }, (_, place) => network.address.value + BigInt(place)));
}

describe('Prefix', () => {
  for (const [text, masked] of [
    ['10.5.3.9/16', '10.5.0.0/16'],
    ['10.5.3.9/0', '0.0.0.0/0'],
    ['10.5.3.9/32', '10.5.3.9/32'],
    ['2001:DB8:1::5/48', '2001:db8:1::/48'],
    ['2001:db8::1/0', '::/0'],
    ['2001:db8::1/128', '2001:db8::1/128'],
  ] as const) {
    it(`reads ${text} as ${masked}`, () => {
      assert.equal(prefix(text).toString(), masked);
      assert.equal(JSON.stringify(prefix(text)), JSON.stringify(masked));
    });
  }

  for (const text of [
    '',
    '10.5.0.0',
    '10.5.0.0/',
    '10.5.0.0/33',
    '::/129',
    '10.5.0.0/-1',
    '10.5.0.0/016',
    '10.5.0.0/+8',
    '10.5.0.0/8/8',
    '/8',
    '10.5.0/8',
    '10.5.0.0/8 ',
    '10.5.0.0/1e1',
  ]) {
    it(`refuses "${text}"`, () => {
      assert.equal(Prefix.tryParse(text), undefined);
      assert.throws(
        () => prefix(text),
        (error) => isOverlayError(error, 'ERR_IP_SYNTAX') && error.message.includes(`"${text}"`),
      );
    });
  }

  it('is read back as the same network', () => {
    const address = fc.oneof(
      fc.nat(0xffffffff).map((value) => IpAddress.fromValue(4, BigInt(value))),
      fc.bigInt({ min: 0n, max: (1n << 128n) - 1n }).map((value) => IpAddress.fromValue(6, value)),
    );
    fc.assert(
      fc.property(address, fc.nat(128), (host, bits) => {
        const network = Prefix.of(host, Math.min(bits, host.family === 4 ? 32 : 128));
        assert.deepEqual(prefix(network.toString()), network);
        assert.ok(network.contains(host));
        assert.ok(network.contains(network.last));
        assert.equal(network.last.value - network.address.value + 1n, network.size);
      }),
    );
  });

  it('refuses a length that its family has not', () => {
    for (const [text, length] of [
      ['192.0.2.1', 33],
      ['192.0.2.1', -1],
      ['::1', 129],
      ['::1', 1.5],
    ] as const) {
      assert.throws(
        () => Prefix.of(IpAddress.parse(text), length),
        (error) => isOverlayError(error, 'ERR_IP_SYNTAX') && error.message.includes(String(length)),
      );
    }
  });

  it('makes a network of one address', () => {
    assert.equal(Prefix.host(IpAddress.parse('192.0.2.1')).toString(), '192.0.2.1/32');
    assert.equal(Prefix.host(IpAddress.parse('::1')).toString(), '::1/128');
    assert.equal(Prefix.host(IpAddress.parse('::1')).size, 1n);
  });

  it('knows size and ends', () => {
    assert.equal(prefix('10.5.0.0/16').size, 65536n);
    assert.equal(prefix('10.5.0.0/16').last.toString(), '10.5.255.255');
    assert.equal(prefix('0.0.0.0/0').last.toString(), '255.255.255.255');
    assert.equal(prefix('::/0').size, 1n << 128n);
    assert.equal(prefix('2001:db8::/64').last.toString(), '2001:db8::ffff:ffff:ffff:ffff');
    assert.equal(prefix('2001:db8::/64').family, 6);
  });

  it('agrees with sets of addresses on what contains, covers and overlaps what', () => {
    fc.assert(
      fc.property(small, small, (left, right) => {
        const [leftSet, rightSet] = [members(left), members(right)];
        assert.equal(
          left.covers(right),
          [...rightSet].every((value) => leftSet.has(value)),
        );
        assert.equal(
          left.overlaps(right),
          [...rightSet].some((value) => leftSet.has(value)),
        );
        assert.equal(left.contains(right.address), leftSet.has(right.address.value));
        assert.equal(left.equals(right), left.covers(right) && right.covers(left));
      }),
      { numRuns: 500 },
    );
  });

  it('never mixes families', () => {
    const [all4, all6] = [prefix('0.0.0.0/0'), prefix('::/0')];
    assert.equal(all4.contains(IpAddress.parse('::')), false);
    assert.equal(all4.covers(all6), false);
    assert.equal(all6.overlaps(all4), false);
    assert.equal(all6.equals(all4), false);
    assert.equal(all6.equals(undefined), false);
  });

  it('sorts by address, then the larger network first', () => {
    const sorted = ['9.0.0.0/8', '10.0.0.0/8', '10.0.0.0/16', '10.1.0.0/16', '::/0', '2001:db8::/32'];
    const shuffled = [3, 5, 0, 4, 2, 1].map((place) => prefix(sorted[place]!));
    assert.deepEqual(shuffled.sort((left, right) => left.compare(right)).map(String), sorted);
  });
});
