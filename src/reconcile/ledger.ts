import type { Clock } from '../clock.js';
import { type OverlayError, describeError } from '../errors.js';
import type { Logger } from '../log.js';
import { type Aspect, AspectMap } from './aspects.js';
import { Failures, type Target } from './failures.js';
import { linkKey } from './kinds/link.js';
import { tunnelKey } from './kinds/tunnel.js';
import { type ObjectKey, kindOf } from './object-key.js';
import type { OperationReason, OperationVerb } from './operation.js';
import type { Plan } from './planner.js';
import { ReconcileLog, RunReport, zeroChanges, zeroPerKind } from './report.js';
import type { ReconcilerStatistics, ReconcilerStatus } from './status.js';

/** Something done to an object. */
export interface Done extends Pick<Target, 'key' | 'device'> {
  readonly verb: OperationVerb;
  readonly reason: OperationReason;
}

/** What came of the operations of one look, besides their being done. */
interface Outcome {
  readonly failed: AspectMap<true>;
  /** Done although they had failed before. */
  readonly recovered: AspectMap<true>;
  /** Objects whose device went away meanwhile. */
  readonly blocked: Set<ObjectKey>;
}

/**
 * The books of drift and failures: what was done and why, what could not be done and when it is tried again, what is in
 * the way. Tells the log, and knows the totals.
 *
 * @remarks What is done to an object is drift, a change of others that was reverted, unless a change of it, or of the
 * device that it lies on, was wanted and has not been reached since.
 */
export class Ledger {
  private readonly failures: Failures;
  private readonly log: ReconcileLog;
  private readonly changes = zeroChanges();
  private readonly drift = zeroPerKind();
  private readonly failed = zeroPerKind();
  /** Objects whose desired state changed and is not reached yet. */
  private readonly wanted = new Set<ObjectKey>();
  /** Since the scope last changed everything was as desired once: from then on deviations come from others. */
  private isSettled = false;
  private conflicts = new Map<ObjectKey, OverlayError>();
  private blocked = new Set<ObjectKey>();
  private report = new RunReport();
  private outcome = emptyOutcome();

  constructor(clock: Clock, logger: Logger) {
    this.failures = new Failures(clock);
    this.log = new ReconcileLog(logger, clock);
  }

  /** Whether everything was reached, and nothing fails, waits or is in the way. */
  get isClear(): boolean {
    return this.isSettled && this.failures.size === 0 && this.blocked.size === 0 && this.conflicts.size === 0;
  }

  get status(): Omit<ReconcilerStatus, 'isConverged'> {
    return {
      conflicts: [...this.conflicts.values()],
      failures: Array.from(this.failures.values(), ({ key, aspect, device, error, attempt }) => ({
        key,
        aspect,
        device,
        error,
        attempt,
      })),
      blocked: this.blocked.size,
    };
  }

  get totals(): Pick<ReconcilerStatistics, 'changes' | 'drift' | 'failed'> {
    const { changes, drift, failed } = this;
    return structuredClone({ changes, drift, failed });
  }

  // Before a look

  /** The object is desired otherwise than before. */
  want(key: ObjectKey): void {
    this.wanted.add(key);
  }

  /** What is ours is another question now. */
  unsettle(): void {
    this.isSettled = false;
  }

  /** Failed lately and not to be tried yet. */
  readonly isHeld = (key: ObjectKey, aspect: Aspect): boolean => this.failures.isHeld(key, aspect);

  /** Objects that failed and may be tried again. */
  *due(): Generator<ObjectKey> {
    for (const { key, aspect } of this.failures.values()) if (!this.failures.isHeld(key, aspect)) yield key;
  }

  /** When the next may be tried again, on the monotonic clock; undefined if nothing failed. */
  nextRetryMs(): number | undefined {
    return this.failures.nextRetryMs();
  }

  // While looking

  did({ key, device, verb, reason }: Done): void {
    const kind = kindOf(key);
    const isDrift = this.isDrift(key, device);
    this.changes[kind][verb]++;
    if (isDrift) this.drift[kind]++;
    this.report.add({ key, verb, reason, isDrift });
  }

