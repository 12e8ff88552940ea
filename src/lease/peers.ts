import type { Clock } from '../clock.js';
import { OverlayError } from '../errors.js';
import type { Logger } from '../log.js';
import { decodeAttributes, encodeAttributes } from './attributes.js';
import type { Lease } from './lease.js';
import { type OwnIdentity, type PeerChange, PeerTable } from './peer-table.js';
import type { BadEntry, LeaseEvent, LeaseRecord, LeaseStore, Subscription } from './store.js';
import { formatSubnetKey, parseSubnetKey } from './subnet-key.js';

/** What a {@link PeerSet} is made of. */
export interface PeerSetOptions {
  readonly store: LeaseStore;
  readonly clock: Clock;
  readonly log: Logger;
  readonly own: OwnIdentity;
  /** Changes that come within that time are reported together. Default 50. */
  readonly debounceMs?: number;
  /** A lease that vanishes and is back within that time has never been away. Default 1000. */
  readonly leaveGraceMs?: number;
}

/** Numbers that only grow. */
export interface PeerCounters {
  readonly joined: number;
  readonly changed: number;
  readonly left: number;
  /** Listings taken in: one at start, one after each gap in the history. */
  readonly snapshots: number;
  /** Keys and values that could not be read, each revision once. */
  readonly badEntries: number;
}

/**
 * The other hosts' leases as the store last told them.
 *
 * @remarks
 * *API.* {@link seed} with the leases of an earlier run, {@link start}, then {@link peers} at any time and
 * {@link onChange}.
 *
 * *Rules.* A peer goes only when its key is deleted or missing from a listing, and then only after a grace: a host
 * whose lease was deleted by mistake takes it again in a fraction of a second, and traffic to it goes on meanwhile. An
 * unreadable value leaves what was known, and a store that is away leaves everything. Which leases count as peers is
 * {@link PeerTable}'s to say.
 */
export class PeerSet {
  readonly #options: PeerSetOptions;
  readonly #debounceMs: number;
  readonly #leaveGraceMs: number;
  /** The last readable lease of each key. */
  readonly #table: PeerTable;
  /** Keys that are gone from the store while their lease still counts, with what cancels its end. */
  readonly #leaving = new Map<string, () => void>();
  /** Revision of each key that is unreadable now. */
  readonly #bad = new Map<string, string>();
  readonly #callbacks = new Set<(peers: readonly Lease[]) => void>();
  readonly #counters = { joined: 0, changed: 0, left: 0, snapshots: 0, badEntries: 0 };
  #hasReported = false;
  #isSynced = false;
  #subscription: Subscription | undefined;
  #cancelReport: (() => void) | undefined;
  #isClosed = false;

  constructor(options: PeerSetOptions) {
    this.#options = options;
    this.#table = new PeerTable(options.own);
    this.#debounceMs = options.debounceMs ?? 50;
    this.#leaveGraceMs = options.leaveGraceMs ?? 1000;
  }

  /** The peers in order of their subnets. */
  get peers(): readonly Lease[] {
    return this.#table.peers;
  }

  /** Whether the store has been heard at least once; before that, the peers are those of an earlier run. */
  get isSynced(): boolean {
    return this.#isSynced;
  }

