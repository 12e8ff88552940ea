import type { IpAddress } from '../ip/address.js';

/** What is known of addresses that matters for which one is given next, each by its text. */
export interface AddressHistory {
  /** Given before and free since; the one that has been free for longest first. */
  readonly released: Iterable<string>;
  /** Asked for by name before. */
  readonly fixed: ReadonlySet<string>;
}

/**
 * Free addresses in the order in which they are given out: those never given before, the lowest first; then those
 * released, the one that has been free for longest first, since neighbours may still know the former holder; and those
 * that somebody asked for by name last, so that a container with a fixed address can start again. Pure.
 */
export function inGivingOrder(free: readonly IpAddress[], { released, fixed }: AddressHistory): readonly IpAddress[] {
  const since = new Map([...released].map((text, index) => [text, index]));
  const rank = (address: IpAddress): readonly [number, number] => {
    const text = address.toString();
    const freeSince = since.get(text);
    return [fixed.has(text) ? 2 : freeSince === undefined ? 0 : 1, freeSince ?? -1];
  };
  return free
    .map((address) => ({ address, rank: rank(address) }))
    .sort((a, b) => a.rank[0] - b.rank[0] || a.rank[1] - b.rank[1] || a.address.compare(b.address))
    .map(({ address }) => address);
}
