import assert from 'node:assert/strict';
import fc from 'fast-check';
import {
  type IcmpError,
  buildIcmpError,
  checkDatagram,
  checkPacket,
  decrementTtl,
  destinationOf,
  isDontFragment,
  mayAnswer,
  sourceOf,
  totalLengthOf,
  ttlOf,
} from '../../../src/dataplane/packet.js';
import { internetChecksum } from '../../../src/ip/checksum.js';
import { PROTOCOL, buildPacket, ipv4Number, referenceChecksum } from '../../support/packets.js';

const ROUTER = ipv4Number('192.0.2.1');

const headers = fc.record({
  ttl: fc.integer({ min: 0, max: 255 }),
  tos: fc.nat(255),
  id: fc.nat(0xffff),
  protocol: fc.nat(255),
  source: fc.ipV4(),
  destination: fc.ipV4(),
  options: fc.nat(10).chain((words) => fc.uint8Array({ minLength: words * 4, maxLength: words * 4 })),
  payload: fc.uint8Array({ maxLength: 100 }),
});

describe('internetChecksum', () => {
  it('agrees with the slow form over every length up to the MTU', () => {
    const bytes = Buffer.from(Array.from({ length: 1500 }, (_, i) => (i * 7919 + 13) & 0xff));
    for (let length = 0; length <= bytes.length; length++) {
      assert.equal(internetChecksum(bytes.subarray(0, length)), referenceChecksum(bytes.subarray(0, length)));
    }
  });

  it('loses no carry in the largest packet', () => {
    assert.equal(internetChecksum(Buffer.alloc(65535, 0xff)), referenceChecksum(Buffer.alloc(65535, 0xff)));
  });

  it('agrees with the slow form over any bytes, and is 0 once it is stored', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 2, maxLength: 200 }), (bytes) => {
        const buffer = Buffer.from(bytes);
        buffer.writeUInt16BE(0, 0);
        const checksum = internetChecksum(buffer);
        assert.equal(checksum, referenceChecksum(buffer));
        buffer.writeUInt16BE(checksum, 0);
        assert.equal(internetChecksum(buffer), 0);
      }),
    );
  });
});

describe('decrementTtl', () => {
  it('takes one off and leaves the checksum that a full computation gives', () => {
    fc.assert(
      fc.property(headers, (header) => {
        fc.pre(header.ttl > 0);
        const packet = buildPacket(header);
        decrementTtl(packet);
        assert.deepEqual(packet, buildPacket({ ...header, ttl: header.ttl - 1 }));
      }),
    );
  });

  for (const [before, after] of [
    [0xfeff, 0x0000],
    [0xffff, 0x0100],
    [0x0000, 0x0100],
    [0xfefe, 0xfffe],
  ] as const) {
    it(`turns the checksum field ${before.toString(16)} into ${after.toString(16)} as flannel does`, () => {
      const packet = buildPacket({});
      packet.writeUInt16BE(before, 10);
      decrementTtl(packet);
      assert.equal(packet.readUInt16BE(10), after);
    });
  }

  it('keeps a wrong checksum wrong', () => {
    fc.assert(
      fc.property(headers, fc.integer({ min: 1, max: 0xfffe }), (header, error) => {
        fc.pre(header.ttl > 0);
        const packet = buildPacket(header);
        packet.writeUInt16BE((packet.readUInt16BE(10) + error) % 0xffff, 10);
        const wasRight = internetChecksum(packet.subarray(0, (packet[0]! & 15) * 4)) === 0;
        decrementTtl(packet);
        assert.equal(internetChecksum(packet.subarray(0, (packet[0]! & 15) * 4)) === 0, wasRight);
      }),
    );
  });
});

