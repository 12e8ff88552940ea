import type { Clock } from '../../src/clock.js';
import { OverlayError } from '../../src/errors.js';
import { decodeAttributes, encodeAttributes } from '../../src/lease/attributes.js';
import { findOverlapping } from '../../src/lease/allocator.js';
import type { LeaseAttributes, LeaseSubnets } from '../../src/lease/lease.js';
import type { LeaseRecord, TextEntry, TtlId } from '../../src/lease/record.js';
import type { CreateResult, Expected, LeaseEvent, LeaseObservation, LeaseObserver, LeaseSnapshot, LeaseStore, NewLease, StoreCounters, StoreHealth, Subscription, Unreserve, UpdateResult, ValueEntry, ValueObserver, WriteResult } from '../../src/lease/store.js';
import { RoundTripTimer } from '../../src/lease/round-trips.js';
import { formatSubnetKey, parseSubnetKey } from '../../src/lease/subnet-key.js';

interface Entry {
  readonly text: string;
  readonly revision: bigint;
  readonly ttlId: TtlId | undefined;
}

interface Change {
  readonly key: string;
  readonly revision: bigint;
  readonly entry: Entry | undefined;
}

interface Follower {
  readonly prefix: string;
  readonly isExact: boolean;
  next: bigint | undefined;
  readonly snapshot: (entries: readonly [string, Entry][], revision: bigint) => void;
  readonly changes: (changes: readonly Change[]) => void;
}

interface Ttl {
  readonly seconds: number;
  endsAtMs: number;
  cancel: () => void;
}

const SUBNETS = 'subnets/';
const VALUES = 'ts/';
const CONFIG = 'config';

/** State that several {@link MemoryStore}s share, as hosts share an etcd. */
export class MemoryCluster {
  readonly #entries = new Map<string, Entry>();
  readonly #history: Change[] = [];
  readonly #followers = new Set<Follower>();
  readonly #ttls = new Map<TtlId, Ttl>();
  #revision = 1n;
  #compactedAt = 0n;
  #ids = 0;
  #restarts = 0;
  #compactions = 0;
  /** While true, every request fails and followers hear nothing. */
  #isDown = false;

  constructor(readonly clock: Clock) {}

  get isDown(): boolean {
    return this.#isDown;
  }

