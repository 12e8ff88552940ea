import type {
  Compare,
  DeleteRangeRequest,
  EventMessage,
  KeyValueMessage,
  PutRequest,
  RangeRequest,
  RangeResponse,
  RequestOp,
  TxnRequest,
  TxnResponse,
} from './messages.js';
import type { Clock } from '../../../src/clock.js';
import { Access, type AuthOptions } from './access.js';
import { Lessor, type SimLease } from './lessor.js';
import { type Change, type Entry, Mvcc, type Transaction, isWithin, spanOf } from './mvcc.js';
import { ETCD_ERRORS } from './protocol.js';

/** What an etcd has on disk; later changes of the cluster do not touch it. */
export interface EtcdBackup {
  readonly mvcc: Mvcc;
  readonly leases: readonly SimLease[];
  readonly auth: AuthOptions | undefined;
}

/** etcd's `--max-txn-ops`. */
const MAX_TXN_OPS = 128;

/** What is made of a request that came through raft, as etcd 3.4 applies it (`etcdserver/apply.go`). */
export class EtcdState {
  readonly mvcc: Mvcc;
  readonly lessor: Lessor;
  readonly #keysOfLease = new Map<string, Set<string>>();
  access: Access | undefined;
  /** The NOSPACE alarm. */
  isFull = false;

  constructor(clock: Clock, minTtlSeconds: number, onExpired: (id: string) => void, backup?: EtcdBackup) {
    this.mvcc = new Mvcc(backup?.mvcc);
    this.access = backup?.auth && new Access(backup.auth);
    this.lessor = new Lessor(clock, minTtlSeconds, onExpired);
    this.lessor.startAgain(backup?.leases ?? []);
    for (const { key, leaseId } of this.mvcc.list({ from: '', to: undefined })) this.#attach(key, leaseId);
  }

  backup(): EtcdBackup {
    return { mvcc: new Mvcc(this.mvcc), leases: this.lessor.leases, auth: this.access?.options };
  }

  get revision(): number {
    return this.mvcc.revision;
  }

  /** Keys that end with a lease, sorted. */
  keysOf(leaseId: string): readonly string[] {
    return [...(this.#keysOfLease.get(leaseId) ?? [])].sort();
  }

  /** @param asOf - the revision that the answering member has reached. @throws {@link RpcError} */
  range(request: RangeRequest, user: string | undefined, asOf: number): RangeResponse {
    assertKey(request);
    this.access?.assertMay(user, 'read', spanOf(request));
    if (Number(request.revision) > asOf) throw ETCD_ERRORS.futureRevision();
    this.mvcc.assertReadable(Number(request.revision));
    return this.#range(request, asOf);
  }

  /** @throws {@link RpcError} */
  put(request: PutRequest, user: string | undefined): object {
    assertPut(request);
    if (this.isFull) throw ETCD_ERRORS.noSpace();
    this.#assertMayPut(request, user);
    this.#checkLease(request);
    this.#checkKept(request);
    return this.mvcc.write((transaction) => this.#put(transaction, request));
  }

  /** @throws {@link RpcError} */
  deleteRange(request: DeleteRangeRequest, user: string | undefined): object {
    assertKey(request);
    this.#assertMayDelete(request, user);
    return this.mvcc.write((transaction) => this.#delete(transaction, request));
  }

  /** @throws {@link RpcError} */
  txn(request: TxnRequest, user: string | undefined): TxnResponse {
    assertTxn(request);
    collectWrites(request.success);
    collectWrites(request.failure);
    if (this.isFull && hasPut(request)) throw ETCD_ERRORS.noSpace();
    this.#assertMayTxn(request, user);
    // Which branches are taken is settled before anything is written.
    const path: boolean[] = [];
    this.#choose(request, path);
    this.#check(request, [...path], ({ request_put: put }) => {
      if (put === undefined) return;
      this.#checkKept(put);
      this.#checkLease(put);
    });
    this.#check(request, [...path], ({ request_range: range }) => {
      if (range !== undefined) this.mvcc.assertReadable(Number(range.revision));
    });
    return this.mvcc.write((transaction) => this.#txn(transaction, request, path));
  }

  /** Deletes a lease and all its keys in one revision. @throws {@link RpcError} */
  revoke(leaseId: string, user?: string): void {
    if (!this.lessor.has(leaseId)) throw ETCD_ERRORS.leaseNotFound();
    for (const key of this.keysOf(leaseId)) this.access?.assertMay(user, 'write', { from: key, to: `${key}\0` });
    this.expire(leaseId);
  }

  /** What {@link revoke} does, by etcd itself. */
  expire(leaseId: string): void {
    const keys = this.keysOf(leaseId);
    this.lessor.remove(leaseId);
    this.mvcc.write((transaction) => {
      for (const key of keys) this.#deleteSpan(transaction, { from: key, to: `${key}\0` });
    });
    this.#keysOfLease.delete(leaseId);
  }

  #range(request: RangeRequest, revision: number): RangeResponse {
    const at = Number(request.revision) > 0 ? Number(request.revision) : revision;
    const all = this.mvcc.list(spanOf(request), at);
    const kept = all.filter(
      ({ modRevision, createRevision }) =>
        isBetween(modRevision, request.min_mod_revision, request.max_mod_revision) &&
        isBetween(createRevision, request.min_create_revision, request.max_create_revision),
    );
    const sorted = sortEntries(kept, request);
    const limit = Number(request.limit);
    const shown = request.count_only ? [] : limit > 0 ? sorted.slice(0, limit) : sorted;
    return {
      header: { revision },
      kvs: shown.map((entry) => toMessage(entry, request.keys_only)),
      more: !request.count_only && shown.length < sorted.length,
      count: all.length,
    };
  }

