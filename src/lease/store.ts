import type { OverlayError } from '../errors.js';
import type { LeaseAttributes, LeaseSubnets } from './lease.js';
import type { BadEntry, LeaseRecord, Revision, TextEntry, EtcdLeaseId } from './record.js';
import type { RoundTripTimes } from './round-trips.js';
import type { HistoryMark, World } from './world.js';

/** Everything under `<prefix>/subnets/` at one revision, in byte order of the keys. */
export interface LeaseSnapshot {
  readonly revision: Revision;
  readonly leases: readonly LeaseRecord[];
  readonly bad: readonly BadEntry[];
}

/** What lies under one lease key right now. */
export interface LeaseObservation {
  /** When it was so; a deletion counts at its own revision. */
  readonly revision: Revision;
  readonly lease: LeaseRecord | undefined;
  /** Instead of a lease: a value that is none. */
  readonly bad: BadEntry | undefined;
}

/** A {@link TextEntry} below `<prefix>-ts/`. */
export interface ValueEntry extends TextEntry {
  /** Path below `<prefix>-ts/`, without a leading slash. */
  readonly path: string;
  /** What ends it; undefined if nothing does. */
  readonly etcdLeaseId: EtcdLeaseId | undefined;
}

/** Something that is being followed; after `close()` returns, the observer is not called again. */
export interface Subscription {
  close(): void;
}

/** A key below `<prefix>/subnets/` as it was seen. */
export type LeaseKey = Pick<LeaseRecord, 'key' | 'revision' | 'etcdLeaseId'>;

/** What {@link OwnLeaseStore.createLease} needs to know. */
export interface NewLease {
  readonly subnets: LeaseSubnets;
  readonly attributes: LeaseAttributes;
  /** Undefined makes a reservation. */
  readonly ttlSeconds: number | undefined;
  /** An older lease of the same host that goes away in the same step. */
  readonly replacing?: LeaseRecord | undefined;
}

/** `taken`: another host has the subnet, or `replacing` has changed. */
export type CreateResult =
  | {
      readonly outcome: 'created';
      readonly lease: LeaseRecord;
      /** All leases at the instant of creation, this one included: a subnet may overlap under a different key. */
      readonly snapshot: LeaseSnapshot;
    }
  | {
      readonly outcome: 'taken';
      /** When the key in the way was written, if it is known. */
      readonly revision: Revision | undefined;
    };

/** `changed`: the key is no longer what the caller knew; here is what it is now. */
export type UpdateResult =
  | { readonly outcome: 'updated'; readonly lease: LeaseRecord }
  | { readonly outcome: 'changed'; readonly now: LeaseObservation };

/** Which lease {@link OperatorStore.unreserve} is about and what becomes of it. */
export type Unreserve = 'delete' | { readonly ttlSeconds: number };

/**
 * `conflict`: the condition did not hold; here is what is there. With `absent` and without a TTL it may be the caller's
 * own text, when the answer to an earlier try was lost.
 */
export type WriteResult =
  | { readonly outcome: 'written'; readonly revision: Revision }
  | { readonly outcome: 'conflict'; readonly current: TextEntry | undefined };

/** Condition of a write: the revision that must be there, `absent` for none at all, `any` for no condition. */
export type Expected = { readonly revision: Revision } | 'absent' | 'any';

/** Whether the store answers. */
export interface StoreHealth {
  readonly isConnected: boolean;
  /** Which endpoint answered last. */
  readonly endpoint: string | undefined;
  /** Why it is not connected. */
  readonly error: OverlayError | undefined;
}

/** Numbers that only grow. */
export interface StoreCounters {
  /** Requests that were answered, and watches that were established. */
  readonly roundTrips: number;
  /** How long they took. */
  readonly roundTripTimes: RoundTripTimes;
  /** Failed attempts by error code. */
  readonly errors: Readonly<Record<string, number>>;
  /** Streams of changes that broke and were opened again. */
  readonly watchRestarts: number;
  /** Times the history in between was gone, so that everything was listed again. */
  readonly compactions: number;
}

/** One version of the network configuration. */
export interface ConfigVersion {
  readonly text: string;
  /** When it was written. */
  readonly revision: Revision;
}

/** The configuration's past, as far back as the store remembers. */
export interface ConfigHistory {
  /** Newest first. */
  readonly versions: readonly ConfigVersion[];
  /** Why there are no earlier ones: the limit, the oldest was the first (or the first since a deletion), or the store has forgotten. */
  readonly end: 'limit' | 'first' | 'compacted';
}

