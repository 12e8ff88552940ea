import { OverlayError } from '../errors.js';
import type { LogFields, Logger } from '../log.js';
import { OBJECT_KINDS, type ObjectKey, type ObjectKind, kindOf } from './object-key.js';
import type { OperationReason, OperationVerb } from './operation.js';

/** Something done to an object, as far as it is told. */
export interface Deed {
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

/**
 * Collects what a run did and tells it in a bounded number of log lines: one for wanted changes, one per kind for
 * changes of others that were reverted, one per kind and cause for failures, and for recoveries.
 */
export class RunReport {
  private readonly deeds: Deed[] = [];
  private readonly failed: { readonly key: ObjectKey; readonly error: unknown }[] = [];
  private readonly recovered: ObjectKey[] = [];

  add(deed: Deed): void {
    this.deeds.push(deed);
  }

  /** @param error - another than the last one of that object. */
  addFailure(key: ObjectKey, error: unknown): void {
    this.failed.push({ key, error });
  }

  addRecovery(key: ObjectKey): void {
    this.recovered.push(key);
  }

  log(logger: Logger): void {
    const wanted = this.deeds.filter((deed) => !deed.isDrift);
    if (wanted.length > 0) {
      logger.info('kernel state changed', { count: wanted.length, detail: summary(wanted) });
    }
    for (const [kind, group] of groupBy(
      this.deeds.filter((deed) => deed.isDrift),
      (deed) => kindOf(deed.key),
    )) {
      logger.warn('reverted a change made by somebody else', {
        kind,
        count: group.length,
        detail: listed(group.map(({ key, reason }) => `${nameOf(key)} was ${reason}`)),
      });
    }
    for (const group of groupBy(this.failed, ({ key, error }) => `${kindOf(key)} ${causeOf(error)}`).values()) {
      const [first] = group;
      if (first === undefined) continue;
      const fields: LogFields = { kind: kindOf(first.key), count: group.length, error: first.error };
      logger.warn('kernel state could not be changed, trying again', fields);
    }
    for (const [kind, keys] of groupBy(this.recovered, kindOf)) {
      logger.info('kernel state changed after earlier failures', {
        kind,
        count: keys.length,
        detail: listed(keys.map(nameOf)),
      });
    }
  }
}

/** `route add 3, neighbour replace 3` */
function summary(deeds: readonly Deed[]): string {
  const groups = groupBy(deeds, ({ key, verb }) => `${kindOf(key)} ${verb}`);
  return Array.from(groups, ([name, group]) => `${name} ${group.length}`).join(', ');
}

/** The key without its kind. */
function nameOf(key: ObjectKey): string {
  return key.slice(key.indexOf(' ') + 1);
}

function causeOf(error: unknown): string {
  if (!(error instanceof OverlayError)) return String(error);
  return `${error.code} ${String(error.context.errno)}`;
}

const MAX_LISTED = 3;

function listed(texts: readonly string[]): string {
  const rest = texts.length - MAX_LISTED;
  return texts.slice(0, MAX_LISTED).join(', ') + (rest > 0 ? ` and ${rest} more` : '');
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

/** Lines per run about conflicts; a whole foreign network would be thousands. */
const MAX_CONFLICT_LINES = 5;

/** Tells which objects of others came into the way, and that some no longer are. */
export function logConflicts(
  logger: Logger,
  before: ReadonlyMap<ObjectKey, OverlayError>,
  after: ReadonlyMap<ObjectKey, OverlayError>,
): void {
  const appeared = [...after].filter(([key, error]) => before.get(key)?.message !== error.message);
  for (const [, error] of appeared.slice(0, MAX_CONFLICT_LINES)) {
    logger.error('object of somebody else is in the way', { error });
  }
  const rest = appeared.length - MAX_CONFLICT_LINES;
  if (rest > 0) logger.error('more objects of others are in the way', { count: rest });
  const resolved = [...before.keys()].filter((key) => !after.has(key));
  if (resolved.length > 0) {
    logger.info('objects of others are no longer in the way', {
      count: resolved.length,
      detail: listed(resolved.map(nameOf)),
    });
  }
}