  get restarts(): { readonly watchRestarts: number; readonly compactions: number } {
    return { watchRestarts: this.#restarts, compactions: this.#compactions };
  }

  /** Cuts every host off, or lets them back; TTLs go on running. */
  setDown(isDown: boolean): void {
    this.#isDown = isDown;
    if (isDown) return;
    for (const follower of this.#followers) {
      this.#restarts++;
      this.#deliver(follower);
    }
  }

  /** Forgets the history, so that followers which were cut off have to list. */
  compact(): void {
    this.#compactedAt = this.#revision;
    this.#history.length = 0;
  }

  get revision(): bigint {
    return this.#revision;
  }

  read(key: string): Entry | undefined {
    return this.#entries.get(key);
  }

  list(prefix: string): readonly [string, Entry][] {
    return [...this.#entries].filter(([key]) => key.startsWith(prefix)).sort(([a], [b]) => (a < b ? -1 : 1));
  }

  /** All writes of one transaction, at one revision. */
  write(
    changes: readonly { readonly key: string; readonly text?: string; readonly ttlId?: TtlId | undefined }[],
  ): void {
    const effective = changes.filter(({ key, text }) => text !== undefined || this.#entries.has(key));
    if (effective.length === 0) return;
    const revision = ++this.#revision;
    for (const { key, text, ttlId } of effective) {
      const entry = text === undefined ? undefined : { text, revision, ttlId };
      if (entry === undefined) this.#entries.delete(key);
      else this.#entries.set(key, entry);
      this.#history.push({ key, revision, entry });
    }
    for (const follower of [...this.#followers]) this.#deliver(follower);
  }

  follow(follower: Omit<Follower, 'next'>): Subscription {
    const entry = { ...follower, next: undefined };
    this.#followers.add(entry);
    this.#deliver(entry);
    return { close: () => this.#followers.delete(entry) };
  }

  grant(seconds: number): TtlId {
    const ttlId = (++this.#ids).toString(16) as TtlId;
    this.#ttls.set(ttlId, { seconds, endsAtMs: 0, cancel: () => {} });
    this.keepAlive(ttlId);
    return ttlId;
  }

  keepAlive(ttlId: TtlId): number | undefined {
    const ttl = this.#ttls.get(ttlId);
    if (ttl === undefined) return undefined;
    ttl.cancel();
    ttl.endsAtMs = this.clock.monotonicMs() + ttl.seconds * 1000;
    ttl.cancel = this.clock.after(ttl.seconds * 1000, () => this.revoke(ttlId));
    return ttl.seconds;
  }

  remaining(ttlId: TtlId): number | undefined {
    const ttl = this.#ttls.get(ttlId);
    return ttl && Math.floor((ttl.endsAtMs - this.clock.monotonicMs()) / 1000);
  }

  /** Ends a TTL with all its keys. */
  revoke(ttlId: TtlId): void {
    this.#ttls.get(ttlId)?.cancel();
    this.#ttls.delete(ttlId);
    this.write(this.keysOf(ttlId).map((key) => ({ key })));
  }

  keysOf(ttlId: TtlId): readonly string[] {
    return [...this.#entries].filter(([, entry]) => entry.ttlId === ttlId).map(([key]) => key);
  }

  /** TTLs that have not ended, used or not. */
  get ttlCount(): number {
    return this.#ttls.size;
  }

  #deliver(follower: Follower): void {
    // Later, as from a network; the order between followers and callers must not matter.
    setImmediate(() => {
      if (this.#isDown || !this.#followers.has(follower)) return;
      const { next } = follower;
      const concerns = (key: string): boolean =>
        follower.isExact ? key === follower.prefix : key.startsWith(follower.prefix);
      if (next === undefined || next <= this.#compactedAt) {
        if (next !== undefined && next <= this.#compactedAt) this.#compactions++;
        follower.next = this.#revision + 1n;
        follower.snapshot(
          this.list(follower.prefix).filter(([key]) => concerns(key)),
          this.#revision,
        );
        return;
      }
      const changes = this.#history.filter(({ key, revision }) => revision >= next && concerns(key));
      follower.next = this.#revision + 1n;
      if (changes.length > 0) follower.changes(changes);
    });
  }
}

/** One host's {@link LeaseStore} on a {@link MemoryCluster}; passes the same contract as the one on etcd. */
export class MemoryStore implements LeaseStore {
  readonly #subscriptions = new Set<Subscription>();
  readonly #healthCallbacks = new Set<(health: StoreHealth) => void>();
  /** Runs before each request is carried out; may throw, or change what is there, as another host would. */
  before: (operation: string) => void | Promise<void> = () => {};
  /** Runs after each request was carried out; an error it throws stands for a lost answer. */
  after: (operation: string) => void | Promise<void> = () => {};
  readonly #timer = new RoundTripTimer();
  #failures = 0;
  #isClosed = false;
  #health: StoreHealth = { isConnected: true, endpoint: 'memory', error: undefined };

  constructor(readonly cluster: MemoryCluster) {}

  readConfig(signal?: AbortSignal): Promise<TextEntry | undefined> {
    return this.#do('readConfig', signal, () => toText(this.cluster.read(CONFIG)));
  }

  followConfig(onEntry: (entry: TextEntry | undefined) => void): Subscription {
    return this.#follow({
      prefix: CONFIG,
      isExact: true,
      snapshot: ([first]) => onEntry(toText(first?.[1])),
      changes: (changes) => onEntry(toText(changes.at(-1)?.entry)),
    });
  }

  writeConfig(text: string, expected: Expected, signal?: AbortSignal): Promise<WriteResult> {
    return this.#do('writeConfig', signal, () => this.#put(CONFIG, text, expected, undefined));
  }

  listLeases(signal?: AbortSignal): Promise<LeaseSnapshot> {
    return this.#do('listLeases', signal, () => this.#snapshot());
  }

  followLeases(observer: LeaseObserver): Subscription {
    return this.#follow({
      prefix: SUBNETS,
      isExact: false,
      snapshot: () => observer.onSnapshot(this.#snapshot()),
      changes: (changes) => observer.onEvents(changes.map(toEvent)),
    });
  }

  followLease(key: string, onObservation: (observation: LeaseObservation) => void): Subscription {
    return this.#follow({
      prefix: SUBNETS + key,
      isExact: true,
      snapshot: ([first], revision) => onObservation(observe(key, first?.[1], revision)),
      changes: (changes) => {
        for (const change of changes) onObservation(observe(key, change.entry, change.revision));
      },
    });
  }

  createLease(lease: NewLease, signal?: AbortSignal): Promise<CreateResult> {
    return this.#do('createLease', signal, () => {
      const { subnets, attributes, ttlSeconds, replacing } = lease;
      const key = SUBNETS + formatSubnetKey(subnets);
      const v4 = SUBNETS + formatSubnetKey({ subnet: subnets.subnet, ipv6Subnet: undefined });
      const isTaken =
        replacing === undefined
          ? this.cluster.list(v4).some(([each]) => each === v4 || each.startsWith(`${v4}&`))
          : !this.#isCurrent(replacing) ||
            (replacing.key !== formatSubnetKey(subnets) && this.cluster.read(key) !== undefined);
      if (isTaken) return { outcome: 'taken' };
      const ttlId = ttlSeconds === undefined ? undefined : this.cluster.grant(ttlSeconds);
      const gone = replacing === undefined || SUBNETS + replacing.key === key ? [] : [{ key: SUBNETS + replacing.key }];
      this.cluster.write([...gone, { key, text: encodeAttributes(attributes), ttlId }]);
      this.#release(replacing?.ttlId);
      const snapshot = this.#snapshot();
      const [created] = findOverlapping(
        subnets,
        snapshot.leases.filter((each) => SUBNETS + each.key === key),
      );
      if (created === undefined) throw new Error(`${key} was just written`);
      return { outcome: 'created', lease: created, snapshot };
    });
  }

  adoptLease(
    lease: LeaseRecord,
    attributes: LeaseAttributes,
    ttlSeconds: number,
    signal?: AbortSignal,
  ): Promise<UpdateResult> {
    return this.#do('adoptLease', signal, () =>
      this.#update(lease, attributes, () => (lease.isReservation ? undefined : this.cluster.grant(ttlSeconds))),
    );
  }

  publishLease(lease: LeaseRecord, attributes: LeaseAttributes, signal?: AbortSignal): Promise<UpdateResult> {
    return this.#do('publishLease', signal, () =>
      this.#update(lease, attributes, () => this.cluster.read(SUBNETS + lease.key)?.ttlId),
    );
  }

