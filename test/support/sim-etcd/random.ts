/** Uniform numbers that depend on nothing but a seed: mulberry32 by Tommy Ettinger, seeded by FNV-1a of a text. */
export class SimRandom {
  #state: number;

  constructor(seed: string) {
    let hash = 0x811c_9dc5;
    for (const byte of Buffer.from(seed)) hash = Math.imul(hash ^ byte, 0x0100_0193);
    this.#state = hash >>> 0;
  }

  /** In [0, 1). */
  next(): number {
    this.#state = (this.#state + 0x6d2b_79f5) >>> 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }

  /** In [min, max). */
  between(min: number, max: number): number {
    return min + this.next() * (max - min);
  }

  /** A whole number in [0, bound). */
  below(bound: number): number {
    return Math.floor(this.next() * bound);
  }

  /** True with that probability; draws nothing for 0, so that a fault that is off changes no other choice. */
  chance(probability: number): boolean {
    return probability > 0 && this.next() < probability;
  }

  /** 64 bits as a decimal text, not 0. */
  id(): string {
    return ((BigInt(this.below(2 ** 31) + 1) << 32n) | BigInt(this.below(2 ** 32))).toString();
  }
}
