import { ADDRESS_BITS, IpAddress } from '../ip/address.js';
import { Prefix } from '../ip/prefix.js';
import { SHARED_LOW, STRIDE, canSpread } from './address-spread.js';
import type { PoolIdentity } from './pool-id.js';

/** A host leases a sixteenth of the range at a time, within these bounds. */
const BLOCKS_PER_RANGE = 16n;
const MIN_BLOCK = 4n;
/** Addresses given out of the largest block. */
const MAX_BLOCK = 64n;

/** Of a larger range, blocks are made of the first addresses alone: no network has as many containers. */
const MAX_SPAN = 1n << 16n;

/** Of the blocks of a spread network; others are much longer. */
const WIDE_LENGTH = ADDRESS_BITS[6] - Math.log2(Number(MAX_BLOCK * STRIDE));

/**
 * How a pool is cut: blocks that hosts lease, and addresses that nobody gets. The same on all hosts, since it follows from
 * subnet, range and record alone. A block is a prefix in which at most 64 addresses are given out by themselves: all of
 * them, or, where they are spread, one in 2^24. Pure.
 */
export class PoolLayout {
  readonly subnet: Prefix;
  readonly range: Prefix;
  /** Addresses given out of a block, a power of two, at most 64. */
  readonly blockSize: number;
  readonly blockCount: number;
  /** Whether the addresses that are given out by themselves share their last 24 bits. */
  readonly isSpread: boolean;
  readonly #stride: bigint;
  readonly #blockLength: number;

  /** @param isSpread - as the record says; without effect on a range that has no room for it. */
  constructor({ subnet, range }: Pick<PoolIdentity, 'subnet' | 'range'>, isSpread = false) {
    this.subnet = subnet;
    this.range = range;
    this.isSpread = isSpread && canSpread(range);
    this.#stride = this.isSpread ? STRIDE : 1n;
    const all = range.size / this.#stride;
    const share = all / BLOCKS_PER_RANGE;
    const bounded = share < MIN_BLOCK ? MIN_BLOCK : share > MAX_BLOCK ? MAX_BLOCK : share;
    const size = bounded < all ? bounded : all;
    const span = all < MAX_SPAN ? all : MAX_SPAN;
    this.blockSize = Number(size);
    this.blockCount = Number(span / size);
    this.#blockLength = ADDRESS_BITS[range.family] - Math.log2(Number(size * this.#stride));
  }

  /** @param index - from 0 up to, not including, {@link blockCount}. */
  block(index: number): Prefix {
    return Prefix.of(this.range.address.add(BigInt(index * this.blockSize) * this.#stride), this.#blockLength);
  }

  /** The block that an address lies in; undefined for those outside of the range, or too far into a large one. */
  blockAround(address: IpAddress): Prefix | undefined {
    const offset = address.value - this.range.address.value;
    const span = BigInt(this.blockCount * this.blockSize) * this.#stride;
    return this.range.contains(address) && offset < span ? Prefix.of(address, this.#blockLength) : undefined;
  }

  /** The block that an address is given out of; undefined for those that somebody has to ask for by name. */
  blockOf(address: IpAddress): Prefix | undefined {
    const block = this.blockAround(address);
    return block === undefined || maskOf(block, address) === 0n ? undefined : block;
  }

  /** Whether a prefix is one of the blocks. */
  isBlock(prefix: Prefix): boolean {
    return prefix.equals(this.blockAround(prefix.address));
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
    const isGivable = (address: IpAddress): boolean => this.isUsable(address) && !address.equals(this.gateway);
    return addressesIn(block, (1n << BigInt(this.blockSize)) - 1n)
      .filter((address) => isGivable(address))
      .reduce((mask, address) => mask | maskOf(block, address), 0n);
  }

  get #hasEnds(): boolean {
    return this.subnet.length <= ADDRESS_BITS[this.subnet.family] - 2;
  }
}

/** Some of the addresses given out of a block: bit n stands for the n-th one. */
export type AddressMask = bigint;

/** How many addresses can be given out of a prefix, if it is a block; undefined if no network has such a one. */
export function blockSizeOf(prefix: Prefix): bigint | undefined {
  if (isWide(prefix)) return MAX_BLOCK;
  return prefix.size <= MAX_BLOCK ? prefix.size : undefined;
}

/** The bit of an address in the mask of the block around it; 0 for one that is not given out of it. */
export function maskOf(block: Prefix, address: IpAddress): AddressMask {
  const offset = address.value - block.address.value;
  if (!isWide(block)) return 1n << offset;
  return offset % STRIDE === SHARED_LOW ? 1n << (offset / STRIDE) : 0n;
}

/** The addresses that a mask stands for, in their order. */
export function addressesIn(block: Prefix, mask: AddressMask): readonly IpAddress[] {
  const addresses: IpAddress[] = [];
  for (let rest = mask, index = 0n; rest > 0n; rest >>= 1n, index++) {
    if ((rest & 1n) === 1n) addresses.push(block.address.add(isWide(block) ? index * STRIDE + SHARED_LOW : index));
  }
  return addresses;
}

function isWide({ family, length }: Prefix): boolean {
  return family === 6 && length === WIDE_LENGTH;
}