  deleteLease(lease: LeaseRecord, signal?: AbortSignal): Promise<'deleted' | 'changed'> {
    return this.#do('deleteLease', signal, () => this.#delete(lease));
  }

  reserve(
    subnets: LeaseSubnets,
    attributes: LeaseAttributes,
    existing: LeaseRecord | undefined,
    signal?: AbortSignal,
  ): Promise<UpdateResult> {
    return this.#do('reserve', signal, (): UpdateResult => {
      if (existing !== undefined) return this.#update(existing, attributes, () => undefined);
      const key = formatSubnetKey(subnets);
      const v4 = SUBNETS + formatSubnetKey({ subnet: subnets.subnet, ipv6Subnet: undefined });
      if (!this.cluster.list(v4).some(([each]) => each === v4 || each.startsWith(`${v4}&`))) {
        this.cluster.write([{ key: SUBNETS + key, text: encodeAttributes(attributes) }]);
        const { lease } = this.#now(key);
        if (lease !== undefined) return { outcome: 'updated', lease };
      }
      return { outcome: 'changed', now: this.#now(key) };
    });
  }

  unreserve(lease: LeaseRecord, how: Unreserve, signal?: AbortSignal): Promise<'done' | 'changed'> {
    return this.#do('unreserve', signal, () => {
      if (how === 'delete') return this.#delete(lease) === 'deleted' ? 'done' : 'changed';
      const result = this.#update(lease, lease.attributes, () => this.cluster.grant(how.ttlSeconds));
      return result.outcome === 'updated' ? 'done' : 'changed';
    });
  }

  grantTtl(ttlSeconds: number, signal?: AbortSignal): Promise<TtlId> {
    return this.#do('grantTtl', signal, () => this.cluster.grant(ttlSeconds));
  }

  keepAlive(ttlId: TtlId, signal?: AbortSignal): Promise<number | undefined> {
    return this.#do('keepAlive', signal, () => this.cluster.keepAlive(ttlId));
  }

  remainingTtl(ttlId: TtlId, signal?: AbortSignal): Promise<number | undefined> {
    return this.#do('remainingTtl', signal, () => this.cluster.remaining(ttlId));
  }

  releaseTtl(ttlId: TtlId, signal?: AbortSignal): Promise<'released' | 'in-use'> {
    return this.#do('releaseTtl', signal, () => this.#release(ttlId));
  }

  listValues(pathPrefix: string, signal?: AbortSignal): Promise<readonly ValueEntry[]> {
    return this.#do('listValues', signal, () => this.cluster.list(VALUES + pathPrefix).map(toValue));
  }

  followValues(pathPrefix: string, observer: ValueObserver): Subscription {
    return this.#follow({
      prefix: VALUES + pathPrefix,
      isExact: false,
      snapshot: (entries) => observer.onSnapshot(entries.map(toValue)),
      changes: (changes) => {
        for (const { key, entry } of changes) {
          observer.onChange(key.slice(VALUES.length), entry && toValue([key, entry]));
        }
      },
    });
  }

  putValue(
    path: string,
    text: string,
    options: { readonly expected?: Expected; readonly ttlId?: TtlId | undefined; readonly signal?: AbortSignal } = {},
  ): Promise<WriteResult> {
    return this.#do('putValue', options.signal, () =>
      this.#put(VALUES + path, text, options.expected ?? 'any', options.ttlId),
    );
  }

  deleteValue(
    path: string,
    options: { readonly expected?: Expected; readonly signal?: AbortSignal } = {},
  ): Promise<boolean> {
    return this.#do('deleteValue', options.signal, () => {
      const current = this.cluster.read(VALUES + path);
      if (current === undefined || !isExpected(current, options.expected ?? 'any')) return false;
      this.cluster.write([{ key: VALUES + path }]);
      return true;
    });
  }

  get health(): StoreHealth {
    return this.#health;
  }

  onHealth(callback: (health: StoreHealth) => void): Subscription {
    this.#healthCallbacks.add(callback);
    return { close: () => this.#healthCallbacks.delete(callback) };
  }

  counters(): StoreCounters {
    const errors = this.#failures === 0 ? {} : { ERR_ETCD_UNAVAILABLE: this.#failures };
    return { roundTrips: this.#timer.count, roundTripTimes: this.#timer.times, errors, ...this.cluster.restarts };
  }

  networkChanged(): void {} // nothing is connected

  close(): Promise<void> {
    this.#isClosed = true;
    for (const subscription of this.#subscriptions) subscription.close();
    return Promise.resolve();
  }

  async #do<T>(operation: string, signal: AbortSignal | undefined, act: () => T): Promise<T> {
    this.#assertOpen();
    signal?.throwIfAborted();
    await new Promise((resolve) => setImmediate(resolve));
    await this.before(operation);
    signal?.throwIfAborted();
    this.#assertOpen();
    if (this.cluster.isDown) {
      this.#failures++;
      const error = unavailable();
      this.#setHealth({ isConnected: false, endpoint: undefined, error });
      throw error;
    }
    const result = act();
    this.#timer.add(0);
    this.#setHealth({ isConnected: true, endpoint: 'memory', error: undefined });
    await this.after(operation);
    return result;
  }

  #setHealth(health: StoreHealth): void {
    const isTransition = health.isConnected !== this.#health.isConnected;
    this.#health = health;
    if (isTransition) for (const callback of this.#healthCallbacks) callback(health);
  }

  #assertOpen(): void {
    if (this.#isClosed) throw new OverlayError('ERR_STORE_CLOSED', 'cannot use the store: it was closed');
  }

  #follow(follower: Omit<Follower, 'next'>): Subscription {
    const subscription = this.cluster.follow(follower);
    this.#subscriptions.add(subscription);
    return {
      close: () => {
        this.#subscriptions.delete(subscription);
        subscription.close();
      },
    };
  }

  #snapshot(): LeaseSnapshot {
    const observations = this.cluster
      .list(SUBNETS)
      .map(([key, entry]) => observe(key.slice(SUBNETS.length), entry, entry.revision));
    return {
      revision: this.cluster.revision.toString(),
      leases: observations.flatMap(({ lease }) => lease ?? []),
      bad: observations.flatMap(({ bad }) => bad ?? []),
    };
  }

  #now(key: string): LeaseObservation {
    return observe(key, this.cluster.read(SUBNETS + key), this.cluster.revision);
  }

  #isCurrent(lease: LeaseRecord): boolean {
    return this.cluster.read(SUBNETS + lease.key)?.revision.toString() === lease.revision;
  }

  #update(lease: LeaseRecord, attributes: LeaseAttributes, ttl: () => TtlId | undefined): UpdateResult {
    if (!this.#isCurrent(lease)) return { outcome: 'changed', now: this.#now(lease.key) };
    const ttlId = ttl();
    this.cluster.write([{ key: SUBNETS + lease.key, text: encodeAttributes(attributes), ttlId }]);
    if (ttlId !== lease.ttlId) this.#release(lease.ttlId);
    const now = this.#now(lease.key);
    if (now.lease === undefined) throw new Error(`${lease.key} was just written`);
    return { outcome: 'updated', lease: now.lease };
  }

  #delete(lease: LeaseRecord): 'deleted' | 'changed' {
    const current = this.cluster.read(SUBNETS + lease.key);
    if (current !== undefined && !this.#isCurrent(lease)) return 'changed';
    this.cluster.write([{ key: SUBNETS + lease.key }]);
    this.#release(lease.ttlId);
    return 'deleted';
  }

  #release(ttlId: TtlId | undefined): 'released' | 'in-use' {
    if (ttlId === undefined) return 'released';
    if (this.cluster.keysOf(ttlId).length > 0) return 'in-use';
    this.cluster.revoke(ttlId);
    return 'released';
  }

  #put(key: string, text: string, expected: Expected, ttlId: TtlId | undefined): WriteResult {
    const current = this.cluster.read(key);
    if (!isExpected(current, expected)) return { outcome: 'conflict', current: toText(current) };
    this.cluster.write([{ key, text, ttlId }]);
    return { outcome: 'written', revision: this.cluster.revision.toString() };
  }
}

