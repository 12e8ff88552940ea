import { ADDRESS_BITS, IpAddress } from '../ip/address.js';
import { Prefix } from '../ip/prefix.js';
import type { PoolIdentity } from './pool-id.js';

/** A host leases a sixteenth of the range at a time, within these bounds. */
const BLOCKS_PER_RANGE = 16n;
const MIN_BLOCK = 4n;
/** Addresses in the largest block. */
export const MAX_BLOCK = 64n;

/** Of a larger range, blocks are made of the first addresses alone: no network has as many containers. */
const MAX_SPAN = 1n << 16n;

/**
 * How a pool is cut: blocks that hosts lease, and addresses that nobody gets. The same on all hosts, since it follows from
 * subnet and range alone. Pure.
 */
export class PoolLayout {
  readonly subnet: Prefix;
  readonly range: Prefix;
  /** Addresses in a block, a power of two, at most 64. */
  readonly blockSize: number;
  readonly blockCount: number;
  readonly #blockLength: number;

  constructor({ subnet, range }: Pick<PoolIdentity, 'subnet' | 'range'>) {
    this.subnet = subnet;
    this.range = range;
    const share = range.size / BLOCKS_PER_RANGE;
    const bounded = share < MIN_BLOCK ? MIN_BLOCK : share > MAX_BLOCK ? MAX_BLOCK : share;
    const size = bounded < range.size ? bounded : range.size;
    const span = range.size < MAX_SPAN ? range.size : MAX_SPAN;
    this.blockSize = Number(size);
    this.blockCount = Number(span / size);
    this.#blockLength = ADDRESS_BITS[range.family] - Math.log2(this.blockSize);
  }

  /** @param index - from 0 up to, not including, {@link blockCount}. */
  block(index: number): Prefix {
    return Prefix.of(this.range.address.add(BigInt(index * this.blockSize)), this.#blockLength);
  }

  /** The block that an address lies in; undefined for those outside of the range, or too far into a large one. */
  blockOf(address: IpAddress): Prefix | undefined {
    const offset = address.value - this.range.address.value;
    const isInside = this.range.contains(address) && offset < BigInt(this.blockCount * this.blockSize);
    return isInside ? Prefix.of(address, this.#blockLength) : undefined;
  }

  /** Whether a prefix is one of the blocks. */
  isBlock(prefix: Prefix): boolean {
    return prefix.equals(this.blockOf(prefix.address));
  }

  /** What the gateway is unless somebody says otherwise: the first address of the subnet that a host can have. */
  get gateway(): IpAddress {
    return this.subnet.address.add(this.#hasEnds ? 1n : 0n);
  }

  /**
   * Whether a host can have the address: it lies in the subnet and is neither its network nor its broadcast address
   * (RFC 1122 3.2.1.3), nor the anycast address of its routers (RFC 4291 2.6.1). Subnets of two addresses and of one have
   * neither (RFC 3021, RFC 6164).
   */
  isUsable(address: IpAddress): boolean {
    if (!this.subnet.contains(address)) return false;
    if (!this.#hasEnds) return true;
    const isBroadcast = address.family === 4 && address.equals(this.subnet.last);
    return !address.equals(this.subnet.address) && !isBroadcast;
  }

  /** The addresses of a block that are given out by themselves: those that a host can have, without the usual gateway. */
  givable(block: Prefix): AddressMask {
    let mask = 0n;
    for (const index of Array.from({ length: this.blockSize }, (_, each) => each)) {
      const address = block.address.add(BigInt(index));
      if (this.isUsable(address) && !address.equals(this.gateway)) mask |= 1n << BigInt(index);
    }
    return mask;
  }

  get #hasEnds(): boolean {
    return this.subnet.length <= ADDRESS_BITS[this.subnet.family] - 2;
  }
}

/** Some addresses of a block: bit n stands for its n-th address. */
export type AddressMask = bigint;

/** The bit of an address in the mask of its block. */
export function maskOf(block: Prefix, address: IpAddress): AddressMask {
  return 1n << (address.value - block.address.value);
}

/** The addresses that a mask stands for, in their order. */
export function addressesIn(block: Prefix, mask: AddressMask): readonly IpAddress[] {
  const addresses: IpAddress[] = [];
  for (let rest = mask, index = 0n; rest > 0n; rest >>= 1n, index++) {
    if ((rest & 1n) === 1n) addresses.push(block.address.add(index));
  }
  return addresses;
}
