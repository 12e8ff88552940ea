import { ACCEPT, BPF, DROP, ETHERNET_BYTES, ICMPV6, ND, SOLICITATION } from '../../container/probe-frames.js';
import { IpAddress } from '../../ip/address.js';
import type { Prefix } from '../../ip/prefix.js';
import type { BpfInstruction } from '../../sys/libc.js';

/** Where a frame has the address that is asked for. */
const TARGET = ETHERNET_BYTES + ND.target;

/** RFC 4861 7.1.1: what a router has passed on is not to be answered. */
const HOP_LIMIT = 255;

const { loadByte: LD_B, loadWord: LD_W, and: AND, jumpIfEqual: JEQ } = BPF;

/** The most subnets that a filter tells apart; there are jumps over all of them, of at most 255 instructions. */
export const MAX_FILTERED = 16;

/**
 * Lets through what asks for an address in one of the subnets, and nothing else: whatever else comes in on a busy
 * interface does not wake anybody.
 */
export function questionFilter(subnets: readonly Prefix[]): readonly BpfInstruction[] {
  const blocks = subnets.slice(0, MAX_FILTERED).map(matchSubnet);
  const rest = blocks.flat();
  const head: readonly (readonly [number, number])[] = [
    [ETHERNET_BYTES + ND.nextHeader, ICMPV6],
    [ETHERNET_BYTES + ND.hopLimit, HOP_LIMIT],
    [ETHERNET_BYTES + ND.message, SOLICITATION],
  ];
  const toDrop = (at: number): number => rest.length + 2 * head.length - at - 1;
  return [
    ...head.flatMap(([offset, value], index): BpfInstruction[] => [
      [LD_B, 0, 0, offset],
      [JEQ, 0, toDrop(2 * index + 1), value],
    ]),
    ...rest,
    DROP,
  ];
}

/** Accepts a target in the subnet, else goes on behind the block. */
function matchSubnet(subnet: Prefix): readonly BpfInstruction[] {
  const words = [0, 1, 2, 3].flatMap((word) => {
    const bits = Math.min(32, Math.max(0, subnet.length - 32 * word));
    if (bits === 0) return [];
    const mask = bits === 32 ? 0xffff_ffff : (0xffff_ffff << (32 - bits)) >>> 0;
    const value = Number((subnet.address.value >> BigInt(96 - 32 * word)) & 0xffff_ffffn);
    return [{ offset: TARGET + 4 * word, mask, value: (value & mask) >>> 0 }];
  });
  const lines = words.flatMap(({ offset, mask }): BpfInstruction[] => [
    [LD_W, 0, 0, offset],
    ...(mask === 0xffff_ffff ? [] : ([[AND, 0, 0, mask]] as const)),
    [JEQ, 0, 0, 0], // its value and its way out are filled in below
  ]);
  const length = lines.length + 1;
  let word = 0;
  const filled = lines.map((line, at): BpfInstruction => {
    if (line[0] !== JEQ) return line;
    return [JEQ, 0, length - at - 1, words[word++]?.value ?? 0];
  });
  return [...filled, ACCEPT];
}

/** The address that a frame asks for; undefined if it is cut off. The filter has looked at the rest. */
export function questionOf(frame: Uint8Array): IpAddress | undefined {
  return frame.length < TARGET + 16 ? undefined : IpAddress.fromBytes(frame.subarray(TARGET, TARGET + 16));
}
