import type { Family } from '../ip/address.js';
import { internetChecksum } from '../ip/checksum.js';
import type { BpfInstruction } from '../sys/libc.js';

/** Type, code, checksum, identifier and sequence number (RFC 792, RFC 4443 4.1). */
const HEADER_BYTES = 8;

/** Types of an echo request and its reply; the code of both is 0. */
const ECHO_TYPES: Readonly<Record<Family, { readonly request: number; readonly reply: number }>> = {
  4: { request: 8, reply: 0 },
  6: { request: 128, reply: 129 },
};

/**
 * An ICMP or ICMPv6 echo request.
 *
 * @param identifier - 16 bits.
 * @param sequence - 16 bits.
 * @remarks The checksum is that of ICMPv4; in ICMPv6 it covers addresses as well, and the kernel fills it in (RFC 3542 3.1).
 */
export function encodeEchoRequest(
  family: Family,
  identifier: number,
  sequence: number,
  payload: Uint8Array,
): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES + payload.length);
  const view = new DataView(bytes.buffer);
  bytes[0] = ECHO_TYPES[family].request;
  view.setUint16(4, identifier);
  view.setUint16(6, sequence);
  bytes.set(payload, HEADER_BYTES);
  if (family === 4) view.setUint16(2, internetChecksum(bytes));
  return bytes;
}

/**
 * The sequence number of an echo reply with exactly that payload.
 *
 * @param bytes - an ICMP message, behind its IPv4 header if `hasIpHeader`. The kernel has checked length and checksum of
 * that header, and the checksum of an ICMPv6 message; that of ICMPv4 a raw socket has to look at itself (`icmp_rcv()`
 * comes after `raw_local_deliver()` in net/ipv4/ip_input.c).
 * @returns undefined for everything else.
 */
export function readEchoReply(
  family: Family,
  bytes: Uint8Array,
  { hasIpHeader, payload }: { readonly hasIpHeader: boolean; readonly payload: Uint8Array },
): number | undefined {
  const start = hasIpHeader ? ((bytes[0] ?? 0) & 0x0f) * 4 : 0;
  const message = bytes.subarray(start);
  if (message.length !== HEADER_BYTES + payload.length) return undefined;
  if (message[0] !== ECHO_TYPES[family].reply || message[1] !== 0) return undefined;
  if (family === 4 && internetChecksum(message) !== 0) return undefined;
  if (!payload.every((byte, index) => byte === message[HEADER_BYTES + index])) return undefined;
  return ((message[6] ?? 0) << 8) | (message[7] ?? 0);
}

/**
 * The classic BPF program that lets a raw ICMP socket have echo replies to its own identifier and nothing else, so that
 * whatever other ICMP reaches the host wakes nobody.
 *
 * @remarks A raw IPv4 socket filters with the IPv4 header in front, an IPv6 one without (`raw_rcv()`, `rawv6_rcv()`).
 */
export function echoReplyFilter(family: Family, identifier: number): readonly BpfInstruction[] {
  const [LDX_MSH, LDX_IMM, LDB_IND, LDH_IND, JEQ, RET] = [0xb1, 0x01, 0x50, 0x48, 0x15, 0x06];
  return [
    family === 4 ? [LDX_MSH, 0, 0, 0] : [LDX_IMM, 0, 0, 0], // x = length of the IPv4 header, or 0
    [LDB_IND, 0, 0, 0],
    [JEQ, 0, 3, ECHO_TYPES[family].reply],
    [LDH_IND, 0, 0, 4],
    [JEQ, 0, 1, identifier],
    [RET, 0, 0, 0xffff_ffff],
    [RET, 0, 0, 0],
  ];
}