describe('checkPacket and checkDatagram', () => {
  const valid = buildPacket({ payload: Buffer.alloc(30) });
  const changed = (offset: number, value: number): Buffer => {
    const packet = Buffer.from(valid);
    packet[offset] = value;
    return packet;
  };
  const rows: readonly (readonly [string, Buffer, string | undefined, string | undefined])[] = [
    ['an empty read', Buffer.alloc(0), 'short', 'short'],
    ['19 bytes', valid.subarray(0, 19), 'short', 'short'],
    ['20 bytes that are a packet', buildPacket({}), undefined, undefined],
    ['IPv6', changed(0, 0x60), 'not-ipv4', 'not-ipv4'],
    ['version 0', changed(0, 0x05), 'not-ipv4', 'not-ipv4'],
    ['a header of 16 bytes', changed(0, 0x44), 'bad-header', 'bad-header'],
    ['a header longer than the packet', changed(0, 0x4f), 'bad-header', 'bad-header'],
    ['a total length shorter than the header', changed(3, 19), 'bad-header', 'length-mismatch'],
    ['a cut-off packet', valid.subarray(0, 49), 'bad-header', 'length-mismatch'],
    ['bytes after the packet', Buffer.concat([valid, Buffer.alloc(1)]), undefined, 'length-mismatch'],
    ['a complete packet', valid, undefined, undefined],
    ['all options in use', buildPacket({ options: Buffer.alloc(40) }), undefined, undefined],
  ];
  for (const [what, packet, fromTun, fromPeer] of rows) {
    it(`judge ${what}: ${fromTun ?? 'good'} from the TUN, ${fromPeer ?? 'good'} from a peer`, () => {
      assert.equal(checkPacket(packet), fromTun);
      assert.equal(checkDatagram(packet), fromPeer);
    });
  }

  it('never throw, and what they let pass can be read and answered without reading past it', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.uint8Array({ maxLength: 120 }),
          headers.map((header) => buildPacket(header)),
        ),
        fc.array(fc.tuple(fc.nat(30), fc.nat(255)), { maxLength: 4 }),
        (bytes, mutations) => {
          const packet = Buffer.from(bytes);
          for (const [offset, value] of mutations) if (offset < packet.length) packet[offset] = value;
          const fromPeer = checkDatagram(packet);
          if (fromPeer === undefined) assert.equal(totalLengthOf(packet), packet.length);
          if (checkPacket(packet) !== undefined) return;
          for (const kind of ['unreachable-net', 'time-exceeded'] as const) {
            if (mayAnswer(packet, kind)) assert.ok(buildIcmpError(packet, { kind }, ROUTER).length <= 20 + 8 + 68);
          }
        },
      ),
      { numRuns: 2000 },
    );
  });
});

describe('reading a header', () => {
  it('gives what the builder put in', () => {
    const packet = buildPacket({ source: '198.51.100.7', destination: '203.0.113.9', ttl: 77, flags: 0x4000 });
    assert.equal(sourceOf(packet), ipv4Number('198.51.100.7'));
    assert.equal(destinationOf(packet), ipv4Number('203.0.113.9'));
    assert.equal(ttlOf(packet), 77);
    assert.equal(isDontFragment(packet), true);
    assert.equal(isDontFragment(buildPacket({ flags: 0x2000 })), false);
  });
});

