import type { Clock } from './clock.js';

/**
 * An AbortSignal that is aborted after a time, or together with another one.
 *
 * @remarks In place of `AbortSignal.any([signal, AbortSignal.timeout(ms)])`: Node 20 keeps only weak references between
 * such signals, so that the one with the time may be collected and never fires. Here the timer itself holds the signal.
 */
export class Deadline {
  private readonly controller = new AbortController();
  private readonly cancelTimer: () => void;
  private readonly parents: readonly AbortSignal[];
  private readonly follow: () => void;

  /** @param parents - each aborts this one, too, with its own reason. */
  constructor(clock: Clock, ms: number, ...parents: readonly (AbortSignal | undefined)[]) {
    this.cancelTimer = clock.after(ms, () => this.end(new DOMException(`not done within ${ms} ms`, 'TimeoutError')));
    this.parents = parents.filter((parent) => parent !== undefined);
    this.follow = () => this.end(this.parents.find(({ aborted }) => aborted)?.reason);
    for (const parent of this.parents) parent.addEventListener('abort', this.follow, { once: true });
    if (this.parents.some(({ aborted }) => aborted)) this.follow();
  }

  get signal(): AbortSignal {
    return this.controller.signal;
  }

  /** Gives the time up: the signal is no longer aborted by anything. Idempotent. */
  clear(): void {
    this.cancelTimer();
    for (const parent of this.parents) parent.removeEventListener('abort', this.follow);
  }

  private end(reason: unknown): void {
    this.clear();
    this.controller.abort(reason);
  }
}
