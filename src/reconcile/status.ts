import type { OverlayError } from '../errors.js';
import type { ObjectKey, ObjectKind } from './object-key.js';
import type { ChangeCounts } from './operation.js';

/** Whether the kernel is as desired. */
export interface ReconcilerStatus {
  readonly isConverged: boolean;
  /** Objects that somebody else's are in the way of. */
  readonly conflicts: readonly OverlayError[];
  /** Objects that could not be made and are tried again. */
  readonly failures: readonly { readonly key: ObjectKey; readonly error: unknown; readonly attempt: number }[];
  /** How many objects wait for a device. */
  readonly blocked: number;
}

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
