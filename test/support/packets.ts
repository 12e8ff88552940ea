/** Protocol numbers of RFC 790 that tests need. */
export const PROTOCOL = { icmp: 1, tcp: 6, udp: 17 } as const;

/** What {@link buildPacket} takes; everything has a default. */
export interface PacketFields {
  readonly source?: string;
  readonly destination?: string;
  readonly ttl?: number;
  readonly tos?: number;
  readonly id?: number;
  /** Flags and fragment offset as the header has them: 0x4000 DF, 0x2000 MF, then the offset in units of eight bytes. */
  readonly flags?: number;
  readonly protocol?: number;
  /** A multiple of four bytes, at most 40. */
  readonly options?: Uint8Array;
  readonly payload?: Uint8Array;
}

/** Dotted IPv4 as an unsigned number. */
export function ipv4Number(text: string): number {
  return Buffer.from(text.split('.').map(Number)).readUInt32BE(0);
}

/** An unsigned number as dotted IPv4. */
export function ipv4Text(value: number): string {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return [...bytes].join('.');
}

/** An IPv4 packet with right lengths and header checksum. */
export function buildPacket(fields: PacketFields): Buffer {
  const { source = '198.51.100.2', destination = '203.0.113.2', ttl = 64, tos = 0, id = 0, flags = 0 } = fields;
  const options = fields.options ?? Buffer.alloc(0);
  const payload = fields.payload ?? Buffer.alloc(0);
  const packet = Buffer.alloc(20 + options.length + payload.length);
  packet[0] = 0x40 | (5 + options.length / 4);
  packet[1] = tos;
  packet.writeUInt16BE(packet.length, 2);
  packet.writeUInt16BE(id, 4);
  packet.writeUInt16BE(flags, 6);
  packet[8] = ttl;
  packet[9] = fields.protocol ?? PROTOCOL.udp;
  packet.writeUInt32BE(ipv4Number(source), 12);
  packet.writeUInt32BE(ipv4Number(destination), 16);
  packet.set(options, 20);
  packet.set(payload, 20 + options.length);
  packet.writeUInt16BE(referenceChecksum(packet.subarray(0, 20 + options.length)), 10);
  return packet;
}

/** A UDP segment with its checksum over the pseudo header. */
export function buildUdp(
  source: string,
  destination: string,
  sourcePort: number,
  destinationPort: number,
  data: Uint8Array,
): Buffer {
  const segment = Buffer.alloc(8 + data.length);
  segment.writeUInt16BE(sourcePort, 0);
  segment.writeUInt16BE(destinationPort, 2);
  segment.writeUInt16BE(segment.length, 4);
  segment.set(data, 8);
  const pseudo = Buffer.alloc(12);
  pseudo.writeUInt32BE(ipv4Number(source), 0);
  pseudo.writeUInt32BE(ipv4Number(destination), 4);
  pseudo[9] = PROTOCOL.udp;
  pseudo.writeUInt16BE(segment.length, 10);
  segment.writeUInt16BE(referenceChecksum(Buffer.concat([pseudo, segment])) || 0xffff, 6);
  return segment;
}

/** RFC 1071, one word and one carry at a time; independent of the code under test. */
export function referenceChecksum(bytes: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) {
    sum += ((bytes[i] ?? 0) << 8) | (bytes[i + 1] ?? 0);
    if (sum > 0xffff) sum -= 0xffff;
  }
  return 0xffff - sum;
}
