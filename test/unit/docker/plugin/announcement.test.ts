import assert from 'node:assert/strict';
import { announcementFrames } from '../../../../src/docker/plugin/announcement.js';
import { IpAddress } from '../../../../src/ip/address.js';
import { parseMac } from '../../../../src/ip/mac.js';

const MAC = parseMac('02:42:0a:0a:0a:02');

const hex = (frames: readonly Uint8Array[]): string[] => frames.map((frame) => Buffer.from(frame).toString('hex'));

describe('an announcement', () => {
  it('of an IPv4 address is an ARP request and a reply of it, to everybody', () => {
    const start = 'ffffffffffff' + '02420a0a0a02' + '0806' + '0001080006040';
    assert.deepEqual(hex(announcementFrames(IpAddress.parse('10.10.10.2'), MAC)), [
      `${start}001` + '02420a0a0a02' + '0a0a0a02' + '000000000000' + '0a0a0a02',
      `${start}002` + '02420a0a0a02' + '0a0a0a02' + '02420a0a0a02' + '0a0a0a02',
    ]);
  });

  it('of an IPv6 address is an advertisement that overrides, to all nodes', () => {
    const address = '20010db8000000000000000000000042';
    const [frame = ''] = hex(announcementFrames(IpAddress.parse('2001:db8::42'), MAC));
    const ethernet = '333300000001' + '02420a0a0a02' + '86dd';
    assert.ok(
      frame.startsWith(`${ethernet}6000000000203aff${address}ff020000000000000000000000000001` + '8800'),
      frame,
    );
    assert.ok(frame.endsWith(`20000000${address}020102420a0a0a02`));
    assert.equal(frame.length / 2, 14 + 40 + 32);
  });

  it('of an IPv6 address has a checksum with which the whole sums up to nothing (RFC 1071)', () => {
    const [frame = new Uint8Array()] = announcementFrames(IpAddress.parse('2001:db8::ffff:fffe'), MAC);
    const addresses = frame.subarray(14 + 8, 14 + 40);
    const message = frame.subarray(14 + 40);
    const bytes = [...addresses, 0, 0, 0, message.length, 0, 0, 0, 58, ...message];
    let sum = 0;
    for (let at = 0; at < bytes.length; at += 2) sum += ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
    while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
    assert.equal(sum, 0xffff);
  });
});
