import type { Clock } from '../../src/clock.js';
import { describeError } from '../../src/errors.js';
import { runLater } from './later.js';
import { SimRandom } from './sim-etcd/random.js';
import { TimerClock } from './timer-clock.js';

interface Timer {
  readonly atMs: number;
  /** Among timers of the same instant, the one that was set first fires first. */
  readonly order: number;
  callback: (() => void) | undefined;
}

/** Turns of the event loop that are asked for at a time: asking for one costs a look at every socket. */
const TURNS_AT_ONCE = 32;

/**
 * A clock that jumps from one timer to the next as soon as nothing is left to do at its instant, for simulations of many
 * programs over a long time.
 *
 * @remarks Between two timers every promise that can settle does, and everything that was put off with {@link later}
 * runs. What waits for anything else, a socket or a thread, is not waited for. Two runs with the same seed take the same
 * steps.
 */
export class SimClock extends TimerClock {
  readonly #heap: Timer[] = [];
  readonly #random: SimRandom;
  #nowMs = 0;
  #count = 0;
  #pending = 0;
  #steps = 0;

  constructor(seed = 1) {
    super();
    this.#random = new SimRandom(`clock ${seed}`);
  }

  monotonicMs(): number {
    return this.#nowMs;
  }

  /** Timers that are to fire. */
  get pending(): number {
    return this.#pending;
  }

  /** Timers that have fired, and what was put off and is done. */
  get steps(): number {
    return this.#steps;
  }

  random(): number {
    return this.#random.next();
  }

  after(ms: number, callback: () => void): () => void {
    const timer: Timer = { atMs: this.#nowMs + Math.max(0, ms), order: this.#count++, callback };
    this.#push(timer);
    this.#pending++;
    return () => {
      if (timer.callback !== undefined) this.#pending--;
      timer.callback = undefined;
    };
  }

  /** Lets that time pass. Rejects with what a timer's callback throws. */
  advance(ms: number): Promise<void> {
    const untilMs = this.#nowMs + ms;
    return new Promise((resolve, reject) => {
      let isDone = false;
      const turn = (): void => {
        if (isDone) return;
        try {
          if (runLater() || this.#fireNext(untilMs)) {
            this.#steps++;
            return;
          }
        } catch (error) {
          isDone = true;
          reject(error instanceof Error ? error : new Error(describeError(error)));
          return;
        }
        this.#nowMs = untilMs;
        isDone = true;
        resolve();
      };
      const go = (): void => {
        if (isDone) return;
        for (let i = 1; i < TURNS_AT_ONCE; i++) setImmediate(turn);
        setImmediate(() => {
          turn();
          go();
        });
      };
      setImmediate(go);
    });
  }

  #fireNext(untilMs: number): boolean {
    for (let next = this.#heap[0]; next !== undefined && next.atMs <= untilMs; next = this.#heap[0]) {
      this.#pop();
      const { callback } = next;
      if (callback === undefined) continue;
      next.callback = undefined;
      this.#pending--;
      this.#nowMs = Math.max(this.#nowMs, next.atMs);
      callback();
      return true;
    }
    return false;
  }

  #push(timer: Timer): void {
    const heap = this.#heap;
    let index = heap.length;
    heap.push(timer);
    while (index > 0) {
      const parent = (index - 1) >> 1;
      if (isBefore(heap[parent]!, timer)) break;
      heap[index] = heap[parent]!;
      index = parent;
    }
    heap[index] = timer;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    let index = 0;
    for (let child = 1; child < heap.length; child = 2 * index + 1) {
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++;
      if (isBefore(last, heap[child]!)) break;
      heap[index] = heap[child]!;
      index = child;
    }
    heap[index] = last;
  }
}

function isBefore(a: Timer, b: Timer): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}

/** The clock of one process: with its own chance, and stopped or ended together with it. */
export class ProcessClock extends TimerClock {
  readonly #timers = new Set<() => void>();
  readonly #random: SimRandom;
  #held: (() => void)[] = [];
  #isPaused = false;
  #isEnded = false;

  /** @param seed - of its chance. */
  constructor(
    private readonly clock: Clock,
    seed: string,
  ) {
    super();
    this.#random = new SimRandom(seed);
  }

  /** Timers that are to fire. */
  get pending(): number {
    return this.#timers.size;
  }

  get isPaused(): boolean {
    return this.#isPaused;
  }

  monotonicMs(): number {
    return this.clock.monotonicMs();
  }

  override wallMs(): number {
    return this.clock.wallMs();
  }

  random(): number {
    return this.#random.next();
  }

  after(ms: number, callback: () => void): () => void {
    if (this.#isEnded) return () => {};
    const fire = (): void => {
      if (!this.#timers.has(cancel)) return;
      if (this.#isPaused) {
        this.#held.push(fire);
        return;
      }
      this.#timers.delete(cancel);
      callback();
    };
    const cancelTimer = this.clock.after(ms, fire);
    const cancel = (): void => {
      if (this.#timers.delete(cancel)) cancelTimer();
    };
    this.#timers.add(cancel);
    return cancel;
  }

  /** As SIGSTOP: time passes, nothing happens. */
  pause(): void {
    this.#isPaused = true;
  }

  /** As SIGCONT: what became due meanwhile happens now. */
  resume(): void {
    this.#isPaused = false;
    const held = this.#held;
    this.#held = [];
    for (const fire of held) this.clock.after(0, fire);
  }

  /** As SIGKILL: no timer fires any more, and none can be set. */
  end(): void {
    this.#isEnded = true;
    for (const cancel of [...this.#timers]) cancel();
  }
}
