import assert from 'node:assert/strict';
import fc from 'fast-check';
import { IpAddress } from '../../../src/ip/address.js';
import { Prefix } from '../../../src/ip/prefix.js';
import { formatSubnetKey, parseSubnetKey } from '../../../src/lease/subnet-key.js';
import { net } from '../../support/builders.js';

describe('subnet key', () => {
  const dual = { subnet: net('10.5.34.0/24'), ipv6Subnet: net('fd00:10:5:22::/64') };

  it('is written as flannel writes it', () => {
    assert.equal(formatSubnetKey({ ...dual, ipv6Subnet: undefined }), '10.5.34.0-24');
    assert.equal(formatSubnetKey(dual), '10.5.34.0-24&fd00:10:5:22::-64');
    assert.equal(
      formatSubnetKey({ ...dual, ipv6Subnet: net('2001:DB8:0:0:1::/80') }),
      '10.5.34.0-24&2001:db8:0:0:1::-80',
    );
  });

  const v4 = fc.tuple(fc.bigInt(0n, 0xffff_ffffn), fc.integer({ min: 0, max: 32 }));
  const v6 = fc.tuple(fc.bigInt(0n, (1n << 128n) - 1n), fc.integer({ min: 0, max: 128 }));

  it('survives writing and reading, whatever stands in front', () => {
    fc.assert(
      fc.property(v4, fc.option(v6, { nil: undefined }), fc.stringMatching(/^[a-z_ ]{0,5}$/), (a, b, front) => {
        const subnet = Prefix.of(IpAddress.fromValue(4, a[0]), a[1]);
        const ipv6Subnet = b && Prefix.of(IpAddress.fromValue(6, b[0]), b[1]);
        const read = parseSubnetKey(front + formatSubnetKey({ subnet, ipv6Subnet }));
        assert.ok(read.subnet.equals(subnet));
        assert.equal(read.ipv6Subnet?.toString(), ipv6Subnet?.toString());
      }),
    );
  });

  for (const [key, subnet, ipv6Subnet] of [
    ['10.5.34.0-24', '10.5.34.0/24', undefined],
    ['10.5.34.7-24', '10.5.34.0/24', undefined],
    ['10.5.34.0-024', '10.5.34.0/24', undefined],
    ['1.10.5.34.0-24', '10.5.34.0/24', undefined],
    ['node-a 10.5.34.0-24', '10.5.34.0/24', undefined],
    ['0.0.0.0-0', '0.0.0.0/0', undefined],
    ['10.5.34.1-32', '10.5.34.1/32', undefined],
    ['10.5.34.0-24&fd00:0:0:0::1-64', '10.5.34.0/24', 'fd00::/64'],
    ['10.5.34.0-24&fd00::1-128', '10.5.34.0/24', 'fd00::1/128'],
  ] as const) {
    it(`reads ${key}`, () => {
      const read = parseSubnetKey(key);
      assert.equal(read.subnet.toString(), subnet);
      assert.equal(read.ipv6Subnet?.toString(), ipv6Subnet);
    });
  }

  for (const [key, cause] of [
    ['', /does not end in/],
    ['.lock', /does not end in/],
    ['10.5.34.0', /does not end in/],
    ['10.5.34.0/24', /deeper/],
    ['old/10.5.34.0-24', /deeper/],
    ['10.5.34.0-24 ', /does not end in/],
    ['10.5.34.0-24&', /does not end in/],
    ['10.5x34x0-24', /is not an IPv4 address/],
    ['10.5.034.0-24', /is not an IPv4 address/],
    ['10.5.256.0-24', /is not an IPv4 address/],
    ['10.5.34.0-33', /33 is no prefix length/],
    ['10.5.34.0-24&fd00::-129', /129 is no prefix length/],
    ['10.5.34.0-24&fd00-64', /is not an IPv6 address/],
    ['10.5.34.0-24&FD00::-64', /does not end in/],
    ['fd00::-64', /does not end in/],
  ] as const) {
    it(`refuses "${key}" and says why`, () => {
      assert.throws(() => parseSubnetKey(key), { code: 'ERR_LEASE_KEY', message: cause });
    });
  }
});