/** What everybody does who opens a store. */
export interface Store {
  /** The text under `<prefix>/config`, or undefined when there is none. */
  readConfig(signal?: AbortSignal): Promise<TextEntry | undefined>;
  /** How the store is doing as far as the last request or stream tells. */
  readonly health: StoreHealth;
  /** Ends every request, stream and connection. Idempotent. */
  close(): Promise<void>;
}

/**
 * Where the cluster keeps its configuration and its leases, as the daemon follows it.
 *
 * @remarks
 * *API*, also of {@link OwnLeaseStore}, {@link ValueStore} and {@link OperatorStore}, which are other sides of the same
 * store. Every request takes a signal, ends within the store's own deadline, and rejects with an {@link OverlayError}:
 * `ERR_ETCD_UNAVAILABLE` (worth trying again), `ERR_ETCD_AUTH` (not before somebody changed something),
 * `ERR_STORE_CLOSED`. An aborted signal rejects with its reason. A request whose answer was lost may have taken effect;
 * repeating the same request is always safe.
 *
 * *Following* never ends by itself, across lost connections, changes of endpoint, compaction, and a store that was wiped
 * or restored. While the store is away nothing is reported, least of all an empty world.
 *
 * *Conditions.* Updates of leases hold only if the key is still as it was at `lease.revision`, so nothing is
 * resurrected and nothing is taken from another host.
 */
export interface WorldStore extends Store {
  /**
   * Reports configuration and leases as they are and whenever they change; what the observer throws is logged and
   * changes nothing.
   *
   * @param since - what an earlier process knew last: a world whose history still has it continues that one's.
   */
  followWorld(onWorld: (world: World) => void, since?: HistoryMark): Subscription;
  /** Calls back on every transition between connected and not. */
  onHealth(callback: (health: StoreHealth) => void): Subscription;
  /** The counters as they are now. */
  counters(): StoreCounters;
  /** Says that the host's address or device has changed: connections made before may be dead without a sign. */
  networkChanged(): void;
}

/** The store as a host needs it for its own lease; see {@link WorldStore}. */
export interface OwnLeaseStore {
  /** Creates a lease whose key must not exist, nor another key that names the same IPv4 subnet. */
  createLease(lease: NewLease, signal?: AbortSignal): Promise<CreateResult>;
  /**
   * Takes over a key of one's own for another full TTL, with these attributes. A reservation stays without TTL. The
   * former etcd lease is revoked if nothing else is attached to it.
   */
  reuseLease(
    lease: LeaseRecord,
    attributes: LeaseAttributes,
    ttlSeconds: number,
    signal?: AbortSignal,
  ): Promise<UpdateResult>;
  /** Writes other attributes under one's own key and leaves its TTL alone. */
  publishLease(lease: LeaseRecord, attributes: LeaseAttributes, signal?: AbortSignal): Promise<UpdateResult>;
  /** Deletes a key as it was last seen; also one that is no lease. */
  deleteLease(entry: LeaseKey, signal?: AbortSignal): Promise<'deleted' | 'changed'>;
  /** Renews an etcd lease; undefined if it is gone, and with it every key that was attached to it. */
  keepAlive(etcdLeaseId: EtcdLeaseId, signal?: AbortSignal): Promise<number | undefined>;
  /** Has an etcd lease revoked as soon as nothing is attached to it and the store answers; returns at once. */
  discardEtcdLease(etcdLeaseId: EtcdLeaseId): void;
  /**
   * Says that an answer cannot be if that world, one that was told, is true: everything is read anew, as another
   * history. Heeded in growing intervals, since that is costly with many leases.
   */
  distrust(world: World): void;
}

/** Texts of our own below `<prefix>-ts/`; see {@link WorldStore}. */
export interface ValueStore {
  /** Everything below a path of `<prefix>-ts/`, in byte order. */
  listValues(pathPrefix: string, signal?: AbortSignal): Promise<readonly ValueEntry[]>;
  /** Writes a text below `<prefix>-ts/`, for ever or as long as an etcd lease lives. */
  putValue(
    path: string,
    text: string,
    options?: {
      readonly expected?: Expected;
      readonly etcdLeaseId?: EtcdLeaseId | undefined;
      readonly signal?: AbortSignal;
    },
  ): Promise<WriteResult>;
  /** Deletes a text below `<prefix>-ts/`; false if it was not there or not the expected one. */
  deleteValue(
    path: string,
    options?: { readonly expected?: Expected; readonly signal?: AbortSignal },
  ): Promise<boolean>;
}

/**
 * What must hold for a {@link ValueTransaction}: a text that is still the one written at that revision, no text under a
 * path, or none under any path that begins with this one.
 */
export type ValueCondition =
  { readonly path: string; readonly revision: Revision } | { readonly absent: string } | { readonly noneBelow: string };

