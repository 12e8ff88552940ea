import fc from 'fast-check';
import type { EtcdService } from '../../src/etcd/connection.js';

/** A write or read inside or outside a transaction. */
type DataOperation =
  | {
      readonly kind: 'range';
      readonly key: string;
      readonly end: string;
      /** How far back the revision lies; undefined for now, negative for the future. */
      readonly back: number | undefined;
      readonly limit: number;
      readonly sort: 'None' | 'Ascend' | 'Descend';
      readonly flags: readonly ('keys_only' | 'count_only' | 'serializable')[];
      readonly bound:
        'min_mod_revision' | 'max_mod_revision' | 'min_create_revision' | 'max_create_revision' | undefined;
    }
  | {
      readonly kind: 'put';
      readonly key: string;
      readonly value: string;
      readonly lease: string;
      readonly flags: readonly ('prev_kv' | 'ignore_value' | 'ignore_lease')[];
    }
  | { readonly kind: 'delete'; readonly key: string; readonly end: string; readonly isPrevWanted: boolean };

interface Condition {
  readonly key: string;
  readonly end: string;
  readonly target: 'Version' | 'Create' | 'Mod' | 'Value' | 'Lease';
  readonly result: 'Equal' | 'Greater' | 'Less' | 'NotEqual';
  readonly back: number;
  readonly value: string;
  readonly lease: string;
}

interface TxnOperation {
  readonly kind: 'txn';
  readonly compare: readonly Condition[];
  readonly success: readonly (DataOperation | TxnOperation)[];
  readonly failure: readonly (DataOperation | TxnOperation)[];
}

/** A request that means the same to any etcd of the same history. */
export type Operation =
  | DataOperation
  | TxnOperation
  | { readonly kind: 'compact'; readonly back: number }
  | { readonly kind: 'grant'; readonly lease: string; readonly ttlSeconds: number }
  | { readonly kind: 'revoke' | 'leaseKeys'; readonly lease: string };

/** Mostly what etcd accepts, or few transactions would come to anything. */
const aKey = fc.oneof(
  { weight: 30, arbitrary: fc.constantFrom('a', 'a/1', 'a/2', 'b', 'b\xff', 'c') },
  { weight: 1, arbitrary: fc.constant('') },
);
const anEnd = fc.constantFrom('', '', 'b', 'a0', 'c', '\0', 'a');
const aLease = fc.oneof(
  { weight: 12, arbitrary: fc.constant('0') },
  { weight: 6, arbitrary: fc.constantFrom('7001', '7002') },
  { weight: 1, arbitrary: fc.constant('7003') },
);

const aRange = fc.record({
  kind: fc.constant('range' as const),
  key: aKey,
  end: anEnd,
  back: fc.option(fc.integer({ min: -1, max: 12 }), { nil: undefined }),
  limit: fc.constantFrom(0, 0, 1, 2),
  sort: fc.constantFrom('None' as const, 'Ascend' as const, 'Descend' as const),
  flags: fc.subarray(['keys_only', 'count_only', 'serializable'] as const),
  bound: fc.constantFrom(
    undefined,
    undefined,
    'min_mod_revision' as const,
    'max_mod_revision' as const,
    'min_create_revision' as const,
    'max_create_revision' as const,
  ),
});
const aPut = fc.record({
  kind: fc.constant('put' as const),
  key: aKey,
  value: fc.constantFrom('', 'x', 'y'),
  lease: aLease,
  flags: fc.oneof(
    { weight: 6, arbitrary: fc.constantFrom([], ['prev_kv' as const]) },
    { weight: 1, arbitrary: fc.subarray(['prev_kv', 'ignore_value', 'ignore_lease'] as const) },
  ),
});
const aDelete = fc.record({ kind: fc.constant('delete' as const), key: aKey, end: anEnd, isPrevWanted: fc.boolean() });
const aCondition: fc.Arbitrary<Condition> = fc.record({
  key: aKey,
  end: anEnd,
  target: fc.constantFrom('Version', 'Create', 'Mod', 'Value', 'Lease'),
  result: fc.constantFrom('Equal', 'Greater', 'Less', 'NotEqual'),
  back: fc.integer({ min: 0, max: 6 }),
  value: fc.constantFrom('', 'x', 'y'),
  lease: aLease,
});
const dataOperation = fc.oneof(aRange, aPut, aPut, aDelete);
const aTxn = fc.letrec<{ txn: TxnOperation; step: DataOperation | TxnOperation }>((tie) => ({
  step: fc.oneof({ maxDepth: 2 }, dataOperation, dataOperation, dataOperation, tie('txn')),
  txn: fc.record({
    kind: fc.constant('txn' as const),
    compare: fc.array(aCondition, { maxLength: 2 }),
    success: fc.array(tie('step'), { maxLength: 4 }),
    failure: fc.array(tie('step'), { maxLength: 3 }),
  }),
})).txn;
const anOperation: fc.Arbitrary<Operation> = fc.oneof(
  { weight: 4, arbitrary: aPut },
  { weight: 3, arbitrary: aRange },
  { weight: 2, arbitrary: aDelete },
  { weight: 6, arbitrary: aTxn },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('compact' as const), back: fc.integer({ min: -1, max: 10 }) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('grant' as const),
      lease: fc.constantFrom('7001', '7002'),
      ttlSeconds: fc.constantFrom(3000, 9_000_000_001),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constantFrom('revoke' as const, 'leaseKeys' as const),
      lease: fc.constantFrom('7001', '7002', '7003'),
    }),
  },
);

