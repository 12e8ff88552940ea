import { setImmediate as nextTurn } from 'node:timers/promises';
import { type Clock, backoffMs } from '../clock.js';
import type { Tunnel, TunnelEvent } from '../dataplane/tunnel.js';
import { OverlayError, describeError } from '../errors.js';
import { guarded } from '../guard.js';
import type { Prefix } from '../ip/prefix.js';
import type { Logger } from '../log.js';
import type { NetlinkEvent } from '../netlink/monitor.js';
import { netlinkErrno } from '../netlink/socket.js';
import { ActualState } from './actual.js';
import { readActual, readSysctls } from './actual-reader.js';
import { Alarm } from './alarm.js';
import type { DesiredState } from './desired.js';
import { DesiredIndex } from './desired-index.js';
import { type Plan, diff } from './diff.js';
import { Failures } from './failures.js';
import type { Kernel, KernelSubscription } from './kernel.js';
import { type ObjectKey, kindOf, objectKey } from './object-key.js';
import { type Operation, failureKey } from './operation.js';
import { Ownership } from './ownership.js';
import { type Deed, ReconcileLog, RunReport, zeroChanges, zeroPerKind } from './report.js';
import { type ReconcilerStatistics, type ReconcilerStatus, Waiters } from './status.js';
import { type TunnelSettings, TunnelSet } from './tunnels.js';

/** Time from the first event of a burst to the run that looks at all of it. */
const EVENT_DELAY_MS = 20;

/** Full comparison as a safety net against lost events and what has no events, such as kernel parameters. */
const FULL_INTERVAL_MS = 30_000;

/** At most so often is everything listed again because of changes that others make. */
const MIN_DUMP_INTERVAL_MS = 200;

/** Time that applying a plan may hold the event loop before others get a turn. */
const TURN_MS = 8;

/** Bounds the delay after a tunnel's device was deleted again and again: 400 ms and jitter. */
const MAX_DELETION_ATTEMPT = 3;

/** Events that may wait while everything is listed; beyond that it is listed once more. */
const MAX_PENDING_EVENTS = 100_000;

/** What is fixed for the life of a {@link Reconciler}. */
export interface ReconcilerOptions {
  /** Stays the caller's to close. */
  readonly kernel: Kernel;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Names this daemon among those on the host; at most 200 bytes. */
  readonly instance: string;
  readonly tunnels: TunnelSettings;
  /** Called when {@link ReconcilerStatus} changes. */
  readonly onStatus?: (status: ReconcilerStatus) => void;
}

/** What belongs to a desired state besides its objects. */
export interface DesiredOptions {
  /** Overlay networks; those of earlier calls count as well. */
  readonly scope?: readonly Prefix[];
  /** Devices of a replaced flanneld to delete; without it those of the last call that named any. */
  readonly staleDevices?: readonly string[];
  /** More of the state, such as a part for each peer: what is the same object as before costs next to nothing. */
  readonly parts?: readonly Partial<DesiredState>[];
}

/**
 * Makes the kernel look as desired, and keeps it so.
 *
 * API: {@link setDesired} says how it should look; everything else follows. Nothing is touched before the first call.
 * To clean up, desire `EMPTY_STATE` and await {@link whenConverged}.
 * Threads: none. One run at a time; it gives others a turn every few milliseconds.
 * Limits: a run looks only at what changed, except every 30 s, after lost events, and when a device changed.
 * Errors: never thrown; what fails is tried again with growing delays, each object by itself, and shows in the status.
 * Counters: {@link ReconcilerStatistics}.
 *
 * ```
 *  setDesired ──▶ desired ─┐                       ┌─▶ operations ─▶ kernel ─┐
 *                          ├─▶ diff (touched keys) ┤                         │ recorded
 *  events, dumps ▶ actual ─┘                       └─▶ conflicts, blocked    │
 *                     ▲──────────────────────────────────────────────────────┘
 * ```
 */
export class Reconciler {
  private readonly desired = new DesiredIndex();
  private readonly failures: Failures;
  private readonly tunnelSet: TunnelSet;
  private readonly tunnelIndexes = new Map<string, number>();
  private readonly changes = zeroChanges();
  private readonly drift = zeroPerKind();
  private readonly failed = zeroPerKind();
  private ownership: Ownership;
  private actual: ActualState;
  private subscription: KernelSubscription | undefined;

