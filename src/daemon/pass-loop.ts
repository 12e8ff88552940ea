import type { Clock } from '../clock.js';
import { CoalescingTask } from '../coalescing-task.js';

/** Time from the first of several causes to the pass that handles all of them. */
const DELAY_MS = 5;

/** A pass that failed for a reason that may go away by itself is made again after this time. */
const RETRY_MS = 2000;

/**
 * Runs one piece of work whenever something it depends on has changed: never twice at a time, once more if something
 * changed meanwhile, and again after a while if it failed.
 */
export class PassLoop {
  private readonly task: CoalescingTask;
  private isStale = false;
  private isStarted = false;
  private isClosed = false;

  /**
   * @param pass - the work; it reads its inputs itself.
   * @returns of the pass: whether it is to be repeated without another cause.
   */
  constructor(
    private readonly clock: Clock,
    pass: () => Promise<'done' | 'retry'>,
  ) {
    this.task = new CoalescingTask(clock, async () => {
      this.isStale = false;
      if ((await pass()) === 'retry') this.task.schedule(RETRY_MS);
    });
  }

  /** Allows passes from now on and asks for the first. */
  start(): void {
    this.isStarted = true;
    this.trigger();
  }

  /** Has a pass made soon; causes that come together become one pass. */
  trigger(): void {
    this.isStale = true;
    if (this.isStarted) this.task.schedule(DELAY_MS);
  }

  /** Resolves when no pass is due or under way, or the loop is closed. */
  async settled(): Promise<void> {
    while (!this.isClosed && (this.isStale || this.task.isRunning)) await this.clock.sleep(DELAY_MS);
  }

  /** No further pass begins; resolves when the one under way has ended. */
  async close(): Promise<void> {
    this.isClosed = true;
    await this.task.close();
  }
}
