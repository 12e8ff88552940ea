import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Clock } from './clock.js';

/** Time that long work may hold the event loop before others get a turn. */
const TURN_MS = 8;

/** Until when the turn goes that is under way, which may hold several pieces of work, one after the other. */
const ends = new WeakMap<Clock, number>();

function beginTurn(clock: Clock): number {
  const endMs = clock.monotonicMs() + TURN_MS;
  ends.set(clock, endMs);
  // What comes from another event afterwards is in a turn of its own.
  setImmediate(() => {
    if (ends.get(clock) === endMs) ends.delete(clock);
  });
  return endMs;
}

/** Tells long work on the event loop when others are to have a turn. */
export class Pace {
  private endMs: number;

  /** Goes on with the turn that earlier work has begun; else one begins. */
  constructor(private readonly clock: Clock) {
    this.endMs = ends.get(clock) ?? beginTurn(clock);
  }

  /** Whether the turn is over: wait for {@link rest}. */
  get isOver(): boolean {
    return this.clock.monotonicMs() >= this.endMs;
  }

  /** Lets everybody who waits have a turn, then begins another. */
  async rest(): Promise<void> {
    await nextTurn();
    this.endMs = beginTurn(this.clock);
  }
}

/** Work that may rest wherever it yields. */
export type Steps<T> = Generator<void, T, void>;

/** Does it with rests, so that others have their turns. */
export async function finishInTurns<T>(steps: Steps<T>, clock: Clock): Promise<T> {
  const pace = new Pace(clock);
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
    if (pace.isOver) await pace.rest();
  }
}
