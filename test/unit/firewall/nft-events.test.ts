import assert from 'node:assert/strict';
import fc from 'fast-check';
import { changedTables } from '../../../src/firewall/nft-events.js';

const NEWRULE = (10 << 8) | 6;
const NEWGEN = (10 << 8) | 15;

/** An nfnetlink message in the order of this machine: header, `nfgenmsg`, attributes. */
function message(type: number, attributes: readonly (readonly [type: number, value: Buffer])[]): Buffer {
  const body = Buffer.concat([
    Buffer.from([2, 0, 0, 0]),
    ...attributes.map(([kind, value]) => {
      const padded = Buffer.alloc(4 + Math.ceil(value.length / 4) * 4);
      new Uint16Array(padded.buffer, padded.byteOffset, 2).set([4 + value.length, kind]);
      value.copy(padded, 4);
      return padded;
    }),
  ]);
  const header = Buffer.alloc(16);
  new Uint32Array(header.buffer, header.byteOffset, 1)[0] = 16 + body.length;
  new Uint16Array(header.buffer, header.byteOffset + 4, 2).set([type, 0]);
  return Buffer.concat([header, body]);
}

const name = (text: string): Buffer => Buffer.from(`${text}\0`);

describe('changedTables', () => {
  it('names the table of every message, whichever attribute comes first', () => {
    const datagram = Buffer.concat([
      message(NEWRULE, [
        [1, name('flannel-ipv4')],
        [2, name('postrtg')],
      ]),
      message(NEWRULE, [
        [3, Buffer.alloc(8)],
        [1, name('nat')],
      ]),
    ]);
    assert.deepEqual(changedTables(datagram), ['flannel-ipv4', 'nat']);
  });

  it('passes over messages of other subsystems', () => {
    assert.deepEqual(changedTables(message((1 << 8) | 0, [[1, name('flannel-ipv4')]])), []);
  });

  it('takes no table name from the message that ends a transaction', () => {
    const generation = message(NEWGEN, [[1, Buffer.from([0, 0, 0, 7])]]);
    assert(!changedTables(generation).includes('flannel-ipv4'));
  });

  it('survives any bytes and anything cut short', () => {
    const valid = message(NEWRULE, [
      [1, name('flannel-ipv4')],
      [2, name('postrtg')],
    ]);
    fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => Array.isArray(changedTables(bytes))));
    for (let length = 0; length < valid.length; length++)
      assert.deepEqual(changedTables(valid.subarray(0, length)), []);
  });
});
