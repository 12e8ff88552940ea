import { type Clock, backoffMs } from '../clock.js';
import { guarded } from '../guard.js';
import type { Logger } from '../log.js';
import { Alarm } from '../alarm.js';
import type { ObjectKey } from './object-key.js';

/** Time from the first event of a burst to the look at all of it. */
const EVENT_DELAY_MS = 20;

/** Full comparison as a safety net against lost events and what has no events, such as kernel parameters. */
const FULL_INTERVAL_MS = 30_000;

/** At most so often is everything listed again because of changes that others make. */
const MIN_LIST_INTERVAL_MS = 200;

/** Delays after the kernel could not be read. */
const UNREADABLE_BASE_MS = 100;
const UNREADABLE_CAP_MS = 10_000;

/** Input of {@link Schedule}. */
export interface ScheduleOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  /** Looks at the kernel and changes it. @returns false if it could not be read. */
  readonly look: () => Promise<boolean>;
  /** When something that failed may be tried again, on the monotonic clock. */
  readonly nextRetryMs: () => number | undefined;
  /** Called after each look. */
  readonly onRest: () => void;
}

/**
 * When the kernel is looked at next, and at how much of it.
 *
 * ```
 *  idle ──ask──▶ waiting ──alarm──▶ looking
 *                   ▲─────────────────┘        any ──close──▶ closed
 * ```
 * One look at a time; what comes up during one is for the next.
 */
export class Schedule {
  /** Objects to look at next. */
  readonly touched = new Set<ObjectKey>();
  private state: 'idle' | 'waiting' | 'looking' | 'closed' = 'idle';
  private looking: Promise<void> = Promise.resolve();
  /** A new desired state has not been looked at yet. */
  private isAsked = false;
  /** Whether what is known is to be thrown away and everything listed anew. */
  private listing: 'no' | 'soon' | 'now' = 'now';
  private lastListMs = Number.NEGATIVE_INFINITY;
  /** How often in a row the kernel could not be read. */
  private failedLooks = 0;
  private readonly alarm: Alarm;
  private looks = 0;
  private lists = 0;
  private lastLookMs = 0;

  constructor(private readonly options: ScheduleOptions) {
    const { clock, logger } = options;
    const guard = { clock, logger, what: 'comparison of the kernel state', recover: () => this.distrust() };
    this.alarm = new Alarm(
      clock,
      guarded(guard, () => this.start()),
    );
  }

  get isClosed(): boolean {
    return this.state === 'closed';
  }

  /** Whether nothing has come up that was not looked at. */
  get isAtRest(): boolean {
    return this.state === 'waiting' && !this.isAsked && this.listing === 'no' && this.touched.size === 0;
  }

  /** Whether the last look could not read the kernel. */
  get isFailing(): boolean {
    return this.failedLooks > 0;
  }

  /** Whether only a new list will tell what the kernel looks like. */
  get isListNeeded(): boolean {
    return this.listing === 'now';
  }

  /** Looks so far, those of them that listed everything, and how long the last one took. */
  get statistics(): { readonly runs: number; readonly dumps: number; readonly lastRunMs: number } {
    return { runs: this.looks, dumps: this.lists, lastRunMs: this.lastLookMs };
  }

  /** There is a new desired state: look at once. Several calls before that count as one. Nothing happens before the first. */
  ask(): void {
    if (this.state === 'closed') return;
    if (this.state === 'idle') this.state = 'waiting';
    this.isAsked = true;
    this.alarm.set(0);
  }

  /** Events came: {@link touched} may have grown, and what is known may be doubtful. */
  takeEvents(isDoubtful: boolean): void {
    if (isDoubtful) this.listSoon();
    if (this.state === 'waiting' && this.failedLooks === 0) this.setForEvents();
  }

  /** What is known is doubtful. */
  listSoon(): void {
    if (this.listing === 'no') this.listing = 'soon';
  }

  /** Everything is to be listed with the next look. */
  listNext(): void {
    this.listing = 'now';
  }

  /** After a defect: nothing that was known is relied on. */
  distrust(): void {
    this.listing = 'now';
    if (this.state === 'waiting') this.alarm.set(MIN_LIST_INTERVAL_MS);
  }

  /** Something failed outside of a look, and may be tried again at its time. */
  takeFailure(): void {
    if (this.state === 'waiting') this.setForEverything();
  }

  /** Whether this look has to list everything. What others make necessary comes at a bounded rate. */
  isListDue(): boolean {
    const nowMs = this.options.clock.monotonicMs();
    if (nowMs >= this.lastListMs + FULL_INTERVAL_MS) this.listing = 'now';
    const earliestMs = this.listing === 'soon' ? this.lastListMs + MIN_LIST_INTERVAL_MS : 0;
    return this.listing !== 'no' && nowMs >= earliestMs;
  }

  /** Doubts that come up from now on are about the list that is being made. */
  beginList(): void {
    this.listing = 'no';
    this.lists++;
  }

  endList(): void {
    this.lastListMs = this.options.clock.monotonicMs();
  }

  /** Ends the waiting; resolves when the look under way has ended. */
  async close(): Promise<void> {
    this.state = 'closed';
    this.alarm.cancel();
    await this.looking;
  }

  private start(): void {
    if (this.state !== 'waiting') return; // a look that ends sees what came up meanwhile
    this.state = 'looking';
    this.isAsked = false;
    this.looks++;
    this.looking = this.lookOnce();
  }

  private async lookOnce(): Promise<void> {
    const { clock, look, onRest } = this.options;
    const startedMs = clock.monotonicMs();
    const isRead = await look();
    this.lastLookMs = clock.monotonicMs() - startedMs;
    this.failedLooks = isRead ? 0 : this.failedLooks + 1;
    if (!isRead) this.listing = 'now';
    if (this.isClosed) return;
    this.state = 'waiting';
    this.setForEverything();
    onRest();
  }

  private setForEverything(): void {
    const { clock, nextRetryMs } = this.options;
    if (this.failedLooks > 0) {
      this.alarm.set(backoffMs(this.failedLooks, UNREADABLE_BASE_MS, UNREADABLE_CAP_MS, () => clock.random()));
      return;
    }
    if (this.isAsked) this.alarm.set(0);
    this.setForEvents();
    const retryMs = nextRetryMs();
    if (retryMs !== undefined) this.setAt(retryMs);
    this.setAt(this.lastListMs + FULL_INTERVAL_MS);
  }

  private setForEvents(): void {
    if (this.touched.size > 0 || this.listing === 'now') this.alarm.set(EVENT_DELAY_MS);
    else if (this.listing === 'soon') {
      const nowMs = this.options.clock.monotonicMs();
      this.alarm.set(Math.max(EVENT_DELAY_MS, this.lastListMs + MIN_LIST_INTERVAL_MS - nowMs));
    }
  }

  private setAt(atMs: number): void {
    this.alarm.set(Math.max(0, atMs - this.options.clock.monotonicMs()));
  }
}
