/**
 * Time and chance, passed in wherever something waits, retries or chooses, so that tests decide both.
 */
export interface Clock {
  /** Milliseconds since the epoch; for what is shown or stored, never for measuring. */
  wallMs(): number;
  /** Milliseconds on a clock that never jumps; for deadlines and ages. */
  monotonicMs(): number;
  /** Resolves after that time; rejects with the signal's reason as soon as it is aborted. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
  /** Calls back once after that time. The returned function cancels it. */
  after(ms: number, callback: () => void): () => void;
  /** Uniform in [0, 1). */
  random(): number;
}

/** The real clock. Its timers keep the process alive until they fire or are cancelled. */
export const systemClock: Clock = {
  wallMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  sleep: (ms, signal) =>
    new Promise((resolve, reject) => {
      if (signal?.aborted === true) {
        reject(signal.reason as Error);
        return;
      }
      const onAbort = (): void => {
        clearTimeout(timer);
        reject(signal?.reason as Error);
      };
      const timer = setTimeout(() => {
        signal?.removeEventListener('abort', onAbort);
        resolve();
      }, ms);
      signal?.addEventListener('abort', onAbort, { once: true });
    }),
  after: (ms, callback) => {
    const timer = setTimeout(callback, ms);
    return () => clearTimeout(timer);
  },
  random: () => Math.random(),
};

/**
 * Delays for retries: `baseMs · 2^(attempt−1)`, at most `capMs`, spread over ±25 % so that hosts that failed together
 * do not come back together.
 *
 * @param attempt - 1 for the first retry.
 */
export function backoffMs(attempt: number, baseMs: number, capMs: number, random: () => number): number {
  const delay = Math.min(capMs, baseMs * 2 ** Math.min(attempt - 1, 30));
  return Math.round(delay * (0.75 + random() * 0.5));
}
