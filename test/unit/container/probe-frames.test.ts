import assert from 'node:assert/strict';
import fc from 'fast-check';
import { PROBE_FRAMES } from '../../../src/container/probe-frames.js';
import { parseMac } from '../../../src/ip/mac.js';
import { ip } from '../../support/builders.js';

const OWN = parseMac('02:00:00:00:00:01');
const THEIRS = parseMac('02:00:00:00:00:99');
const hex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text.replaceAll(' ', ''), 'hex'));

describe('PROBE_FRAMES', () => {
  const v4 = { address: ip('192.0.2.7'), frames: PROBE_FRAMES[4] };
  const v6 = { address: ip('2001:db8::1:2:3'), frames: PROBE_FRAMES[6] };
  /** As `arping` and the kernel answer. */
  const reply = hex('020000000001 020000000099 0806 0001 0800 06 04 0002 020000000099 c0000207 020000000001 00000000');
  /** From fe80::99 to ff02::1, override flag, with the target's link-layer address. */
  const advertisement = hex(
    '333300000001 020000000099 86dd 60000000 0020 3a ff fe800000000000000000000000000099 ' +
      'ff020000000000000000000000000001 8800 272e 20000000 20010db8000000000000000100020003 0201 020000000099',
  );

  it('asks for an IPv4 address with an ARP request from nobody', () => {
    assert.deepEqual(
      v4.frames.encode(v4.address, OWN),
      hex('ffffffffffff 020000000001 0806 0001 0800 06 04 0001 020000000001 00000000 000000000000 c0000207'),
    );
  });

  it('asks for an IPv6 address with a neighbour solicitation from nobody', () => {
    assert.deepEqual(
      v6.frames.encode(v6.address, OWN),
      hex(
        '3333ff020003 020000000001 86dd 60000000 0018 3a ff 00000000000000000000000000000000 ' +
          'ff0200000000000000000001ff020003 8700 4ce4 00000000 20010db8000000000000000100020003',
      ),
    );
    assert.deepEqual(v6.frames.groups(v6.address), ['33:33:ff:02:00:03', '33:33:00:00:00:01']);
  });

  it('reads who has the address', () => {
    assert.equal(v4.frames.read(v4.address, reply), THEIRS);
    assert.equal(v6.frames.read(v6.address, advertisement), THEIRS);
    assert.equal(v4.frames.read(v4.address, Uint8Array.of(...reply, ...new Uint8Array(18))), THEIRS, 'padded');
    const announcement = Uint8Array.from(reply);
    announcement[21] = 1;
    assert.equal(v4.frames.read(v4.address, announcement), THEIRS, 'a request of whoever has it');
  });

  for (const { address, frames } of [v4, v6]) {
    it(`reads who asks for the same IPv${address.family} address at the same time`, () => {
      assert.equal(frames.read(address, frames.encode(address, THEIRS)), THEIRS);
      assert.equal(frames.read(address.add(1n), frames.encode(address, THEIRS)), undefined);
    });

    it(`reads nothing in a frame that is cut off, or any other, of IPv${address.family}`, () => {
      const whole = address.family === 4 ? reply : advertisement;
      for (let length = 0; length < whole.length; length++) {
        assert.equal(frames.read(address, whole.subarray(0, length)), undefined);
      }
      fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (frame) => frames.read(address, frame) === undefined));
    });
  }

  for (const [title, offset, value] of [
    ['of another hardware', 15, 6],
    ['of another protocol', 16, 0x86],
    ['of another operation', 21, 3],
    ['about another address', 31, 8],
    ['from a group', 22, 0x03],
  ] as const) {
    it(`reads nothing in an ARP message ${title}`, () => {
      const frame = Uint8Array.from(reply);
      frame[offset] = value;
      assert.equal(v4.frames.read(v4.address, frame), undefined);
    });
  }

  for (const [title, offset, value] of [
    ['that a router has forwarded', 21, 254],
    ['of another protocol', 20, 17],
    ['with a wrong checksum', 57, 0x2f],
    ['longer than its frame', 19, 0x21],
    ['about another address', 77, 4],
  ] as const) {
    it(`reads nothing in an ICMPv6 message ${title}`, () => {
      const frame = Uint8Array.from(advertisement);
      frame[offset] = value;
      assert.equal(v6.frames.read(v6.address, frame), undefined);
    });
  }
});
