import { OverlayError } from '../errors.js';
import { ADDRESS_BITS, type Family, IpAddress } from './address.js';

/** First and last address of a network, for comparing thousands: numbers for IPv4. */
interface Bounds {
  readonly start: number | bigint;
  readonly end: number | bigint;
}

/** An immutable network: an address whose host bits are zero, and the number of leading bits that count. */
export class Prefix {
  /** Cached text; a true private field, so that two equal values are also deeply equal. */
  #text: string | undefined;
  #bounds: Bounds | undefined;

  private constructor(
    /** The network address. */
    readonly address: IpAddress,
    /** 0…32 or 0…128. */
    readonly length: number,
  ) {}

  /**
   * The network of that length which contains the address.
   *
   * @throws {@link OverlayError} `ERR_IP_SYNTAX` if the family has no such length.
   */
  static of(address: IpAddress, length: number): Prefix {
    if (!Number.isInteger(length) || length < 0 || length > ADDRESS_BITS[address.family]) {
      throw new OverlayError('ERR_IP_SYNTAX', `cannot make a network of length ${length} around ${address.toString()}`);
    }
    const hostBits = BigInt(ADDRESS_BITS[address.family] - length);
    return new Prefix(IpAddress.fromValue(address.family, (address.value >> hostBits) << hostBits), length);
  }

  /**
   * Reads `address/length` and masks the host bits away, as Go's `net.ParseCIDR` does.
   *
   * @throws {@link OverlayError} `ERR_IP_SYNTAX`
   */
  static parse(text: string): Prefix {
    const prefix = Prefix.tryParse(text);
    if (prefix === undefined) {
      throw new OverlayError('ERR_IP_SYNTAX', `"${text}" is not a network in the form address/length`);
    }
    return prefix;
  }

  /** Like {@link parse}, but undefined instead of an error. */
  static tryParse(text: string): Prefix | undefined {
    const match = /^([^/]+)\/(0|[1-9]\d{0,2})$/.exec(text);
    const address = match?.[1] === undefined ? undefined : IpAddress.tryParse(match[1]);
    const length = Number(match?.[2]);
    if (address === undefined || length > ADDRESS_BITS[address.family]) return undefined;
    return Prefix.of(address, length);
  }

  /** The single address as a network of full length: /32 or /128. */
  static host(address: IpAddress): Prefix {
    return new Prefix(address, ADDRESS_BITS[address.family]);
  }

  /** The network of that length, at most its own, which covers it; itself if that is its own. */
  shortenedTo(length: number): Prefix {
    return length === this.length ? this : Prefix.of(this.address, length);
  }

  get family(): Family {
    return this.address.family;
  }

  /** How many addresses it holds. */
  get size(): bigint {
    return 1n << BigInt(ADDRESS_BITS[this.family] - this.length);
  }

  /** The highest address in it. */
  get last(): IpAddress {
    return this.address.add(this.size - 1n);
  }

  contains(address: IpAddress): boolean {
    if (address.family !== this.family) return false;
    const value = this.family === 4 ? Number(address.value) : address.value;
    const { start, end } = this.bounds;
    return start <= value && value <= end;
  }

  /** Whether every address of the other network lies in this one. */
  covers(other: Prefix): boolean {
    return other.length >= this.length && this.contains(other.address);
  }

  overlaps(other: Prefix): boolean {
    const mine = this.bounds;
    const theirs = other.bounds;
    return this.family === other.family && mine.start <= theirs.end && theirs.start <= mine.end;
  }

  /** Its first and its last address; comparable within a family. */
  get bounds(): Bounds {
    return (this.#bounds ??= boundsOf(this));
  }

  equals(other: Prefix | undefined): boolean {
    return other !== undefined && this.length === other.length && this.address.equals(other.address);
  }

  /** Order for sorting: by address, then shorter prefixes first. */
  compare(other: Prefix): number {
    return this.address.compare(other.address) || this.length - other.length;
  }

  /** `address/length`. */
  toString(): string {
    this.#text ??= `${this.address.toString()}/${this.length}`;
    return this.#text;
  }

  toJSON(): string {
    return this.toString();
  }
}

function boundsOf({ address, family, last }: Prefix): Bounds {
  const [start, end] = [address.value, last.value];
  return family === 4 ? { start: Number(start), end: Number(end) } : { start, end };
}
