import type { Clock } from '../../clock.js';

/** What one method was asked, and how it went. */
export interface MethodStatistics {
  readonly calls: number;
  readonly errors: number;
  /** All calls together. */
  readonly totalMs: number;
  /** The slowest one. */
  readonly maxMs: number;
}

/** By method, such as `IpamDriver.RequestAddress`. */
export type CallStatistics = Readonly<Record<string, MethodStatistics>>;

/** Counts calls, errors and time. */
export class CallCounters {
  private readonly methods = new Map<string, MethodStatistics>();

  constructor(private readonly clock: Clock) {}

  get statistics(): CallStatistics {
    return Object.fromEntries(this.methods);
  }

  /** @returns to be called once, when the answer is known. */
  begin(method: string): (isOk: boolean) => void {
    const startedMs = this.clock.monotonicMs();
    return (isOk) => {
      const { calls, errors, totalMs, maxMs } = this.methods.get(method) ?? NONE;
      const ms = this.clock.monotonicMs() - startedMs;
      this.methods.set(method, {
        calls: calls + 1,
        errors: errors + (isOk ? 0 : 1),
        totalMs: totalMs + ms,
        maxMs: Math.max(maxMs, ms),
      });
    };
  }
}

const NONE: MethodStatistics = { calls: 0, errors: 0, totalMs: 0, maxMs: 0 };
