import assert from 'node:assert/strict';
import { isIPv4, isIPv6 } from 'node:net';
import fc from 'fast-check';
import { isOverlayError } from '../../../src/errors.js';
import { IpAddress } from '../../../src/ip/address.js';

const ip = (text: string): IpAddress => IpAddress.parse(text);

const anyV4 = fc.nat(0xffffffff).map((value) => IpAddress.fromValue(4, BigInt(value)));
// Groups from a small choice, so that runs of zeros of every length and place occur.
const anyV6 = fc.array(fc.constantFrom(0, 0, 0, 1, 0xdb8, 0xffff), { minLength: 8, maxLength: 8 }).map((groups) =>
  IpAddress.fromValue(
    6,
    groups.reduce((value, group) => (value << 16n) | BigInt(group), 0n),
  ),
);
const anyAddress = fc.oneof(anyV4, anyV6);

describe('IpAddress', () => {
  describe('parse', () => {
    for (const [text, family, value] of [
      ['0.0.0.0', 4, 0n],
      ['255.255.255.255', 4, 0xffffffffn],
      ['192.0.2.1', 4, 0xc0000201n],
      ['::', 6, 0n],
      ['::1', 6, 1n],
      ['1::', 6, 1n << 112n],
      ['2001:db8::1', 6, 0x20010db8n * (1n << 96n) + 1n],
      ['2001:DB8:0:0:0:0:0:1', 6, 0x20010db8n * (1n << 96n) + 1n],
      ['::ffff:192.0.2.1', 6, 0xffffc0000201n],
      ['1:2:3:4:5:6:192.0.2.1', 6, 0x0001_0002_0003_0004_0005_0006_c000_0201n],
      ['1::2:192.0.2.1', 6, (1n << 112n) + 0x2_c000_0201n],
      ['1:2:3:4:5:6:7::', 6, 0x0001_0002_0003_0004_0005_0006_0007_0000n],
    ] as const) {
      it(`reads ${text}`, () => {
        assert.equal(ip(text).family, family);
        assert.equal(ip(text).value, value);
      });
    }

    for (const text of [
      ...[
        '',
        '1',
        '1.2.3',
        '1.2.3.4.5',
        '256.0.0.1',
        '01.2.3.4',
        '1.2.3.04',
        '1..2.3',
        ' 1.2.3.4',
        '1.2.3.4 ',
        '0x1.2.3.4',
      ],
      ...[
        ':',
        ':::',
        '1:2:3:4:5:6:7',
        '1:2:3:4:5:6:7:8:9',
        '1::2::3',
        '12345::',
        'g::',
        '::1%eth0',
        '1:2:3:4:5:6:7:8::',
      ],
      ...['::192.0.2', '192.0.2.1::', '::192.0.2.1:1', '::1.2.3.4:', ':1:2:3:4:5:6:7', '1:2:3:4:5:6:7:', '::01.2.3.4'],
      ...['1:2:3:4:5:6:7:1.2.3.4', '::/0', '[::1]', '١.2.3.4'],
    ]) {
      it(`refuses "${text}"`, () => {
        assert.equal(IpAddress.tryParse(text), undefined);
        assert.throws(
          () => ip(text),
          (error) => isOverlayError(error, 'ERR_IP_SYNTAX') && error.message.includes(`"${text}"`),
        );
      });
    }

    it('takes exactly what Node takes for an address without a zone', () => {
      const piece = fc.constantFrom(
        '0',
        '1',
        '00',
        '25',
        '255',
        '256',
        'f',
        'ffff',
        '12345',
        '.',
        ':',
        '::',
        '192.0.2.1',
        '%',
      );
      fc.assert(
        fc.property(fc.array(piece, { maxLength: 10 }), (pieces) => {
          const text = pieces.join('');
          const isAddress = isIPv4(text) || (isIPv6(text) && !text.includes('%'));
          assert.equal(IpAddress.tryParse(text) !== undefined, isAddress, text);
        }),
        { numRuns: 5000 },
      );
    });
  });

  describe('toString', () => {
    for (const [text, canonical] of [
      // RFC 5952 4.1 to 4.3
      ['2001:0db8:0:0:0:0:0:0001', '2001:db8::1'],
      ['2001:db8:0:0:0:0:2:1', '2001:db8::2:1'],
      ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
      ['2001:0:0:1:0:0:0:1', '2001:0:0:1::1'],
      ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
      ['2001:DB8:AAAA::', '2001:db8:aaaa::'],
      ['0:0:0:0:0:0:0:0', '::'],
      ['0:1:2:3:4:5:6:7', '0:1:2:3:4:5:6:7'],
      ['::ffff:192.0.2.1', '::ffff:c000:201'],
      ['192.0.2.1', '192.0.2.1'],
    ] as const) {
      it(`writes ${text} as ${canonical}`, () => {
        assert.equal(ip(text).toString(), canonical);
        assert.equal(JSON.stringify(ip(text)), JSON.stringify(canonical));
      });
    }

    it('is the canonical form of URLs, which is RFC 5952', () => {
      fc.assert(
        fc.property(anyV6, (address) => {
          assert.equal(`[${address.toString()}]`, new URL(`http://[${address.toString()}]/`).hostname);
        }),
      );
    });

    it('is read back as the same address', () => {
      fc.assert(
        fc.property(anyAddress, (address) => {
          const back = ip(address.toString());
          assert.ok(back.equals(address));
          assert.deepEqual(back, address);
        }),
      );
    });
  });

  it('turns into bytes in network order and back', () => {
    assert.deepEqual([...ip('192.0.2.1').toBytes()], [192, 0, 2, 1]);
    assert.deepEqual([...ip('2001:db8::ff').toBytes()], [0x20, 1, 0xd, 0xb8, ...Array<number>(11).fill(0), 0xff]);
    fc.assert(fc.property(anyAddress, (address) => IpAddress.fromBytes(address.toBytes()).equals(address)));
  });

  it('refuses bytes that are neither four nor sixteen', () => {
    for (const length of [0, 3, 5, 15, 17]) {
      assert.throws(
        () => IpAddress.fromBytes(new Uint8Array(length)),
        (error) => isOverlayError(error, 'ERR_IP_SYNTAX') && error.message.includes(`${length} bytes`),
      );
    }
  });

  it('adds within its family and wraps at the end', () => {
    assert.equal(ip('10.5.0.255').add(1n).toString(), '10.5.1.0');
    assert.equal(ip('255.255.255.255').add(1n).toString(), '0.0.0.0');
    assert.equal(ip('::').add(-1n).toString(), 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff');
    fc.assert(
      fc.property(anyAddress, fc.bigInt(), (address, offset) => address.add(offset).add(-offset).equals(address)),
    );
  });

  it('is equal only to the same value of the same family', () => {
    assert.equal(ip('0.0.0.1').equals(ip('::1')), false);
    assert.equal(ip('::1').equals(undefined), false);
    assert.equal(ip('::1').equals(ip('0::1')), true);
  });

  it('sorts IPv4 before IPv6, then by value', () => {
    const sorted = ['9.0.0.0', '10.0.0.0', '255.0.0.0', '::1', '2001:db8::', 'fe80::'];
    const shuffled = [4, 1, 5, 0, 3, 2].map((place) => ip(sorted[place]!));
    assert.deepEqual(shuffled.sort((left, right) => left.compare(right)).map(String), sorted);
    assert.equal(ip('::1').compare(ip('::1')), 0);
  });

  for (const [text, kinds] of [
    ['0.0.0.0', ['isUnspecified']],
    ['::', ['isUnspecified']],
    ['127.0.0.1', ['isLoopback']],
    ['127.255.255.255', ['isLoopback']],
    ['::1', ['isLoopback']],
    ['169.254.0.1', ['isLinkLocal']],
    ['fe80::1', ['isLinkLocal']],
    ['febf::1', ['isLinkLocal']],
    ['224.0.0.1', ['isMulticast']],
    ['239.255.255.255', ['isMulticast']],
    ['ff02::1', ['isMulticast']],
    ['255.255.255.255', []],
    ['192.0.2.1', ['isGlobalUnicast']],
    ['10.0.0.1', ['isGlobalUnicast']],
    ['126.255.255.255', ['isGlobalUnicast']],
    ['169.253.0.1', ['isGlobalUnicast']],
    ['240.0.0.1', ['isGlobalUnicast']],
    ['2001:db8::1', ['isGlobalUnicast']],
    ['fd00::1', ['isGlobalUnicast']],
    ['fec0::1', ['isGlobalUnicast']],
  ] as const) {
    it(`calls ${text} ${kinds.join(' and ') || 'nothing special'}`, () => {
      const address = ip(text);
      const all = ['isUnspecified', 'isLoopback', 'isLinkLocal', 'isMulticast', 'isGlobalUnicast'] as const;
      assert.deepEqual(
        all.filter((kind) => address[kind]),
        kinds,
      );
    });
  }
});
