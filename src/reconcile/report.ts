import type { Clock } from '../clock.js';
import { OverlayError } from '../errors.js';
import { Gatherer, LINE_PACE, type Some, listed, mergeSome, some } from '../gatherer.js';
import type { Logger } from '../log.js';
import { type Aspect, describeAspect } from './aspects.js';
import { OBJECT_KINDS, type ObjectKind } from './desired.js';
import { type ObjectKey, kindOf, nameOf } from './object-key.js';
import type { OperationReason, OperationVerb } from './operation.js';

/** Something done to an object, as far as it is told. */
export interface AppliedChange {
  readonly key: ObjectKey;
  readonly verb: OperationVerb;
  readonly reason: OperationReason;
  /** Nobody asked for a change: somebody else had altered the object. */
  readonly isDrift: boolean;
}

const VERBS: readonly OperationVerb[] = ['add', 'replace', 'set', 'del'];

/** Zero per kind and verb. */
export function zeroChanges(): Record<ObjectKind, Record<OperationVerb, number>> {
  return Object.fromEntries(
    OBJECT_KINDS.map((kind) => [kind, Object.fromEntries(VERBS.map((verb) => [verb, 0]))]),
  ) as Record<ObjectKind, Record<OperationVerb, number>>;
}

/** One zero per kind of object. */
export function zeroPerKind(): Record<ObjectKind, number> {
  return Object.fromEntries(OBJECT_KINDS.map((kind) => [kind, 0])) as Record<ObjectKind, number>;
}

interface Failure {
  readonly key: ObjectKey;
  readonly error: unknown;
}

interface Recovery {
  readonly key: ObjectKey;
  readonly aspect: Aspect;
}

/** What a run did, for {@link ReconcileLog}. */
export class RunReport {
  readonly changes: AppliedChange[] = [];
  readonly failed: Failure[] = [];
  readonly recovered: Recovery[] = [];

  add(change: AppliedChange): void {
    this.changes.push(change);
  }

  /** @param error - another than the last one of that object. */
  addFailure(key: ObjectKey, error: unknown): void {
    this.failed.push({ key, error });
  }

  addRecovery(key: ObjectKey, aspect: Aspect): void {
    this.recovered.push({ key, aspect });
  }
}

/** Conflicts in one telling; a whole foreign network would be thousands. */
const CONFLICTS_TOLD = 5;

/**
 * Tells what runs did in a bounded number of lines, however many runs there are and however many objects in each: one
 * line for wanted changes, one per kind for changes of others that were reverted, one per kind and cause for failures and
 * for recoveries, up to six for objects of others in the way.
 */
export class ReconcileLog {
  private readonly wanted: Gatherer<'wanted', Counts>;
  private readonly drift: Gatherer<ObjectKind, Some<string>>;
  /** By kind and cause. */
  private readonly failed: Gatherer<string, Some<Failure>>;
  private readonly recovered: Gatherer<ObjectKind, Some<string>>;
  private readonly conflicts: Gatherer<'conflicts', Some<OverlayError>>;
  private readonly resolved: Gatherer<'resolved', Some<string>>;

