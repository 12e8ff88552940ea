import { Alarm } from './alarm.js';
import type { Clock } from './clock.js';

/**
 * Work that is to be done soon after it was asked for, once for all who asked, and again if somebody asked while it was
 * being done: never twice at a time, and never put off by those who keep asking.
 *
 * API: {@link schedule} and {@link runNow} ask for a run, {@link close} ends it.
 * Limits: one timer, one run under way and one to follow, however often it is asked for.
 */
export class CoalescingTask {
  private readonly alarm: Alarm;
  private running: Promise<void> | undefined;
  /** The run that begins when the present one ends. */
  private following: Promise<void> | undefined;
  /** What was asked for during a run: it counts from the end of that run. */
  private nextDelayMs = Number.POSITIVE_INFINITY;
  private isClosed = false;

  /** @param work - reads its inputs itself; must not reject. To be done again later it calls {@link schedule}. */
  constructor(
    clock: Clock,
    private readonly work: () => Promise<void>,
  ) {
    this.alarm = new Alarm(clock, () => void this.begin());
  }

  get isRunning(): boolean {
    return this.running !== undefined;
  }

  /** Asks for a run after that time, or sooner if one is due sooner; during a run, that time after its end. */
  schedule(delayMs: number): void {
    if (this.isClosed) return;
    if (this.running === undefined) this.alarm.set(delayMs);
    else this.nextDelayMs = Math.min(this.nextDelayMs, delayMs);
  }

  /** Runs at once, or as soon as the present run has ended; resolves at the end of the run that began after the call. */
  runNow(): Promise<void> {
    if (this.isClosed) return this.running ?? Promise.resolve();
    if (this.running === undefined) return this.begin();
    this.following ??= this.running.then(() => {
      this.following = undefined;
      return this.runNow();
    });
    return this.following;
  }

  /** No further run begins; resolves when the one under way has ended. Idempotent. */
  async close(): Promise<void> {
    this.isClosed = true;
    this.alarm.cancel();
    await this.running;
  }

  /** Answers every earlier request. */
  private begin(): Promise<void> {
    this.alarm.cancel();
    this.nextDelayMs = Number.POSITIVE_INFINITY;
    this.running = this.work().then(() => {
      this.running = undefined;
      if (Number.isFinite(this.nextDelayMs)) this.schedule(this.nextDelayMs);
    });
    return this.running;
  }
}