  /** Keys under `<prefix>/subnets` that cannot be read now. */
  get badKeys(): readonly string[] {
    return [...this.#bad.keys()];
  }

  get counters(): PeerCounters {
    return { ...this.#counters };
  }

  /** Takes leases of an earlier run as peers until the store says otherwise; without effect once it has. */
  seed(leases: readonly Lease[]): void {
    if (this.#isSynced) return;
    for (const lease of leases) this.#table.put(formatSubnetKey(lease), lease);
    this.#schedule();
  }

  /** Begins to follow the store. */
  start(): void {
    if (this.#isClosed) return;
    this.#subscription ??= this.#options.store.followLeases({
      onSnapshot: ({ leases, bad }) => this.#takeSnapshot(leases, bad),
      onEvents: (events) => this.#takeEvents(events),
    });
  }

  /** Told after the first listing, even of no peers, and after each batch of changes. */
  onChange(callback: (peers: readonly Lease[]) => void): Subscription {
    this.#callbacks.add(callback);
    return { close: () => this.#callbacks.delete(callback) };
  }

  /** Which leases are the host's own from now on. */
  setOwn(own: OwnIdentity): void {
    if (this.#table.setOwn(own)) this.#schedule();
  }

  /** Stops following; the peers stay as they are. Idempotent. */
  close(): void {
    this.#isClosed = true;
    this.#subscription?.close();
    this.#cancelReport?.();
    for (const cancel of this.#leaving.values()) cancel();
    this.#leaving.clear();
    this.#callbacks.clear();
  }

  #takeSnapshot(leases: readonly LeaseRecord[], bad: readonly BadEntry[]): void {
    const isFirst = this.#counters.snapshots++ === 0;
    this.#isSynced = true;
    const listed = new Set([...leases, ...bad].map(({ key }) => key));
    for (const key of this.#table.keys) {
      if (listed.has(key)) continue;
      // What an earlier run knew may have been gone for days.
      if (isFirst) this.#table.delete(key);
      else this.#letGo(key);
    }
    for (const key of [...this.#bad.keys()]) if (!listed.has(key)) this.#bad.delete(key);
    for (const lease of leases) this.#put(lease);
    for (const entry of bad) this.#noteBad(entry);
    this.#schedule();
  }

  #takeEvents(events: readonly LeaseEvent[]): void {
    for (const event of events) {
      switch (event.kind) {
        case 'put':
          this.#put(event.lease);
          break;
        case 'bad':
          this.#noteBad(event.entry);
          break;
        case 'delete':
          this.#letGo(event.key);
          this.#bad.delete(event.key);
          break;
      }
    }
    this.#schedule();
  }

  #letGo(key: string): void {
    if (this.#isClosed || this.#leaving.has(key) || !this.#table.has(key)) return;
    const cancel = this.#options.clock.after(this.#leaveGraceMs, () => {
      this.#leaving.delete(key);
      this.#table.delete(key);
      this.#schedule();
    });
    this.#leaving.set(key, cancel);
  }

  #stay(key: string): void {
    this.#leaving.get(key)?.();
    this.#leaving.delete(key);
  }

  #put(lease: LeaseRecord): void {
    this.#stay(lease.key);
    this.#table.put(lease.key, lease);
    this.#bad.delete(lease.key);
  }

  #noteBad({ key, revision, error }: BadEntry): void {
    this.#stay(key);
    if (this.#bad.get(key) === revision) return;
    this.#bad.set(key, revision);
    this.#counters.badEntries++;
    this.#options.log.warn('an entry among the leases is unreadable and skipped', { key, revision, error });
  }

  #schedule(): void {
    if (this.#isClosed) return;
    this.#cancelReport ??= this.#options.clock.after(this.#debounceMs, () => {
      this.#cancelReport = undefined;
      this.#reportChanges();
    });
  }

  #reportChanges(): void {
    const changes = this.#table.takeChanges();
    for (const change of changes) this.#note(change);
    const isNews = changes.length > 0 || (!this.#hasReported && this.#isSynced);
    if (!isNews) return;
    this.#hasReported = true;
    const { peers } = this;
    for (const callback of [...this.#callbacks]) {
      try {
        callback(peers);
      } catch (error) {
        this.#options.log.error('a change of peers was not processed', { count: peers.length, error });
      }
    }
  }

  #note({ before, after }: PeerChange): void {
    const what = before === undefined ? 'joined' : after === undefined ? 'left' : 'changed';
    const peer = after ?? before;
    if (peer === undefined) return;
    this.#counters[what]++;
    this.#options.log.info(`peer ${what}`, {
      subnet: peer.subnet.toString(),
      ipv6Subnet: peer.ipv6Subnet?.toString(),
      publicIp: peer.attributes.publicIp.toString(),
      backend: peer.attributes.backendType === '' ? undefined : peer.attributes.backendType,
    });
  }
}

/** Layout of the cache; a file of another version is refused, not guessed at. */
const CACHE_VERSION = 1;

/** A peer's entry in the file; one peer among thousands changes at a time, and a lease never does. */
const encoded = new WeakMap<Lease, string>();

function encodeCachedLease(peer: Lease): string {
  const known = encoded.get(peer);
  if (known !== undefined) return known;
  const text = JSON.stringify({
    key: formatSubnetKey(peer),
    value: encodeAttributes(peer.attributes),
    revision: peer.revision,
    isReservation: peer.isReservation,
  });
  encoded.set(peer, text);
  return text;
}

/** Peers as text for a file, to be used at the next start if the store is away then. */
export function encodePeerCache(peers: readonly Lease[]): string {
  return `{"version": ${CACHE_VERSION}, "leases": [\n${peers.map(encodeCachedLease).join(',\n')}\n]}\n`;
}

/**
 * Reads what {@link encodePeerCache} wrote.
 *
 * @throws {@link OverlayError} `ERR_PEER_CACHE`
 */
export function decodePeerCache(text: string): readonly Lease[] {
  try {
    const { version, leases } = JSON.parse(text) as { readonly version?: unknown; readonly leases?: unknown };
    if (version !== CACHE_VERSION || !Array.isArray(leases))
      throw new TypeError(`it is not of version ${CACHE_VERSION}`);
    return leases.map(decodeCachedLease);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new OverlayError('ERR_PEER_CACHE', `cannot read the last known peers: ${reason}`, {
      cause,
      hint: 'nothing is lost, it is written anew once etcd answers',
    });
  }
}

function decodeCachedLease(entry: unknown): Lease {
  const { key, value, revision, isReservation } = entry as Record<string, unknown>;
  if (typeof key !== 'string' || typeof value !== 'string') throw new TypeError('a lease lacks key or value');
  if (typeof revision !== 'string' || !/^\d+$/.test(revision)) throw new TypeError(`${key} has no revision`);
  return {
    ...parseSubnetKey(key),
    attributes: decodeAttributes(value),
    revision,
    isReservation: isReservation === true,
  };
}
