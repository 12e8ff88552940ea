import type { Clock } from '../clock.js';
import type { Tunnel } from '../dataplane/tunnel.js';
import { OverlayError } from '../errors.js';
import { guarded } from '../guard.js';
import type { Prefix } from '../ip/prefix.js';
import type { Logger } from '../log.js';
import { MESSAGES_PER_TURN, type NetlinkEvent } from '../netlink/monitor.js';
import { netlinkErrno } from '../netlink/socket.js';
import { Pace, finishInTurns } from '../pace.js';
import { ActualState } from './actual.js';
import { readActual } from './actual-reader.js';
import type { DesiredState } from './desired.js';
import { DesiredIndex } from './desired-index.js';
import { diff } from './diff.js';
import { isIdentical, listsBy } from './equality.js';
import type { FormerValues } from './former-values.js';
import type { Kernel, KernelSubscription } from './kernel.js';
import { readSysctls, rememberFormer } from './kinds/sysctl.js';
import { follow, record } from './kinds/table.js';
import { tunnelKey } from './kinds/tunnel.js';
import { Ledger } from './ledger.js';
import { type ObjectKey, kindOf } from './object-key.js';
import type { Operation } from './operation.js';
import { Ownership } from './ownership.js';
import { type Plan, aspectOf } from './planner.js';
import { Schedule } from './schedule.js';
import { type ReconcilerStatistics, type ReconcilerStatus, Waiters, isSameStatus } from './status.js';
import { TunnelLife } from './tunnel-life.js';
import type { TunnelSettings } from './tunnels.js';

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
  /** Where is kept what parameters were that get it back; default in memory. */
  readonly formerValues?: FormerValues;
  /** Called when {@link ReconcilerStatus} changes. */
  readonly onStatus?: (status: ReconcilerStatus) => void;
}

/** What belongs to a desired state besides its objects. */
export interface DesiredOptions {
  /** Overlay networks; those of earlier calls count as well. */
  readonly scope?: readonly Prefix[];
  /** Subnets for whose addresses proxy entries are ours; those of earlier calls count as well. */
  readonly proxyScope?: readonly Prefix[];
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
  private readonly ledger: Ledger;
  private readonly schedule: Schedule;
  private readonly life: TunnelLife;
  private ownership: Ownership;
  private actual: ActualState;
  private subscription: KernelSubscription | undefined;
  private next: { readonly state: DesiredState; readonly options: DesiredOptions } | undefined;
  /** Events that arrive while everything is being listed, or another state taken over; undefined otherwise. */
  private pending: NetlinkEvent[] | undefined;
  private lostEvents = 0;
  private readonly onEvent: (event: NetlinkEvent) => void;
  private readonly onStatus: (status: ReconcilerStatus) => void;
  /** As found after the last look; what came up since then is for the next one. */
  private wasConverged = false;
  private toldStatus: ReconcilerStatus | undefined;
  private readonly waiters = new Waiters();

  constructor(private readonly options: ReconcilerOptions) {
    const { clock, instance, kernel, logger } = options;
    this.ledger = new Ledger(clock, logger);
    this.schedule = new Schedule({
      clock,
      logger,
      look: () => this.look(),
      nextRetryMs: () => this.ledger.nextRetryMs(),
      onRest: () => this.tellStatus(),
    });
    this.life = new TunnelLife({
      settings: options.tunnels,
      clock,
      logger,
      kernel,
      ledger: this.ledger,
      onDevice: () => this.schedule.listNext(),
      onLost: () => this.schedule.takeFailure(),
    });
    const recover = (): void => this.schedule.distrust();
    this.onEvent = guarded({ clock, logger, recover, what: 'changes of the kernel' }, (event) => this.takeEvent(event));
    this.onStatus = guarded({ clock, logger, what: 'status of the kernel state' }, options.onStatus ?? (() => {}));
    this.ownership = new Ownership({ instance, scope: [], staleDevices: [] }, this.desired);
    this.actual = new ActualState(this.desired, this.ownership, 0, undefined, options.formerValues);
  }

  /** Says how the kernel should look from now on. A run follows at once; several calls before it count as one. */
  setDesired(state: DesiredState, options: DesiredOptions = {}): void {
    this.next = { state, options };
    this.schedule.ask();
  }

  get status(): ReconcilerStatus {
    return { isConverged: this.wasConverged, ...this.ledger.status };
  }

  get statistics(): ReconcilerStatistics {
    const { lostEvents } = this;
    return { ...this.status, ...this.schedule.statistics, ...this.ledger.totals, lostEvents };
  }

  /** The open tunnels. */
  get tunnels(): readonly Tunnel[] {
    return this.life.tunnels;
  }

