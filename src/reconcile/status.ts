import type { OverlayError } from '../errors.js';
import type { ObjectKind } from './desired.js';
import { fieldsBy, isAlike, isIdentical, listsBy } from './equality.js';
import type { Failure } from './failures.js';
import type { ChangeCounts } from './operation.js';

/** Whether the kernel is as desired. */
export interface ReconcilerStatus {
  readonly isConverged: boolean;
  /** Objects that somebody else's are in the way of. */
  readonly conflicts: readonly OverlayError[];
  /** Objects that could not be made and are tried again. */
  readonly failures: readonly FailureStatus[];
  /** How many objects wait for a device. */
  readonly blocked: number;
}

/** An object that could not be made, or one attribute of a device. */
export type FailureStatus = Omit<Failure, 'retryAtMs'>;

/** Whether the same is to be told: the same objects in the way, the same that fail, however often. */
export const isSameStatus = fieldsBy<ReconcilerStatus>({
  isConverged: isIdentical,
  conflicts: listsBy((a, b) => a.message === b.message),
  failures: listsBy(
    fieldsBy<FailureStatus>({
      key: isIdentical,
      aspect: isIdentical,
      device: isAlike,
      error: isAlike,
      attempt: isAlike,
    }),
  ),
  blocked: isIdentical,
});

/** Running totals, for metrics. */
export interface ReconcilerStatistics extends ReconcilerStatus {
  readonly runs: number;
  /** Runs that listed everything. */
  readonly dumps: number;
  /** Times the kernel dropped events. */
  readonly lostEvents: number;
  /** Changes by kind and verb, reverted ones included. */
  readonly changes: ChangeCounts;
  /** Reverted changes of others by kind of object. */
  readonly drift: Readonly<Record<ObjectKind, number>>;
  /** Failed changes by kind, retries included. */
  readonly failed: Readonly<Record<ObjectKind, number>>;
  /** Duration of the last run. */
  readonly lastRunMs: number;
}

interface Waiter {
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/** Those who wait for something that happens once for all of them. */
export class Waiters {
  private readonly waiting = new Set<Waiter>();

  /** Resolves or rejects with the next {@link resolveAll} or {@link rejectAll}; rejects when the signal is aborted. */
  async wait(signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    let waiter: Waiter | undefined;
    let onAbort: (() => void) | undefined;
    try {
      await new Promise<void>((resolve, reject) => {
        waiter = { resolve, reject };
        onAbort = () => {
          reject(signal?.reason as Error);
        };
        this.waiting.add(waiter);
        signal?.addEventListener('abort', onAbort, { once: true });
      });
    } finally {
      if (waiter !== undefined) this.waiting.delete(waiter);
      if (onAbort !== undefined) signal?.removeEventListener('abort', onAbort);
    }
  }

  resolveAll(): void {
    for (const waiter of this.waiting) waiter.resolve();
  }

  rejectAll(error: Error): void {
    for (const waiter of this.waiting) waiter.reject(error);
  }
}
