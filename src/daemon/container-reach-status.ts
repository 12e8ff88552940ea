import { SKIP_CAUSES } from '../backend/backend.js';
import { REFUSAL_REASONS } from '../container/reach-admission.js';
import type { ContainerReachStatus } from '../observe/container-reach-status.js';
import type { ContainerReachState } from './container-reach.js';

/** Entries of a list that anybody may make as long as they like. */
const MAX_LISTED = 100;

/** Prefixes of one peer that are listed. */
const MAX_PREFIXES = 10;

/** Puts the account of containers on other hosts together. */
export function describeContainerReach(state: ContainerReachState): ContainerReachStatus {
  const { routed, skipped, unplaced, refused } = state;
  return {
    routed,
    skipped: skipped.slice(0, MAX_LISTED).map(({ lease, prefixes, cause, reason, hint }) => ({
      peer: lease.subnet.toString(),
      publicIp: lease.attributes.publicIp.toString(),
      prefixes: prefixes.slice(0, MAX_PREFIXES).map((prefix) => prefix.toString()),
      cause,
      reason,
      hint,
    })),
    skippedByCause: countBy(SKIP_CAUSES, skipped, ({ cause, prefixes }) => [cause, prefixes.length]),
    unplaced: unplaced.slice(0, MAX_LISTED),
    unplacedPrefixes: unplaced.reduce((sum, { prefixes }) => sum + prefixes, 0),
    refused: refused.slice(0, MAX_LISTED),
    refusedByReason: countBy(REFUSAL_REASONS, refused, ({ reason }) => [reason, 1]),
  };
}

function countBy<Key extends string, T>(
  keys: readonly Key[],
  items: readonly T[],
  countOf: (item: T) => readonly [Key, number],
): Readonly<Record<Key, number>> {
  const counts = Object.fromEntries(keys.map((key) => [key, 0])) as Record<Key, number>;
  for (const item of items) {
    const [key, count] = countOf(item);
    counts[key] += count;
  }
  return counts;
}
