import type { Clock } from './clock.js';
import type { Logger } from './log.js';
import { RateLimitedLog } from './rate-limited-log.js';

/** How {@link guarded} goes on after an exception. */
export interface GuardOptions {
  readonly logger: Logger;
  readonly clock: Clock;
  /** What the callback sees to, for the log: `changes of the kernel`. */
  readonly what: string;
  /** Makes up for what the callback did not get done, such as by listing everything later; must be simple. Default nothing. */
  readonly recover?: () => void;
}

/**
 * A callback for timers, sockets, streams and the addon that never throws: there is nobody above it, so that an
 * exception would end the process and with it every tunnel.
 *
 * @param callback - may be asynchronous; a rejection counts as an exception.
 */
export function guarded<Arguments extends readonly unknown[]>(
  { logger, clock, what, recover }: GuardOptions,
  callback: (...values: Arguments) => unknown,
): (...values: Arguments) => void {
  const defects = new RateLimitedLog(clock);
  const fail = (error: unknown): void => {
    defects.tell((count) => {
      logger.error('defect in the daemon, going on', { kind: what, count, error, detail: describeDefect(error) });
    });
    recover?.();
  };
  return (...values) => {
    try {
      const result = callback(...values);
      if (result instanceof Promise) result.catch(fail);
    } catch (error) {
      fail(error);
    }
  };
}

/** Message and the innermost places in the code, in one line. */
function describeDefect(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const [head = error.message, ...places] = (error.stack ?? error.message).split(/\n\s*/);
  return [head, ...places.slice(0, 3)].join(' ');
}
