/** Where two lists differ: between their common beginning and their common end. */
export interface DifferingRange {
  readonly start: number;
  readonly previousEnd: number;
  readonly nextEnd: number;
}

/**
 * The shortest range outside of which two lists hold the same objects (`===`) in the same order.
 *
 * @param changed - objects that count as others although they are the same.
 */
export function differingRange<T>(
  previous: readonly T[],
  next: readonly T[],
  changed: ReadonlySet<T> = new Set(),
): DifferingRange {
  let previousEnd = previous.length;
  let nextEnd = next.length;
  let start = 0;
  const isSame = (a: T | undefined, b: T | undefined): boolean =>
    a === b && (changed.size === 0 || a === undefined || !changed.has(a));
  while (start < previousEnd && start < nextEnd && isSame(previous[start], next[start])) start++;
  while (previousEnd > start && nextEnd > start && isSame(previous[previousEnd - 1], next[nextEnd - 1])) {
    previousEnd--;
    nextEnd--;
  }
  return { start, previousEnd, nextEnd };
}

/**
 * The objects that one list has and the other has not, each as often as it is there more often.
 *
 * @remarks For long lists with few differences; those that are close together are found fastest.
 */
export function listDifference<T>(
  previous: readonly T[],
  next: readonly T[],
): { readonly removed: readonly T[]; readonly added: readonly T[] } {
  const { start, previousEnd, nextEnd } = differingRange(previous, next);
  const unmatched = new Map<T, number>();
  for (const item of previous.slice(start, previousEnd)) unmatched.set(item, (unmatched.get(item) ?? 0) + 1);
  const added = next.slice(start, nextEnd).filter((item) => {
    const count = unmatched.get(item) ?? 0;
    if (count > 0) unmatched.set(item, count - 1);
    return count === 0;
  });
  const removed = [...unmatched].flatMap(([item, count]) => Array.from({ length: count }, () => item));
  return { removed, added };
}