  /** Resolves as soon as everything is as desired; rejects when the reconciler is closed or the signal aborted. */
  async whenConverged(signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    if (this.isConverged) return;
    await this.waiters.wait(signal);
  }

  /** Ends the run under way and closes the tunnels; everything else in the kernel stays. Idempotent. */
  async close(): Promise<void> {
    const ended = this.schedule.close();
    this.subscription?.close();
    this.waiters.rejectAll(new Error('the reconciler was closed'));
    await ended;
    this.ledger.close();
    await this.life.closeAll();
  }

  private get isConverged(): boolean {
    return this.schedule.isAtRest && this.ledger.isClear;
  }

  private tellStatus(): void {
    this.wasConverged = this.isConverged;
    const { status } = this;
    if (status.isConverged) this.waiters.resolveAll();
    if (this.toldStatus !== undefined && isSameStatus(this.toldStatus, status)) return;
    this.toldStatus = status;
    this.onStatus(status);
  }

  // What happens meanwhile

  private takeEvent(event: NetlinkEvent): void {
    if (event.type === 'resync') {
      this.lostEvents++;
      this.options.logger.debug('kernel dropped change events, listing everything', { count: this.lostEvents });
    }
    if (event.type === 'link' && event.isDeleted) this.life.takeDeletion(event.link);
    if (this.pending === undefined) this.applyEvent(event);
    else if (this.pending.length < MAX_PENDING_EVENTS) this.pending.push(event);
    else this.schedule.listNext();
  }

  private applyEvent(event: NetlinkEvent): void {
    this.schedule.takeEvents(follow(this.actual, event, this.schedule.touched));
  }

  // One look

  private async look(): Promise<boolean> {
    try {
      this.subscription ??= this.options.kernel.subscribe(this.onEvent);
      await this.drain();
      await this.adopt();
      for (const key of this.ledger.due()) this.schedule.touched.add(key);
      // New tunnels come before everything else: their devices are what the rest lies on.
      await this.life.open(this.desired.tunnels.values());
      const isFull = await this.readKernel();
      const keys = isFull ? undefined : new Set(this.schedule.touched);
      this.schedule.touched.clear();
      const plan = await this.plan(keys);
      await this.carryOut(plan);
      await this.life.close((device) => this.desired.tunnels.has(tunnelKey(device)));
      this.ledger.settle(plan, { keys, isCertain: !this.schedule.isListNeeded }, (key) =>
        this.desired.tunnels.has(key),
      );
      if (this.schedule.isFailing) this.options.logger.info('kernel state can be read again');
      return true;
    } catch (error) {
      // Single changes fail in the plan; what ends here could not read the kernel, so everything has to be read anew.
      if (!this.schedule.isFailing) this.options.logger.warn('kernel state could not be read, trying again', { error });
      return false;
    } finally {
      this.ledger.tell();
    }
  }

  /** Takes what the kernel has reported. */
  private async drain(): Promise<void> {
    const pace = new Pace(this.options.clock);
    while (this.subscription?.drain(MESSAGES_PER_TURN) === true) if (pace.isOver) await pace.rest();
  }

  private async adopt(): Promise<void> {
    if (this.next === undefined) return;
    const { state, options } = this.next;
    this.next = undefined;
    const { rules } = this.ownership;
    const scope = withNew(rules.scope, options.scope);
    const proxyScope = withNew(rules.proxyScope ?? [], options.proxyScope);
    const staleDevices = options.staleDevices ?? rules.staleDevices;
    const isWider = scope.length > rules.scope.length || proxyScope.length > (rules.proxyScope?.length ?? 0);
    if (isWider || !isSameList(staleDevices, rules.staleDevices)) {
      this.ownership = new Ownership({ ...rules, scope, proxyScope, staleDevices }, this.desired);
      this.ledger.unsettle();
      this.schedule.listNext();
    }
    for (const key of await this.exchange(state, options.parts)) {
      this.schedule.touched.add(key);
      this.ledger.want(key);
      // What is known of the kernel depends on which devices and destinations are desired.
      if (kindOf(key) === 'link' || this.isOutsideScope(key)) this.schedule.listNext();
    }
  }

  /** Has the index tell the new state from the old one; events, which are judged by it, wait meanwhile. */
  private async exchange(state: DesiredState, parts: DesiredOptions['parts']): Promise<ReadonlySet<ObjectKey>> {
    this.pending = [];
    try {
      return await finishInTurns(this.desired.update(state, parts), this.options.clock);
    } finally {
      await this.applyPending();
    }
  }

