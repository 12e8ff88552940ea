import { FakeClock } from './fake-clock.js';

/** A clock on which a millisecond passes whenever somebody looks: work that looks at it takes time. */
export class TickingClock extends FakeClock {
  #looks = 0;

  override monotonicMs(): number {
    return super.monotonicMs() + this.#looks++;
  }
}

/** Counts the turns that others get on the event loop from now on. */
export function countTurns(): { end(): number } {
  let turns = 0;
  let isOver = false;
  const take = (): void => {
    if (isOver) return;
    turns++;
    setImmediate(take);
  };
  setImmediate(take);
  return {
    end: () => {
      isOver = true;
      return turns;
    },
  };
}
