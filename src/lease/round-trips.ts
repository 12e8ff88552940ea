/** Upper bounds of the buckets of {@link RoundTripTimes}, in seconds: from a member in the same rack to one in trouble. */
export const ROUND_TRIP_BOUNDS_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5] as const;

/** How long the store took to answer. */
export interface RoundTripTimes {
  /** How many answers took up to each of the bounds but longer than the one before; last those above all of them. */
  readonly buckets: readonly number[];
  readonly sumSeconds: number;
}

/** Counts {@link RoundTripTimes}. */
export class RoundTripTimer {
  readonly #buckets = new Array<number>(ROUND_TRIP_BOUNDS_SECONDS.length + 1).fill(0);
  #count = 0;
  #sumSeconds = 0;

  add(seconds: number): void {
    const bucket = ROUND_TRIP_BOUNDS_SECONDS.findIndex((bound) => seconds <= bound);
    const index = bucket < 0 ? ROUND_TRIP_BOUNDS_SECONDS.length : bucket;
    this.#buckets[index] = (this.#buckets[index] ?? 0) + 1;
    this.#count++;
    this.#sumSeconds += seconds;
  }

  /** How many times were added. */
  get count(): number {
    return this.#count;
  }

  get times(): RoundTripTimes {
    return { buckets: [...this.#buckets], sumSeconds: this.#sumSeconds };
  }
}
