import assert from 'node:assert/strict';
import { type MacAddress, macToBytes, parseMac } from '../../../src/ip/mac.js';
import { MAX_STATIONS, isSameProgram, stationProgram } from '../../../src/netlink/filter-program.js';

const ACCEPT = 0;
const DROP = 2;

const A = parseMac('02:42:0a:0a:0a:02');
const B = parseMac('02:42:0a:0a:0a:03');
/** Like A but for its first two bytes. */
const ALMOST = parseMac('06:42:0a:0a:0a:02');

/** Runs the program on a frame, instruction by instruction (`uapi/linux/filter.h`). */
function fate(program: Uint8Array, frame: Uint8Array): number {
  const code = new DataView(program.buffer);
  const data = new DataView(frame.buffer);
  let accumulator = 0;
  for (let at = 0; at < program.length; at += 8) {
    const value = code.getUint32(at + 4, true);
    switch (code.getUint16(at, true)) {
      case 0x20:
        accumulator = data.getUint32(value);
        break;
      case 0x28:
        accumulator = data.getUint16(value);
        break;
      case 0x15:
        at += 8 * code.getUint8(at + (accumulator === value ? 2 : 3));
        break;
      case 0x06:
        return value;
      default:
        assert.fail('an instruction that is not expected');
    }
  }
  return assert.fail('the program has no end');
}

const frame = (destination: MacAddress, source: MacAddress): Uint8Array =>
  Uint8Array.from([...macToBytes(destination), ...macToBytes(source), 0x08, 0x06]);

describe('a filter for stations', () => {
  it('lets in what comes from one of them', () => {
    const program = stationProgram('ingress', [A, B]);
    for (const source of [A, B]) assert.equal(fate(program, frame(ALMOST, source)), ACCEPT);
    assert.equal(fate(program, frame(A, ALMOST)), DROP);
  });

  it('lets out what goes to one of them', () => {
    const program = stationProgram('egress', [A, B]);
    for (const destination of [A, B]) assert.equal(fate(program, frame(destination, ALMOST)), ACCEPT);
    assert.equal(fate(program, frame(ALMOST, A)), DROP);
    assert.equal(fate(program, frame(parseMac('ff:ff:ff:ff:ff:ff'), A)), DROP);
  });

  it('lets nothing pass without any', () => {
    assert.equal(fate(stationProgram('ingress', []), frame(A, A)), DROP);
  });

  it('is the same for the same stations in whatever order', () => {
    assert.ok(isSameProgram(stationProgram('ingress', [A, B]), stationProgram('ingress', [B, A, A])));
    assert.ok(!isSameProgram(stationProgram('ingress', [A]), stationProgram('ingress', [B])));
    assert.ok(!isSameProgram(stationProgram('ingress', [A]), stationProgram('egress', [A])));
  });

  it('never is longer than the kernel takes', () => {
    const many = Array.from({ length: MAX_STATIONS + 10 }, (_, n) =>
      parseMac(`02:00:00:00:${(n >> 8).toString(16).padStart(2, '0')}:${(n & 255).toString(16).padStart(2, '0')}`),
    );
    assert.equal(stationProgram('ingress', many).length / 8, 4096);
  });
});
