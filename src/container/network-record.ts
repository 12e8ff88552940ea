import { OverlayError } from '../errors.js';
import type { EtcdLeaseId } from '../lease/record.js';
import type { SharedValueStore, ValueCondition, ValueEntry } from '../lease/store.js';
import { isSpread, spread, withoutSpread } from './address-spread.js';
import type { NetworkProperties } from './addresses.js';
import { readFounding } from './network-overlap.js';
import { poolName } from './pool-errors.js';
import type { PoolIdentity } from './pool-id.js';
import {
  CHOICE_PATH,
  type NetworkRecord,
  type PoolPaths,
  checkProperties,
  decodeRecord,
  encodeRecord,
} from './records.js';

/** What is needed to agree with other hosts on a network. */
export interface RecordContext {
  readonly host: string;
  /** Tells the process that serves the host from any other one. */
  readonly instance: string;
  readonly store: SharedValueStore;
  readonly paths: PoolPaths;
  readonly identity: Pick<PoolIdentity, 'name' | 'subnet'>;
  /** What ends the membership of this host. */
  readonly etcdLeaseId: EtcdLeaseId | undefined;
}

/** Changes of others that a write may meet. */
const MAX_CONFLICTS = 8;

/*
 * Every change of who is in a network writes its record again, though its text stays the same: so a record changes, or
 * goes, only as long as exactly those are in the network who were when it was decided.
 */

/**
 * Enters this host into a network; as the only one, with a record of its own.
 *
 * @param options.isNew - whether its membership has to be written although it is there: it may end with another etcd lease.
 * @param options.properties - those that were agreed on before: etcd may have lost them with all that it had.
 * @returns the process that was in the network for this host before, if it was another one; what is agreed on, as far as
 * anything is.
 * @throws {@link OverlayError} `ERR_NETWORK_DIFFERS` if other hosts have it with another range, `ERR_ADDRESS_POOL` if it
 * overlaps another one.
 */
export async function joinNetwork(
  context: RecordContext,
  { range }: PoolIdentity,
  { isNew, properties }: { readonly isNew: boolean; readonly properties: NetworkProperties | undefined },
  signal: AbortSignal,
): Promise<{ readonly former: string | undefined; readonly agreed: NetworkProperties | undefined }> {
  const { instance } = context;
  let former: string | undefined;
  let agreed = properties;
  await changeRecord(context, signal, (record, others, own) => {
    former = own;
    agreed = properties;
    if (record?.range.equals(range) === true) {
      agreed = record.properties ?? properties;
      const isLacking = record.properties === undefined && properties !== undefined;
      if (own === instance && !isNew && !isLacking) return undefined;
      return { record: isLacking ? { range, properties } : record };
    }
    if (record !== undefined && others.length > 0) {
      throw differs(context, others, `the range ${record.range.toString()}`, `the range ${range.toString()}`);
    }
    return { record: { range, properties } };
  });
  return { former: former === instance ? undefined : former, agreed };
}

/**
 * Enters this host into a network that nobody knows yet.
 *
 * @param choice - what was at {@link CHOICE_PATH} before the networks were listed.
 * @returns false if somebody does know it, or has founded another one since.
 */
export async function foundNetwork(
  { store, paths, host, instance, etcdLeaseId }: RecordContext,
  { range }: PoolIdentity,
  choice: ValueEntry | undefined,
  signal: AbortSignal,
): Promise<boolean> {
  const conditions: readonly ValueCondition[] = [
    { absent: paths.record },
    choice === undefined ? { absent: CHOICE_PATH } : { path: CHOICE_PATH, revision: choice.revision },
  ];
  const puts = [
    { path: CHOICE_PATH, text: host, etcdLeaseId },
    { path: paths.record, text: encodeRecord({ range, properties: undefined }) },
    { path: paths.host(host), text: instance, etcdLeaseId },
  ];
  return (await store.transactValues({ conditions, puts }, signal)) !== undefined;
}

/**
 * Compares properties with those in the record; writes them if there are none, or nobody else is in the network. Whoever
 * writes them decides whether the addresses of the network are spread: not those of one that has been cut otherwise.
 *
 * @returns what is agreed on by now.
 * @throws {@link OverlayError} `ERR_NETWORK_DIFFERS` with both values.
 */
export async function agreeOnRecord(
  context: RecordContext,
  { range }: PoolIdentity,
  properties: NetworkProperties,
  signal: AbortSignal,
): Promise<NetworkProperties> {
  checkProperties(spread(properties, range));
  let agreed = properties;
  await changeRecord(context, signal, async (record, others, own) => {
    const known = record?.properties;
    const difference = known && propertyDifference(withoutSpread(known), properties);
    if (known !== undefined && difference === undefined) {
      agreed = known;
      return own === undefined ? { record: { range, properties: known } } : undefined;
    }
    if (difference !== undefined && others.length > 0)
      throw differs(context, others, difference.known, difference.asked);
    const { store, paths } = context;
    const isCut = !isSpread(known) && (await store.listValues(paths.blocks, signal)).length > 0;
    agreed = isCut ? properties : spread(properties, range);
    const conditions = isSpread(agreed) && !isSpread(known) ? [{ noneBelow: paths.blocks }] : [];
    return { record: { range, properties: agreed }, conditions };
  });
  return agreed;
}

