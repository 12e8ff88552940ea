/*
 * Sends one router advertisement out of eth0, as a router with a default route does: `advertise-router.ts MAC ADDRESS SECONDS`
 * with the MAC address and the link-local address of the router, and for how long the route holds.
 */
import { parseArgs } from 'node:util';
import { IpAddress } from '../../src/ip/address.js';
import { icmpv6Checksum } from '../../src/ip/checksum.js';
import { macToBytes, parseMac } from '../../src/ip/mac.js';
import * as libc from '../../src/sys/libc.js';

const [mac = '', address = '', seconds = '1800'] = parseArgs({ allowPositionals: true }).positionals;
const own = macToBytes(parseMac(mac));
const lifetime = Number(seconds);
// RFC 4861 4.2: type 134, hop limit 64, no flags, router lifetime, times of 0; source link-layer address.
const message = [134, 0, 0, 0, 64, 0, lifetime >> 8, lifetime & 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, ...own];
const packet = Uint8Array.of(
  ...[0x60, 0, 0, 0, 0, message.length, 58, 255],
  ...IpAddress.parse(address).toBytes(),
  ...IpAddress.parse('ff02::1').toBytes(),
  ...message,
);
new DataView(packet.buffer).setUint16(42, icmpv6Checksum(packet));
const frame = Uint8Array.of(0x33, 0x33, 0, 0, 0, 1, ...own, 0x86, 0xdd, ...packet);
const fd = libc.socket(libc.SYS.AF_PACKET, libc.SYS.SOCK_RAW, 0);
const sent = libc.sendTo(fd, frame, 0, libc.sockaddrLl(libc.ifNameToIndex('eth0'), 0x86dd));
libc.close(fd);
if (sent < 0) throw new Error(`cannot send: ${libc.errnoName(sent)}`);
