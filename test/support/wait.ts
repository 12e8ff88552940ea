import { patient } from './patience.js';

/** How long {@link waitFor} waits and how often it looks. */
export interface WaitOptions {
  /** What is waited for, as it reads after "waited 10 s for". */
  readonly what: string;
  /** Default 10 000. */
  readonly timeoutMs?: number;
  /** Default 20. */
  readonly intervalMs?: number;
}

/**
 * Waits until a check no longer throws: for what another process brings about, at its own time.
 *
 * @throws Error when the time is up; its cause is what the check threw last.
 */
export async function eventually(
  what: string,
  check: () => void | Promise<void>,
  options: Omit<WaitOptions, 'what'> = {},
): Promise<void> {
  await waitFor(
    async () => {
      await check();
      return true;
    },
    { ...options, what },
  );
}

/**
 * Waits until the probe gives something other than `undefined` or `false`, and gives that.
 *
 * @throws Error when the time is up; its cause is what the probe threw last, if it threw.
 */
export async function waitFor<T>(
  probe: () => T | undefined | false | Promise<T | undefined | false>,
  options: WaitOptions,
): Promise<T> {
  const { what, intervalMs = 20 } = options;
  const timeoutMs = patient(options.timeoutMs ?? 20_000);
  const start = performance.now();
  let cause: unknown;
  for (;;) {
    try {
      const value = await probe();
      if (value !== undefined && value !== false) return value;
      cause = undefined;
    } catch (error) {
      cause = error;
    }
    if (performance.now() - start > timeoutMs) {
      throw new Error(`waited ${timeoutMs / 1000} s in vain for ${what}`, { cause });
    }
    await new Promise((resolve) => setTimeout(resolve, patient(intervalMs)));
  }
}
