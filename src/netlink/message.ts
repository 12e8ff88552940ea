import os from 'node:os';
import { OverlayError } from '../errors.js';
import { IpAddress } from '../ip/address.js';
import type { MacAddress } from '../ip/mac.js';
import { NLA_F_NESTED, NLA_TYPE_MASK, NLMSG, NLMSGERR_ATTR, NLM_F } from './constants.js';

/** Netlink headers and integers are in the byte order of the machine. */
const isLittle = os.endianness() === 'LE';

/** `sizeof(struct nlmsghdr)`: length, type, flags, sequence number, port. */
export const HEADER_BYTES = 16;

/** `sizeof(struct nlattr)`: length, type. */
const ATTRIBUTE_HEADER_BYTES = 4;

const decoder = new TextDecoder();
const encoder = new TextEncoder();
const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'));

/** Lengths inside a message are rounded up to words of four bytes. */
function aligned(length: number): number {
  return ((length + 3) & ~3) >>> 0;
}

/**
 * Builds one request at a time in a buffer that is used again.
 *
 * @remarks {@link finish} lends its bytes until the next {@link start}.
 */
export class MessageWriter {
  private bytes = new Uint8Array(1024);
  private view = new DataView(this.bytes.buffer);
  private length = 0;

  /** Begins a message and forgets the one before. */
  start(type: number, flags: number, sequence: number): this {
    this.length = 0;
    return this.u32(0).u16(type).u16(flags).u32(sequence).u32(0);
  }

  u8(value: number): this {
    const at = this.grow(1);
    this.view.setUint8(at, value);
    return this;
  }

  u16(value: number): this {
    const at = this.grow(2);
    this.view.setUint16(at, value, isLittle);
    return this;
  }

  u32(value: number): this {
    const at = this.grow(4);
    this.view.setUint32(at, value, isLittle);
    return this;
  }

  attributeU8(type: number, value: number): this {
    return this.attributeHeader(type, 1).u8(value).pad();
  }

  attributeU16(type: number, value: number): this {
    return this.attributeHeader(type, 2).u16(value).pad();
  }

  /** Ports are in network order. */
  attributeU16be(type: number, value: number): this {
    return this.attributeHeader(type, 2)
      .u8(value >> 8)
      .u8(value & 0xff)
      .pad();
  }

  attributeU32(type: number, value: number): this {
    return this.attributeHeader(type, 4).u32(value);
  }

  /** Text with the closing zero that most text attributes need. */
  attributeText(type: number, text: string): this {
    const encoded = encoder.encode(text);
    return this.attributeHeader(type, encoded.length + 1)
      .raw(encoded)
      .u8(0)
      .pad();
  }

  attributeBytes(type: number, bytes: Uint8Array): this {
    return this.attributeHeader(type, bytes.length).raw(bytes).pad();
  }

  attributeFlag(type: number): this {
    return this.attributeHeader(type, 0);
  }

  attributeAddress(type: number, address: IpAddress): this {
    const { family, value } = address;
    if (family === 4) {
      const at = this.attributeHeader(type, 4).grow(4);
      this.view.setUint32(at, Number(value));
      return this;
    }
    const at = this.attributeHeader(type, 16).grow(16);
    this.view.setBigUint64(at, value >> 64n);
    this.view.setBigUint64(at + 8, value & 0xffff_ffff_ffff_ffffn);
    return this;
  }

  attributeMac(type: number, mac: MacAddress): this {
    this.attributeHeader(type, 6);
    for (let i = 0; i < 6; i++) this.u8(Number.parseInt(mac.slice(3 * i, 3 * i + 2), 16));
    return this.pad();
  }

  /** An attribute that holds what `fill` writes. */
  nested(type: number, fill: () => void): this {
    const start = this.length;
    this.attributeHeader(type | NLA_F_NESTED, 0);
    fill();
    this.view.setUint16(start, this.length - start, isLittle);
    return this;
  }

  /** The complete message, valid until the next {@link start}. */
  finish(): Uint8Array {
    this.view.setUint32(0, this.length, isLittle);
    return this.bytes.subarray(0, this.length);
  }

  private attributeHeader(type: number, payloadBytes: number): this {
    return this.u16(ATTRIBUTE_HEADER_BYTES + payloadBytes).u16(type);
  }

  private raw(bytes: Uint8Array): this {
    const at = this.grow(bytes.length); // may replace the buffer
    this.bytes.set(bytes, at);
    return this;
  }

  private pad(): this {
    const from = this.grow(aligned(this.length) - this.length);
    this.bytes.fill(0, from, this.length);
    return this;
  }

  /** @returns offset of the room that was added. */
  private grow(count: number): number {
    const at = this.length;
    this.length += count;
    if (this.length > this.bytes.length) {
      const larger = new Uint8Array(2 * this.length);
      larger.set(this.bytes.subarray(0, at));
      this.bytes = larger;
      this.view = new DataView(larger.buffer);
    }
    return at;
  }
}

