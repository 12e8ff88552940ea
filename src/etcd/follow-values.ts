import type { IEvent, IKeyValue, IRangeResponse, IWatchResponse } from 'etcd3/lib/rpc.js';
import { isAfter } from '../lease/record.js';
import type { ValueEntry, ValueNews, ValuesFollowing } from '../lease/store.js';
import type { FollowContext } from './follow.js';
import type { KeyRange } from './key-range.js';
import { keepFollowing, openSupervisedWatch } from './supervised-watch.js';
import { isDelete } from './world-builder.js';

/** The longest delay between attempts to follow. */
export const VALUES_RETRY_CAP_MS = 5000;

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
  #closeWatch: () => void = () => {};

  constructor(
    private readonly context: FollowContext,
    private readonly values: ValuesToFollow,
    private readonly signal: AbortSignal,
  ) {}

  relist(): void {
    this.#relists++;
    this.#position = undefined;
    this.#closeWatch();
  }

  async run(): Promise<void> {
    const { log } = this.context;
    await keepFollowing(
      this.context,
      this.signal,
      VALUES_RETRY_CAP_MS,
      async () => {
        await this.#followOnce();
        return false;
      },
      (error) => log.warn('cannot follow values in etcd', { error }),
    );
  }

  /** Lists if need be, and watches until the stream ends. */
  async #followOnce(): Promise<void> {
    const position = this.#position ?? (await this.#list());
    const watch = await openSupervisedWatch(
      this.context,
      this.values.range,
      position.revision,
      (response) => this.#take(response),
      this.signal,
    );
    this.#closeWatch = () => watch.close();
    try {
      const { cluster_id: clusterId, revision } = watch.header;
      const isContinued = clusterId === position.clusterId && !isAfter(position.revision, revision);
      if (!isContinued) this.#position = undefined;
      if (this.signal.aborted || this.#position !== position) return;
      const failure = await watch.believe();
      if (failure.kind !== 'compacted') return;
      this.context.counters.compactions++;
      this.#position = undefined;
    } finally {
      this.#closeWatch = () => {};
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
