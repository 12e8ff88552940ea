import { type BadEntry, type LeaseRecord, type Revision, type TextEntry, type EtcdLeaseId, isAfter } from './record.js';

/**
 * What the store says, all of it at one revision: the one input that configuration, own lease and peers are decided on.
 */
export interface World {
  /**
   * Number of the history that the revisions belong to; revisions of different epochs cannot be compared.
   *
   * @remarks It rises when the store can no longer show that what was known before is part of its history: it was wiped
   * or restored from a backup, it is another cluster, or it has forgotten too much to tell. What is missing from such a
   * world was not necessarily given up by anybody. 0 means that the world continues what `since` stands for.
   */
  readonly epoch: number;
  /** The newest change that is part of it. */
  readonly revision: Revision;
  readonly clusterId: string;
  readonly config: TextEntry | undefined;
  /** By the key below `<prefix>/subnets/`. */
  readonly leases: ReadonlyMap<string, LeaseRecord>;
  /** Keys and values that are no leases. */
  readonly bad: ReadonlyMap<string, BadEntry>;
}

/** What a world was made of, and the keys under which leases or bad entries were written or deleted meanwhile. */
interface Change {
  /** Weak, as each world would otherwise hold on to all that were before it. */
  readonly before: WeakRef<World>;
  readonly keys: ReadonlySet<string>;
}

const changes = new WeakMap<World, Change>();

/** Says that two worlds have the same leases and bad entries except under these keys. */
export function noteChange(before: World, after: World, keys: ReadonlySet<string>): void {
  changes.set(after, { before: new WeakRef(before), keys });
}

/**
 * Keys below `<prefix>/subnets/` under which two worlds may differ; undefined if that takes a comparison of both.
 *
 * @remarks Among thousands of leases one changes at a time, and whoever follows the world is to look at that one only.
 */
export function changedKeys(before: World | undefined, after: World): ReadonlySet<string> | undefined {
  const change = changes.get(after);
  return before !== undefined && change?.before.deref() === before ? change.keys : undefined;
}

/**
 * A point in the store's history by which it is recognised: who wrote what there, when.
 *
 * @remarks Revisions alone tell nothing after a restore: new writes soon reach the old number. The id of an etcd lease
 * has at least 31 random bits, so a key attached to the same one at the same revision is a witness of the same history.
 */
export interface HistoryMark {
  readonly clusterId: string;
  /** Name of a lease key, or undefined for the configuration. */
  readonly leaseKey: string | undefined;
  readonly revision: Revision;
  readonly createdAt: Revision;
  readonly etcdLeaseId: EtcdLeaseId | undefined;
}

/** The newest witness of a world's history: of the leases that expire if there are any, else of whatever there is. */
export function newestMark(world: World): HistoryMark | undefined {
  return marksOf(world)[0];
}

/**
 * Witnesses of a world's history, the best one first: the newest lease, and the configuration, which may be newer and of
 * a history that is gone.
 */
export function marksOf(world: World): readonly HistoryMark[] {
  const { clusterId, config } = world;
  const marks: HistoryMark[] = [];
  let newest: LeaseRecord | undefined;
  for (const lease of world.leases.values()) {
    const isBetterWitness = newest === undefined || (newest.isReservation && !lease.isReservation);
    const isEqualWitness = newest?.isReservation === lease.isReservation;
    if (isBetterWitness || (isEqualWitness && isAfter(lease.revision, newest?.revision ?? '0'))) newest = lease;
  }
  if (newest !== undefined) {
    const { key, revision, createdAt, etcdLeaseId } = newest;
    marks.push({ clusterId, leaseKey: key, revision, createdAt, etcdLeaseId });
  }
  if (config !== undefined) {
    const { revision, createdAt } = config;
    marks.push({ clusterId, leaseKey: undefined, revision, createdAt, etcdLeaseId: undefined });
  }
  return marks;
}

/** A mark as text for a file. */
export function encodeMark({ etcdLeaseId: ttlId, ...mark }: HistoryMark): string {
  return `${JSON.stringify({ ...mark, ttlId })}\n`;
}

/** Reads what {@link encodeMark} wrote; undefined if it is anything else. */
export function decodeMark(text: string): HistoryMark | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined; // without a mark, the history counts as unknown, which loses nothing
  }
  if (typeof value !== 'object' || value === null) return undefined;
  const { clusterId, leaseKey, revision, createdAt, ttlId } = value as Readonly<Record<string, unknown>>;
  const isNumber = (field: unknown): field is string => typeof field === 'string' && /^\d{1,20}$/.test(field);
  if (!isNumber(clusterId) || !isNumber(revision) || !isNumber(createdAt)) return undefined;
  return {
    clusterId,
    leaseKey: typeof leaseKey === 'string' ? leaseKey : undefined,
    revision,
    createdAt,
    etcdLeaseId: typeof ttlId === 'string' && /^[0-9a-f]{1,16}$/.test(ttlId) ? (ttlId as EtcdLeaseId) : undefined,
  };
}
