import { internetChecksum } from '../ip/checksum.js';
import type { DropReason, IcmpErrorName } from './tunnel.js';

/** Bytes of an IPv4 header without options (RFC 791 3.1). */
export const IPV4_HEADER = 20;

/** Largest IPv4 packet: the total length has 16 bits. */
export const MAX_PACKET = 65535;

const PROTOCOL_ICMP = 1;
const OFFSET_TOTAL_LENGTH = 2;
const OFFSET_FRAGMENT = 6;
const OFFSET_TTL = 8;
const OFFSET_PROTOCOL = 9;
const OFFSET_CHECKSUM = 10;
const OFFSET_SOURCE = 12;
const OFFSET_DESTINATION = 16;

/** An ICMP error the tunnel can answer with. */
export type IcmpError =
  | { readonly kind: 'unreachable-net' }
  | { readonly kind: 'time-exceeded' }
  /** `mtu`: bytes of the largest inner packet that would have fitted (RFC 1191 4). */
  | { readonly kind: 'frag-needed'; readonly mtu: number };

/** Flannel's proxy sends its one error, net unreachable, with TTL 8; the others have the usual default (RFC 1700). */
const ICMP_FORM = {
  'unreachable-net': { type: 3, code: 0, ttl: 8 },
  'frag-needed': { type: 3, code: 4, ttl: 64 },
  'time-exceeded': { type: 11, code: 0, ttl: 64 },
} as const satisfies Record<IcmpErrorName, unknown>;

/** IHL 15: all 40 bytes of options in use. */
const MAX_HEADER = 60;

/**
 * What is wrong with a packet that came from the TUN.
 *
 * @returns a reason to drop it, or undefined if the bytes begin with a complete IPv4 packet of
 * {@link totalLengthOf} bytes. The header checksum is not looked at: {@link decrementTtl} keeps a wrong one wrong, and
 * the receiving kernel drops it.
 */
export function checkPacket(packet: Buffer): DropReason | undefined {
  if (packet.length < IPV4_HEADER) return 'short';
  if (packet.readUInt8(0) >> 4 !== 4) return 'not-ipv4';
  const headerLength = headerLengthOf(packet);
  const totalLength = totalLengthOf(packet);
  const isConsistent = headerLength >= IPV4_HEADER && headerLength <= totalLength && totalLength <= packet.length;
  return isConsistent ? undefined : 'bad-header';
}

/** Like {@link checkPacket} for a datagram from a peer, which holds one packet and nothing else. */
export function checkDatagram(datagram: Buffer): DropReason | undefined {
  const reason = checkPacket(datagram);
  if (reason === 'short' || reason === 'not-ipv4') return reason;
  return totalLengthOf(datagram) === datagram.length ? reason : 'length-mismatch';
}

/** Bytes of the whole packet as its header says. */
export function totalLengthOf(packet: Buffer): number {
  return packet.readUInt16BE(OFFSET_TOTAL_LENGTH);
}

/** Source address as an unsigned number. */
export function sourceOf(packet: Buffer): number {
  return packet.readUInt32BE(OFFSET_SOURCE);
}

/** Destination address as an unsigned number. */
export function destinationOf(packet: Buffer): number {
  return packet.readUInt32BE(OFFSET_DESTINATION);
}

/** Time to live. */
export function ttlOf(packet: Buffer): number {
  return packet.readUInt8(OFFSET_TTL);
}

/** Whether routers must not fragment it (DF). */
export function isDontFragment(packet: Buffer): boolean {
  return (packet.readUInt8(OFFSET_FRAGMENT) & 0x40) !== 0;
}