  private next: { readonly state: DesiredState; readonly options: DesiredOptions } | undefined;
  /** Objects to look at in the next run. */
  private readonly dirty = new Set<ObjectKey>();
  /** Objects whose desired state changed and is not reached yet: what is done to them is no drift. */
  private readonly wanted = new Set<ObjectKey>();
  private needsDump: 'no' | 'soon' | 'now' = 'now';
  /** Events that arrive while everything is being listed; undefined otherwise. */
  private pending: NetlinkEvent[] | undefined;
  /** Since the scope last changed everything was as desired once: from then on deviations come from others. */
  private isSettled = false;
  private conflicts = new Map<ObjectKey, OverlayError>();
  private blocked = new Set<ObjectKey>();

  private readonly log: ReconcileLog;
  private readonly alarm: Alarm;
  private readonly onEvent: (event: NetlinkEvent) => void;
  private readonly onStatus: (status: ReconcilerStatus) => void;
  private running: Promise<void> | undefined;
  private isClosed = false;
  private runs = 0;
  private dumps = 0;
  private failedRuns = 0;
  private lostEvents = 0;
  private lastDumpMs = Number.NEGATIVE_INFINITY;
  private lastRunMs = 0;
  private lastStatus: string | undefined;
  /** As found after the last run; what came up since then is for the next one. */
  private wasConverged = false;
  private readonly waiters = new Waiters();

  constructor(private readonly options: ReconcilerOptions) {
    const { clock, instance, logger, tunnels } = options;
    const guard = { clock, logger, recover: () => this.lookAgain() };
    this.failures = new Failures(clock);
    this.log = new ReconcileLog(logger, clock);
    this.alarm = new Alarm(
      clock,
      guarded({ ...guard, what: 'comparison of the kernel state' }, () => this.start()),
    );
    this.onEvent = guarded({ ...guard, what: 'changes of the kernel' }, (event) => this.takeEvent(event));
    this.onStatus = guarded({ clock, logger, what: 'status of the kernel state' }, options.onStatus ?? (() => {}));
    const onTunnelEvent = (device: string, event: TunnelEvent): void => this.onTunnelEvent(device, event);
    this.tunnelSet = new TunnelSet(tunnels, clock, guarded({ ...guard, what: 'events of a tunnel' }, onTunnelEvent));
    this.ownership = new Ownership({ instance, scope: [], staleDevices: [] }, this.desired);
    this.actual = new ActualState(this.desired, this.ownership, 0);
  }

  /** Says how the kernel should look from now on. A run follows at once; several calls before it count as one. */
  setDesired(state: DesiredState, options: DesiredOptions = {}): void {
    if (this.isClosed) return;
    this.next = { state, options };
    this.schedule(0);
  }

  get status(): ReconcilerStatus {
    return {
      isConverged: this.wasConverged,
      conflicts: [...this.conflicts.values()],
      failures: Array.from(this.failures.values(), ({ key, error, attempt }) => ({ key, error, attempt })),
      blocked: this.blocked.size,
    };
  }

  get statistics(): ReconcilerStatistics {
    const { runs, dumps, lostEvents, lastRunMs } = this;
    const [changes, drift, failed] = structuredClone([this.changes, this.drift, this.failed] as const);
    return { ...this.status, runs, dumps, lostEvents, lastRunMs, changes, drift, failed };
  }

  /** The open tunnels. */
  get tunnels(): readonly Tunnel[] {
    return this.tunnelSet.tunnels;
  }

  /** Resolves as soon as everything is as desired; rejects when the reconciler is closed or the signal aborted. */
  async whenConverged(signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    if (this.isConverged) return;
    await this.waiters.wait(signal);
  }

  /** Ends the run under way and closes the tunnels; everything else in the kernel stays. Idempotent. */
  async close(): Promise<void> {
    this.isClosed = true;
    this.alarm.cancel();
    this.subscription?.close();
    this.waiters.rejectAll(new Error('the reconciler was closed'));
    await this.running;
    this.log.close();
    await this.tunnelSet.retire(() => false);
  }

  private get isConverged(): boolean {
    return (
      this.isSettled &&
      this.running === undefined &&
      this.next === undefined &&
      this.needsDump === 'no' &&
      this.dirty.size === 0 &&
      this.failures.size === 0 &&
      this.blocked.size === 0 &&
      this.conflicts.size === 0
    );
  }

  // When to run

