import { ETCD_ERRORS } from './protocol.js';

/** What lies, or lay, under a key. Keys are Latin-1 texts of their bytes, whose order is that of the bytes. */
export interface Entry {
  readonly key: string;
  readonly value: Buffer;
  readonly createRevision: number;
  readonly modRevision: number;
  readonly version: number;
  /** `0` for none. */
  readonly leaseId: string;
}

/** One key's change in one revision. */
export interface Change {
  readonly key: string;
  readonly revision: number;
  /** Undefined for a deletion. */
  readonly entry: Entry | undefined;
}

/** Keys in [`from`, `to`). */
export interface Span {
  readonly from: string;
  /** Undefined for no end. */
  readonly to: string | undefined;
}

/** A request's range: just `key` without a `range_end`, everything from `key` on if that is a zero byte. */
export function spanOf({ key, range_end: end }: { readonly key: Buffer; readonly range_end: Buffer }): Span {
  const from = key.toString('latin1');
  if (end.length === 0) return { from, to: `${from}\0` };
  return { from, to: end.length === 1 && end[0] === 0 ? undefined : end.toString('latin1') };
}

/** Whether a key lies in a span. */
export function isWithin(key: string, { from, to }: Span): boolean {
  return key >= from && (to === undefined || key < to);
}

/** Whether every key of a span lies in another. */
export function isSpanWithin(inner: Span, outer: Span): boolean {
  return inner.from >= outer.from && (outer.to === undefined || (inner.to !== undefined && inner.to <= outer.to));
}

/** Keys with all their history: revisions begin at 1, and each transaction that changes anything makes the next one. */
export class Mvcc {
  /** Of each key, its changes in order. */
  readonly #changes = new Map<string, Change[]>();
  readonly #sortedKeys: string[] = [];
  /** Every change in order. */
  readonly #log: Change[] = [];
  #revision = 1;
  #compactRevision = 0;

  /** @param base - to begin with its keys and history instead of none. */
  constructor(base?: Mvcc) {
    if (base === undefined) return;
    for (const [key, changes] of base.#changes) this.#changes.set(key, [...changes]);
    this.#sortedKeys = [...base.#sortedKeys];
    this.#log = [...base.#log];
    this.#revision = base.#revision;
    this.#compactRevision = base.#compactRevision;
  }

  get revision(): number {
    return this.#revision;
  }

  get compactRevision(): number {
    return this.#compactRevision;
  }

  /** The entry under a key, now or as of a revision. */
  get(key: string, revision = Number.POSITIVE_INFINITY): Entry | undefined {
    const changes = this.#changes.get(key) ?? [];
    return changes[lastUpTo(changes, revision)]?.entry;
  }

  /** The entries of a span in the order of keys, now or as of a revision, compacted or not. */
  list(span: Span, revision = Number.POSITIVE_INFINITY): readonly Entry[] {
    const entries: Entry[] = [];
    for (let index = firstFrom(this.#sortedKeys, span.from); index < this.#sortedKeys.length; index++) {
      const key = this.#sortedKeys[index] ?? '';
      if (span.to !== undefined && key >= span.to) break;
      const entry = this.get(key, revision);
      if (entry !== undefined) entries.push(entry);
    }
    return entries;
  }

  /** Every change in (`after`, `upTo`], compacted or not. */
  changesBetween(after: number, upTo: number): readonly Change[] {
    return this.#log.slice(lastUpTo(this.#log, after) + 1, lastUpTo(this.#log, upTo) + 1);
  }

  /** Runs one transaction; what it writes shows at once and makes one revision. */
  write<T>(body: (transaction: Transaction) => T): T {
    const transaction = new Transaction(this, this.#revision + 1, (change) => this.#record(change));
    const result = body(transaction);
    if (transaction.hasChanges) this.#revision++;
    return result;
  }

  /** Forgets what was before a revision. @throws {@link RpcError} */
  compact(revision: number): void {
    if (revision <= this.#compactRevision) throw ETCD_ERRORS.compacted();
    if (revision > this.#revision) throw ETCD_ERRORS.futureRevision();
    this.#compactRevision = revision;
  }

  /** Fails like etcd unless a revision can be read. @throws {@link RpcError} */
  assertReadable(revision: number): void {
    if (revision > this.#revision) throw ETCD_ERRORS.futureRevision();
    if (revision > 0 && revision < this.#compactRevision) throw ETCD_ERRORS.compacted();
  }

  #record(change: Change): void {
    let changes = this.#changes.get(change.key);
    if (changes === undefined) {
      changes = [];
      this.#changes.set(change.key, changes);
      this.#sortedKeys.splice(firstFrom(this.#sortedKeys, change.key), 0, change.key);
    }
    changes.push(change);
    this.#log.push(change);
  }
}

/** The writing side of {@link Mvcc.write}. */
export class Transaction {
  #hasChanges = false;

  constructor(
    private readonly mvcc: Mvcc,
    private readonly nextRevision: number,
    private readonly record: (change: Change) => void,
  ) {}

  get hasChanges(): boolean {
    return this.#hasChanges;
  }

  /** Of what this transaction has written so far, or of the last one. */
  get revision(): number {
    return this.#hasChanges ? this.nextRevision : this.nextRevision - 1;
  }

  put(key: string, value: Buffer, leaseId: string): void {
    const previous = this.mvcc.get(key);
    const revision = this.nextRevision;
    const entry: Entry = {
      key,
      value,
      createRevision: previous?.createRevision ?? revision,
      modRevision: revision,
      version: (previous?.version ?? 0) + 1,
      leaseId,
    };
    this.#hasChanges = true;
    this.record({ key, revision, entry });
  }

  /** @returns what was deleted. */
  delete(span: Span): readonly Entry[] {
    const deleted = this.mvcc.list(span);
    for (const { key } of deleted) this.record({ key, revision: this.nextRevision, entry: undefined });
    this.#hasChanges ||= deleted.length > 0;
    return deleted;
  }
}

/** Index of the last change up to a revision, −1 if there is none. */
function lastUpTo(changes: readonly Change[], revision: number): number {
  let low = 0;
  let high = changes.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((changes[middle]?.revision ?? 0) <= revision) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/** Index of the first key that is not before the given one. */
function firstFrom(keys: readonly string[], key: string): number {
  let low = 0;
  let high = keys.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((keys[middle] ?? '') < key) low = middle + 1;
    else high = middle;
  }
  return low;
}