  #put(transaction: Transaction, request: PutRequest): object {
    const key = request.key.toString('latin1');
    const previous = this.mvcc.get(key);
    const value = request.ignore_value && previous !== undefined ? previous.value : request.value;
    const leaseId = request.ignore_lease && previous !== undefined ? previous.leaseId : request.lease;
    transaction.put(key, value, leaseId);
    this.#detach(key, previous?.leaseId);
    this.#attach(key, leaseId);
    return {
      header: { revision: transaction.revision },
      ...(request.prev_kv && previous !== undefined && { prev_kv: toMessage(previous) }),
    };
  }

  #delete(transaction: Transaction, request: DeleteRangeRequest): object {
    const deleted = this.#deleteSpan(transaction, spanOf(request));
    return {
      header: { revision: transaction.revision },
      deleted: deleted.length,
      prev_kvs: request.prev_kv ? deleted.map((entry) => toMessage(entry)) : [],
    };
  }

  #deleteSpan(
    transaction: Transaction,
    span: { readonly from: string; readonly to: string | undefined },
  ): readonly Entry[] {
    const deleted = transaction.delete(span);
    for (const { key, leaseId } of deleted) this.#detach(key, leaseId);
    return deleted;
  }

  #txn(transaction: Transaction, request: TxnRequest, path: boolean[]): TxnResponse {
    const succeeded = path.shift() ?? false;
    const responses = branchOf(request, succeeded).map((operation) => {
      if (operation.request_range !== undefined) {
        return { response_range: this.#range(operation.request_range, transaction.revision) };
      }
      if (operation.request_put !== undefined) return { response_put: this.#put(transaction, operation.request_put) };
      if (operation.request_delete_range !== undefined) {
        return { response_delete_range: this.#delete(transaction, operation.request_delete_range) };
      }
      if (operation.request_txn !== undefined) {
        // etcd leaves the header of an inner transaction empty.
        return { response_txn: { ...this.#txn(transaction, operation.request_txn, path), header: { revision: 0 } } };
      }
      return {};
    });
    return { header: { revision: transaction.revision }, succeeded, responses };
  }

  #choose(request: TxnRequest, path: boolean[]): void {
    const succeeded = request.compare.every((compare) => this.#holds(compare));
    path.push(succeeded);
    for (const { request_txn: inner } of branchOf(request, succeeded)) {
      if (inner !== undefined) this.#choose(inner, path);
    }
  }

  #check(request: TxnRequest, path: boolean[], check: (operation: RequestOp) => void): void {
    for (const operation of branchOf(request, path.shift() ?? false)) {
      if (operation.request_txn !== undefined) this.#check(operation.request_txn, path, check);
      else check(operation);
    }
  }

  #holds(compare: Compare): boolean {
    const entries = this.mvcc.list(spanOf(compare));
    if (entries.length > 0) return entries.every((entry) => isOutcome(compare, order(compare, entry)));
    return compare.target !== 'Value' && isOutcome(compare, order(compare, undefined));
  }

  #checkKept(request: PutRequest): void {
    const isKept = request.ignore_value || request.ignore_lease;
    if (isKept && this.mvcc.get(request.key.toString('latin1')) === undefined) throw ETCD_ERRORS.keyNotFound();
  }

  #checkLease({ lease }: PutRequest): void {
    if (lease !== '0' && !this.lessor.has(lease)) throw ETCD_ERRORS.leaseNotFound();
  }

  #assertMayPut(request: PutRequest, user: string | undefined): void {
    if (this.access === undefined) return;
    const span = spanOf({ key: request.key, range_end: NO_BYTES });
    this.access.assertMay(user, 'write', span);
    if (request.prev_kv) this.access.assertMay(user, 'read', span);
    // Else a user could have somebody else's keys deleted by way of their lease.
    for (const key of this.keysOf(request.lease)) this.access.assertMay(user, 'write', { from: key, to: `${key}\0` });
  }

  #assertMayDelete(request: DeleteRangeRequest, user: string | undefined): void {
    this.access?.assertMay(user, 'write', spanOf(request));
    if (request.prev_kv) this.access?.assertMay(user, 'read', spanOf(request));
  }

  #assertMayTxn(request: TxnRequest, user: string | undefined): void {
    if (this.access === undefined) return;
    for (const compare of request.compare) this.access.assertMay(user, 'read', spanOf(compare));
    for (const operation of [...request.success, ...request.failure]) {
      if (operation.request_range !== undefined) {
        this.access.assertMay(user, 'read', spanOf(operation.request_range));
      } else if (operation.request_put !== undefined) {
        this.#assertMayPut(operation.request_put, user);
      } else if (operation.request_delete_range !== undefined) {
        this.#assertMayDelete(operation.request_delete_range, user);
      } else if (operation.request_txn !== undefined) {
        this.#assertMayTxn(operation.request_txn, user);
      }
    }
  }

  #attach(key: string, leaseId: string): void {
    if (leaseId === '0') return;
    const keys = this.#keysOfLease.get(leaseId) ?? new Set();
    this.#keysOfLease.set(leaseId, keys.add(key));
  }

  #detach(key: string, leaseId: string | undefined): void {
    if (leaseId !== undefined) this.#keysOfLease.get(leaseId)?.delete(key);
  }
}