  /** Makes a run start after that time, or earlier if one is due earlier. */
  private schedule(delayMs: number): void {
    if (this.isClosed || (this.next === undefined && !this.hasStarted)) return;
    this.alarm.set(delayMs);
  }

  private get hasStarted(): boolean {
    return this.subscription !== undefined;
  }

  private start(): void {
    if (this.isClosed || this.running !== undefined) return; // a run that ends looks for what came up meanwhile
    const startedMs = this.options.clock.monotonicMs();
    this.running = this.run().then(() => {
      this.running = undefined;
      this.lastRunMs = this.options.clock.monotonicMs() - startedMs;
      if (this.isClosed) return;
      this.scheduleNext();
      this.wasConverged = this.isConverged;
      this.tellStatus();
    });
  }

  private scheduleNext(): void {
    const nowMs = this.options.clock.monotonicMs();
    if (this.failedRuns > 0) {
      const { clock } = this.options;
      this.schedule(backoffMs(this.failedRuns, 100, 10_000, () => clock.random()));
      return;
    }
    if (this.next !== undefined) this.schedule(0);
    if (this.dirty.size > 0 || this.needsDump === 'now') this.schedule(EVENT_DELAY_MS);
    if (this.needsDump === 'soon') {
      this.schedule(Math.max(EVENT_DELAY_MS, this.lastDumpMs + MIN_DUMP_INTERVAL_MS - nowMs));
    }
    const retryMs = this.failures.nextRetryMs();
    if (retryMs !== undefined) this.schedule(Math.max(0, retryMs - nowMs));
    this.schedule(Math.max(0, this.lastDumpMs + FULL_INTERVAL_MS - nowMs));
  }

  private tellStatus(): void {
    const { status } = this;
    if (status.isConverged) this.waiters.resolveAll();
    const failing = status.failures.map(({ key }) => key);
    const text = JSON.stringify([status.isConverged, status.blocked, failing, [...this.conflicts.keys()]]);
    if (text === this.lastStatus) return;
    this.lastStatus = text;
    this.onStatus(status);
  }

  // What happens meanwhile

  /** After a defect: nothing that was known is relied on. */
  private lookAgain(): void {
    this.needsDump = 'now';
    if (this.running === undefined) this.schedule(MIN_DUMP_INTERVAL_MS);
  }

  private takeEvent(event: NetlinkEvent): void {
    if (event.type === 'resync') {
      this.lostEvents++;
      this.options.logger.debug('kernel dropped change events, listing everything', { count: this.lostEvents });
    }
    if (event.type === 'link' && event.isDeleted && this.tunnelIndexes.get(event.link.name) === event.link.index) {
      this.onTunnelLost(event.link.name, 'ENODEV', 'device deleted');
    }
    if (this.pending === undefined) {
      this.applyEvent(event);
    } else if (this.pending.length < MAX_PENDING_EVENTS) {
      this.pending.push(event);
    } else {
      this.needsDump = 'now';
    }
  }

  private applyEvent(event: NetlinkEvent): void {
    const sizeBefore = this.dirty.size;
    if (this.actual.apply(event, this.dirty) && this.needsDump === 'no') this.needsDump = 'soon';
    if (this.running !== undefined) return;
    if (this.needsDump !== 'no') this.scheduleNext();
    else if (this.dirty.size !== sizeBefore) this.schedule(EVENT_DELAY_MS);
  }

  /** Called by the addon, to which an exception must not go back: the process would not survive it. */
  private onTunnelEvent(device: string, event: TunnelEvent): void {
    try {
      this.takeTunnelEvent(device, event);
    } catch (error) {
      this.options.logger.error('event of the tunnel not handled', { dev: device, error });
    }
  }

  private takeTunnelEvent(device: string, event: TunnelEvent): void {
    if (event.type === 'failed') {
      this.onTunnelLost(device, event.errno, event.operation);
    } else if (event.type === 'trial') {
      this.options.logger.info('offload of the tunnel tried again', { dev: device, kind: event.offload });
    } else {
      const { offload, errno } = event;
      this.options.logger.warn('offload of the tunnel switched off', { dev: device, kind: offload, errno });
    }
  }