  /** An operation succeeded, whether or not it changed anything. */
  succeeded({ key, aspect }: Target): void {
    if (this.failures.get(key, aspect) !== undefined) this.outcome.recovered.set(key, aspect, true);
  }

  /** Every failure counts; one that is the same as the last time is not told again. */
  failedAt(target: Target, error: unknown): void {
    const { key, aspect } = target;
    this.failed[kindOf(key)]++;
    this.outcome.failed.set(key, aspect, true);
    const before = this.failures.get(key, aspect);
    this.failures.add(target, error);
    if (before === undefined || describeError(before.error) !== describeError(error)) {
      this.report.addFailure(key, error);
    }
  }

  /** The object has to wait: its device went away meanwhile. */
  block(key: ObjectKey): void {
    this.outcome.blocked.add(key);
  }

  // Tunnels, which fail at any time, and are tried in every look until they are there

  /** @param attempt - how often in a row. */
  lostTunnel(device: string, error: unknown, attempt: number): void {
    this.failures.add(tunnelTarget(device), error, attempt);
  }

  tunnelFailed(device: string, error: unknown): void {
    this.failedAt(tunnelTarget(device), error);
  }

  /** @returns whether it had failed before. */
  clearTunnel(device: string): boolean {
    return this.failures.clear(tunnelKey(device), 'whole');
  }

  tunnelRecovered(device: string): void {
    this.report.addRecovery(tunnelKey(device), 'whole');
  }

  // After a look

  /**
   * Takes stock.
   *
   * @param looked - `keys` are those that were looked at, undefined for everything; `isCertain` unless only the next list
   * tells what our own changes entailed: until then they are still ours.
   */
  settle(
    plan: Plan,
    looked: { readonly keys: ReadonlySet<ObjectKey> | undefined; readonly isCertain: boolean },
    isTunnelWanted: (key: ObjectKey) => boolean,
  ): void {
    const wasLookedAt = (key: ObjectKey): boolean => looked.keys === undefined || looked.keys.has(key);
    const { failed, recovered } = this.outcome;
    for (const { key, aspect } of this.failures.values()) {
      if (kindOf(key) === 'tunnel') {
        if (!isTunnelWanted(key)) this.failures.clear(key, aspect);
      } else if (wasLookedAt(key) && !plan.held.has(key, aspect) && !failed.has(key, aspect)) {
        this.failures.clear(key, aspect);
        if (recovered.has(key, aspect)) this.report.addRecovery(key, aspect);
      }
    }
    const blocked = new Set([...plan.blocked, ...this.outcome.blocked]);
    const conflicts = new Map(plan.conflicts);
    for (const key of this.blocked) if (!wasLookedAt(key)) blocked.add(key);
    for (const [key, error] of this.conflicts) if (!wasLookedAt(key)) conflicts.set(key, error);
    this.log.tellConflicts(this.conflicts, conflicts);
    this.blocked = blocked;
    this.conflicts = conflicts;
    if (!looked.isCertain) return;
    if (looked.keys === undefined) this.isSettled = true;
    for (const key of this.wanted) {
      const isPending = blocked.has(key) || conflicts.has(key) || this.failures.hasObject(key);
      if (wasLookedAt(key) && !isPending) this.wanted.delete(key);
    }
  }

  /** Tells what was done since the last time. */
  tell(): void {
    this.log.tellRun(this.report);
    this.report = new RunReport();
    this.outcome = emptyOutcome();
  }

  /** Tells what is still to be told and ends every timer. */
  close(): void {
    this.log.close();
  }

  /** Nobody wanted the object, or what it lies on, to change. */
  private isDrift(key: ObjectKey, device: string | undefined): boolean {
    if (!this.isSettled || this.wanted.has(key)) return false;
    return device === undefined || !(this.wanted.has(linkKey(device)) || this.wanted.has(tunnelKey(device)));
  }
}

function emptyOutcome(): Outcome {
  return { failed: new AspectMap(), recovered: new AspectMap(), blocked: new Set() };
}

function tunnelTarget(device: string): Target {
  return { key: tunnelKey(device), aspect: 'whole', device };
}
