import { OverlayError } from '../../src/errors.js';
import type { EtcdLeaseId, Revision } from '../../src/lease/record.js';
import type {
  SharedValueStore,
  StoreHealth,
  Subscription,
  ValueCondition,
  ValueEntry,
  ValueNews,
  ValueTransaction,
  ValuesFollowing,
} from '../../src/lease/store.js';
import type { TimerClock } from './timer-clock.js';

interface Entry {
  readonly text: string;
  readonly revision: number;
  readonly createdAt: number;
  readonly etcdLeaseId: EtcdLeaseId | undefined;
}

/** What becomes of a request: an error before it is carried out, after it, or both of them with its effect coming later. */
export type Fate = 'answered' | 'refused' | 'unanswered' | 'late';

/** How long a request or its answer is under way at most. */
const MAX_WAY_MS = 4;

/** Values that several hosts share, in memory, with leases that end by the clock. */
export class FakeSharedValues {
  readonly #entries = new Map<string, Entry>();
  readonly #leases = new Map<EtcdLeaseId, { readonly ttlSeconds: number; endsAtMs: number }>();
  readonly #watches = new Set<{ readonly path: string; readonly onChange: () => void }>();
  readonly #followers = new Set<{ readonly path: string; readonly onNews: (news: ValueNews) => void }>();
  #revision = 1;
  #leaseCount = 0;

  constructor(private readonly clock: TimerClock) {}