/** The error of a store that does not answer. */
export function unavailable(): OverlayError {
  return new OverlayError('ERR_ETCD_UNAVAILABLE', 'cannot reach the store: it is down', { isRetryable: true });
}

function isExpected(current: Entry | undefined, expected: Expected): boolean {
  if (expected === 'any') return true;
  return expected === 'absent' ? current === undefined : current?.revision.toString() === expected.revision;
}

function toText(entry: Entry | undefined): TextEntry | undefined {
  return entry && { text: entry.text, revision: entry.revision.toString() };
}

function toValue([key, entry]: readonly [string, Entry]): ValueEntry {
  return { path: key.slice(VALUES.length), text: entry.text, revision: entry.revision.toString() };
}

function toEvent({ key, revision, entry }: Change): LeaseEvent {
  const name = key.slice(SUBNETS.length);
  const { lease, bad } = observe(name, entry, revision);
  if (lease !== undefined) return { kind: 'put', lease };
  if (bad !== undefined) return { kind: 'bad', entry: bad };
  return { kind: 'delete', key: name, revision: revision.toString() };
}

function observe(key: string, entry: Entry | undefined, revision: bigint): LeaseObservation {
  if (entry === undefined) return { revision: revision.toString(), lease: undefined, bad: undefined };
  const at = entry.revision.toString();
  let subnets: LeaseSubnets | undefined;
  try {
    subnets = parseSubnetKey(key);
    const attributes = decodeAttributes(entry.text);
    const { ttlId } = entry;
    const lease = { ...subnets, key, attributes, revision: at, ttlId, isReservation: ttlId === undefined };
    return { revision: at, lease, bad: undefined };
  } catch (error) {
    if (!(error instanceof OverlayError)) throw error;
    return { revision: at, lease: undefined, bad: { key, revision: at, error, subnets } };
  }
}
