import { Alarm } from '../alarm.js';
import type { Clock } from '../clock.js';
import { guarded } from '../guard.js';
import { isSame } from '../ip/same.js';
import type { Logger } from '../log.js';
import { type AdmissionContext, type Quarantined, admit } from './admission.js';
import { areAttributesEqual } from './attributes.js';
import { CandidateList } from './candidate-list.js';
import type { Lease } from './lease.js';
import { LeaseComplaints } from './lease-complaints.js';
import { type PeerChange, PeerLog } from './peer-log.js';
import type { BadEntry, LeaseRecord } from './record.js';
import type { Subscription } from './store.js';
import { formatSubnetKey } from './subnet-key.js';
import type { World } from './world.js';

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
 * believed is {@link admit}'s to say.
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
  readonly #candidates = new CandidateList();
  /** Leases that are known but not, or not readably, in the world, by their keys. */
  readonly #missing = new Map<string, Missing>();
  #peers: readonly LeaseRecord[] = [];
  /** Whether the peers have changed since the last report, even if they are again what they were then. */
  #isUntold = false;
  #quarantined: readonly Quarantined[] = [];
  /** What was reported last, by subnet. */
  #reported: ReadonlyMap<string, LeaseRecord> = new Map();
  readonly #callbacks = new Set<(peers: readonly Lease[]) => void>();
  readonly #counters = { joined: 0, changed: 0, left: 0, epochs: 0, badEntries: 0, quarantined: 0 };
  #hasReported = false;
  #cancelExpiry: (() => void) | undefined;
  #isClosed = false;

  constructor(options: PeerSetOptions) {
    this.#options = options;
    this.#context = options.context;
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
    return this.#missing.size === 0 ? [] : this.#peers.filter(({ key }) => this.#missing.has(key));
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
    for (const [key, lease] of before?.leases ?? []) {
      if (!world.leases.has(key)) this.#missing.set(key, { lease, untilMs });
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

  #refresh(): void {
    const { clock } = this.#options;
    const now = clock.monotonicMs();
    let nextMs = Number.POSITIVE_INFINITY;
    for (const [key, { untilMs }] of this.#missing) {
      if (untilMs <= now) this.#missing.delete(key);
      else nextMs = Math.min(nextMs, untilMs);
    }
    this.#cancelExpiry?.();
    this.#cancelExpiry = Number.isFinite(nextMs) ? clock.after(nextMs - now, this.#onExpiry) : undefined;
    this.#candidates.update(this.#world?.leases ?? new Map(), this.#missing);
    const { peers, quarantined } = admit(this.#candidates.sorted, this.#context);
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
    const before = this.#reported;
    const after = new Map(this.#peers.map((lease) => [lease.subnet.toString(), lease]));
    this.#reported = after;
    const news: Record<PeerChange, Lease[]> = { joined: [], changed: [], left: [] };
    for (const [subnet, lease] of after) {
      const former = before.get(subnet);
      if (former === undefined) news.joined.push(lease);
      else if (!isSamePeer(former, lease)) news.changed.push(lease);
    }
    for (const [subnet, lease] of before) if (!after.has(subnet)) news.left.push(lease);
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
      return former?.subnet.equals(lease.subnet) === true && isSamePeer(former, lease);
    })
  );
}

/** Whether nothing that forwarding depends on differs; a lease that was only renewed is the same. */
function isSamePeer(a: Lease, b: Lease): boolean {
  return a === b || (isSame(a.ipv6Subnet, b.ipv6Subnet) && areAttributesEqual(a.attributes, b.attributes));
}
