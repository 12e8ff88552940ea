import { backoffMs } from '../clock.js';
import { isOverlayError } from '../errors.js';
import type { Subscription } from '../lease/store.js';
import { RateLimitedLog } from '../rate-limited-log.js';
import type { FollowContext } from './follow.js';
import type { KeyRange } from './key-range.js';

/** Delays between attempts to watch. */
const RETRY_BASE_MS = 100;
const RETRY_CAP_MS = 5000;

/** A stream that lived that long was a good one: the next attempt starts with the shortest delay. */
const GOOD_STREAM_MS = 5000;

/**
 * Calls back whenever something in a range may have changed: after each event, and each time a watch was opened, since
 * events may have been missed before. Whoever is called looks for himself, so no revision has to be kept and compaction
 * does not matter.
 *
 * @param onChange - what it throws is logged and ends the stream, which is opened again.
 */
export function watchRange(context: FollowContext, range: Required<KeyRange>, onChange: () => void): Subscription {
  const closing = new AbortController();
  void keepWatching(context, range, onChange, closing.signal);
  return { close: () => closing.abort() };
}

async function keepWatching(
  { client, clock, log, counters }: FollowContext,
  { key, rangeEnd }: Required<KeyRange>,
  onChange: () => void,
  signal: AbortSignal,
): Promise<void> {
  const complaints = new RateLimitedLog(clock);
  let attempt = 0;
  const isOver = (): boolean => signal.aborted || client.isClosed;
  while (!isOver()) {
    try {
      const tell = (): void => {
        if (!signal.aborted) onChange();
      };
      const watch = await client.openWatch({ key, range_end: rangeEnd }, tell, signal);
      const openedAtMs = clock.monotonicMs();
      const close = (): void => watch.close();
      signal.addEventListener('abort', close, { once: true });
      try {
        tell();
        await watch.ended;
      } finally {
        signal.removeEventListener('abort', close);
        close();
      }
      counters.watchRestarts++;
      if (clock.monotonicMs() - openedAtMs >= GOOD_STREAM_MS) attempt = 0;
    } catch (error) {
      // One that is away has been reported by the client already.
      if (!isOver() && !isOverlayError(error, 'ERR_ETCD_UNAVAILABLE')) {
        complaints.tell(() => log.warn('cannot follow values in etcd', { error }));
      }
    }
    await clock
      .sleep(
        backoffMs(++attempt, RETRY_BASE_MS, RETRY_CAP_MS, () => clock.random()),
        signal,
      )
      .catch(() => undefined); // closed
  }
}
