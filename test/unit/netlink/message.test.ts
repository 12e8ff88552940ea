import assert from 'node:assert/strict';
import os from 'node:os';
import fc from 'fast-check';
import { isOverlayError } from '../../../src/errors.js';
import { ADDRESS_BITS, IpAddress } from '../../../src/ip/address.js';
import { type MacAddress, macFromBytes, parseMac } from '../../../src/ip/mac.js';
import { Prefix } from '../../../src/ip/prefix.js';
import { readAddress, writeAddress } from '../../../src/netlink/address.js';
import { NLM_F, NLMSG } from '../../../src/netlink/constants.js';
import { type NewLink, readLink, writeLinkChange, writeNewLink } from '../../../src/netlink/link.js';
import type { IpipDetails, VxlanDetails } from '../../../src/netlink/link-details.js';
import { AttributeTable, MessageReader, MessageWriter, readAcknowledgement } from '../../../src/netlink/message.js';
import { decodeEvent } from '../../../src/netlink/monitor.js';
import { isFdb, readFdb, readNeigh, writeFdb, writeNeigh } from '../../../src/netlink/neighbour.js';
import { readRoute, writeDelRoute, writeNewRoute } from '../../../src/netlink/route.js';
import { ip, net } from '../../support/builders.js';

const writer = new MessageWriter();

/** The bytes of a message with sequence number 7. */
function bytesOf(type: number, fill: (writer: MessageWriter) => void, flags = 0x0605): Uint8Array {
  writer.start(type, flags, 7);
  fill(writer);
  return Uint8Array.from(writer.finish());
}