/** An entry as answers carry it. */
export function toMessage(entry: Entry, isKeyOnly = false): KeyValueMessage {
  return {
    key: Buffer.from(entry.key, 'latin1'),
    create_revision: entry.createRevision,
    mod_revision: entry.modRevision,
    version: entry.version,
    ...(isKeyOnly ? {} : { value: entry.value }),
    lease: entry.leaseId,
  };
}

/** A change as watches report it. */
export function toEvent({ key, revision, entry }: Change, previous: Entry | undefined): EventMessage {
  return {
    type: entry === undefined ? 'Delete' : 'Put',
    kv: entry === undefined ? { key: Buffer.from(key, 'latin1'), mod_revision: revision } : toMessage(entry),
    ...(previous !== undefined && { prev_kv: toMessage(previous) }),
  };
}

const NO_BYTES = Buffer.alloc(0);

function branchOf(request: TxnRequest, succeeded: boolean): readonly RequestOp[] {
  return succeeded ? request.success : request.failure;
}

function assertKey({ key }: { readonly key: Buffer }): void {
  if (key.length === 0) throw ETCD_ERRORS.emptyKey();
}

function assertPut(request: PutRequest): void {
  assertKey(request);
  if (request.ignore_value && request.value.length > 0) throw ETCD_ERRORS.valueProvided();
  if (request.ignore_lease && request.lease !== '0') throw ETCD_ERRORS.leaseProvided();
}

