import type { Clock } from '../../src/clock.js';

/** What the clocks of tests have in common: all of it follows from their timers. */
export abstract class TimerClock implements Clock {
  abstract monotonicMs(): number;
  abstract after(ms: number, callback: () => void): () => void;
  abstract random(): number;

  wallMs(): number {
    return 1_700_000_000_000 + this.monotonicMs();
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted === true) {
        reject(signal.reason as Error);
        return;
      }
      const onAbort = (): void => {
        cancel();
        reject(signal?.reason as Error);
      };
      const cancel = this.after(ms, () => {
        signal?.removeEventListener('abort', onAbort);
        resolve();
      });
      signal?.addEventListener('abort', onAbort, { once: true });
    });
  }
}
