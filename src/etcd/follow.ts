import type { IEvent, IKeyValue, IRangeResponse, IWatchResponse } from 'etcd3/lib/rpc.js';
import { type Clock, backoffMs } from '../clock.js';
import { isOverlayError } from '../errors.js';
import type { Subscription } from '../lease/store.js';
import type { Logger } from '../log.js';
import type { EtcdClient } from './client.js';
import type { Failure } from './errors.js';

/** Keys from `key` up to, but not including, `rangeEnd`; just `key` without it. */
export interface KeyRange {
  readonly key: Buffer;
  readonly rangeEnd?: Buffer;
}

/** Told what lies in a {@link KeyRange}. */
export interface RangeObserver {
  onSnapshot(entries: readonly IKeyValue[], revision: string): void;
  onEvents(events: readonly IEvent[]): void;
}

/** What following needs, and counts. */
export interface FollowContext {
  readonly client: EtcdClient;
  readonly clock: Clock;
  readonly log: Logger;
  readonly counters: { watchRestarts: number; compactions: number };
}

/** flannel's delays between attempts to watch again. */
const RETRY_BASE_MS = 100;
const RETRY_CAP_MS = 5000;

/** A stream that lived that long was a good one: the next attempt starts with the shortest delay. */
const GOOD_STREAM_MS = 5000;

const COMPLAIN_EVERY_MS = 60_000;

/** All keys that begin with these bytes. */
export function prefixRange(prefix: string): Required<KeyRange> {
  const key = Buffer.from(prefix);
  const rangeEnd = Buffer.from(key);
  // No prefix used here ends in 0xff, which would carry.
  rangeEnd[rangeEnd.length - 1] = (rangeEnd.at(-1) ?? 0) + 1;
  return { key, rangeEnd };
}

/** One key. */
export function singleKey(key: string): KeyRange {
  return { key: Buffer.from(key) };
}

/**
 * Follows a range of keys until it is closed: lists, then watches from the listing's revision + 1.
 *
 * ```
 *           ┌──────── compacted, or history went back ────────┐
 *           ▼                                                 │
 *  ──▶ list at R ──▶ watch from R+1 ──▶ events ──▶ stream broke: watch from the last event + 1
 * ```
 *
 * @remarks The place to resume is the last *event*'s revision, not the response's: to a watcher that lags, etcd sends
 * a thousand revisions at a time under the header of the newest one. Before resuming, the current revision is asked
 * for: an etcd that was wiped or restored starts from a lower one and would let the old watch wait in silence.
 */
export function followRange(context: FollowContext, range: KeyRange, observer: RangeObserver): Subscription {
  const closing = new AbortController();
  void new Follower(context, range, observer, closing.signal).run();
  return { close: () => closing.abort() };
}

class Follower {
  /** First revision not seen yet; undefined before the first listing and when events are missing. */
  #next: bigint | undefined;
  #complainedAtMs = Number.NEGATIVE_INFINITY;

  constructor(
    private readonly context: FollowContext,
    private readonly range: KeyRange,
    private readonly observer: RangeObserver,
    private readonly signal: AbortSignal,
  ) {}

  async run(): Promise<void> {
    const { clock, counters } = this.context;
    let attempt = 0;
    while (!this.#isOver()) {
      let livedMs = 0;
      try {
        const next = await this.#position();
        const startedMs = clock.monotonicMs();
        const failure = await this.#watch(next);
        livedMs = clock.monotonicMs() - startedMs;
        if (this.#isOver()) return;
        counters.watchRestarts++;
        this.#noteEnd(failure);
      } catch (error) {
        if (this.#isOver()) return;
        this.#complain(error);
      }
      attempt = livedMs >= GOOD_STREAM_MS ? 1 : attempt + 1;
      try {
        await clock.sleep(
          backoffMs(attempt, RETRY_BASE_MS, RETRY_CAP_MS, () => clock.random()),
          this.signal,
        );
      } catch {
        return; // The only thing that ends a sleep early is close().
      }
    }
  }

  #isOver(): boolean {
    return this.signal.aborted || this.context.client.isClosed;
  }

  /** Lists unless events can be resumed. @returns the revision to watch from. */
  async #position(): Promise<bigint> {
    if (this.#next !== undefined) {
      const probe = await this.#list(true);
      if (BigInt(probe.header.revision) >= this.#next - 1n) return this.#next;
      this.context.log.warn('etcd history went back, everything is listed again', { revision: probe.header.revision });
    }
    const { kvs, header } = await this.#list(false);
    this.signal.throwIfAborted();
    this.#next = BigInt(header.revision) + 1n;
    this.#tell(() => this.observer.onSnapshot(kvs, header.revision));
    return this.#next;
  }

  #list(isProbe: boolean): Promise<IRangeResponse> {
    const { key, rangeEnd } = this.range;
    const scope = isProbe ? { key, limit: 1, keys_only: true } : { key, range_end: rangeEnd };
    return this.context.client.call('KV', 'range', scope, this.signal);
  }

  async #watch(next: bigint): Promise<Failure> {
    const { key, rangeEnd } = this.range;
    const watch = await this.context.client.openWatch(
      { key, ...(rangeEnd && { range_end: rangeEnd }), start_revision: next.toString(), progress_notify: true },
      (response) => this.#onResponse(response),
      this.signal,
    );
    const close = (): void => watch.close();
    this.signal.addEventListener('abort', close);
    if (this.signal.aborted) close();
    const failure = await watch.ended;
    this.signal.removeEventListener('abort', close);
    return failure;
  }

  #onResponse(response: IWatchResponse): void {
    if (this.signal.aborted || this.#next === undefined) return;
    const next = this.#next;
    const fresh = response.events.filter((event) => BigInt(event.kv.mod_revision) >= next);
    const last = fresh.at(-1);
    if (last !== undefined) {
      this.#next = BigInt(last.kv.mod_revision) + 1n;
      this.#tell(() => this.observer.onEvents(fresh));
    } else if (response.events.length === 0) {
      // A progress notification: etcd sends it only to a watcher that has seen everything up to there.
      const seen = BigInt(response.header.revision) + 1n;
      if (seen > this.#next) this.#next = seen;
    }
  }

  #noteEnd(failure: Failure): void {
    const { log, counters } = this.context;
    if (failure.kind === 'compacted') {
      counters.compactions++;
      log.info('etcd compacted the history, everything is listed again', { revision: this.#next?.toString() });
      this.#next = undefined;
    } else if (failure.kind === 'final') {
      this.#complain(failure.error);
    } else {
      log.debug('watch broke and is opened again', { detail: failure.detail });
    }
  }

  /** An etcd that is away has been reported by the client already. */
  #complain(error: unknown): void {
    if (isOverlayError(error, 'ERR_ETCD_UNAVAILABLE')) return;
    const now = this.context.clock.monotonicMs();
    if (now - this.#complainedAtMs < COMPLAIN_EVERY_MS) return;
    this.#complainedAtMs = now;
    this.context.log.error('cannot follow keys in etcd', { key: this.range.key.toString(), error });
  }

  #tell(report: () => void): void {
    if (this.signal.aborted) return;
    try {
      report();
    } catch (error) {
      this.context.log.error('a change in etcd was not processed', { key: this.range.key.toString(), error });
    }
  }
}