function assertTxn(request: TxnRequest): void {
  const size = Math.max(request.compare.length, request.success.length, request.failure.length);
  if (size > MAX_TXN_OPS) throw ETCD_ERRORS.tooManyOps();
  request.compare.forEach(assertKey);
  for (const operation of [...request.success, ...request.failure]) {
    if (operation.request_range !== undefined) assertKey(operation.request_range);
    if (operation.request_put !== undefined) assertPut(operation.request_put);
    if (operation.request_delete_range !== undefined) assertKey(operation.request_delete_range);
    if (operation.request_txn !== undefined) assertTxn(operation.request_txn);
  }
}

function hasPut({ success, failure }: TxnRequest): boolean {
  return [...success, ...failure].some(
    ({ request_put: put, request_txn: txn }) => put !== undefined || (txn !== undefined && hasPut(txn)),
  );
}

type Span = ReturnType<typeof spanOf>;

/** Refuses a second write to a key in one transaction, see `checkIntervals` in etcd's `v3rpc/key.go`. */
function collectWrites(operations: readonly RequestOp[]): {
  readonly puts: ReadonlySet<string>;
  readonly deletes: readonly Span[];
} {
  const puts = new Set<string>();
  const deletes: Span[] = operations.flatMap(({ request_delete_range: request }) => {
    if (request === undefined) return [];
    // An end of a zero byte is taken literally here, so that a deletion without end is in nobody's way.
    const isEndless = request.range_end.length === 1 && request.range_end[0] === 0;
    return isEndless ? [] : [spanOf(request)];
  });
  const add = (key: string, isSafe = false): void => {
    if ((puts.has(key) && !isSafe) || deletes.some((span) => isWithin(key, span))) throw ETCD_ERRORS.duplicateKey();
    puts.add(key);
  };
  for (const { request_txn: inner } of operations) {
    if (inner === undefined) continue;
    const success = collectWrites(inner.success);
    const failure = collectWrites(inner.failure);
    for (const key of success.puts) add(key);
    for (const key of failure.puts) add(key, success.puts.has(key));
    deletes.push(...success.deletes, ...failure.deletes);
  }
  for (const { request_put: put } of operations) if (put !== undefined) add(put.key.toString('latin1'));
  return { puts, deletes };
}

/** How what is there compares with what was given: negative, 0 or positive. */
function order(compare: Compare, entry: Entry | undefined): number {
  switch (compare.target) {
    case 'Version':
      return (entry?.version ?? 0) - Number(compare.version ?? 0);
    case 'Create':
      return (entry?.createRevision ?? 0) - Number(compare.create_revision ?? 0);
    case 'Mod':
      return (entry?.modRevision ?? 0) - Number(compare.mod_revision ?? 0);
    case 'Value':
      return Buffer.compare(entry?.value ?? NO_BYTES, compare.value ?? NO_BYTES);
    case 'Lease': {
      const difference = BigInt(entry?.leaseId ?? 0) - BigInt(compare.lease ?? 0);
      return difference === 0n ? 0 : difference > 0n ? 1 : -1;
    }
  }
}

function isOutcome({ result }: Compare, difference: number): boolean {
  switch (result) {
    case 'Equal':
      return difference === 0;
    case 'NotEqual':
      return difference !== 0;
    case 'Greater':
      return difference > 0;
    case 'Less':
      return difference < 0;
  }
}

function isBetween(revision: number, min: string, max: string): boolean {
  return revision >= Number(min) && (max === '0' || revision <= Number(max));
}

function sortEntries(entries: readonly Entry[], request: RangeRequest): readonly Entry[] {
  const { sort_order: order, sort_target: target } = request;
  if (order === 'None' && target === 'Key') return entries;
  const sign = order === 'Descend' ? -1 : 1;
  const by: Record<typeof target, (a: Entry, b: Entry) => number> = {
    Key: (a, b) => (a.key < b.key ? -1 : 1),
    Version: (a, b) => a.version - b.version,
    Create: (a, b) => a.createRevision - b.createRevision,
    Mod: (a, b) => a.modRevision - b.modRevision,
    Value: (a, b) => Buffer.compare(a.value, b.value),
  };
  return [...entries].sort((a, b) => sign * by[target](a, b));
}