  /** Every path with its text, in order. */
  get texts(): ReadonlyMap<string, string> {
    this.#expire();
    return new Map(
      [...this.#entries].sort(([a], [b]) => (a < b ? -1 : 1)).map(([path, { text }]) => [path, text] as const),
    );
  }

  /** Everything is gone, as after a wipe. */
  wipe(): void {
    this.#leases.clear();
    for (const path of [...this.#entries.keys()]) this.#delete(path);
  }

  /** Keeps what is there now. @returns what restores it, revision and all, as from a backup. */
  backup(): () => void {
    const [entries, leases, revision] = [[...this.#entries], [...this.#leases], this.#revision];
    return () => {
      this.wipe();
      for (const [id, lease] of leases) this.#leases.set(id, { ...lease });
      this.#revision = revision;
      for (const [path, entry] of entries) {
        this.#entries.set(path, entry);
        this.#tell(path);
      }
    };
  }

  /** Writes as a stranger would. */
  poke(path: string, text: string): void {
    this.#revision++;
    this.#put(path, text, undefined);
  }

  /** Deletes as an operator would. */
  remove(path: string): void {
    this.#delete(path);
  }

  /** Ends a lease as an operator would. */
  revoke(etcdLeaseId: EtcdLeaseId): void {
    const lease = this.#leases.get(etcdLeaseId);
    if (lease !== undefined) lease.endsAtMs = Number.NEGATIVE_INFINITY;
  }

  isAttachedTo(etcdLeaseId: EtcdLeaseId): boolean {
    this.#expire();
    return [...this.#entries.values()].some((entry) => entry.etcdLeaseId === etcdLeaseId);
  }

  list(pathPrefix: string): readonly ValueEntry[] {
    this.#expire();
    return [...this.#entries]
      .filter(([path]) => path.startsWith(pathPrefix))
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([path, entry]) => toValue(path, entry));
  }

  transact({ conditions, puts = [], deletes = [] }: ValueTransaction): Revision | undefined {
    this.#expire();
    if (!conditions.every((condition) => this.#holds(condition))) return undefined;
    for (const { etcdLeaseId } of puts) {
      if (etcdLeaseId !== undefined && !this.#leases.has(etcdLeaseId)) {
        throw new OverlayError('ERR_ETCD_REQUEST', 'cannot complete a request to etcd: requested lease not found');
      }
    }
    if (puts.length > 0 || deletes.length > 0) this.#revision++;
    for (const { path, text, etcdLeaseId } of puts) this.#put(path, text, etcdLeaseId);
    for (const path of deletes) this.#delete(path);
    return String(this.#revision);
  }

  grant(ttlSeconds: number): EtcdLeaseId {
    const etcdLeaseId = (++this.#leaseCount).toString(16) as EtcdLeaseId;
    this.#leases.set(etcdLeaseId, { ttlSeconds, endsAtMs: this.clock.monotonicMs() + ttlSeconds * 1000 });
    return etcdLeaseId;
  }

  keepAlive(etcdLeaseId: EtcdLeaseId): number | undefined {
    this.#expire();
    const lease = this.#leases.get(etcdLeaseId);
    if (lease === undefined) return undefined;
    lease.endsAtMs = this.clock.monotonicMs() + lease.ttlSeconds * 1000;
    return lease.ttlSeconds;
  }

  watch(path: string, onChange: () => void): Subscription {
    const watch = { path, onChange };
    this.#watches.add(watch);
    return { close: () => this.#watches.delete(watch) };
  }

  /** Tells what is there, and then every change. */
  follow(path: string, onNews: (news: ValueNews) => void): ValuesFollowing {
    const news = { path, onNews };
    const tellAll = (): void => {
      const written = this.list(path);
      setImmediate(() => {
        if (this.#followers.has(news)) onNews({ isListing: true, written, deleted: [] });
      });
    };
    this.#followers.add(news);
    tellAll();
    return { close: () => this.#followers.delete(news), relist: tellAll };
  }

  #holds(condition: ValueCondition): boolean {
    if ('path' in condition) return String(this.#entries.get(condition.path)?.revision) === condition.revision;
    if ('absent' in condition) return !this.#entries.has(condition.absent);
    return [...this.#entries.keys()].every((path) => !path.startsWith(condition.noneBelow));
  }

  #put(path: string, text: string, etcdLeaseId: EtcdLeaseId | undefined): void {
    const createdAt = this.#entries.get(path)?.createdAt ?? this.#revision;
    this.#entries.set(path, { text, revision: this.#revision, createdAt, etcdLeaseId });
    this.#tell(path);
  }

  #delete(path: string): void {
    if (this.#entries.delete(path)) this.#tell(path);
  }

  #expire(): void {
    for (const [id, { endsAtMs }] of this.#leases) {
      if (endsAtMs > this.clock.monotonicMs()) continue;
      this.#leases.delete(id);
      for (const [path, { etcdLeaseId }] of [...this.#entries]) if (etcdLeaseId === id) this.#delete(path);
    }
  }

  #tell(path: string): void {
    for (const watch of this.#watches) if (path.startsWith(watch.path)) setImmediate(watch.onChange);
    for (const follower of this.#followers) {
      if (!path.startsWith(follower.path)) continue;
      const entry = this.#entries.get(path);
      const written = entry === undefined ? [] : [toValue(path, entry)];
      const news = { isListing: false, written, deleted: entry === undefined ? [path] : [] };
      setImmediate(() => {
        if (this.#followers.has(follower)) follower.onNews(news);
      });
    }
  }
}

function toValue(path: string, { text, revision, createdAt, etcdLeaseId }: Entry): ValueEntry {
  return { path, text, etcdLeaseId, revision: String(revision), createdAt: String(createdAt) };
}

/** One host's way to {@link FakeSharedValues}. */
export class FakeValueStore implements SharedValueStore {
  /** What becomes of the next request; answered by default. */
  fate: () => Fate = () => 'answered';
  /** Requests that were made. */
  requests = 0;
  #isAway = false;
  /** Set once the process of this host is dead: nothing it asks for is answered or carried out any more. */
  isDead = false;
  readonly discarded: EtcdLeaseId[] = [];
  readonly #callbacks = new Set<(health: StoreHealth) => void>();

  constructor(
    private readonly values: FakeSharedValues,
    private readonly clock: TimerClock,
  ) {}

  /** While away, nothing is answered or carried out. */
  set isAway(isAway: boolean) {
    this.#isAway = isAway;
    const health = { isConnected: !isAway, endpoint: undefined, error: undefined };
    for (const callback of [...this.#callbacks]) setImmediate(callback, health);
  }

  listValues(pathPrefix: string, signal?: AbortSignal): Promise<readonly ValueEntry[]> {
    return this.#ask(() => this.values.list(pathPrefix), signal);
  }

  transactValues(transaction: ValueTransaction, signal?: AbortSignal): Promise<Revision | undefined> {
    return this.#ask(() => this.values.transact(transaction), signal);
  }

  grantTtl(ttlSeconds: number, signal?: AbortSignal): Promise<EtcdLeaseId> {
    return this.#ask(() => this.values.grant(ttlSeconds), signal);
  }

  keepAlive(etcdLeaseId: EtcdLeaseId, signal?: AbortSignal): Promise<number | undefined> {
    return this.#ask(() => this.values.keepAlive(etcdLeaseId), signal);
  }

  watchValues(pathPrefix: string, onChange: () => void): Subscription {
    return this.values.watch(pathPrefix, () => {
      if (!this.#isAway && !this.isDead) onChange();
    });
  }

  /** What happens while it is away is told once it is back. */
  followValues(pathPrefix: string, onNews: (news: ValueNews) => void): ValuesFollowing {
    const following = this.values.follow(pathPrefix, (news) => {
      if (!this.#isAway && !this.isDead) onNews(news);
    });
    const health = this.onHealth(({ isConnected }) => {
      if (isConnected) following.relist();
    });
    return {
      relist: () => following.relist(),
      close: () => {
        health.close();
        following.close();
      },
    };
  }

  /** As on etcd, which is asked first what is attached: something may be attached meanwhile, and goes with it. */
  discardEtcdLease(etcdLeaseId: EtcdLeaseId): void {
    this.discarded.push(etcdLeaseId);
    const release = async (): Promise<void> => {
      if (await this.#ask(() => this.values.isAttachedTo(etcdLeaseId), undefined)) return;
      await this.#ask(() => this.values.revoke(etcdLeaseId), undefined);
    };
    release().catch(() => {}); // it ends by itself
  }

  onHealth(callback: (health: StoreHealth) => void): Subscription {
    this.#callbacks.add(callback);
    return { close: () => this.#callbacks.delete(callback) };
  }

  #isGone(): boolean {
    return this.isDead;
  }

  async #ask<T>(action: () => T, signal: AbortSignal | undefined): Promise<T> {
    signal?.throwIfAborted();
    this.requests++;
    const fate = this.#isAway ? 'refused' : this.fate();
    const way = (): Promise<void> => this.clock.sleep(this.clock.random() * MAX_WAY_MS);
    await way();
    if (this.#isGone()) return new Promise<T>(() => {});
    signal?.throwIfAborted();
    if (fate === 'answered') {
      const answer = action();
      await way();
      signal?.throwIfAborted();
      return this.#isGone() ? new Promise<T>(() => {}) : answer;
    }
    if (fate === 'unanswered') action();
    if (fate === 'late') {
      this.clock.after(1 + this.clock.random() * 9000, () => {
        try {
          action();
        } catch {} // its lease is gone by then
      });
    }
    throw new OverlayError('ERR_ETCD_UNAVAILABLE', 'cannot reach etcd', { isRetryable: true });
  }
}
