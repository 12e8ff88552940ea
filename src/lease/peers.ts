import { Alarm } from '../alarm.js';
import type { Clock } from '../clock.js';
import { guarded } from '../guard.js';
import { isSame } from '../ip/same.js';
import { listDifference } from '../list-difference.js';
import type { Logger } from '../log.js';
import type { AdmissionContext, Quarantined } from './admission.js';
import { areAttributesEqual } from './attributes.js';
import { Candidates } from './candidates.js';
import type { Lease } from './lease.js';
import { LeaseComplaints } from './lease-complaints.js';
import { type PeerChange, PeerLog } from './peer-log.js';
import type { BadEntry, LeaseRecord } from './record.js';
import type { Subscription } from './store.js';
import { formatSubnetKey } from './subnet-key.js';
import { type World, changedKeys } from './world.js';

/** What a {@link PeerSet} is made of. */
export interface PeerSetOptions {
  readonly clock: Clock;
  readonly log: Logger;
  readonly context: AdmissionContext;
  /** Changes that come within that time are reported together. Default 50. */
  readonly debounceMs?: number;
  /** A lease that vanishes and is back within that time has never been away. Default 2000. */
  readonly leaveGraceMs?: number;
}

/** Numbers that only grow. */
export interface PeerCounters {
  readonly joined: number;
  readonly changed: number;
  readonly left: number;
  /** Histories of the store that were seen: one at start, one more after each wipe or restore. */
  readonly epochs: number;
  /** Keys and values that could not be read, each revision once. */
  readonly badEntries: number;
  /** Leases that were not believed, each time one became so. */
  readonly quarantined: number;
}

/**
 * How long a peer is kept that another history of the store does not have: until its host has had every chance to
 * notice and to assert its lease again. flannel's hosts and ours renew or look within five minutes, give or take.
 */
const RETENTION_MS = 400_000;

interface Missing {
  readonly lease: LeaseRecord;
  /** When, on the monotonic clock, it no longer counts. */
  readonly untilMs: number;
}

/**
 * The other hosts' leases, as far as they are believed.
 *
 * @remarks
 * *API.* {@link seed} with the leases of an earlier run, {@link observe} with every world, then {@link peers} at any time
 * and {@link onChange}.
 *
 * *Rules.* A peer goes only when its key is gone from the store, and then only after a grace: a host whose lease was
 * deleted by mistake takes it again in a fraction of a second, and traffic to it goes on meanwhile. What is missing
 * from another epoch of the store was not given up by anybody: it is kept for some minutes, unless somebody else holds
 * the subnet. An unreadable value leaves what was known, and a store that is away leaves everything. Which leases are
 * believed is {@link Candidates}' to say.
 */
export class PeerSet {
  readonly #options: PeerSetOptions;
  readonly #debounceMs: number;
  readonly #leaveGraceMs: number;
  readonly #complaints: LeaseComplaints;
  readonly #peerLog: PeerLog;
  readonly #report: Alarm;
  readonly #onExpiry: () => void;
  #context: AdmissionContext;
  #world: World | undefined;
  readonly #candidates: Candidates;
  /** Leases that are known but not, or not readably, in the world, by their keys. */
  readonly #missing = new Map<string, Missing>();
  #peers: readonly LeaseRecord[] = [];
  #kept: readonly LeaseRecord[] = [];
  /** Whether the peers have changed since the last report, even if they are again what they were then. */
  #isUntold = false;
  #quarantined: readonly Quarantined[] = [];
  /** What was reported last. */
  #reported: readonly LeaseRecord[] = [];
  readonly #callbacks = new Set<(peers: readonly Lease[]) => void>();
  readonly #counters = { joined: 0, changed: 0, left: 0, epochs: 0, badEntries: 0, quarantined: 0 };
  #hasReported = false;
  #cancelExpiry: (() => void) | undefined;
  #isClosed = false;

