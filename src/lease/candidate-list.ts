import type { Candidate } from './admission.js';
import type { LeaseRecord } from './record.js';

/** Changes beyond that number are sorted in together with everything else. */
const FEW = 64;

/**
 * Every lease that is known, in order of the subnets.
 *
 * @remarks Among thousands of leases one changes at a time; sorting all of them would cost more than everything else.
 */
export class CandidateList {
  /** By the key of the lease. */
  readonly #known = new Map<string, Candidate>();
  #sorted: readonly Candidate[] = [];

  /** Those of the last {@link update}; the same list if it brought nothing new. */
  get sorted(): readonly Candidate[] {
    return this.#sorted;
  }

  /**
   * Takes these leases instead of those before.
   *
   * @param missing - leases that the store does not have any more, by their keys; none of these is in `present`.
   */
  update(
    present: ReadonlyMap<string, LeaseRecord>,
    missing: ReadonlyMap<string, { readonly lease: LeaseRecord }>,
  ): void {
    const gone = new Set<Candidate>();
    const come: Candidate[] = [];
    for (const [key, candidate] of this.#known) {
      const lease = candidate.isMissing ? missing.get(key)?.lease : present.get(key);
      if (lease === candidate.lease) continue;
      this.#known.delete(key);
      gone.add(candidate);
    }
    const add = (key: string, lease: LeaseRecord, isMissing: boolean): void => {
      if (this.#known.has(key)) return;
      const candidate = { lease, isMissing };
      this.#known.set(key, candidate);
      come.push(candidate);
    };
    for (const [key, lease] of present) add(key, lease, false);
    for (const [key, { lease }] of missing) add(key, lease, true);
    if (gone.size === 0 && come.length === 0) return;
    const kept = this.#sorted.filter((candidate) => !gone.has(candidate));
    if (come.length > FEW) this.#sorted = kept.concat(come).sort(bySubnet);
    else this.#sorted = come.sort(bySubnet).reduceRight(insert, kept);
  }
}

function bySubnet(a: Candidate, b: Candidate): number {
  return a.lease.subnet.compare(b.lease.subnet);
}

/** Puts a candidate into its place in a sorted list, which it alters. */
function insert(sorted: Candidate[], candidate: Candidate): Candidate[] {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const other = sorted[middle];
    if (other !== undefined && bySubnet(other, candidate) < 0) low = middle + 1;
    else high = middle;
  }
  sorted.splice(low, 0, candidate);
  return sorted;
}