/** Several changes below `<prefix>-ts/` in one step. */
export interface ValueTransaction {
  /** At most 128, as etcd's `--max-txn-ops` is by default. */
  readonly conditions: readonly ValueCondition[];
  readonly puts?: readonly {
    readonly path: string;
    readonly text: string;
    readonly etcdLeaseId?: EtcdLeaseId | undefined;
  }[];
  /** None of them among the puts. */
  readonly deletes?: readonly string[];
}

/** What has become of values that are followed. */
export interface ValueNews {
  /** Whether `written` is everything that there is; what else was known is gone. */
  readonly isListing: boolean;
  /** As they are now. */
  readonly written: readonly ValueEntry[];
  /** Paths of those that are gone; none in a listing. */
  readonly deleted: readonly string[];
}

/** Values that are being followed. */
export interface ValuesFollowing extends Subscription {
  /** Has everything told again: the store has another history, as {@link World.epoch} tells. */
  relist(): void;
}

/** The store as it is needed for values that several hosts write; see {@link WorldStore}. */
export interface SharedValueStore extends Pick<ValueStore, 'listValues'> {
  /**
   * Carries out all changes if all conditions hold, else none.
   *
   * @returns the revision of the changes; undefined if a condition did not hold, or no longer, since the answer to an
   * earlier try of the same request was lost: what is there now tells.
   */
  transactValues(transaction: ValueTransaction, signal?: AbortSignal): Promise<Revision | undefined>;
  /**
   * Calls back when something below a path may have changed: whenever it has, and after each time that the stream of
   * changes had to be opened. Never ends by itself.
   */
  watchValues(pathPrefix: string, onChange: () => void): Subscription;
  /**
   * Tells everything that is below a path, and then every change of it. Everything is told again where changes may have
   * been missed: after compaction, where the store was wiped or is another one, and when that is asked for. Never ends
   * by itself.
   */
  followValues(pathPrefix: string, onNews: (news: ValueNews) => void): ValuesFollowing;
  /** Grants an etcd lease. */
  grantTtl(ttlSeconds: number, signal?: AbortSignal): Promise<EtcdLeaseId>;
  /** As {@link OwnLeaseStore.keepAlive}. */
  keepAlive(etcdLeaseId: EtcdLeaseId, signal?: AbortSignal): Promise<number | undefined>;
  /** As {@link OwnLeaseStore.discardEtcdLease}. */
  discardEtcdLease(etcdLeaseId: EtcdLeaseId): void;
  /** As {@link WorldStore.onHealth}. */
  onHealth(callback: (health: StoreHealth) => void): Subscription;
}

/** Time of an etcd lease, in seconds. */
export interface EtcdLeaseTimes {
  /** Until it ends unless it is renewed. */
  readonly remainingSeconds: number;
  /** What it has after each renewal. */
  readonly grantedSeconds: number;
}

/** The store as the operator's tool needs it; see {@link WorldStore}. */
export interface OperatorStore
  extends Store, Pick<SharedValueStore, 'listValues' | 'transactValues'>, Pick<OwnLeaseStore, 'deleteLease'> {
  /** Writes the configuration if it is still the expected one. */
  writeConfig(text: string, expected: Expected, signal?: AbortSignal): Promise<WriteResult>;
  /** Earlier versions of the configuration, newest first. */
  configHistory(limit: number, signal?: AbortSignal): Promise<ConfigHistory>;
  /** All leases. */
  listLeases(signal?: AbortSignal): Promise<LeaseSnapshot>;
  /** Makes the key one that never expires; without a lease to convert, creates it. */
  reserve(
    subnets: LeaseSubnets,
    attributes: LeaseAttributes,
    existing: LeaseRecord | undefined,
    signal?: AbortSignal,
  ): Promise<UpdateResult>;
  /** Ends a reservation: the key goes at once, or expires unless its host renews it. */
  unreserve(lease: LeaseRecord, how: Unreserve, signal?: AbortSignal): Promise<'done' | 'changed'>;
  /** Seconds that an etcd lease has left; undefined if it is gone. */
  remainingTtl(etcdLeaseId: EtcdLeaseId, signal?: AbortSignal): Promise<number | undefined>;
  /** What an etcd lease has left and had at first; undefined if it is gone. */
  etcdLeaseTimes(etcdLeaseId: EtcdLeaseId, signal?: AbortSignal): Promise<EtcdLeaseTimes | undefined>;
  /** Revokes an etcd lease, unless keys are attached to it. */
  revokeEtcdLease(etcdLeaseId: EtcdLeaseId, signal?: AbortSignal): Promise<'released' | 'in-use'>;
}