/**
 * A place in received bytes: a message, or what is inside an attribute. Moved along rather than allocated anew, because
 * a dump has tens of thousands of them.
 */
export class MessageReader {
  readonly view: DataView;
  /** Of the message the reader stands on. */
  type = 0;
  flags = 0;
  sequence = 0;
  /** Port of the socket that caused the message, 0 for the kernel itself. */
  port = 0;
  /** First byte after the header, and first byte after the message. */
  start = 0;
  end = 0;
  private following = 0;
  private available = 0;

  /** @param bytes - receive buffer; read in place. */
  constructor(readonly bytes: Uint8Array) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Starts anew on the first `length` bytes of the buffer. */
  reset(length: number): this {
    this.available = length;
    this.following = 0;
    return this;
  }

  /**
   * Moves to the next message.
   *
   * @returns false after the last one.
   * @throws {@link OverlayError} `ERR_NETLINK` if a length contradicts the bytes.
   */
  next(): boolean {
    const at = this.following;
    if (at >= this.available) return false;
    const length = at + HEADER_BYTES <= this.available ? this.view.getUint32(at, isLittle) : 0;
    if (length < HEADER_BYTES || at + length > this.available) throw malformed('message', at, length, this.available);
    this.type = this.view.getUint16(at + 4, isLittle);
    this.flags = this.view.getUint16(at + 6, isLittle);
    this.sequence = this.view.getUint32(at + 8, isLittle);
    this.port = this.view.getUint32(at + 12, isLittle);
    this.start = at + HEADER_BYTES;
    this.end = at + length;
    this.following = at + aligned(length);
    return true;
  }

  /** A field of the fixed part, at that many bytes after the header; 0 if the message is too short to have it. */
  u8(offset: number): number {
    return this.start + offset < this.end ? this.view.getUint8(this.start + offset) : 0;
  }

  /** See {@link u8}. */
  u16(offset: number): number {
    return this.start + offset + 2 <= this.end ? this.view.getUint16(this.start + offset, isLittle) : 0;
  }

  /** See {@link u8}. */
  u32(offset: number): number {
    return this.start + offset + 4 <= this.end ? this.view.getUint32(this.start + offset, isLittle) : 0;
  }
}

/**
 * The attributes of a message by type, found by one pass over it. Values are read on demand, so what nobody asks for
 * costs nothing. One table is used for many messages; a second parse forgets the first.
 */
export class AttributeTable {
  private readonly offsets: Uint32Array;
  private readonly lengths: Uint32Array;
  private readonly rounds: Uint32Array;
  private round = 0;
  private source: MessageReader | undefined;

  /** @param maxType - attributes with larger numbers are ignored, as everybody ignores those of newer kernels. */
  constructor(private readonly maxType: number) {
    this.offsets = new Uint32Array(maxType + 1);
    this.lengths = new Uint32Array(maxType + 1);
    this.rounds = new Uint32Array(maxType + 1);
  }

  /**
   * Takes the attributes between two offsets of the reader's bytes.
   *
   * @throws {@link OverlayError} `ERR_NETLINK` if a length contradicts the bytes.
   */
  parse(reader: MessageReader, start: number, end: number): this {
    this.source = reader;
    this.round++;
    let at = start;
    while (at + ATTRIBUTE_HEADER_BYTES <= end) {
      const length = reader.view.getUint16(at, isLittle);
      const type = reader.view.getUint16(at + 2, isLittle) & NLA_TYPE_MASK;
      if (length < ATTRIBUTE_HEADER_BYTES || at + length > end) throw malformed('attribute', at, length, end);
      if (type <= this.maxType) {
        this.offsets[type] = at + ATTRIBUTE_HEADER_BYTES;
        this.lengths[type] = length - ATTRIBUTE_HEADER_BYTES;
        this.rounds[type] = this.round;
      }
      at += aligned(length);
    }
    return this;
  }

  has(type: number): boolean {
    return this.rounds[type] === this.round;
  }

  /** Undefined unless the attribute is there and long enough; likewise below. */
  u8(type: number): number | undefined {
    return this.at(type, 1, (view, offset) => view.getUint8(offset));
  }

  u16(type: number): number | undefined {
    return this.at(type, 2, (view, offset) => view.getUint16(offset, isLittle));
  }

  /** Ports are in network order. */
  u16be(type: number): number | undefined {
    return this.at(type, 2, (view, offset) => view.getUint16(offset));
  }

  u32(type: number): number | undefined {
    return this.at(type, 4, (view, offset) => view.getUint32(offset, isLittle));
  }

  /** At most 2^53; larger ones lose their lowest bits. */
  u64(type: number): number | undefined {
    return this.at(type, 8, (view, offset) => Number(view.getBigUint64(offset, isLittle)));
  }

  /** Up to the first zero byte. */
  text(type: number): string | undefined {
    const bytes = this.borrow(type);
    if (bytes === undefined) return undefined;
    const zero = bytes.indexOf(0);
    return decoder.decode(zero < 0 ? bytes : bytes.subarray(0, zero));
  }

