/** Shorter parts are those of too many words. */
const SHORTEST_PART = 3;

/**
 * The known word that somebody probably meant: with a third of its letters wrong, missing, added or exchanged, or of which only a
 * part was written (`endpoints` for `etcd-endpoints`, `reserve` for `leases reserve`).
 *
 * @returns undefined if none is near.
 */
export function mostSimilar<Known extends string>(word: string, known: readonly Known[]): Known | undefined {
  const near = known
    .map((each) => ({ each, distance: editDistance(word, each) }))
    .filter(({ each, distance }) => distance <= Math.floor(Math.min(word.length, each.length) / 3))
    .sort((a, b) => a.distance - b.distance);
  return near[0]?.each ?? known.find((each) => isPartOf(word, each) || isPartOf(each, word));
}

function isPartOf(part: string, whole: string): boolean {
  if (part.length < SHORTEST_PART) return false;
  return whole.startsWith(part) || whole.endsWith(`-${part}`) || whole.endsWith(` ${part}`);
}

/** Letters to replace, insert, delete or exchange with their neighbour (optimal string alignment). */
function editDistance(from: string, to: string): number {
  let before: readonly number[] = [];
  let row: readonly number[] = Array.from({ length: to.length + 1 }, (_, column) => column);
  for (let i = 1; i <= from.length; i++) {
    const next = [i];
    for (let j = 1; j <= to.length; j++) {
      const isSame = from[i - 1] === to[j - 1];
      const isExchanged = i > 1 && j > 1 && from[i - 1] === to[j - 2] && from[i - 2] === to[j - 1];
      next.push(
        Math.min(
          (next[j - 1] ?? 0) + 1,
          (row[j] ?? 0) + 1,
          (row[j - 1] ?? 0) + (isSame ? 0 : 1),
          isExchanged ? (before[j - 2] ?? 0) + 1 : Infinity,
        ),
      );
    }
    [before, row] = [row, next];
  }
  return row.at(-1) ?? 0;
}
