import assert from 'node:assert/strict';
import type { Family } from '../../../src/ip/address.js';
import { encodeEchoRequest, readEchoReply } from '../../../src/reach/echo-message.js';

const PAYLOAD = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);
const IP_HEADER = Uint8Array.of(0x45, ...Array<number>(19).fill(0));
const IP_HEADER_WITH_OPTIONS = Uint8Array.of(0x46, ...Array<number>(23).fill(1));

/** What a kernel makes of a request: the same with another type and a checksum that fits. */
function replyTo(family: Family, request: Uint8Array): Uint8Array {
  const reply = Uint8Array.from(request);
  reply[0] = family === 4 ? 0 : 129;
  // RFC 1624: eight less in the first byte is eight more in the complement.
  if (family === 4) reply[2] = ((request[2] ?? 0) + 8) & 0xff;
  return reply;
}

/** A request whose checksum does not overflow when the type goes from 8 to 0. */
const request = (family: Family): Uint8Array => encodeEchoRequest(family, 0x1234, 0xbeef, PAYLOAD);

describe('echo messages', () => {
  it('are those of RFC 792', () => {
    assert.equal(Buffer.from(request(4)).toString('hex'), '080016c81234beef0102030405060708');
  });

  it('are those of RFC 4443, with the checksum left to the kernel', () => {
    assert.equal(Buffer.from(request(6)).toString('hex'), '800000001234beef0102030405060708');
  });

  for (const [what, family, header] of [
    ['ICMPv4 from a ping socket', 4, new Uint8Array()],
    ['ICMPv4 from a raw socket', 4, IP_HEADER],
    ['ICMPv4 behind IP options', 4, IP_HEADER_WITH_OPTIONS],
    ['ICMPv6', 6, new Uint8Array()],
  ] as const) {
    const hasIpHeader = header.length > 0;
    const reply = Uint8Array.of(...header, ...replyTo(family, request(family)));

    it(`are read with their sequence number: ${what}`, () => {
      assert.equal(readEchoReply(family, reply, { hasIpHeader, payload: PAYLOAD }), 0xbeef);
    });

    it(`are not read when any byte but identifier and sequence is another one: ${what}`, () => {
      const start = header.length;
      const meant = family === 4 ? [] : [2, 3]; // the kernel has checked that checksum
      for (let index = start; index < reply.length; index++) {
        if ([...meant, 4, 5, 6, 7].includes(index - start)) continue;
        const other = Uint8Array.from(reply);
        other[index] = (other[index] ?? 0) ^ 0x01;
        assert.equal(readEchoReply(family, other, { hasIpHeader, payload: PAYLOAD }), undefined, `byte ${index}`);
      }
    });

    it(`are not read when they are cut or too long: ${what}`, () => {
      for (let length = 0; length < reply.length; length++) {
        assert.equal(readEchoReply(family, reply.subarray(0, length), { hasIpHeader, payload: PAYLOAD }), undefined);
      }
      const long = Uint8Array.of(...reply, 0);
      assert.equal(readEchoReply(family, long, { hasIpHeader, payload: PAYLOAD }), undefined);
    });
  }

  it('are not read when the checksum of ICMPv4 does not fit', () => {
    const reply = replyTo(4, request(4));
    reply[7] = (reply[7] ?? 0) ^ 0x10;
    assert.equal(readEchoReply(4, reply, { hasIpHeader: false, payload: PAYLOAD }), undefined);
  });
});
