import assert from 'node:assert/strict';
import { PROBE_FRAMES } from '../../../../src/container/probe-frames.js';
import { questionFilter, questionOf } from '../../../../src/daemon/ndp/question-filter.js';
import { ip, mac, net } from '../../../support/builders.js';

/** What the kernel makes of such a program (filter.txt); reading beyond the end of a frame drops it. */
function isLetThrough(program: ReturnType<typeof questionFilter>, frame: Uint8Array): boolean {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  let accumulator = 0;
  for (let at = 0; ; at++) {
    const [code, jt, jf, k] = program[at] ?? assert.fail('ran out of the program');
    if (code === 0x06) return k > 0;
    if (code === 0x20 || code === 0x30) {
      if (k + (code === 0x20 ? 4 : 1) > frame.length) return false;
      accumulator = code === 0x20 ? view.getUint32(k) : view.getUint8(k);
    } else if (code === 0x54) accumulator = (accumulator & k) >>> 0;
    else if (code === 0x15) at += accumulator === k ? jt : jf;
    else assert.fail(`unknown instruction ${code}`);
  }
}

const question = (address: string): Uint8Array => PROBE_FRAMES[6].encode(ip(address), mac(9));

const altered = (offset: number, value: number): Uint8Array => {
  const frame = question('2001:db8:0:1:8000::2');
  frame[offset] = value;
  return frame;
};

describe('questionFilter', () => {
  for (const length of [48, 64, 66, 80, 96, 97, 112, 127, 128]) {
    it(`lets through who asks for an address of a /${length}, and nobody beside it`, () => {
      const subnet = net(`2001:db8:a5a5:1:8001:2003:4005:6006/${length}`);
      const program = questionFilter([subnet]);
      for (const address of [subnet.address, subnet.last]) {
        assert.ok(isLetThrough(program, question(address.toString())), address.toString());
      }
      for (const address of [subnet.address.add(-1n), subnet.last.add(1n)]) {
        assert.ok(!isLetThrough(program, question(address.toString())), address.toString());
      }
    });
  }

  it('tells as many subnets apart as it takes', () => {
    const subnets = Array.from({ length: 16 }, (_, n) => net(`2001:db8:0:1:${(0x8000 + 2 * n).toString(16)}::/79`));
    const program = questionFilter(subnets);
    assert.ok(program.every(([, jt, jf]) => jt < 256 && jf < 256));
    for (const { address, last } of subnets) {
      assert.ok(isLetThrough(program, question(address.toString())));
      assert.ok(isLetThrough(program, question(last.toString())));
    }
    assert.ok(!isLetThrough(program, question('2001:db8:0:1:7fff::1')));
    assert.ok(!isLetThrough(program, question('2001:db8:0:1:8020::1')));
  });

  for (const [what, frame] of [
    ['another protocol', altered(14 + 6, 17)],
    ['what a router has passed on', altered(14 + 7, 254)],
    ['an advertisement', altered(14 + 40, 136)],
    ['what is cut off', question('2001:db8:0:1:8000::2').subarray(0, 14 + 56)],
  ] as const) {
    it(`does not let through ${what}`, () => {
      const program = questionFilter([net('2001:db8:0:1:8000::/66')]);
      assert.ok(isLetThrough(program, question('2001:db8:0:1:8000::2')));
      assert.ok(!isLetThrough(program, frame));
    });
  }

  it('says for which address a frame asks', () => {
    assert.equal(String(questionOf(question('2001:db8:0:1:8000::2'))), '2001:db8:0:1:8000::2');
    assert.equal(questionOf(question('2001:db8:0:1:8000::2').subarray(0, 70)), undefined);
  });
});
