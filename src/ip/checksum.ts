/** Bytes of an IPv6 header, and where its addresses begin in it (RFC 8200 3). */
const IPV6 = { header: 40, addresses: 8 } as const;

const ICMPV6 = 58;

/**
 * Internet checksum (RFC 1071) over all bytes.
 *
 * @param bytes - an odd one is padded with zero. 65535 bytes add up to less than 2^31: no carry is lost.
 * @param initial - what else is to be added up.
 * @returns what belongs into a checksum field that was zero meanwhile; 0 over data with a right checksum in it.
 */
export function internetChecksum(bytes: Uint8Array, initial = 0): number {
  let sum = initial;
  for (let index = 0; index < bytes.length; index += 2) sum += ((bytes[index] ?? 0) << 8) | (bytes[index + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

/**
 * The checksum of an ICMPv6 message, over its pseudo-header as well (RFC 8200 8.1).
 *
 * @param packet - from the IPv6 header on, without extension headers.
 * @returns as {@link internetChecksum}.
 */
export function icmpv6Checksum(packet: Uint8Array): number {
  return internetChecksum(packet.subarray(IPV6.addresses), packet.length - IPV6.header + ICMPV6);
}
