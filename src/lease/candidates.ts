import type { Prefix } from '../ip/prefix.js';
import { type AdmissionContext, type Quarantined, type Verdict, judge } from './admission.js';
import type { Lease } from './lease.js';
import { PrefixIndex } from './prefix-index.js';
import { type LeaseRecord, isAfter } from './record.js';

/** What the store, and what is missing from it, come down to. */
export interface Admission {
  /** In order of their subnets. */
  readonly peers: readonly LeaseRecord[];
  /** Those peers that the store does not have, in the same order. */
  readonly kept: readonly LeaseRecord[];
  readonly quarantined: readonly Quarantined[];
}

/** A lease that is known. */
interface Candidate {
  readonly lease: LeaseRecord;
  /** It is missing from the store and kept for a while: whoever is there has the better claim. */
  readonly isMissing: boolean;
  readonly verdict: Verdict;
}

/** Changes beyond that number are sorted in together with everything else. */
const FEW = 64;

/**
 * Every lease that is known, and which of them are peers.
 *
 * API: {@link put} and {@link remove} say what is known under a key, {@link setContext} what leases are judged by;
 * {@link admission} gives the outcome, which depends on what is known now and not on how it came to be.
 *
 * @remarks
 * What a lease is by itself, {@link judge} says. Of sound leases that overlap each other one counts: of one host's the
 * one written last, else the one whose key is older. One that is missing from the store goes as soon as its host has
 * another one there.
 *
 * Among thousands of leases one changes at a time, and costs as much as among ten: each is judged, put in order, counted
 * among the leases of its host and compared with those that it overlaps when it comes. Only leases that do overlap, are
 * missing or at fault are looked at again.
 */
