import type { IEvent, IKeyValue, IRangeResponse, IWatchResponse } from 'etcd3/lib/rpc.js';
import { backoffMs } from '../clock.js';
import { isOverlayError } from '../errors.js';
import { isAfter } from '../lease/record.js';
import type { ValueEntry, ValueNews, ValuesFollowing } from '../lease/store.js';
import { RateLimitedLog } from '../rate-limited-log.js';
import { type FollowContext, SILENCE_MS } from './follow.js';
import type { KeyRange } from './key-range.js';
import { isDelete } from './world-builder.js';

/** Delays between attempts to follow. */
const RETRY_BASE_MS = 100;
const RETRY_CAP_MS = 5000;

/** A stream that lived that long was a good one: the next attempt starts with the shortest delay. */
const GOOD_STREAM_MS = 5000;

/** What is followed, and who is told. */
export interface ValuesToFollow {
  readonly range: Required<KeyRange>;
  readonly toPath: (key: Buffer) => string;
  readonly toValue: (entry: IKeyValue) => ValueEntry;
  readonly onNews: (news: ValueNews) => void;
}

/**
 * Follows the values in a range until it is closed: a listing, and every change from the next revision on.
 *
 * @remarks A stream that broke is resumed where it ended, as long as etcd remembers, is the same cluster, and has
 * reached that revision. Whether a restored etcd that has reached it again has another history is seen by whoever
 * follows the world, who says so by `relist`.
 */
export function followValues(context: FollowContext, values: ValuesToFollow): ValuesFollowing {
  const closing = new AbortController();
  const follower = new ValuesFollower(context, values, closing.signal);
  void follower.run();
  return { close: () => closing.abort(), relist: () => follower.relist() };
}

class ValuesFollower {
  /** Up to which all is told; undefined where everything is to be listed. */
  #position: { readonly revision: string; readonly clusterId: string } | undefined;
  /** How often it was asked for a listing: one that began before is not enough. */
  #relists = 0;
  readonly #complaints: RateLimitedLog;
  #closeWatch: () => void = () => {};

  constructor(
    private readonly context: FollowContext,
    private readonly values: ValuesToFollow,
    private readonly signal: AbortSignal,
  ) {
    this.#complaints = new RateLimitedLog(context.clock);
  }

  relist(): void {
    this.#relists++;
    this.#position = undefined;
    this.#closeWatch();
  }

  async run(): Promise<void> {
    const { client, clock, log } = this.context;
    const isOver = (): boolean => this.signal.aborted || client.isClosed;
    let attempt = 0;
    while (!isOver()) {
      const startedMs = clock.monotonicMs();
      try {
        await this.#followOnce();
      } catch (error) {
        // One that is away has been reported by the client already.
        if (!isOver() && !isOverlayError(error, 'ERR_ETCD_UNAVAILABLE')) {
          this.#complaints.tell(() => log.warn('cannot follow values in etcd', { error }));
        }
      }
      attempt = clock.monotonicMs() - startedMs >= GOOD_STREAM_MS ? 1 : attempt + 1;
      await clock
        .sleep(
          backoffMs(attempt, RETRY_BASE_MS, RETRY_CAP_MS, () => clock.random()),
          this.signal,
        )
        .catch(() => undefined); // closed
    }
  }

  /** Lists if need be, and watches until the stream ends. */
  async #followOnce(): Promise<void> {
    const { client, clock, counters } = this.context;
    const { key, rangeEnd } = this.values.range;
    const position = this.#position ?? (await this.#list());
    let close = (): void => {};
    let cancelSilence = (): void => {};
    const noteSign = (): void => {
      cancelSilence();
      cancelSilence = clock.after(SILENCE_MS, () => close());
    };
    const start_revision = (BigInt(position.revision) + 1n).toString();
    /** Responses that wait for the confirmation to be judged; undefined once it is. */
    let waiting: IWatchResponse[] | undefined = [];
    const watch = await client.openWatch(
      { key, range_end: rangeEnd, start_revision, progress_notify: true },
      (response) => {
        noteSign();
        if (waiting === undefined) this.#take(response);
        else waiting.push(response);
      },
      this.signal,
    );
    close = () => watch.close();
    this.#closeWatch = close;
    this.signal.addEventListener('abort', close, { once: true });
    noteSign();
    try {
      const { cluster_id: clusterId, revision } = watch.header;
      const isContinued = clusterId === position.clusterId && !isAfter(position.revision, revision);
      if (!isContinued) this.#position = undefined;
      if (this.signal.aborted || this.#position !== position) return;
      for (const response of waiting) this.#take(response);
      waiting = undefined;
      const failure = await watch.ended;
      counters.watchRestarts++;
      if (failure.kind !== 'compacted') return;
      counters.compactions++;
      this.#position = undefined;
    } finally {
      this.#closeWatch = () => {};
      cancelSilence();
      this.signal.removeEventListener('abort', close);
      watch.close();
    }
  }

  async #list(): Promise<{ readonly revision: string; readonly clusterId: string }> {
    const { key, rangeEnd } = this.values.range;
    const relists = this.#relists;
    const request = { key, range_end: rangeEnd };
    const { kvs, header } = await this.context.client.call<IRangeResponse>('KV', 'range', request, this.signal);
    this.signal.throwIfAborted();
    this.#tell({ isListing: true, written: kvs.map((entry) => this.values.toValue(entry)), deleted: [] });
    const position = { revision: header.revision, clusterId: header.cluster_id };
    if (this.#relists === relists) this.#position = position;
    return position;
  }

  #take({ events }: IWatchResponse): void {
    const { toPath, toValue } = this.values;
    if (this.#position === undefined || events.length === 0) return;
    const last = new Map<string, IEvent>(); // of one key, in the order in which it was changed
    let { revision } = this.#position;
    for (const event of events) {
      last.set(toPath(event.kv.key), event);
      if (isAfter(event.kv.mod_revision, revision)) revision = event.kv.mod_revision;
    }
    const changes = [...last];
    this.#position = { ...this.#position, revision };
    this.#tell({
      isListing: false,
      written: changes.filter(([, event]) => !isDelete(event)).map(([, { kv }]) => toValue(kv)),
      deleted: changes.filter(([, event]) => isDelete(event)).map(([path]) => path),
    });
  }

  #tell(news: ValueNews): void {
    try {
      this.values.onNews(news);
    } catch (error) {
      this.context.log.error('a change in etcd was not processed', { error });
    }
  }
}
