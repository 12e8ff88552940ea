import type { IResponseHeader, IWatchResponse } from 'etcd3/lib/rpc.js';
import { type Clock, backoffMs } from '../clock.js';
import { isOverlayError } from '../errors.js';
import { RateLimitedLog } from '../rate-limited-log.js';
import type { EtcdClient } from './client.js';
import type { Failure } from './errors.js';
import type { KeyRange } from './key-range.js';

/** What watching needs, and counts. */
export interface WatchContext {
  readonly client: EtcdClient;
  readonly clock: Clock;
  readonly counters: { watchRestarts: number };
}

/** The first delay between attempts to follow; a host whose lease etcd has lost shall assert it soon after etcd is back. */
const RETRY_BASE_MS = 100;

/** An attempt that lasted that long was a good one: the next one starts with the shortest delay. */
const GOOD_ATTEMPT_MS = 5000;

/**
 * etcd tells a watch how far it is ten to eleven minutes after the last time, unless something happened in between: one
 * from which nothing comes in more than two such times is dead, however well its connection is (a proxy's, for instance).
 *
 * @see etcd `server/etcdserver/api/v3rpc/watch.go`, progressReportInterval
 */
const SILENCE_MS = 1_500_000;

/** A watch that ends with a signal, or when nothing has come for {@link SILENCE_MS}. */
export interface SupervisedWatch {
  /** Of the confirmation: which cluster it is and its revision at that time. */
  readonly header: IResponseHeader;
  /** Passes on what has come so far, which was kept back, and what comes. @returns why the stream ended, when it has. */
  believe(): Promise<Failure>;
  close(): void;
}

/**
 * Opens a watch whose responses wait until it is believed.
 *
 * @param after - the revision up to which everything is known; undefined: what has happened by now does not matter.
 * @param onResponse - as for `EtcdClient.openWatch`.
 */
export async function openSupervisedWatch(
  { client, clock, counters }: WatchContext,
  { key, rangeEnd }: Required<KeyRange>,
  after: string | undefined,
  onResponse: (response: IWatchResponse) => void,
  signal: AbortSignal,
): Promise<SupervisedWatch> {
  let waiting: IWatchResponse[] | undefined = [];
  let close = (): void => {};
  let cancelSilence = (): void => {};
  const noteSign = (): void => {
    cancelSilence();
    cancelSilence = clock.after(SILENCE_MS, () => close());
  };
  const start = after === undefined ? {} : { start_revision: (BigInt(after) + 1n).toString() };
  const watch = await client.openWatch(
    { key, range_end: rangeEnd, ...start, progress_notify: true },
    (response) => {
      noteSign();
      if (waiting === undefined) onResponse(response);
      else waiting.push(response);
    },
    signal,
  );
  close = () => {
    cancelSilence();
    signal.removeEventListener('abort', close);
    watch.close();
  };
  noteSign();
  signal.addEventListener('abort', close);
  if (signal.aborted) close();
  return {
    header: watch.header,
    async believe() {
      const heard = waiting ?? [];
      waiting = undefined;
      for (const response of heard) onResponse(response);
      const failure = await watch.ended;
      counters.watchRestarts++;
      return failure;
    },
    close: () => close(),
  };
}

/**
 * Follows again and again until a signal is aborted or the client is closed: at once if the last attempt asks for that,
 * else after a delay that grows with every attempt that ended soon.
 *
 * @param capMs - the longest delay.
 * @param follow - ends when its stream does. @returns whether to go on at once.
 * @param complain - told of an error now and then, not of an etcd that is away, which the client has reported already.
 */
export async function keepFollowing(
  { client, clock }: WatchContext,
  signal: AbortSignal,
  capMs: number,
  follow: () => Promise<boolean>,
  complain: (error: unknown) => void,
): Promise<void> {
  const complaints = new RateLimitedLog(clock);
  const isOver = (): boolean => signal.aborted || client.isClosed;
  let attempt = 0;
  while (!isOver()) {
    const startedMs = clock.monotonicMs();
    try {
      if (await follow()) continue;
    } catch (error) {
      if (!isOver() && !isOverlayError(error, 'ERR_ETCD_UNAVAILABLE')) complaints.tell(() => complain(error));
    }
    attempt = clock.monotonicMs() - startedMs >= GOOD_ATTEMPT_MS ? 1 : attempt + 1;
    const delayMs = backoffMs(attempt, RETRY_BASE_MS, capMs, () => clock.random());
    await clock.sleep(delayMs, signal).catch(() => undefined); // aborted
  }
}
