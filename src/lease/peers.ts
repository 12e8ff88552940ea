import type { Clock } from '../clock.js';
import { OverlayError } from '../errors.js';
import type { IpAddress } from '../ip/address.js';
import type { Logger } from '../log.js';
import { areAttributesEqual, decodeAttributes, encodeAttributes } from './attributes.js';
import type { Lease, LeaseSubnets } from './lease.js';
import {
  type BadEntry,
  type LeaseEvent,
  type LeaseRecord,
  type LeaseStore,
  type Subscription,
  isAfter,
} from './store.js';
import { formatSubnetKey, parseSubnetKey } from './subnet-key.js';

/** What tells the host's own leases from those of its peers. */
export interface OwnIdentity {
  /** Undefined before a lease is held. */
  readonly subnets: LeaseSubnets | undefined;
  readonly publicIp: IpAddress;
}

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
 * unreadable value leaves what was known, and a store that is away leaves everything. Of two keys for one IPv4 subnet the one written last counts. The
 * own subnet is no peer, and neither is another lease with the own public address: traffic to it would come back here.
 */
export class PeerSet {
  readonly #options: PeerSetOptions;
  readonly #debounceMs: number;
  readonly #leaveGraceMs: number;
  /** Last readable lease of each key. */
  readonly #leases = new Map<string, Lease>();
  /** What {@link peers} gives, until something changes: a pass asks several times, and there may be thousands. */
  #sorted: readonly Lease[] | undefined;
  /** Keys that are gone from the store while their lease still counts, with what cancels its end. */
  readonly #leaving = new Map<string, () => void>();
  /** Revision of each key that is unreadable now. */
  readonly #bad = new Map<string, string>();
  readonly #callbacks = new Set<(peers: readonly Lease[]) => void>();
  readonly #counters = { joined: 0, changed: 0, left: 0, snapshots: 0, badEntries: 0 };
  #own: OwnIdentity;
  /** What the callbacks were told last, by IPv4 subnet; undefined before the first time. */
  #told: ReadonlyMap<string, Lease> | undefined;
  #isSynced = false;
  #subscription: Subscription | undefined;
  #cancelReport: (() => void) | undefined;
  #isClosed = false;

  constructor(options: PeerSetOptions) {
    this.#options = options;
    this.#own = options.own;
    this.#debounceMs = options.debounceMs ?? 50;
    this.#leaveGraceMs = options.leaveGraceMs ?? 1000;
  }

  /** The peers in order of their subnets. */
  get peers(): readonly Lease[] {
    this.#sorted ??= this.#sort();
    return this.#sorted;
  }

  #sort(): readonly Lease[] {
    const peers = new Map<string, Lease>();
    for (const lease of this.#leases.values()) {
      const subnet = lease.subnet.toString();
      const other = peers.get(subnet);
      if (!this.#isOwn(lease) && (other === undefined || isAfter(lease.revision, other.revision))) {
        peers.set(subnet, lease);
      }
    }
    return [...peers.values()].sort((a, b) => a.subnet.compare(b.subnet));
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
    for (const lease of leases) this.#leases.set(formatSubnetKey(lease), lease);
    this.#sorted = undefined;
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
    const { subnets, publicIp } = this.#own;
    const isSameSubnet = own.subnets === subnets || (own.subnets?.subnet.equals(subnets?.subnet) ?? false);
    if (isSameSubnet && own.publicIp.equals(publicIp)) return;
    this.#own = own;
    this.#sorted = undefined;
    this.#schedule();
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

  #isOwn(lease: Lease): boolean {
    const { subnets, publicIp } = this.#own;
    return (
      lease.subnet.equals(subnets?.subnet) || (!publicIp.isUnspecified && publicIp.equals(lease.attributes.publicIp))
    );
  }

  #takeSnapshot(leases: readonly LeaseRecord[], bad: readonly BadEntry[]): void {
    const isFirst = this.#counters.snapshots++ === 0;
    this.#isSynced = true;
    const listed = new Set([...leases, ...bad].map(({ key }) => key));
    for (const key of [...this.#leases.keys()]) {
      if (listed.has(key)) continue;
      // What an earlier run knew may have been gone for days.
      if (isFirst) this.#leases.delete(key);
      else this.#letGo(key);
    }
    this.#sorted = undefined;
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
    if (this.#isClosed || this.#leaving.has(key) || !this.#leases.has(key)) return;
    const cancel = this.#options.clock.after(this.#leaveGraceMs, () => {
      this.#leaving.delete(key);
      this.#leases.delete(key);
      this.#sorted = undefined;
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
    this.#leases.set(lease.key, lease);
    this.#sorted = undefined;
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
    const before = this.#told ?? new Map<string, Lease>();
    const peers = this.peers;
    const now = new Map(peers.map((peer) => [peer.subnet.toString(), peer]));
    let changes = 0;
    for (const [subnet, peer] of now) {
      const old = before.get(subnet);
      if (old !== undefined && isSamePeer(old, peer)) continue;
      changes++;
      this.#note(old === undefined ? 'joined' : 'changed', peer);
    }
    for (const [subnet, peer] of before) {
      if (now.has(subnet)) continue;
      changes++;
      this.#note('left', peer);
    }
    const isNews = changes > 0 || (this.#told === undefined && this.#isSynced);
    if (this.#told !== undefined || isNews) this.#told = now;
    if (!isNews) return;
    for (const callback of [...this.#callbacks]) {
      try {
        callback(peers);
      } catch (error) {
        this.#options.log.error('a change of peers was not processed', { count: peers.length, error });
      }
    }
  }

  #note(what: 'joined' | 'changed' | 'left', peer: Lease): void {
    this.#counters[what]++;
    this.#options.log.info(`peer ${what}`, {
      subnet: peer.subnet.toString(),
      ipv6Subnet: peer.ipv6Subnet?.toString(),
      publicIp: peer.attributes.publicIp.toString(),
      backend: peer.attributes.backendType === '' ? undefined : peer.attributes.backendType,
    });
  }
}

/** Whether nothing that forwarding depends on differs. */
function isSamePeer(a: Lease, b: Lease): boolean {
  const isSameIpv6 = a.ipv6Subnet === undefined ? b.ipv6Subnet === undefined : a.ipv6Subnet.equals(b.ipv6Subnet);
  return isSameIpv6 && areAttributesEqual(a.attributes, b.attributes);
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