describe('mayAnswer', () => {
  const icmp = (type: number): Buffer =>
    buildPacket({ protocol: PROTOCOL.icmp, payload: Buffer.of(type, 0, 0, 0, 0, 0, 0, 0) });
  const rows: readonly (readonly [string, Buffer, boolean])[] = [
    ['a UDP packet', buildPacket({ payload: Buffer.alloc(8) }), true],
    ['an echo request', icmp(8), true],
    ['an echo reply', icmp(0), true],
    ['a timestamp request', icmp(13), true],
    ...[3, 4, 5, 11, 12].map((type) => [`ICMP error ${type}`, icmp(type), false] as const),
    ['an extended echo request', icmp(42), true],
    ['a router advertisement', icmp(9), false],
    ['an ICMP type nobody knows', icmp(41), false],
    ['ICMP without a type', buildPacket({ protocol: PROTOCOL.icmp }), false],
    ['the first fragment', buildPacket({ flags: 0x2000, payload: Buffer.alloc(8) }), true],
    ['a later fragment', buildPacket({ flags: 0x2001, payload: Buffer.alloc(8) }), false],
    ['the last fragment', buildPacket({ flags: 0x00b9, payload: Buffer.alloc(8) }), false],
    ['a packet to a multicast group', buildPacket({ destination: '224.0.0.1' }), false],
    ['a packet to 255.255.255.255', buildPacket({ destination: '255.255.255.255' }), false],
    ['a packet to 0.0.0.0', buildPacket({ destination: '0.0.0.0' }), false],
    ['a packet into 0/8', buildPacket({ destination: '0.1.2.3' }), false],
    ['a packet from 0.0.0.0', buildPacket({ source: '0.0.0.0' }), false],
    ['a packet from a multicast group', buildPacket({ source: '239.1.2.3' }), false],
    ['a packet from loopback', buildPacket({ source: '127.0.0.1' }), false],
    ['36 bytes of options', buildPacket({ options: Buffer.alloc(36) }), true],
  ];
  for (const [what, packet, expected] of rows) {
    it(`${expected ? 'allows an error about' : 'stays silent about'} ${what}`, () => {
      assert.equal(mayAnswer(packet, 'unreachable-net'), expected);
      assert.equal(mayAnswer(packet, 'frag-needed'), expected);
    });
  }

  it('leaves headers of 60 bytes without net unreachable only', () => {
    const packet = buildPacket({ options: Buffer.alloc(40), payload: Buffer.alloc(8) });
    assert.equal(mayAnswer(packet, 'unreachable-net'), false);
    assert.equal(mayAnswer(packet, 'time-exceeded'), true);
    assert.equal(mayAnswer(packet, 'frag-needed'), true);
  });
});

describe('buildIcmpError', () => {
  it('has the form of flannel for net unreachable: 56 bytes, TTL 8, id 0, no flags', () => {
    const offender = buildPacket({ source: '198.51.100.7', payload: Buffer.from('0123456789') });
    const error = buildIcmpError(offender, { kind: 'unreachable-net' }, ROUTER);
    assert.equal(error.length, 56);
    assert.equal(error.subarray(0, 10).toString('hex'), '45000038000000000801');
    assert.equal(sourceOf(error), ROUTER);
    assert.equal(destinationOf(error), ipv4Number('198.51.100.7'));
    assert.equal(error.subarray(20, 22).toString('hex'), '0300');
    assert.equal(error.readUInt32BE(24), 0);
    assert.deepEqual(error.subarray(28), offender.subarray(0, 28));
  });

  it('says time exceeded and how large a packet may be', () => {
    const offender = buildPacket({ payload: Buffer.alloc(8) });
    assert.equal(buildIcmpError(offender, { kind: 'time-exceeded' }, ROUTER).readUInt16BE(20), 0x0b00);
    const error = buildIcmpError(offender, { kind: 'frag-needed', mtu: 1372 }, ROUTER);
    assert.equal(error.readUInt16BE(20), 0x0304);
    assert.equal(error.readUInt32BE(24), 1372);
  });

  it('quotes all options and eight bytes, or less where the packet has less, with right checksums', () => {
    fc.assert(
      fc.property(
        headers,
        fc.constantFrom<IcmpError>({ kind: 'time-exceeded' }, { kind: 'frag-needed', mtu: 576 }),
        (h, kind) => {
          const offender = buildPacket(h);
          const error = buildIcmpError(offender, kind, ROUTER);
          const quoted = 20 + h.options.length + Math.min(8, h.payload.length);
          assert.equal(checkDatagram(error), undefined);
          assert.deepEqual(error.subarray(28), offender.subarray(0, quoted));
          assert.equal(internetChecksum(error.subarray(0, 20)), 0);
          assert.equal(internetChecksum(error.subarray(20)), 0);
        },
      ),
    );
  });
});
