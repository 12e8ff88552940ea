import { type Clock, backoffMs } from '../clock.js';
import type { ObjectKey } from './object-key.js';

/** Retries start after this time, and come no less often than the second. */
const BASE_MS = 100;
const CAP_MS = 30_000;

/** An object that could not be made as desired. */
export interface Failure {
  readonly key: ObjectKey;
  readonly error: unknown;
  /** 1 after the first failure. */
  readonly attempt: number;
  /** On the monotonic clock. */
  readonly retryAtMs: number;
}

/** Remembers what failed and when it may be tried again, each object by itself: exponential, with jitter and a cap. */
export class Failures {
  private readonly byKey = new Map<ObjectKey, Failure>();

  constructor(private readonly clock: Clock) {}

  get size(): number {
    return this.byKey.size;
  }

  values(): Iterable<Failure> {
    return this.byKey.values();
  }

  has(key: ObjectKey): boolean {
    return this.byKey.has(key);
  }

  get(key: ObjectKey): Failure | undefined {
    return this.byKey.get(key);
  }

  readonly isHeld = (key: ObjectKey): boolean => {
    const failure = this.byKey.get(key);
    return failure !== undefined && failure.retryAtMs > this.clock.monotonicMs();
  };

  /** @param attempt - default one more than last time. */
  add(key: ObjectKey, error: unknown, attempt = (this.byKey.get(key)?.attempt ?? 0) + 1): void {
    const retryAtMs = this.clock.monotonicMs() + backoffMs(attempt, BASE_MS, CAP_MS, () => this.clock.random());
    this.byKey.set(key, { key, error, attempt, retryAtMs });
  }

  /** @returns whether it had failed before. */
  clear(key: ObjectKey): boolean {
    return this.byKey.delete(key);
  }

  /** When the next one may be tried, on the monotonic clock; undefined if nothing failed. */
  nextRetryMs(): number | undefined {
    let next: number | undefined;
    for (const { retryAtMs } of this.byKey.values()) next = Math.min(next ?? retryAtMs, retryAtMs);
    return next;
  }
}