export class Candidates {
  #context: AdmissionContext;
  /** By the key of the lease. */
  readonly #known = new Map<string, Candidate>();
  /** The sound ones in order of their subnets; never altered, since others hold on to it. */
  #sound: readonly LeaseRecord[] = [];
  /** Sound leases that {@link #sound} has still, and has not yet. */
  readonly #gone = new Set<LeaseRecord>();
  readonly #come = new Set<LeaseRecord>();
  /** Sound ones that the store does not have. */
  readonly #missing = new Set<Candidate>();
  readonly #faulty = new Set<Candidate>();
  /** How many sound leases in the store bear a mark. */
  readonly #marks = new Map<string, number>();
  readonly #overlaps = {
    4: new Overlaps(({ lease }) => lease.subnet),
    6: new Overlaps(({ lease }) => lease.ipv6Subnet),
  };

  constructor(context: AdmissionContext) {
    this.#context = context;
  }

  /** Has everything judged anew. */
  setContext(context: AdmissionContext): void {
    this.#context = context;
    for (const [key, { lease, isMissing, verdict }] of [...this.#known]) {
      if (judge(lease, context) === verdict) continue;
      this.remove(key);
      this.#add(key, lease, isMissing);
    }
  }

  /** Says that this is known under a key, instead of what was. */
  put(key: string, lease: LeaseRecord, isMissing: boolean): void {
    const before = this.#known.get(key);
    if (before?.lease === lease && before.isMissing === isMissing) return;
    this.remove(key);
    this.#add(key, lease, isMissing);
  }

  /** Says that nothing is known under a key any more. */
  remove(key: string): void {
    const candidate = this.#known.get(key);
    if (candidate === undefined) return;
    const { lease, isMissing, verdict } = candidate;
    this.#known.delete(key);
    this.#faulty.delete(candidate);
    if (verdict !== 'sound') return;
    if (!this.#come.delete(lease)) this.#gone.add(lease);
    if (isMissing) this.#missing.delete(candidate);
    else this.#count(lease, -1);
    this.#overlaps[4].remove(candidate);
    this.#overlaps[6].remove(candidate);
  }

  admission(): Admission {
    this.#sort();
    const moved = new Set([...this.#missing].filter((candidate) => this.#hasMoved(candidate)));
    const staying4 = this.#overlaps[4].contested.filter((candidate) => !moved.has(candidate));
    const losers = findLosers(staying4, ({ lease }) => lease.subnet);
    const staying6 = this.#overlaps[6].contested.filter((each) => !moved.has(each) && !losers.has(each.lease));
    for (const [loser, winner] of findLosers(staying6, ({ lease }) => lease.ipv6Subnet ?? lease.subnet)) {
      losers.set(loser, winner);
    }
    const out = new Set([...losers.keys(), ...Array.from(moved, ({ lease }) => lease)]);
    const missing = Array.from(this.#missing, ({ lease }) => lease);
    return {
      peers: out.size === 0 ? this.#sound : this.#sound.filter((lease) => !out.has(lease)),
      kept: missing.filter((lease) => !out.has(lease)).sort(bySubnet),
      quarantined: [...this.#faults(), ...conflicts(losers)],
    };
  }

  #add(key: string, lease: LeaseRecord, isMissing: boolean): void {
    const candidate = { lease, isMissing, verdict: judge(lease, this.#context) };
    this.#known.set(key, candidate);
    if (candidate.verdict === 'own') return;
    if (candidate.verdict !== 'sound') {
      this.#faulty.add(candidate);
      return;
    }
    this.#come.add(lease);
    if (isMissing) this.#missing.add(candidate);
    else this.#count(lease, 1);
    this.#overlaps[4].add(candidate);
    this.#overlaps[6].add(candidate);
  }

  /** Brings {@link #sound} up to date. */
  #sort(): void {
    if (this.#come.size === 0 && this.#gone.size === 0) return;
    const sound = [...this.#sound];
    if (this.#come.size + this.#gone.size > FEW) {
      this.#sound = sound
        .filter((lease) => !this.#gone.has(lease))
        .concat(...this.#come)
        .sort(bySubnet);
    } else {
      for (const lease of this.#gone) sound.splice(placeOf(lease, sound), 1);
      for (const lease of this.#come) sound.splice(placeOf(lease, sound), 0, lease);
      this.#sound = sound;
    }
    this.#come.clear();
    this.#gone.clear();
  }

  *#faults(): Generator<Quarantined> {
    for (const { lease, verdict } of [...this.#faulty].sort((a, b) => bySubnet(a.lease, b.lease))) {
      if (typeof verdict === 'object') yield { key: lease.key, lease, ...verdict };
    }
  }

  /** Whether the host of a lease that is missing from the store has another one there: it has given this one up. */
  #hasMoved({ lease }: Candidate): boolean {
    return marksOf(lease).some((mark) => this.#marks.has(mark));
  }

  #count(lease: LeaseRecord, more: 1 | -1): void {
    for (const mark of marksOf(lease)) {
      const count = (this.#marks.get(mark) ?? 0) + more;
      if (count === 0) this.#marks.delete(mark);
      else this.#marks.set(mark, count);
    }
  }
}

/** Leases of which each has addresses of a family in common with another one. */
class Overlaps {
  readonly #index = new PrefixIndex<Candidate>();
  readonly #contested = new Set<Candidate>();

  /** @param prefixOf - undefined for a lease without that family. */
  constructor(private readonly prefixOf: (candidate: Candidate) => Prefix | undefined) {}

  /** In order of their prefixes. */
  get contested(): readonly Candidate[] {
    const prefixOf = (candidate: Candidate): Prefix => this.prefixOf(candidate) ?? candidate.lease.subnet;
    return [...this.#contested].sort((a, b) => prefixOf(a).compare(prefixOf(b)) || bySubnet(a.lease, b.lease));
  }

  add(candidate: Candidate): void {
    const prefix = this.prefixOf(candidate);
    if (prefix === undefined) return;
    const others = this.#index.overlapping(prefix);
    this.#index.add(prefix, candidate);
    if (others.length === 0) return;
    for (const each of [...others, candidate]) this.#contested.add(each);
  }

  remove(candidate: Candidate): void {
    const prefix = this.prefixOf(candidate);
    if (prefix === undefined) return;
    this.#index.remove(prefix, candidate);
    if (!this.#contested.delete(candidate)) return;
    for (const other of this.#index.overlapping(prefix)) {
      const rest = this.prefixOf(other);
      if (rest !== undefined && this.#index.overlapping(rest).length === 1) this.#contested.delete(other);
    }
  }
}

/** Two keys of one host, or one that is gone for a later one, are no conflict. */
function* conflicts(losers: ReadonlyMap<LeaseRecord, LeaseRecord>): Generator<Quarantined> {
  for (const [lease, winner] of losers) {
    if (winner.attributes.publicIp.equals(lease.attributes.publicIp)) continue;
    const detail = `it overlaps ${winner.key} of ${winner.attributes.publicIp.toString()}, which is older`;
    yield { key: lease.key, lease, reason: 'overlaps-peer', detail };
  }
}

/** What no two hosts have in common: address, and what a backend says of its device. */
function marksOf({ attributes: { publicIp, backendData } }: Lease): readonly string[] {
  const data = typeof backendData === 'object' && backendData !== null ? [JSON.stringify(backendData)] : [];
  return publicIp.isUnspecified ? data : [publicIp.toString(), ...data];
}

/**
 * Leases that give way to another with which they have addresses in common, with that other one.
 *
 * @param candidates - in order of the prefixes, which are nested or apart.
 */
function findLosers(
  candidates: readonly Candidate[],
  prefixOf: (candidate: Candidate) => Prefix,
): Map<LeaseRecord, LeaseRecord> {
  const losers = new Map<LeaseRecord, LeaseRecord>();
  /** Those that the current one may lie in, outermost first. */
  const open: Candidate[] = [];
  for (const candidate of candidates) {
    const { start } = prefixOf(candidate).bounds;
    for (let last = open.at(-1); last !== undefined && prefixOf(last).bounds.end < start; last = open.at(-1)) {
      open.pop();
    }
    for (const other of open) {
      if (losers.has(other.lease) || losers.has(candidate.lease)) continue;
      const isBetter = hasBetterClaim(candidate, other);
      losers.set(isBetter ? other.lease : candidate.lease, isBetter ? candidate.lease : other.lease);
    }
    open.push(candidate);
  }
  return losers;
}

function hasBetterClaim(a: Candidate, b: Candidate): boolean {
  if (a.isMissing !== b.isMissing) return b.isMissing;
  if (a.lease.attributes.publicIp.equals(b.lease.attributes.publicIp))
    return isAfter(a.lease.revision, b.lease.revision);
  return isAfter(b.lease.createdAt, a.lease.createdAt);
}

/** Total: two keys may name the same subnet, and which of them comes first must not depend on what was known before. */
function bySubnet(a: LeaseRecord, b: LeaseRecord): number {
  return a.subnet.compare(b.subnet) || (a.key === b.key ? 0 : a.key < b.key ? -1 : 1);
}

/** Where a lease is, or belongs, in a sorted list. */
function placeOf(lease: LeaseRecord, sorted: readonly LeaseRecord[]): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const other = sorted[middle];
    if (other !== undefined && bySubnet(other, lease) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}