  private onTunnelLost(device: string, errno: string, operation: string): void {
    const losses = this.tunnelSet.markLost(device);
    if (losses === undefined) return;
    const wasDeleted = this.options.kernel.getLink(device)?.index !== this.tunnelIndexes.get(device);
    this.tunnelIndexes.delete(device);
    const message = `cannot use the tunnel on ${device} any more: ${operation}: ${errno}`;
    const error = new OverlayError('ERR_TUNNEL', message, { context: { dev: device, errno }, isRetryable: true });
    this.options.logger.warn('tunnel lost, opening it again', { error });
    // A tunnel that fails by itself may do so for ever; whoever deletes its device does not, and soon is soon enough.
    this.failures.add(objectKey.tunnel(device), error, wasDeleted ? Math.min(losses, MAX_DELETION_ATTEMPT) : losses);
    if (this.running === undefined) this.scheduleNext();
  }

  // One run

  private async run(): Promise<void> {
    const report = new RunReport();
    this.runs++;
    try {
      this.begin();
      this.adopt();
      this.collectDue();
      await this.openTunnels(report);
      const isFull = await this.lookAtKernel();
      const keys = isFull ? undefined : new Set(this.dirty);
      this.dirty.clear();
      const plan = this.plan(keys);
      const done = await this.carryOut(plan, report);
      await this.closeTunnels(report);
      this.settle(plan, keys, done, report);
      if (this.failedRuns > 0) this.options.logger.info('kernel state can be read again');
      this.failedRuns = 0;
    } catch (error) {
      // Single changes fail in the plan; what ends here could not read the kernel, so everything has to be read anew.
      if (this.failedRuns === 0) this.options.logger.warn('kernel state could not be read, trying again', { error });
      this.needsDump = 'now';
      this.failedRuns++;
    } finally {
      this.log.tellRun(report);
    }
  }

  private begin(): void {
    this.subscription ??= this.options.kernel.subscribe(this.onEvent);
    this.subscription.drain();
  }

  private adopt(): void {
    if (this.next === undefined) return;
    const { state, options } = this.next;
    this.next = undefined;
    const { rules } = this.ownership;
    const known = new Set(rules.scope.map(String));
    const scope = [...rules.scope, ...(options.scope ?? []).filter((network) => !known.has(network.toString()))];
    const staleDevices = options.staleDevices ?? rules.staleDevices;
    if (scope.length > rules.scope.length || staleDevices.join() !== rules.staleDevices.join()) {
      this.ownership = new Ownership({ ...rules, scope, staleDevices }, this.desired);
      this.isSettled = false;
      this.needsDump = 'now';
    }
    for (const key of this.desired.update(state, options.parts)) {
      this.dirty.add(key);
      this.wanted.add(key);
      const kind = kindOf(key);
      const isUnknownRoute = kind === 'route' && !this.knowsRoutesAt(key);
      // What is known of the kernel depends on which devices and destinations are desired.
      if (kind === 'link' || isUnknownRoute) this.needsDump = 'now';
    }
  }

  /** Routes outside the scope are not followed unless they are desired. */
  private knowsRoutesAt(key: ObjectKey): boolean {
    const spec = this.desired.routes.get(key);
    return spec === undefined || this.ownership.isInScope(spec.destination);
  }

  /** Makes the run look at what failed and may be tried again. */
  private collectDue(): void {
    for (const { key } of this.failures.values()) {
      if (!this.failures.isHeld(key)) this.dirty.add(objectOf(key));
    }
    const { clock } = this.options;
    if (clock.monotonicMs() >= this.lastDumpMs + FULL_INTERVAL_MS) this.needsDump = 'now';
  }

  /** New tunnels come before everything else: their devices are what the rest lies on. */
  private async openTunnels(report: RunReport): Promise<void> {
    for (const [key, spec] of this.desired.tunnels.entries()) {
      if (this.failures.isHeld(key)) continue;
      try {
        const change = await this.tunnelSet.ensure(spec);
        const isRecovery = this.failures.clear(key);
        if (change === 'none') continue;
        const verb = change === 'opened' ? 'add' : change === 'replaced' ? 'replace' : 'set';
        this.did(report, { key, verb, reason: 'altered', isDrift: this.isDrift(key, spec.device) });
        if (isRecovery) report.addRecovery(key);
        if (change === 'updated') continue;
        this.refreshLink(spec.device);
        this.tunnelIndexes.set(spec.device, this.actual.links.get(spec.device)?.index ?? 0);
        this.needsDump = 'now';
      } catch (error) {
        this.didFail(report, key, error);
      }
    }
  }