  constructor(options: PeerSetOptions) {
    this.#options = options;
    this.#context = options.context;
    this.#candidates = new Candidates(options.context);
    this.#debounceMs = options.debounceMs ?? 50;
    this.#leaveGraceMs = options.leaveGraceMs ?? 2000;
    this.#complaints = new LeaseComplaints(options.log, options.clock);
    this.#peerLog = new PeerLog(options.log, options.clock);
    const guard = { logger: options.log, clock: options.clock, what: 'the peers' };
    this.#report = new Alarm(
      options.clock,
      guarded(guard, () => this.#reportChanges()),
    );
    this.#onExpiry = guarded(guard, () => {
      this.#refresh();
      this.#schedule();
    });
  }

  /** The peers in order of their subnets; the same list until something changes. */
  get peers(): readonly Lease[] {
    return this.#peers;
  }

  /** Leases that are in the store and not believed. */
  get quarantined(): readonly Quarantined[] {
    return this.#quarantined;
  }

  /** Peers that the store does not have and that are kept for a while. */
  get kept(): readonly Lease[] {
    return this.#kept;
  }

  /** Whether the store has been heard at least once; before that, the peers are those of an earlier run. */
  get isSynced(): boolean {
    return this.#world !== undefined;
  }

  /** Keys under `<prefix>/subnets` that cannot be read now. */
  get badEntries(): readonly BadEntry[] {
    return this.#world === undefined ? [] : [...this.#world.bad.values()];
  }

  get counters(): PeerCounters {
    return { ...this.#counters };
  }

  /** Takes leases of an earlier run as peers until the store says otherwise; without effect once it has. */
  seed(leases: readonly Lease[]): void {
    if (this.#isClosed || this.#world !== undefined) return;
    for (const lease of leases) {
      const key = formatSubnetKey(lease);
      const record: LeaseRecord = { ...lease, key, etcdLeaseId: undefined };
      this.#missing.set(key, { lease: record, untilMs: Number.POSITIVE_INFINITY });
      this.#know(key);
    }
    this.#refresh();
    this.#schedule();
  }

  /** Takes the leases of a world instead of those before. */
  observe(world: World): void {
    if (this.#isClosed || world === this.#world) return;
    const before = this.#world;
    this.#world = world;
    const isNewEpoch = world.epoch !== (before?.epoch ?? 0);
    if (isNewEpoch) this.#counters.epochs++;
    // What an earlier process knew, and an unbroken history does not, was given up while nobody looked.
    const graceMs = isNewEpoch ? RETENTION_MS : before === undefined ? 0 : this.#leaveGraceMs;
    const untilMs = this.#options.clock.monotonicMs() + graceMs;
    const changed = changedKeys(before, world) ?? new Set([...(before?.leases.keys() ?? []), ...world.leases.keys()]);
    for (const key of changed) {
      const lease = before?.leases.get(key);
      if (lease !== undefined && !world.leases.has(key)) this.#missing.set(key, { lease, untilMs });
      this.#know(key);
    }
    for (const [key, { lease, untilMs: formerUntilMs }] of this.#missing) {
      if (world.leases.has(key)) this.#missing.delete(key);
      else if (world.bad.has(key)) this.#missing.set(key, { lease, untilMs: Number.POSITIVE_INFINITY });
      else if (!Number.isFinite(formerUntilMs)) this.#missing.set(key, { lease, untilMs });
    }
    const fresh = [...world.bad.values()].filter(({ key, revision }) => before?.bad.get(key)?.revision !== revision);
    this.#counters.badEntries += fresh.length;
    this.#complaints.tellBad(fresh);
    this.#refresh();
    this.#schedule();
  }

  /** Told after the first world, even of no peers, and after each batch of changes. */
  onChange(callback: (peers: readonly Lease[]) => void): Subscription {
    const { clock, log: logger } = this.#options;
    const safe = guarded({ clock, logger, what: 'changes of peers' }, callback);
    this.#callbacks.add(safe);
    return { close: () => this.#callbacks.delete(safe) };
  }

  /** What decides from now on which leases are believed. */
  setContext(context: AdmissionContext): void {
    if (this.#isClosed || context === this.#context) return;
    this.#context = context;
    this.#candidates.setContext(context);
    this.#refresh();
    this.#schedule();
  }

  /** Takes nothing more; the peers stay as they are. Idempotent. */
  close(): void {
    this.#isClosed = true;
    this.#report.cancel();
    this.#cancelExpiry?.();
    this.#complaints.close();
    this.#peerLog.close();
  }

  /** Tells the candidates what is known under a key. */
  #know(key: string): void {
    const present = this.#world?.leases.get(key);
    const lease = present ?? this.#missing.get(key)?.lease;
    if (lease === undefined) this.#candidates.remove(key);
    else this.#candidates.put(key, lease, present === undefined);
  }

  #refresh(): void {
    const { clock } = this.#options;
    const now = clock.monotonicMs();
    let nextMs = Number.POSITIVE_INFINITY;
    for (const [key, { untilMs }] of this.#missing) {
      if (untilMs <= now) {
        this.#missing.delete(key);
        this.#know(key);
      } else nextMs = Math.min(nextMs, untilMs);
    }
    this.#cancelExpiry?.();
    this.#cancelExpiry = Number.isFinite(nextMs) ? clock.after(nextMs - now, this.#onExpiry) : undefined;
    const { peers, kept, quarantined } = this.#candidates.admission();
    this.#kept = kept;
    this.#quarantined = quarantined;
    const before = this.#peers;
    if (peers.length === before.length && peers.every((lease, index) => lease === before[index])) return;
    this.#peers = peers;
    this.#isUntold ||= !areSamePeers(before, peers);
  }

  #schedule(): void {
    this.#report.set(this.#debounceMs);
  }

  #reportChanges(): void {
    this.#counters.quarantined += this.#complaints.tellQuarantined(this.#quarantined);
    const { removed, added } = listDifference(this.#reported, this.#peers);
    this.#reported = this.#peers;
    const former = new Map(removed.map((lease) => [lease.subnet.toString(), lease]));
    const news: Record<PeerChange, Lease[]> = { joined: [], changed: [], left: [] };
    for (const lease of added) {
      const subnet = lease.subnet.toString();
      const before = former.get(subnet);
      former.delete(subnet);
      if (before === undefined) news.joined.push(lease);
      else if (!isSamePeer(before, lease)) news.changed.push(lease);
    }
    news.left.push(...former.values());
    for (const change of ['joined', 'changed', 'left'] as const) {
      this.#counters[change] += news[change].length;
      this.#peerLog.tell(change, news[change]);
    }
    if (!this.#isUntold && (this.#hasReported || !this.isSynced)) return;
    this.#hasReported = true;
    this.#isUntold = false;
    const { peers } = this;
    for (const callback of [...this.#callbacks]) callback(peers);
  }
}

/** Whether nothing that forwarding depends on differs between two lists in order of their subnets. */
export function areSamePeers(before: readonly Lease[], after: readonly Lease[]): boolean {
  return (
    before.length === after.length &&
    after.every((lease, index) => {
      const former = before[index];
      return former === lease || (former?.subnet.equals(lease.subnet) === true && isSamePeer(former, lease));
    })
  );
}

/** Whether nothing that forwarding depends on differs; a lease that was only renewed is the same. */
function isSamePeer(a: Lease, b: Lease): boolean {
  return a === b || (isSame(a.ipv6Subnet, b.ipv6Subnet) && areAttributesEqual(a.attributes, b.attributes));
}