/** A reader that stands on the message. */
function readerOn(bytes: Uint8Array): MessageReader {
  const reader = new MessageReader(bytes).reset(bytes.length);
  assert.ok(reader.next());
  return reader;
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const spaced = (...parts: string[]): string => parts.join('').replaceAll(' ', '');

const families = fc.constantFrom(4 as const, 6 as const);
const addressOf = (family: 4 | 6): fc.Arbitrary<IpAddress> =>
  fc
    .bigInt({ min: 0n, max: (1n << BigInt(ADDRESS_BITS[family])) - 1n })
    .map((value) => IpAddress.fromValue(family, value));
const macs: fc.Arbitrary<MacAddress> = fc.uint8Array({ minLength: 6, maxLength: 6 }).map(macFromBytes);
const indexes = fc.integer({ min: 1, max: 0x7fffffff });
const routes = families.chain((family) =>
  fc.record({
    destination: fc
      .tuple(addressOf(family), fc.integer({ min: 0, max: ADDRESS_BITS[family] }))
      .map(([address, length]) => Prefix.of(address, length)),
    index: indexes,
    gateway: addressOf(family),
    isOnlink: fc.boolean(),
    scope: fc.constantFrom('global' as const, 'link' as const),
    protocol: fc.integer({ min: 1, max: 255 }),
    metric: fc.integer({ min: 1, max: 0xffffffff }),
    tos: fc.constantFrom(0, 0x10),
    prefsrc: addressOf(family),
    table: fc.constantFrom(254, 100, 1000),
  }),
);

describe('the netlink codec', function () {
  before(function () {
    // The expected bytes below are those of a little-endian machine.
    assert.equal(os.endianness(), 'LE');
  });

  it('writes a route as iproute2 does', () => {
    const bytes = bytesOf(NLMSG.RTM_NEWROUTE, (to) => {
      const gateway = ip('10.5.2.0');
      const more = { index: 4, gateway, isOnlink: true, scope: 'global', protocol: 173 } as const;
      writeNewRoute(to, { destination: net('10.5.2.0/24'), ...more });
    });
    const expected = spaced(
      '34000000 1800 0506 07000000 00000000', // length 52, RTM_NEWROUTE, flags, sequence, port
      '02 18 00 00 fe ad 00 01 04000000', // AF_INET /24, main table, protocol 173, universe, unicast, onlink
      '0800 0100 0a050200', // RTA_DST
      '0800 0400 04000000', // RTA_OIF
      '0800 0500 0a050200', // RTA_GATEWAY
    );
    assert.equal(hex(bytes), expected);
  });

  it('writes a forwarding entry as bridge does', () => {
    const bytes = bytesOf(NLMSG.RTM_NEWNEIGH, (to) => {
      writeFdb(to, { index: 4, mac: parseMac('02:42:ac:11:00:09'), destination: ip('192.0.2.9') });
    });
    const expected = spaced(
      '30000000 1c00 0506 07000000 00000000',
      '07 000000 04000000 8000 02 00', // AF_BRIDGE, index, NUD_PERMANENT, NTF_SELF
      '0a00 0200 0242ac110009 0000', // NDA_LLADDR, padded
      '0800 0100 c0000209', // NDA_DST
    );
    assert.equal(hex(bytes), expected);
  });

  it('writes a VXLAN device with its nested attributes', () => {
    const bytes = bytesOf(NLMSG.RTM_NEWLINK, (to) => {
      const link: NewLink = { kind: 'vxlan', name: 'v1', vni: 1, local: ip('192.0.2.1'), port: 8472, gbp: true };
      writeNewLink(to, link);
    });
    const expected = spaced(
      '60000000 1000 0506 07000000 00000000',
      '00 00 0000 00000000 00000000 00000000', // no index, no flags, none meant
      '0700 0300 763100 00', // IFLA_IFNAME "v1"
      '3800 1280', // IFLA_LINKINFO, nested
      '0a00 0100 76786c616e00 0000', // IFLA_INFO_KIND "vxlan"
      '2800 0280', // IFLA_INFO_DATA, nested
      '0800 0100 01000000', // ID
      '0800 0400 c0000201', // LOCAL
      '0600 0f00 2118 0000', // PORT 8472 in network order
      '0500 0700 00 000000', // LEARNING
      '0400 1700', // GBP, a flag
    );
    assert.equal(hex(bytes), expected);
  });

  it('writes the mode and the flag of an ipvlan device as ip link does', () => {
    const bytes = bytesOf(NLMSG.RTM_NEWLINK, (to) => {
      writeNewLink(to, { kind: 'ipvlan', name: 'l', lowerIndex: 4, mode: 'l3s', flag: 'vepa' });
    });
    const expected = spaced(
      '54000000 1000 0506 07000000 00000000',
      '00 00 0000 00000000 00000000 00000000',
      '0600 0300 6c00 0000', // IFLA_IFNAME "l"
      '0800 0500 04000000', // IFLA_LINK
      '2400 1280', // IFLA_LINKINFO, nested
      '0b00 0100 6970766c616e00 00', // IFLA_INFO_KIND "ipvlan"
      '1400 0280', // IFLA_INFO_DATA, nested
      '0600 0100 0200 0000', // MODE l3s
      '0600 0200 0200 0000', // FLAGS VEPA
    );
    assert.equal(hex(bytes), expected);
  });

  it('leaves the port to the kernel where none is given', () => {
    const withPort = bytesOf(NLMSG.RTM_NEWLINK, (to) => {
      writeNewLink(to, { kind: 'vxlan', name: 'v1', vni: 1, port: 0 });
    });
    const without = bytesOf(NLMSG.RTM_NEWLINK, (to) => {
      writeNewLink(to, { kind: 'vxlan', name: 'v1', vni: 1 });
    });
    assert.deepEqual(withPort, without);
  });

  it('sets only the flags that are meant', () => {
    const flags = (isUp: boolean | undefined): number[] => {
      const bytes = bytesOf(NLMSG.RTM_NEWLINK, (to) => {
        writeLinkChange(to, 4, isUp === undefined ? { mtu: 1400 } : { isUp });
      });
      const view = new DataView(bytes.buffer);
      return [view.getUint32(16 + 8, true), view.getUint32(16 + 12, true)];
    };
    assert.deepEqual(
      [flags(true), flags(false), flags(undefined)],
      [
        [1, 1],
        [0, 1],
        [0, 0],
      ],
    );
  });

  it('reads back every route it writes', () => {
    fc.assert(
      fc.property(routes, (route) => {
        const reader = readerOn(
          bytesOf(NLMSG.RTM_NEWROUTE, (to) => {
            writeNewRoute(to, route);
          }),
        );
        const read = readRoute(reader);
        assert.ok(read);
        assert.deepEqual(
          [read.destination.toString(), String(read.gateway), String(read.prefsrc)],
          [route.destination.toString(), route.gateway.toString(), route.prefsrc.toString()],
        );
        const plain = (from: Omit<typeof route, 'destination' | 'gateway' | 'prefsrc'>): unknown[] => {
          const { index, isOnlink, scope, protocol, metric, tos, table } = from;
          return [index, isOnlink, scope, protocol, metric, tos, table];
        };
        assert.deepEqual(plain(read as typeof route), plain(route));
        assert.equal(read.type, 'unicast');
      }),
    );
  });

  it('deletes by naming exactly what it is given', () => {
    const reader = readerOn(
      bytesOf(NLMSG.RTM_DELROUTE, (to) => {
        writeDelRoute(to, { destination: net('0.0.0.0/0'), metric: 100 });
      }),
    );
    // any protocol, any scope (nowhere), any type
    assert.deepEqual([reader.u8(5), reader.u8(6), reader.u8(7)], [0, 255, 0]);
    assert.equal(readRoute(reader)?.metric, 100);
  });

  it('reads all ways of a multipath route', () => {
    const bytes = bytesOf(NLMSG.RTM_NEWROUTE, (to) => {
      to.u8(2).u8(24).u8(0).u8(0).u8(254).u8(3).u8(0).u8(1).u32(0);
      to.attributeAddress(1, ip('10.5.2.0'));
      to.nested(9, () => {
        to.u16(16).u8(0).u8(0).u32(4).attributeAddress(5, ip('192.0.2.1'));
        to.u16(32)
          .u8(4)
          .u8(9)
          .u32(5)
          .attributeBytes(18, Uint8Array.of(10, 0, ...ip('2001:db8::1').toBytes()));
      });
    });
    const route = readRoute(readerOn(bytes));
    assert.deepEqual(
      route?.multipath.map((hop) => ({ ...hop, gateway: String(hop.gateway) })),
      [
        { index: 4, gateway: '192.0.2.1', isOnlink: false, weight: 1 },
        { index: 5, gateway: '2001:db8::1', isOnlink: true, weight: 10 },
      ],
    );
    assert.deepEqual([route.index, String(route.gateway)], [4, '192.0.2.1']);
  });

  it('reads back neighbours and forwarding entries', () => {
    fc.assert(
      fc.property(families.chain(addressOf), macs, indexes, (address, mac, index) => {
        const neigh = readerOn(
          bytesOf(NLMSG.RTM_NEWNEIGH, (to) => {
            writeNeigh(to, { index, address, mac });
          }),
        );
        assert.equal(isFdb(neigh), false);
        const { address: readAddress, ...rest } = readNeigh(neigh) ?? assert.fail();
        assert.equal(readAddress.toString(), address.toString());
        assert.deepEqual(rest, { index, mac, isPermanent: true, isFailed: false });
        const more = { port: 4789, vni: 7, viaIndex: 3 };
        const fdb = readerOn(
          bytesOf(NLMSG.RTM_NEWNEIGH, (to) => {
            writeFdb(to, { index, mac, destination: address, ...more });
          }),
        );
        assert.ok(isFdb(fdb));
        const { destination, ...entry } = readFdb(fdb) ?? assert.fail();
        assert.equal(String(destination), address.toString());
        assert.deepEqual(entry, { index, mac, ...more, isPermanent: true, masterIndex: 0, isSelf: true });
      }),
    );
  });

  it('reads back addresses, with their peers', () => {
    fc.assert(
      fc.property(
        families.chain((family) => fc.tuple(addressOf(family), addressOf(family))),
        indexes,
        ([address, peer], index) => {
          const length = ADDRESS_BITS[address.family];
          const reader = readerOn(
            bytesOf(NLMSG.RTM_NEWADDR, (to) => {
              writeAddress(to, { index, address, length, peer });
            }),
          );
          const read = readAddress(reader);
          assert.equal(read?.address.toString(), address.toString());
          assert.equal(String(read.peer), address.equals(peer) ? 'undefined' : peer.toString());
          assert.deepEqual([read.index, read.length], [index, length]);
        },
      ),
    );
  });

  for (const details of [
    {
      kind: 'vxlan',
      vni: 0xffffff,
      underlayIndex: 3,
      local: ip('2001:db8::1'),
      group: ip('2001:db8::2'),
      port: 4789,
      learning: true,
      l2miss: true,
      l3miss: true,
      gbp: true,
      isExternal: true,
    } satisfies VxlanDetails,
    {
      kind: 'ipip',
      local: ip('192.0.2.1'),
      remote: ip('192.0.2.2'),
      ttl: 64,
      pmtuDiscovery: true,
    } satisfies IpipDetails,
  ]) {
    it(`reads back every detail of ${details.kind} devices`, () => {
      const reader = readerOn(
        bytesOf(NLMSG.RTM_NEWLINK, (to) => {
          writeNewLink(to, { ...details, name: 'v', mtu: 1430, mac: parseMac('02:00:00:00:00:01') });
        }),
      );
      const link = readLink(reader);
      assert.deepEqual([link.name, link.kind, link.mtu, link.mac], ['v', details.kind, 1430, '02:00:00:00:00:01']);
      assert.equal(JSON.stringify(link.details), JSON.stringify(details));
    });
  }

  it('makes an IPIP device without a fixed remote', () => {
    const reader = readerOn(
      bytesOf(NLMSG.RTM_NEWLINK, (to) => {
        writeNewLink(to, { kind: 'ipip', name: 'i', local: ip('192.0.2.1'), pmtuDiscovery: false });
      }),
    );
    const expected = { kind: 'ipip', local: ip('192.0.2.1'), remote: undefined, ttl: 0, pmtuDiscovery: false };
    assert.equal(JSON.stringify(readLink(reader).details), JSON.stringify(expected));
  });

  for (const link of [
    { kind: 'vlan', name: 'l', lowerIndex: 4, id: 4094 },
    { kind: 'macvlan', name: 'l', lowerIndex: 4, mode: 'passthru' },
    { kind: 'ipvlan', name: 'l', lowerIndex: 4, mode: 'l3s', flag: 'vepa' },
  ] as const satisfies NewLink[]) {
    it(`reads back the details of a ${link.kind} device`, () => {
      const reader = readerOn(
        bytesOf(NLMSG.RTM_NEWLINK, (to) => {
          writeNewLink(to, link);
        }),
      );
      const { kind, name, lowerIndex, ...details } = link;
      const read = readLink(reader);
      assert.deepEqual([read.kind, read.name, read.lowerIndex], [kind, name, lowerIndex]);
      assert.deepEqual(read.details, { kind, ...details });
    });
  }

  it('grows beyond its first buffer without losing what it has', () => {
    const long = new Uint8Array(5000).fill(7);
    const bytes = bytesOf(NLMSG.RTM_NEWLINK, (to) => {
      to.attributeU32(1, 0xdeadbeef).attributeBytes(2, long).attributeText(3, 'end');
    });
    const reader = readerOn(bytes);
    const table = new AttributeTable(3).parse(reader, reader.start, reader.end);
    assert.equal(table.u32(1), 0xdeadbeef);
    assert.equal(table.range(2).length, 5000);
    assert.equal(table.text(3), 'end');
  });

  it('forgets the attributes of the message before', () => {
    const table = new AttributeTable(3);
    const first = readerOn(
      bytesOf(16, (to) => {
        to.attributeU32(1, 5).attributeU32(2, 6);
      }),
    );
    const second = readerOn(
      bytesOf(16, (to) => {
        to.attributeU32(1, 7);
      }),
    );
    table.parse(first, first.start, first.end);
    table.parse(second, second.start, second.end);
    assert.deepEqual([table.u32(1), table.u32(2), table.has(2)], [7, undefined, false]);
  });

  it('gives nothing for an attribute that is shorter than its type', () => {
    const reader = readerOn(
      bytesOf(16, (to) => {
        to.attributeBytes(1, Uint8Array.of(1));
      }),
    );
    const table = new AttributeTable(3).parse(reader, reader.start, reader.end);
    assert.deepEqual([table.u8(1), table.u16(1), table.u16be(1), table.u32(1)], [1, undefined, undefined, undefined]);
    assert.deepEqual([table.mac(1), table.address(1)], [undefined, undefined]);
  });

  it('walks over several messages in one datagram', () => {
    const one = bytesOf(16, (to) => {
      to.attributeBytes(1, Uint8Array.of(1));
    });
    const two = bytesOf(17, () => undefined);
    const reader = new MessageReader(Uint8Array.of(...one, ...two)).reset(one.length + two.length);
    assert.ok(reader.next());
    assert.deepEqual([reader.type, reader.sequence, reader.flags], [16, 7, 0x0605]);
    assert.ok(reader.next());
    assert.equal(reader.type, 17);
    assert.equal(reader.next(), false);
  });

  describe('of acknowledgements', () => {
    const acknowledge = (errno: number, flags: number, rest: (to: MessageWriter) => void): MessageReader =>
      readerOn(
        bytesOf(
          NLMSG.ERROR,
          (to) => {
            to.u32(-errno >>> 0);
            rest(to);
          },
          flags,
        ),
      );
    const request = (to: MessageWriter, length: number): MessageWriter => to.u32(length).u16(24).u16(5).u32(7).u32(0);

    it('reads the error and its explanation behind the header of the request', () => {
      const reader = acknowledge(101, NLM_F.CAPPED | NLM_F.ACK_TLVS, (to) => {
        request(to, 40).attributeText(1, 'Nexthop has invalid gateway');
      });
      assert.deepEqual(readAcknowledgement(reader), { errno: 101, explanation: 'Nexthop has invalid gateway' });
    });

    it('finds the explanation behind a whole request, too', () => {
      const reader = acknowledge(22, NLM_F.ACK_TLVS, (to) => {
        request(to, 24).u32(1).u32(2).attributeText(1, 'no');
      });
      assert.deepEqual(readAcknowledgement(reader), { errno: 22, explanation: 'no' });
    });

    it('reads success', () => {
      const reader = acknowledge(0, NLM_F.CAPPED, (to) => {
        request(to, 40);
      });
      assert.deepEqual(readAcknowledgement(reader), { errno: 0, explanation: undefined });
    });

    it('reads the end of a dump, which echoes no request', () => {
      const reader = readerOn(
        bytesOf(
          NLMSG.DONE,
          (to) => {
            to.u32(-95 >>> 0).attributeText(1, 'sorry');
          },
          NLM_F.ACK_TLVS | NLM_F.MULTI,
        ),
      );
      assert.deepEqual(readAcknowledgement(reader), { errno: 95, explanation: 'sorry' });
    });
  });

  it('never reads beyond its bytes, whatever they are: it understands them, or throws ERR_NETLINK', () => {
    const types = [NLMSG.ERROR, ...Array.from({ length: 14 }, (_, n) => 16 + n)];
    const random = fc.uint8Array({ maxLength: 200 });
    const framed = fc
      .record({ type: fc.constantFrom(...types), flags: fc.integer({ min: 0, max: 0xffff }), body: random })
      .map(({ type, flags, body }) =>
        bytesOf(
          type,
          (to) => {
            for (const byte of body) to.u8(byte);
          },
          flags,
        ),
      );
    // A real message with some bytes changed gets further than noise.
    const damaged = fc
      .tuple(routes, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 6 }))
      .map(([route, changes]) => {
        const bytes = bytesOf(NLMSG.RTM_NEWROUTE, (to) => {
          writeNewRoute(to, route);
        });
        for (const [at, value] of changes) bytes[at % bytes.length] = value;
        return bytes;
      });
    fc.assert(
      fc.property(fc.oneof(random, framed, damaged), (bytes) => {
        const reader = new MessageReader(bytes).reset(bytes.length);
        try {
          while (reader.next()) {
            decodeEvent(reader);
            if (reader.type === NLMSG.ERROR) readAcknowledgement(reader);
          }
        } catch (error) {
          assert.ok(isOverlayError(error, 'ERR_NETLINK'), String(error));
        }
      }),
      { numRuns: 3000 },
    );
  });
});