  private async closeTunnels(report: RunReport): Promise<void> {
    const closed = await this.tunnelSet.retire((device) => this.desired.tunnels.has(objectKey.tunnel(device)));
    for (const device of closed) {
      const key = objectKey.tunnel(device);
      this.tunnelIndexes.delete(device);
      this.did(report, { key, verb: 'del', reason: 'unexpected', isDrift: false });
      this.refreshLink(device);
      this.needsDump = 'now';
    }
  }

  /**
   * Lists everything if that is due, else only reads parameters if they are to be looked at.
   *
   * @returns whether the whole state has to be compared.
   */
  private async lookAtKernel(): Promise<boolean> {
    const nextDumpMs = this.needsDump === 'soon' ? this.lastDumpMs + MIN_DUMP_INTERVAL_MS : 0;
    if (this.needsDump !== 'no' && this.options.clock.monotonicMs() >= nextDumpMs) {
      await this.dump();
      return true;
    }
    const kinds = new Set(Array.from(this.dirty, kindOf));
    if (kinds.has('sysctl') || kinds.has('link')) readSysctls(this.options.kernel, this.desired, this.actual);
    return kinds.has('link');
  }

  private async dump(): Promise<void> {
    const { kernel, clock } = this.options;
    // Events from before the lists are told by the lists as well; those that come meanwhile are applied on top.
    this.pending = [];
    this.subscription?.drain();
    this.pending = [];
    this.needsDump = 'no';
    this.dumps++;
    try {
      this.actual = await readActual(kernel, this.desired, this.ownership);
    } finally {
      this.lastDumpMs = clock.monotonicMs();
      this.subscription?.drain();
      const events = this.pending;
      this.pending = undefined;
      for (const event of events) this.applyEvent(event);
    }
    for (const device of this.tunnelSet.devices) {
      if (!this.actual.links.has(device)) this.onTunnelLost(device, 'ENODEV', 'device missing');
    }
  }

  private plan(keys: ReadonlySet<ObjectKey> | undefined): Plan {
    const { actual, desired, ownership } = this;
    return diff({
      actual,
      desired,
      ownership,
      isHeld: this.failures.isHeld,
      tunnelDevices: this.tunnelSet.devices,
      ...(keys === undefined ? {} : { keys }),
    });
  }

  /** @returns failure keys of the operations that succeeded, and of those that did not. */
  private async carryOut(plan: Plan, report: RunReport): Promise<Outcome> {
    const { clock } = this.options;
    const outcome: Outcome = { succeeded: new Set(), failed: new Set(), blocked: new Set() };
    const lostDevices = new Set<string>();
    let turnEndsMs = clock.monotonicMs() + TURN_MS;
    for (const operation of plan.operations) {
      if (this.isClosed) break;
      if (operation.device !== undefined && operation.verb !== 'del' && lostDevices.has(operation.device)) {
        outcome.blocked.add(operation.key);
        continue;
      }
      this.applyOne(operation, outcome, lostDevices, report);
      if (clock.monotonicMs() < turnEndsMs) continue;
      await nextTurn();
      turnEndsMs = clock.monotonicMs() + TURN_MS;
    }
    return outcome;
  }

  private applyOne(operation: Operation, outcome: Outcome, lostDevices: Set<string>, report: RunReport): void {
    const failure = failureKey(operation);
    const { key, verb, reason, device } = operation;
    try {
      const isChanged = this.options.kernel.apply(operation, this.indexOf);
      this.actual.record(operation);
      outcome.succeeded.add(failure);
      if (isChanged) this.did(report, { key, verb, reason, isDrift: this.isDrift(key, device) });
    } catch (error) {
      const isUp = operation.kind === 'link' && operation.verb === 'set' && operation.aspect === 'up';
      if (operation.kind === 'link' && (isUp || verb === 'add')) lostDevices.add(operation.device);
      if (this.vanished(operation, error)) {
        outcome.blocked.add(key);
        this.needsDump = 'now';
      } else {
        outcome.failed.add(failure);
        this.didFail(report, failure, error);
        // Somebody was faster: only a new list tells what is there now.
        if (netlinkErrno(error) === 'EEXIST' && this.needsDump === 'no') this.needsDump = 'soon';
      }
    }
    // What a device takes along when it goes, comes or changes is only certain from a new list.
    if (operation.kind === 'link') this.refreshLink(operation.device);
    if (operation.kind === 'link' || (operation.kind === 'address' && verb === 'del')) this.needsDump = 'now';
  }