  private async applyPending(): Promise<void> {
    const pace = new Pace(this.options.clock);
    const events = this.pending ?? [];
    // More may come at the end of the list while it is worked off.
    for (const event of events) {
      this.applyEvent(event);
      if (pace.isOver) await pace.rest();
    }
    this.pending = undefined;
  }

  /** Whether it is a desired route outside the scope: where none is desired, none is followed there. */
  private isOutsideScope(key: ObjectKey): boolean {
    const spec = this.desired.routes.get(key);
    return spec !== undefined && !this.ownership.isInScope(spec.destination);
  }

  /**
   * Lists everything if that is due, else only reads parameters if they are to be looked at.
   *
   * @returns whether the whole state has to be compared.
   */
  private async readKernel(): Promise<boolean> {
    if (this.schedule.isListDue()) {
      await this.list();
      return true;
    }
    const kinds = new Set(Array.from(this.schedule.touched, kindOf));
    if (kinds.has('sysctl') || kinds.has('link')) readSysctls(this.options.kernel, this.actual);
    return kinds.has('link');
  }

  private async list(): Promise<void> {
    // What changes meanwhile is applied on top; what happened before the lists can be, too, as it ends with the same state.
    this.pending = [];
    this.schedule.beginList();
    try {
      this.actual = await readActual(this.options.kernel, this.desired, this.ownership, this.actual);
    } finally {
      this.schedule.endList();
      await this.drain();
      await this.applyPending();
    }
    this.life.takeDevices((device) => this.actual.links.has(device));
  }

  private plan(keys: ReadonlySet<ObjectKey> | undefined): Promise<Plan> {
    const { actual, desired, ownership } = this;
    const steps = diff({
      actual,
      desired,
      ownership,
      isHeld: this.ledger.isHeld,
      tunnelDevices: this.life.devices,
      ...(keys === undefined ? {} : { keys }),
    });
    return finishInTurns(steps, this.options.clock);
  }

  private async carryOut(plan: Plan): Promise<void> {
    const pace = new Pace(this.options.clock);
    const lostDevices = new Set<string | undefined>();
    for (const operation of plan.operations) {
      if (this.schedule.isClosed) break;
      if (operation.verb !== 'del' && lostDevices.has(operation.device)) {
        this.ledger.block(operation.key);
        continue;
      }
      this.applyOne(operation, lostDevices);
      if (pace.isOver) await pace.rest();
    }
  }

  private applyOne(operation: Operation, lostDevices: Set<string | undefined>): void {
    const { key, device } = operation;
    const target = { key, device, aspect: aspectOf(operation) };
    try {
      if (operation.kind === 'sysctl') rememberFormer(this.actual, operation);
      const isChanged = this.options.kernel.apply(operation, this.indexOf);
      record(this.actual, operation);
      this.ledger.succeeded(target);
      if (isChanged) this.ledger.did(operation);
    } catch (error) {
      if (this.isOnGoneDevice(operation)) {
        this.ledger.block(key); // until the next look: an event tells that the device is gone
        lostDevices.add(device);
      } else {
        this.ledger.failedAt(target, error);
        if (operation.kind === 'link' && (operation.verb === 'add' || target.aspect === 'up')) lostDevices.add(device);
        // Somebody was faster: only a new list tells what is there now.
        if (netlinkErrno(error) === 'EEXIST') this.schedule.listSoon();
      }
    }
    // What a device takes along when it goes, comes or changes, and an address when it goes, only a new list tells.
    if (operation.kind === 'link') {
      this.refreshLink(operation.device);
      this.schedule.listNext();
    } else if (operation.kind === 'address' && operation.verb === 'del') this.schedule.listNext();
  }

  /** Whether an operation was about something on a device that has been deleted just now. */
  private isOnGoneDevice({ kind, device }: Operation): boolean {
    return kind !== 'link' && device !== undefined && this.options.kernel.getLink(device) === undefined;
  }

  private readonly indexOf = (device: string): number => {
    const link = this.actual.links.get(device);
    if (link !== undefined) return link.index;
    throw new OverlayError('ERR_NETLINK', `cannot use device ${device}: it does not exist`, {
      context: { dev: device, errno: 'ENODEV' },
    });
  };

  /** Reads a device again that was changed by this process: the next operations need its index. */
  private refreshLink(device: string): void {
    const link = this.options.kernel.getLink(device);
    if (link !== undefined) this.actual.putLink(link);
  }
}

const isSameList = listsBy<string>(isIdentical);

function withNew(known: readonly Prefix[], more: readonly Prefix[] = []): readonly Prefix[] {
  const texts = new Set(known.map(String));
  return [...known, ...more.filter((prefix) => !texts.has(prefix.toString()))];
}
