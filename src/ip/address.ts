import { OverlayError } from '../errors.js';

/** IP version. One function serves both wherever it can. */
export type Family = 4 | 6;

/** Bits in an address of that family. */
export const ADDRESS_BITS: Readonly<Record<Family, 32 | 128>> = { 4: 32, 6: 128 };

const V4 = /^(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})$/;

/** An immutable IPv4 or IPv6 address. */
export class IpAddress {
  /** Cached text; a true private field, so that two equal values are also deeply equal. */
  #text: string | undefined;

  private constructor(
    readonly family: Family,
    /** The address as an unsigned number in host order. */
    readonly value: bigint,
  ) {}

  /**
   * Reads dotted IPv4 without leading zeros, or RFC 4291 IPv6 text without a zone.
   *
   * @throws {@link OverlayError} `ERR_IP_SYNTAX`
   */
  static parse(text: string): IpAddress {
    const address = IpAddress.tryParse(text);
    if (address === undefined) throw new OverlayError('ERR_IP_SYNTAX', `"${text}" is not an IP address`);
    return address;
  }

  /** Like {@link parse}, but undefined instead of an error. */
  static tryParse(text: string): IpAddress | undefined {
    const family = text.includes(':') ? 6 : 4;
    const value = family === 4 ? parseV4(text) : parseV6(text);
    return value === undefined ? undefined : new IpAddress(family, value);
  }

  /**
   * @param bytes - 4 or 16 bytes in network order.
   * @throws {@link OverlayError} `ERR_IP_SYNTAX`
   */
  static fromBytes(bytes: Uint8Array): IpAddress {
    if (bytes.length !== 4 && bytes.length !== 16) {
      throw new OverlayError('ERR_IP_SYNTAX', `cannot make an IP address of ${bytes.length} bytes`);
    }
    let value = 0n;
    for (const byte of bytes) value = (value << 8n) | BigInt(byte);
    return new IpAddress(bytes.length === 4 ? 4 : 6, value);
  }

  /** @param value - taken modulo the size of the family's address space. */
  static fromValue(family: Family, value: bigint): IpAddress {
    return new IpAddress(family, BigInt.asUintN(ADDRESS_BITS[family], value));
  }

  /** 4 or 16 bytes in network order. */
  toBytes(): Uint8Array {
    const bytes = new Uint8Array(ADDRESS_BITS[this.family] / 8);
    let rest = this.value;
    for (let i = bytes.length - 1; i >= 0; i--) {
      bytes[i] = Number(rest & 0xffn);
      rest >>= 8n;
    }
    return bytes;
  }

  /** The address that many places further on, wrapping at the end of the address space. */
  add(offset: bigint): IpAddress {
    return IpAddress.fromValue(this.family, this.value + offset);
  }

  equals(other: IpAddress | undefined): boolean {
    return other !== undefined && this.family === other.family && this.value === other.value;
  }

  /** Order for sorting: IPv4 before IPv6, then numerically. */
  compare(other: IpAddress): number {
    if (this.family !== other.family) return this.family - other.family;
    return this.value < other.value ? -1 : this.value > other.value ? 1 : 0;
  }

  /** `0.0.0.0` or `::`. */
  get isUnspecified(): boolean {
    return this.value === 0n;
  }

  get isLoopback(): boolean {
    return this.family === 4 ? this.value >> 24n === 127n : this.value === 1n;
  }

  /** 169.254.0.0/16 (RFC 3927) or fe80::/10 (RFC 4291 2.5.6). */
  get isLinkLocal(): boolean {
    return this.family === 4 ? this.value >> 16n === 0xa9fen : this.value >> 118n === 0xfe80n >> 6n;
  }

  get isMulticast(): boolean {
    return this.family === 4 ? this.value >> 28n === 0xen : this.value >> 120n === 0xffn;
  }

  /** Go's notion, which flannel uses to order addresses: neither unspecified, loopback, multicast, link-local nor broadcast. */
  get isGlobalUnicast(): boolean {
    const isBroadcast = this.family === 4 && this.value === 0xffffffffn;
    return !(this.isUnspecified || this.isLoopback || this.isMulticast || this.isLinkLocal || isBroadcast);
  }

  /** Dotted IPv4, or IPv6 in the canonical form of RFC 5952. */
  toString(): string {
    this.#text ??= this.family === 4 ? this.toBytes().join('.') : formatV6(this.value);
    return this.#text;
  }

  toJSON(): string {
    return this.toString();
  }
}

function parseV4(text: string): bigint | undefined {
  const match = V4.exec(text);
  if (match === null) return undefined;
  let value = 0n;
  for (const octet of match.slice(1)) {
    if (Number(octet) > 255) return undefined;
    value = (value << 8n) | BigInt(octet);
  }
  return value;
}

function parseV6(text: string): bigint | undefined {
  const halves = text.split('::');
  if (halves.length > 2) return undefined;
  const head = parseGroups(halves[0] ?? '', halves.length === 1);
  const tail = halves.length === 2 ? parseGroups(halves[1] ?? '', true) : [];
  if (head === undefined || tail === undefined) return undefined;
  const missing = 8 - head.length - tail.length;
  if (halves.length === 1 ? missing !== 0 : missing < 1) return undefined;
  const groups = [...head, ...Array<number>(missing).fill(0), ...tail];
  return groups.reduce((value, group) => (value << 16n) | BigInt(group), 0n);
}

/** @param mayEndInV4 - whether the last group may be dotted IPv4 (RFC 4291 2.2.3). */
function parseGroups(text: string, mayEndInV4: boolean): number[] | undefined {
  if (text === '') return [];
  const groups: number[] = [];
  const parts = text.split(':');
  for (const [index, part] of parts.entries()) {
    if (/^[0-9a-fA-F]{1,4}$/.test(part)) {
      groups.push(Number.parseInt(part, 16));
      continue;
    }
    const v4 = mayEndInV4 && index === parts.length - 1 ? parseV4(part) : undefined;
    if (v4 === undefined) return undefined;
    groups.push(Number(v4 >> 16n), Number(v4 & 0xffffn));
  }
  return groups;
}

function formatV6(value: bigint): string {
  const groups = Array.from({ length: 8 }, (_, i) => Number((value >> BigInt(112 - 16 * i)) & 0xffffn));
  let longest = { start: 0, length: 1 };
  for (let start = 0; start < 8; start++) {
    let length = 0;
    while (start + length < 8 && groups[start + length] === 0) length++;
    if (length > longest.length) longest = { start, length };
  }
  const hex = groups.map((group) => group.toString(16));
  if (longest.length === 1) return hex.join(':');
  const head = hex.slice(0, longest.start).join(':');
  const tail = hex.slice(longest.start + longest.length).join(':');
  return `${head}::${tail}`;
}
