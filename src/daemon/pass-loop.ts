import type { Clock } from '../clock.js';

/** Time from the first of several causes to the pass that handles all of them. */
const DELAY_MS = 5;

/** A pass that failed for a reason that may go away by itself is made again after this time. */
const RETRY_MS = 2000;

/**
 * Runs one piece of work whenever something it depends on has changed: never twice at a time, once more if something
 * changed meanwhile, and again after a while if it failed.
 */
export class PassLoop {
  private timer: { readonly dueMs: number; readonly cancel: () => void } | undefined;
  private running: Promise<void> | undefined;
  private isStale = false;
  private isStarted = false;
  private isClosed = false;

  /**
   * @param pass - the work; it reads its inputs itself.
   * @returns of the pass: whether it is to be repeated without another cause.
   */
  constructor(
    private readonly clock: Clock,
    private readonly pass: () => Promise<'done' | 'retry'>,
  ) {}

  /** Allows passes from now on and asks for the first. */
  start(): void {
    this.isStarted = true;
    this.trigger();
  }

  /** Has a pass made soon; causes that come together become one pass. */
  trigger(): void {
    this.isStale = true;
    if (this.running === undefined) this.schedule(DELAY_MS);
  }

  /** Resolves when no pass is due or under way, or the loop is closed. */
  async settled(): Promise<void> {
    while (!this.isClosed && (this.isStale || this.running !== undefined)) {
      await this.running;
      await this.clock.sleep(DELAY_MS);
    }
  }

  /** No further pass begins; resolves when the one under way has ended. */
  async close(): Promise<void> {
    this.isClosed = true;
    this.timer?.cancel();
    await this.running;
  }

  private schedule(delayMs: number): void {
    if (!this.isStarted || this.isClosed) return;
    const dueMs = this.clock.monotonicMs() + delayMs;
    if (this.timer !== undefined && this.timer.dueMs <= dueMs) return;
    this.timer?.cancel();
    const cancel = this.clock.after(delayMs, () => {
      this.timer = undefined;
      this.isStale = false;
      this.running = this.pass().then((outcome) => {
        this.running = undefined;
        if (this.isStale) this.schedule(DELAY_MS);
        else if (outcome === 'retry') this.schedule(RETRY_MS);
      });
    });
    this.timer = { dueMs, cancel };
  }
}