/** Takes one from the TTL, which must not be 0, and updates the header checksum for it (RFC 1624). */
export function decrementTtl(packet: Buffer): void {
  packet.writeUInt8(ttlOf(packet) - 1, OFFSET_TTL);
  // The TTL is the upper byte of its word, so the complemented sum grows by 0x0100; the carry goes around. 0xffff is
  // written as 0x0000, as flannel's proxy and the kernel's ip_decrease_ttl() do.
  const sum = packet.readUInt16BE(OFFSET_CHECKSUM) + 0x0100;
  packet.writeUInt16BE((sum + (sum >= 0xffff ? 1 : 0)) & 0xffff, OFFSET_CHECKSUM);
}

/**
 * Whether an ICMP error may be sent about a packet: never about an ICMP error, a fragment other than the first, or
 * anything to or from what is not a single host (RFC 1122 3.2.2, RFC 1812 4.3.2.7). Headers of 60 bytes get no net
 * unreachable, as in flannel; the limit does not extend to the other errors, since a lost fragmentation needed makes a
 * path MTU black hole.
 *
 * @param packet - one that {@link checkPacket} has nothing against.
 */
export function mayAnswer(packet: Buffer, kind: IcmpError['kind']): boolean {
  const headerLength = headerLengthOf(packet);
  if (kind === 'unreachable-net' && headerLength === MAX_HEADER) return false;
  if ((packet.readUInt16BE(OFFSET_FRAGMENT) & 0x1fff) !== 0) return false;
  if (!isSingleHost(sourceOf(packet)) || !isUnicast(destinationOf(packet))) return false;
  if (packet.readUInt8(OFFSET_PROTOCOL) !== PROTOCOL_ICMP) return true;
  return totalLengthOf(packet) > headerLength && ICMP_QUERIES.has(packet.readUInt8(headerLength));
}

/**
 * The ICMP error about a packet, from router to sender: the packet's header with its options and up to eight bytes
 * after it are quoted (RFC 792).
 *
 * @param packet - one that {@link mayAnswer} allows, as the sender sent it.
 * @param routerAddress - source address of the error.
 */
export function buildIcmpError(packet: Buffer, error: IcmpError, routerAddress: number): Buffer {
  const { type, code, ttl } = ICMP_FORM[error.kind];
  const quoted = packet.subarray(0, Math.min(totalLengthOf(packet), headerLengthOf(packet) + 8));
  const message = Buffer.alloc(IPV4_HEADER + 8 + quoted.length);
  message.writeUInt8(0x45, 0);
  message.writeUInt16BE(message.length, OFFSET_TOTAL_LENGTH);
  message.writeUInt8(ttl, OFFSET_TTL);
  message.writeUInt8(PROTOCOL_ICMP, OFFSET_PROTOCOL);
  message.writeUInt32BE(routerAddress, OFFSET_SOURCE);
  message.writeUInt32BE(sourceOf(packet), OFFSET_DESTINATION);
  message.writeUInt16BE(internetChecksum(message.subarray(0, IPV4_HEADER)), OFFSET_CHECKSUM);

  const icmp = message.subarray(IPV4_HEADER);
  icmp.writeUInt8(type, 0);
  icmp.writeUInt8(code, 1);
  if (error.kind === 'frag-needed') icmp.writeUInt16BE(error.mtu, 6);
  icmp.set(quoted, 8);
  icmp.writeUInt16BE(internetChecksum(icmp), 2);
  return message;
}

function headerLengthOf(packet: Buffer): number {
  return (packet.readUInt8(0) & 0x0f) * 4;
}

/** Neither "this network" (0/8), nor multicast, reserved (240/4) or limited broadcast (RFC 1122 3.2.1.3). */
function isUnicast(address: number): boolean {
  return address >>> 24 !== 0 && address >>> 28 < 0xe;
}

/** Unicast and not loopback. */
function isSingleHost(address: number): boolean {
  return isUnicast(address) && address >>> 24 !== 127;
}

/**
 * Types that ask or answer something: echo, timestamp, information, address mask (RFC 792, 950), extended echo (RFC 8335).
 * All others are errors, or may be.
 */
const ICMP_QUERIES: ReadonlySet<number> = new Set([0, 8, 13, 14, 15, 16, 17, 18, 42, 43]);
