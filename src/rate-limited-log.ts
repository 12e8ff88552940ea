import type { Clock } from './clock.js';

/** Of what fails, or is undone, again and again, one line a minute is enough. */
const INTERVAL_MS = 60_000;

/**
 * Lets through one line a minute about something that happens again and again. It keeps no timer, so nothing has to be
 * closed: what happened after the last line is counted by the next one, if there is one.
 *
 * @see Gatherer for news of which none may stay untold.
 */
export class RateLimitedLog {
  private notBeforeMs = Number.NEGATIVE_INFINITY;
  private untold = 0;

  constructor(private readonly clock: Clock) {}

  /**
   * Has a line written, unless there was one within the last minute.
   *
   * @param write - is told for how many events the line stands: these, and those since the last line.
   * @param events - how many there are to tell of, at least 1.
   */
  tell(write: (count: number) => void, events = 1): void {
    this.untold += events;
    const nowMs = this.clock.monotonicMs();
    if (nowMs < this.notBeforeMs) return;
    this.notBeforeMs = nowMs + INTERVAL_MS;
    const count = this.untold;
    this.untold = 0;
    write(count);
  }

  /** Lets the next line through at once: what it is about is over, or something new. */
  reset(): void {
    this.notBeforeMs = Number.NEGATIVE_INFINITY;
    this.untold = 0;
  }
}