/** Takes this host out of a network; the last one takes the record with it. */
export async function leaveNetwork(context: RecordContext, signal: AbortSignal): Promise<void> {
  await changeRecord(context, signal, (record, others, own) => {
    if (own === undefined && (record === undefined || others.length > 0)) return undefined;
    return { record: others.length === 0 ? undefined : record, isLeaving: true };
  });
}

/**
 * Deletes the record of a network that no host is in.
 *
 * @returns false if there is one.
 */
export async function dropRecord(
  store: Pick<SharedValueStore, 'listValues' | 'transactValues'>,
  paths: PoolPaths,
  signal: AbortSignal,
): Promise<boolean> {
  const entry = await readEntry(store, paths.record, signal);
  if (entry === undefined) return (await store.listValues(paths.hosts, signal)).length === 0;
  const conditions = [{ path: paths.record, revision: entry.revision }, { noneBelow: paths.hosts }];
  return (await store.transactValues({ conditions, deletes: [paths.record] }, signal)) !== undefined;
}

/** What becomes of a record. */
interface Change {
  /** Undefined deletes it. */
  readonly record: NetworkRecord | undefined;
  readonly isLeaving?: boolean;
  readonly conditions?: readonly ValueCondition[];
}

async function changeRecord(
  context: RecordContext,
  signal: AbortSignal,
  decide: (
    record: NetworkRecord | undefined,
    others: readonly string[],
    own: string | undefined,
  ) => Change | undefined | Promise<Change | undefined>,
): Promise<void> {
  const { store, paths, host, instance, etcdLeaseId, identity } = context;
  for (let conflicts = 0; conflicts < MAX_CONFLICTS; conflicts++) {
    const entry = await readEntry(store, paths.record, signal);
    const members = await store.listValues(paths.hosts, signal);
    const others = members.map(({ path }) => path.slice(paths.hosts.length)).filter((each) => each !== host);
    const own = members.find(({ path }) => path === paths.host(host))?.text;
    const change = await decide(entry && decodeRecord(entry.text), others, own);
    if (change === undefined) return;
    const { record, isLeaving = false, conditions = [] } = change;
    const founding = entry === undefined && record !== undefined ? await readFounding(context, signal) : undefined;
    const isDone = await store.transactValues(
      {
        conditions: [
          entry === undefined ? { absent: paths.record } : { path: paths.record, revision: entry.revision },
          ...(founding?.conditions ?? []),
          ...conditions,
        ],
        puts: [
          ...(founding?.puts ?? []),
          ...(record === undefined ? [] : [{ path: paths.record, text: encodeRecord(record) }]),
          ...(isLeaving ? [] : [{ path: paths.host(host), text: instance, etcdLeaseId }]),
        ],
        deletes: [
          ...(founding?.deletes ?? []),
          ...(record === undefined ? [paths.record] : []),
          ...(isLeaving ? [paths.host(host)] : []),
        ],
      },
      signal,
    );
    if (isDone !== undefined) return;
  }
  throw new OverlayError(
    'ERR_CONFLICT',
    `cannot enter or leave the network ${poolName(identity)}: other hosts do so all the time`,
    {
      isRetryable: true,
    },
  );
}

async function readEntry(
  store: Pick<SharedValueStore, 'listValues'>,
  path: string,
  signal: AbortSignal,
): Promise<ValueEntry | undefined> {
  return (await store.listValues(path, signal)).find((entry) => entry.path === path);
}

/** What two hosts do not agree on, if there is anything, each in words such as `gateway 10.10.10.1`. */
export function propertyDifference(
  known: NetworkProperties,
  asked: NetworkProperties,
): { readonly known: string; readonly asked: string } | undefined {
  const names = new Set([...Object.keys(known), ...Object.keys(asked)]);
  const name = [...names].sort().find((each) => known[each] !== asked[each]);
  if (name === undefined) return undefined;
  const describe = (value: string | undefined): string => `${value === undefined ? 'no' : ''} ${name} ${value ?? ''}`;
  return { known: describe(known[name]).trim(), asked: describe(asked[name]).trim() };
}

function differs({ identity }: RecordContext, others: readonly string[], known: string, asked: string): OverlayError {
  const who = others.length === 1 ? `host ${others[0] ?? ''}` : `${others.length} hosts`;
  return new OverlayError(
    'ERR_NETWORK_DIFFERS',
    `cannot use the network ${poolName(identity)} with ${asked}: ${who} has it with ${known}`,
    {
      hint: 'use the same options on all hosts, or give the network a name of its own with --ipam-opt network=NAME',
    },
  );
}