/** Requests to send one after the other, and what a watcher of everything wants. */
export const aHistory = fc.record({
  operations: fc.array(anOperation, { minLength: 5, maxLength: 40, size: 'max' }),
  isPrevWanted: fc.boolean(),
  filters: fc.subarray(['Noput', 'Nodelete'] as const, { maxLength: 1 }),
});

/** How far a history has come. */
interface Position {
  readonly revision: bigint;
  readonly compacted: bigint;
}

/** The request for an operation at that point of a history. */
export function toRequest(
  operation: Operation,
  at: Position,
): { readonly service: EtcdService; readonly method: string; readonly request: object } {
  switch (operation.kind) {
    case 'range':
      return { service: 'KV', method: 'range', request: toRange(operation, at) };
    case 'put':
      return { service: 'KV', method: 'put', request: toPut(operation) };
    case 'delete':
      return { service: 'KV', method: 'deleteRange', request: toDelete(operation) };
    case 'txn':
      return { service: 'KV', method: 'txn', request: toTxn(operation, at) };
    case 'compact':
      return { service: 'KV', method: 'compact', request: { revision: before(at, operation.back), physical: true } };
    case 'grant': {
      const request = { ID: operation.lease, TTL: operation.ttlSeconds };
      return { service: 'Lease', method: 'leaseGrant', request };
    }
    case 'revoke':
      return { service: 'Lease', method: 'leaseRevoke', request: { ID: operation.lease } };
    case 'leaseKeys':
      return { service: 'Lease', method: 'leaseTimeToLive', request: { ID: operation.lease, keys: true } };
  }
}

/** A revision that lies so far back, at least 1. */
function before({ revision }: Position, back: number): string {
  const wanted = revision - BigInt(back);
  return (wanted < 1n ? 1n : wanted).toString();
}

const bytes = (text: string): Buffer => Buffer.from(text, 'latin1');

/** To etcd, an end of no bytes that is sent all the same means no end at all. */
function toSpan(key: string, end: string): object {
  return { key: bytes(key), ...(end !== '' && { range_end: bytes(end) }) };
}

function toRange(operation: Extract<Operation, { kind: 'range' }>, at: Position): object {
  const { key, end, back, limit, sort, flags, bound } = operation;
  return {
    ...toSpan(key, end),
    revision: back === undefined ? '0' : before(at, back),
    limit,
    sort_order: sort,
    ...(bound && { [bound]: before(at, 3) }),
    ...Object.fromEntries(flags.map((flag) => [flag, true])),
  };
}

function toPut({ key, value, lease, flags }: Extract<Operation, { kind: 'put' }>): object {
  const request = { key: bytes(key), value: bytes(value), lease };
  return { ...request, ...Object.fromEntries(flags.map((flag) => [flag, true])) };
}

function toDelete({ key, end, isPrevWanted }: Extract<Operation, { kind: 'delete' }>): object {
  return { ...toSpan(key, end), prev_kv: isPrevWanted };
}

function toTxn({ compare, success, failure }: TxnOperation, at: Position): object {
  const toStep = (step: DataOperation | TxnOperation): object => {
    switch (step.kind) {
      case 'range':
        return { request_range: toRange(step, at) };
      case 'put':
        return { request_put: toPut(step) };
      case 'delete':
        return { request_delete_range: toDelete(step) };
      case 'txn':
        return { request_txn: toTxn(step, at) };
    }
  };
  return {
    compare: compare.map((condition) => toCompare(condition, at)),
    success: success.map(toStep),
    failure: failure.map(toStep),
  };
}

function toCompare({ key, end, target, result, back, value, lease }: Condition, at: Position): object {
  const operand = {
    Version: { version: back },
    Create: { create_revision: before(at, back) },
    Mod: { mod_revision: before(at, back) },
    Value: { value: bytes(value) },
    Lease: { lease },
  }[target];
  return { ...toSpan(key, end), target, result, ...operand };
}