  /** An address of 4 or 16 bytes; anything else, such as the gateway of another family, is undefined. */
  address(type: number): IpAddress | undefined {
    if (this.source === undefined || !this.has(type)) return undefined;
    const offset = this.offsets[type] ?? 0;
    if (this.lengths[type] === 4) return IpAddress.fromValue(4, BigInt(this.source.view.getUint32(offset)));
    if (this.lengths[type] !== 16) return undefined;
    const { view } = this.source;
    return IpAddress.fromValue(6, (view.getBigUint64(offset) << 64n) | view.getBigUint64(offset + 8));
  }

  /** Six bytes; undefined for devices with other hardware addresses. */
  mac(type: number): MacAddress | undefined {
    const b = this.borrow(type);
    if (b?.length !== 6) return undefined;
    const hex = (index: number): string => HEX[b[index] ?? 0] ?? '';
    return `${hex(0)}:${hex(1)}:${hex(2)}:${hex(3)}:${hex(4)}:${hex(5)}` as MacAddress;
  }

  /** Parses what is inside an attribute into another table, which is empty if there is no such attribute. */
  nested(type: number, into: AttributeTable): AttributeTable {
    const { offset, length } = this.range(type);
    if (this.source === undefined) return into;
    return into.parse(this.source, offset, offset + length);
  }

  /** Where the attribute's payload lies in the reader's bytes; length 0 if it is not there. */
  range(type: number): { readonly offset: number; readonly length: number } {
    if (!this.has(type)) return { offset: 0, length: 0 };
    return { offset: this.offsets[type] ?? 0, length: this.lengths[type] ?? 0 };
  }

  private at(type: number, bytes: number, read: (view: DataView, offset: number) => number): number | undefined {
    if (this.source === undefined || !this.has(type) || (this.lengths[type] ?? 0) < bytes) return undefined;
    return read(this.source.view, this.offsets[type] ?? 0);
  }

  /** The payload in the receive buffer, valid until the next receive. */
  private borrow(type: number): Uint8Array | undefined {
    if (this.source === undefined || !this.has(type)) return undefined;
    const offset = this.offsets[type] ?? 0;
    return this.source.bytes.subarray(offset, offset + (this.lengths[type] ?? 0));
  }
}

/**
 * Goes through attributes of which several have the same type, as the entries of a nested list.
 *
 * @param visit - gets the type and where the payload lies in the reader's bytes.
 * @throws {@link OverlayError} `ERR_NETLINK` if a length contradicts the bytes.
 */
export function eachAttribute(
  reader: MessageReader,
  { offset, length: available }: { readonly offset: number; readonly length: number },
  visit: (type: number, offset: number, length: number) => void,
): void {
  const end = offset + available;
  for (let at = offset; at + ATTRIBUTE_HEADER_BYTES <= end;) {
    const length = reader.view.getUint16(at, isLittle);
    if (length < ATTRIBUTE_HEADER_BYTES || at + length > end) throw malformed('attribute', at, length, end);
    const type = reader.view.getUint16(at + 2, isLittle) & NLA_TYPE_MASK;
    visit(type, at + ATTRIBUTE_HEADER_BYTES, length - ATTRIBUTE_HEADER_BYTES);
    at += aligned(length);
  }
}

/** What the kernel says about a request. */
export interface Acknowledgement {
  /** 0 or a positive errno. */
  readonly errno: number;
  /** The kernel's explanation in words (`NETLINK_EXT_ACK`, 4.12), such as `Nexthop has invalid gateway`. */
  readonly explanation: string | undefined;
}

const acknowledgementTable = new AttributeTable(NLMSGERR_ATTR.MISS_NEST);

/** Reads an `NLMSG_ERROR`, or the `NLMSG_DONE` that ends a dump. */
export function readAcknowledgement(reader: MessageReader): Acknowledgement {
  const errno = 0 - (reader.u32(0) | 0); // negative on the wire
  if ((reader.flags & NLM_F.ACK_TLVS) === 0) return { errno, explanation: undefined };
  // struct nlmsgerr: error, then the header of the request, then (unless capped) its payload. DONE has only the error.
  const echoed = (reader.flags & NLM_F.CAPPED) === 0 ? aligned(reader.u32(4)) : HEADER_BYTES;
  const requestBytes = reader.type === NLMSG.ERROR ? echoed : 0;
  const start = Math.min(reader.start + 4 + requestBytes, reader.end);
  const explanation = acknowledgementTable.parse(reader, start, reader.end).text(NLMSGERR_ATTR.MSG);
  return { errno, explanation: explanation === '' ? undefined : explanation };
}

function malformed(what: string, at: number, length: number, end: number): OverlayError {
  return new OverlayError(
    'ERR_NETLINK',
    `cannot read a netlink ${what}: length ${length} at offset ${at} of ${end} bytes is impossible`,
    { isRetryable: true },
  );
}
