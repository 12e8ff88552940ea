import { type Clock, backoffMs } from '../clock.js';
import { type Aspect, AspectMap } from './aspects.js';
import type { ObjectKey } from './object-key.js';

/** Retries start after this time, and come no less often than the second. */
const BASE_MS = 100;
const CAP_MS = 30_000;

/** What an operation is about. */
export interface Target {
  readonly key: ObjectKey;
  readonly aspect: Aspect;
  /** Device that the object is, or lies on; undefined for those of the whole host. */
  readonly device: string | undefined;
}

/** An object, or one attribute of a device, that could not be made as desired. */
export interface Failure extends Target {
  readonly error: unknown;
  /** 1 after the first failure. */
  readonly attempt: number;
  /** On the monotonic clock. */
  readonly retryAtMs: number;
}

/** Remembers what failed and when it may be tried again, each by itself: exponential, with jitter and a cap. */
export class Failures {
  private readonly entries = new AspectMap<Failure>();

  constructor(private readonly clock: Clock) {}

  get size(): number {
    return this.entries.size;
  }

  values(): Iterable<Failure> {
    return this.entries.values();
  }

  /** Whether anything of the object failed. */
  hasObject(key: ObjectKey): boolean {
    return this.entries.hasObject(key);
  }

  get(key: ObjectKey, aspect: Aspect): Failure | undefined {
    return this.entries.get(key, aspect);
  }

  /** Whether it is too early to try again. */
  isHeld(key: ObjectKey, aspect: Aspect): boolean {
    const failure = this.entries.get(key, aspect);
    return failure !== undefined && failure.retryAtMs > this.clock.monotonicMs();
  }

  /** @param attempt - default one more than last time. */
  add(target: Target, error: unknown, attempt?: number): void {
    const { key, aspect, device } = target;
    const count = attempt ?? (this.entries.get(key, aspect)?.attempt ?? 0) + 1;
    const retryAtMs = this.clock.monotonicMs() + backoffMs(count, BASE_MS, CAP_MS, () => this.clock.random());
    this.entries.set(key, aspect, { key, aspect, device, error, attempt: count, retryAtMs });
  }

  /** @returns whether it had failed before. */
  clear(key: ObjectKey, aspect: Aspect): boolean {
    return this.entries.delete(key, aspect);
  }

  /** When the next one may be tried, on the monotonic clock; undefined if nothing failed. */
  nextRetryMs(): number | undefined {
    let next: number | undefined;
    for (const { retryAtMs } of this.entries.values()) next = Math.min(next ?? retryAtMs, retryAtMs);
    return next;
  }
}