  constructor(logger: Logger, clock: Clock) {
    const pace = { ...LINE_PACE, clock };
    this.wanted = new Gatherer({
      ...pace,
      merge: addCounts,
      tell: (_, counts) => logger.info('kernel state changed', { count: total(counts), detail: summary(counts) }),
    });
    this.drift = new Gatherer({
      ...pace,
      merge: mergeSome,
      tell: (kind, names) =>
        logger.warn('reverted a change made by somebody else', { kind, count: names.count, detail: listed(names) }),
    });
    this.failed = new Gatherer({
      ...pace,
      merge: mergeSome,
      tell: (_, { count, first }) => {
        for (const { key, error } of first.slice(0, 1)) {
          logger.warn('kernel state could not be changed, trying again', { kind: kindOf(key), count, error });
        }
      },
    });
    this.recovered = new Gatherer({
      ...pace,
      merge: mergeSome,
      tell: (kind, names) =>
        logger.info('kernel state changed after earlier failures', { kind, count: names.count, detail: listed(names) }),
    });
    this.conflicts = new Gatherer({
      ...pace,
      merge: (before, next) => mergeSome(before, next, CONFLICTS_TOLD),
      tell: (_, { count, first }) => {
        for (const error of first) logger.error('object of somebody else is in the way', { error });
        const rest = count - first.length;
        if (rest > 0) logger.error('more objects of others are in the way', { count: rest });
      },
    });
    this.resolved = new Gatherer({
      ...pace,
      merge: mergeSome,
      tell: (_, names) =>
        logger.info('objects of others are no longer in the way', { count: names.count, detail: listed(names) }),
    });
  }

  tellRun({ changes, failed, recovered }: RunReport): void {
    const wanted = changes.filter((change) => !change.isDrift);
    if (wanted.length > 0) this.wanted.add('wanted', counted(wanted));
    const drift = changes.filter((change) => change.isDrift);
    for (const [kind, group] of groupBy(drift, ({ key }) => kindOf(key))) {
      this.drift.add(kind, some(group.map(({ key, reason }) => `${nameOf(key)} was ${reason}`)));
    }
    for (const [topic, group] of groupBy(failed, ({ key, error }) => `${kindOf(key)} ${causeOf(error)}`)) {
      this.failed.add(topic, some(group));
    }
    for (const [kind, group] of groupBy(recovered, ({ key }) => kindOf(key))) {
      this.recovered.add(kind, some(group.map(({ key, aspect }) => describeAspect(nameOf(key), aspect))));
    }
  }

  /** Tells which objects of others came into the way, and that some no longer are. */
  tellConflicts(before: ReadonlyMap<ObjectKey, OverlayError>, after: ReadonlyMap<ObjectKey, OverlayError>): void {
    const appeared = [...after].filter(([key, error]) => before.get(key)?.message !== error.message);
    const errors = appeared.map(([, error]) => error);
    if (errors.length > 0) this.conflicts.add('conflicts', some(errors, CONFLICTS_TOLD));
    const resolved = [...before.keys()].filter((key) => !after.has(key));
    if (resolved.length > 0) this.resolved.add('resolved', some(resolved.map(nameOf)));
  }

  /** Tells what is still to be told and ends every timer. */
  close(): void {
    const { wanted, drift, failed, recovered, conflicts, resolved } = this;
    for (const gatherer of [wanted, drift, failed, recovered, conflicts, resolved]) gatherer.flush();
  }
}

type Counts = ReadonlyMap<string, number>;

/** How many of each kind and verb. */
function counted(changes: readonly AppliedChange[]): Counts {
  const groups = groupBy(changes, ({ key, verb }) => `${kindOf(key)} ${verb}`);
  return new Map(Array.from(groups, ([name, group]) => [name, group.length]));
}

function total(counts: Counts): number {
  return [...counts.values()].reduce((sum, count) => sum + count, 0);
}

function addCounts(before: Counts, next: Counts): Counts {
  const sum = new Map(before);
  for (const [name, count] of next) sum.set(name, (sum.get(name) ?? 0) + count);
  return sum;
}

/** `route add 3, neighbour replace 3` */
function summary(counts: Counts): string {
  return Array.from(counts, ([name, count]) => `${name} ${count}`).join(', ');
}

function causeOf(error: unknown): string {
  if (!(error instanceof OverlayError)) return String(error);
  return `${error.code} ${String(error.context.errno)}`;
}

function groupBy<T, K>(items: readonly T[], keyOf: (item: T) => K): Map<K, T[]> {
  const groups = new Map<K, T[]>();
  for (const item of items) {
    const key = keyOf(item);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [item]);
    else group.push(item);
  }
  return groups;
}