  /** Whether the operation failed because its device was deleted just now. */
  private vanished(operation: Operation, error: unknown): boolean {
    const { device } = operation;
    if (device === undefined || operation.kind === 'link') return false;
    const isAboutDevice = operation.kind === 'sysctl' || netlinkErrno(error) !== undefined;
    if (!isAboutDevice || this.options.kernel.getLink(device) !== undefined) return false;
    this.refreshLink(device);
    return true;
  }

  private readonly indexOf = (device: string): number => {
    const link = this.actual.links.get(device);
    if (link !== undefined) return link.index;
    throw new OverlayError('ERR_NETLINK', `cannot use device ${device}: it does not exist`, {
      context: { dev: device, errno: 'ENODEV' },
      isRetryable: true,
    });
  };

  private refreshLink(device: string): void {
    const before = this.actual.links.get(device);
    const after = this.options.kernel.getLink(device);
    if (before !== undefined && before.index !== after?.index) {
      this.actual.forgetObjectsOf(before.index);
      this.actual.removeLink(before.index);
    }
    if (after === undefined) return;
    if (before?.index === after.index && before.mac !== after.mac) this.actual.forgetNeighboursOf(after.index);
    this.actual.putLink(after);
  }

  /** Nobody wanted the object, or what it lies on, to change. */
  private isDrift(key: ObjectKey, device: string | undefined): boolean {
    if (!this.isSettled || this.wanted.has(key)) return false;
    if (device === undefined) return true;
    return !this.wanted.has(objectKey.link(device)) && !this.wanted.has(objectKey.tunnel(device));
  }

  private did(report: RunReport, deed: Deed): void {
    const kind = kindOf(deed.key);
    this.changes[kind][deed.verb]++;
    if (deed.isDrift) this.drift[kind]++;
    report.add(deed);
  }

  /** Every failure counts; one that is the same as the last time is not told again. */
  private didFail(report: RunReport, key: ObjectKey, error: unknown): void {
    this.failed[kindOf(key)]++;
    const before = this.failures.get(key);
    this.failures.add(key, error);
    if (before === undefined || describeError(before.error) !== describeError(error)) report.addFailure(key, error);
  }

  /** Takes stock after a run that looked at these keys, or at everything. */
  private settle(plan: Plan, keys: ReadonlySet<ObjectKey> | undefined, done: Outcome, report: RunReport): void {
    const wasLookedAt = (key: ObjectKey): boolean => keys === undefined || keys.has(objectOf(key));
    for (const { key } of this.failures.values()) {
      if (kindOf(key) === 'tunnel') {
        if (!this.desired.tunnels.has(key)) this.failures.clear(key);
      } else if (wasLookedAt(key) && !plan.held.has(key) && !done.failed.has(key)) {
        this.failures.clear(key);
        if (done.succeeded.has(key)) report.addRecovery(key);
      }
    }
    const blocked = new Set([...plan.blocked, ...done.blocked]);
    const conflicts = new Map(plan.conflicts);
    for (const key of this.blocked) if (!wasLookedAt(key)) blocked.add(key);
    for (const [key, error] of this.conflicts) if (!wasLookedAt(key)) conflicts.set(key, error);
    this.log.tellConflicts(this.conflicts, conflicts);
    this.blocked = blocked;
    this.conflicts = conflicts;
    // Consequences of our own changes may show only in the list that follows; until then they are still ours.
    if (this.needsDump === 'now') return;
    if (keys === undefined) this.isSettled = true;
    for (const key of this.wanted) {
      const isPending = this.blocked.has(key) || this.conflicts.has(key) || this.hasFailed(key);
      if (wasLookedAt(key) && !isPending) this.wanted.delete(key);
    }
  }

  private hasFailed(key: ObjectKey): boolean {
    if (kindOf(key) !== 'link') return this.failures.has(key);
    for (const failure of this.failures.values()) if (objectOf(failure.key) === key) return true;
    return false;
  }
}

/** Failure keys of a run. */
interface Outcome {
  readonly succeeded: Set<ObjectKey>;
  readonly failed: Set<ObjectKey>;
  readonly blocked: Set<ObjectKey>;
}

/** The object of a failure key: devices fail attribute by attribute. */
function objectOf(key: ObjectKey): ObjectKey {
  if (kindOf(key) !== 'link') return key;
  return objectKey.link(key.split(' ')[1] ?? '');
}
