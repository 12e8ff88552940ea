import type { IEvent, IKeyValue, IRangeResponse, IWatchResponse } from 'etcd3/lib/rpc.js';
import { backoffMs } from '../clock.js';
import { isAfter } from '../lease/record.js';
import type { Subscription } from '../lease/store.js';
import { type HistoryMark, type World, marksOf, newestMark } from '../lease/world.js';
import type { Logger } from '../log.js';
import { finishInTurns } from '../pace.js';
import type { KeyLayout } from './endpoints.js';
import { toEtcdId } from './entries.js';
import type { Failure } from './errors.js';
import { type KeyRange, prefixRange } from './key-range.js';
import { type WatchContext, keepFollowing, openSupervisedWatch } from './supervised-watch.js';
import { applyEvents, buildWorld, isDelete } from './world-builder.js';

/** What following needs, and counts. */
export interface FollowContext extends WatchContext {
  readonly keys: KeyLayout;
  readonly log: Logger;
  readonly counters: WatchContext['counters'] & { compactions: number };
  /** The latest lease that this host wrote: a history without it is another one, even if it was never heard of. */
  written: HistoryMark | undefined;
}

/**
 * Whether etcd still has the history that is known here: `same` it has, `other` it does not, `unknown` it has forgotten
 * what would tell.
 */
type Continuity = 'same' | 'other' | 'unknown';

/** The longest delay between attempts to follow. */
const RETRY_CAP_MS = 1500;

/** Delays between listings of everything that contradictions ask for. */
const DISTRUST_BASE_MS = 5000;
const DISTRUST_CAP_MS = 300_000;

/** A world that was trusted for that long: the next contradiction begins with the shortest delay. */
const TRUSTED_MS = 600_000;

/** A world that is being followed. */
export interface Following extends Subscription {
  /** As `OwnLeaseStore.distrust`. */
  distrust(world: World): void;
}

/**
 * Follows the configuration and all leases until it is closed.
 *
 * ```
 *       ┌───── compacted, or another history ─────┐
 *       ▼                                         │
 *  ──▶ list ──▶ open a watch ──▶ is the history the one we know? ──▶ events ──┐
 *                    ▲                                                        │
 *                    └─────────────── the stream broke ───────────────────────┘
 * ```
 *
 * @remarks
 * *One range*, one stream: configuration and leases arrive in the order in which they were written.
 *
 * *History.* After a wipe or a restore etcd counts from a lower revision, and new writes soon reach the old number. So
 * before the events of a watch are believed, witnesses are looked up at the revisions that wrote them: the newest known
 * key attached to an etcd lease, the configuration, and what this host wrote last; then the newest change that was
 * heard of, whatever it was. It is done after the watch was opened: that stream would not survive a later restore. A
 * watch resumes at the first witness, not at the last event: what came after it may be of a history that is gone, and
 * hearing it twice does no harm.
 *
 * *Contradictions.* Should all of that be the same in two histories, an answer shows it sooner or later: whoever gets one
 * that cannot be says so (`OwnLeaseStore.distrust`), and everything is listed as another history.
 */
export function followWorld(
  context: FollowContext,
  onWorld: (world: World) => void,
  since: HistoryMark | undefined,
): Following {
  const closing = new AbortController();
  const follower = new Follower(context, onWorld, since, closing.signal);
  void follower.run();
  return { close: () => closing.abort(), distrust: (world) => follower.distrust(world) };
}

class Follower {
  #world: World | undefined;
  /** Set when everything is to be listed anew: whether that listing continues the history that is known. */
  #relist: Continuity | undefined;
  /** The newest change that is part of the world, also one that leaves nothing behind or is no lease. */
  #newest: Pick<IEvent, 'type' | 'kv'> | undefined;
  #distrusts = 0;
  #trustedUntilMs = Number.NEGATIVE_INFINITY;
  /** Ends the watch that is open. */
  #closeWatch: () => void = () => {};

  constructor(
    private readonly context: FollowContext,
    private readonly onWorld: (world: World) => void,
    private readonly since: HistoryMark | undefined,
    private readonly signal: AbortSignal,
  ) {}

  async run(): Promise<void> {
    const { log } = this.context;
    await keepFollowing(
      this.context,
      this.signal,
      RETRY_CAP_MS,
      async () => {
        const wasListing = this.#relist !== undefined;
        this.#noteEnd(await this.#followOnce());
        return this.#relist !== undefined && !wasListing;
      },
      (error) => log.error('cannot follow configuration and leases in etcd', { error }),
    );
  }

  distrust(world: World): void {
    const { clock, log } = this.context;
    const now = clock.monotonicMs();
    if (this.#world?.epoch !== world.epoch || this.#relist !== undefined || now < this.#trustedUntilMs) return;
    this.#distrusts = now - this.#trustedUntilMs >= TRUSTED_MS ? 1 : this.#distrusts + 1;
    const delayMs = backoffMs(this.#distrusts, DISTRUST_BASE_MS, DISTRUST_CAP_MS, () => clock.random());
    this.#trustedUntilMs = now + delayMs;
    log.info('an answer of etcd contradicts what it told before, everything is listed again', {
      revision: world.revision,
      count: this.#distrusts,
    });
    this.#relist = 'other';
    this.#closeWatch();
  }

  /** Lists if need be, watches until the stream ends. @returns why it ended, undefined if it was left to list anew. */
  async #followOnce(): Promise<Failure | undefined> {
    const { world, after, isListed } = await this.#position();
    const watch = await openSupervisedWatch(
      this.context,
      this.#range(),
      after,
      (response) => this.#take(response),
      this.signal,
    );
    this.#closeWatch = () => watch.close();
    try {
      const witnesses = this.#witnessesOf(world);
      const continuity = await this.#compareHistory(world, witnesses);
      if (continuity !== 'same') {
        this.#relist = continuity;
        return undefined;
      }
      if (!isListed && (await this.#compareNewest(witnesses)) === 'other') {
        this.#relist = 'other';
        return undefined;
      }
      const isTailKnown = isListed || (await this.#isTailKnown(world));
      if (this.#isDistrusted()) return undefined; // since it was told while all that was asked
      if (!isTailKnown) {
        this.#relist = 'same';
        return undefined;
      }
      return await watch.believe();
    } finally {
      this.#closeWatch = () => {};
      watch.close();
    }
  }

  #isDistrusted(): boolean {
    return this.#relist !== undefined;
  }

  /** @returns the world to go on from and the revision after which to watch. */
  async #position(): Promise<{ readonly world: World; readonly after: string; readonly isListed: boolean }> {
    if (this.#world !== undefined && this.#relist === undefined) {
      const { revision } = newestMark(this.#world) ?? this.#world;
      return { world: this.#world, after: revision, isListed: false };
    }
    const isFirst = this.#world === undefined;
    // Whoever wrote it compares it with what is listed now.
    if (this.#relist !== 'same') this.context.written = undefined;
    const continuity = isFirst ? await this.#compareWithFormerProcess() : this.#relist;
    const { key, rangeEnd } = this.#range();
    const { kvs, header } = await this.#read({ key, range_end: rangeEnd });
    const isContinued = continuity === 'same' && header.cluster_id === (this.#world ?? this.since)?.clusterId;
    const epoch = (this.#world?.epoch ?? 0) + (isContinued ? 0 : 1);
    const { revision, cluster_id: clusterId } = header;
    const steps = buildWorld(this.context.keys, kvs, { epoch, revision, clusterId });
    const world = await finishInTurns(steps, this.context.clock);
    this.signal.throwIfAborted();
    if (!isContinued && !isFirst) this.#noteEpoch(continuity, header.revision);
    this.#relist = undefined;
    this.#newest = undefined;
    for (const kv of kvs) this.#noteChange({ type: 'Put', kv });
    this.#tell(world);
    return { world, after: revision, isListed: true };
  }

  /** What the history is to be recognised by: what was heard of, and what this host wrote and may not have heard of. */
  #witnessesOf(world: World): readonly HistoryMark[] {
    const heard = marksOf(world);
    const { written } = this.context;
    const isNews = written !== undefined && heard.every(({ revision }) => isAfter(written.revision, revision));
    return isNews ? [...heard, written] : heard;
  }

  async #compareWithFormerProcess(): Promise<Continuity> {
    return this.since === undefined ? 'unknown' : this.#compareHistory(this.since, [this.since]);
  }

  /**
   * @param known - the newest state that was known.
   * @param witnesses - none if nothing was known that could be one: then nothing can be lost.
   */
  async #compareHistory(
    known: Pick<World, 'clusterId' | 'revision'>,
    witnesses: readonly HistoryMark[],
  ): Promise<Continuity> {
    for (const witness of witnesses.length === 0 ? [undefined] : witnesses) {
      const continuity = await this.#findWitness(known, witness);
      if (continuity !== 'same') return continuity;
    }
    return 'same';
  }

  async #findWitness(
    known: Pick<World, 'clusterId' | 'revision'>,
    witness: HistoryMark | undefined,
  ): Promise<Continuity> {
    const { keys, client } = this.context;
    const key = Buffer.from(witness?.leaseKey === undefined ? keys.config : keys.subnets + witness.leaseKey);
    const { header, kvs } = await this.#read({ key });
    const hasReached = (revision: string): boolean => !isAfter(revision, header.revision);
    if (header.cluster_id !== known.clusterId || !hasReached(known.revision)) return 'other';
    if (witness !== undefined && !hasReached(witness.revision)) return 'other';
    const [current] = kvs;
    if (witness === undefined || isWitnessed(current, witness)) return 'same';
    if (current !== undefined && !isAfter(current.mod_revision, witness.revision)) return 'other';
    const then = await client.callUnless<IRangeResponse>(
      'compacted',
      'KV',
      'range',
      { key, revision: witness.revision },
      this.signal,
    );
    if (then === undefined) return 'unknown';
    return isWitnessed(then.kvs[0], witness) ? 'same' : 'other';
  }

  #noteChange(change: Pick<IEvent, 'type' | 'kv'>): void {
    if (isAfter(change.kv.mod_revision, this.#newest?.kv.mod_revision ?? '0')) this.#newest = change;
  }

  /**
   * Whether the newest change is part of this history: what was written is there at its revision, what was deleted is
   * not, and was there right before.
   *
   * @param witnesses - what has been found in it.
   */
  async #compareNewest(witnesses: readonly HistoryMark[]): Promise<Continuity> {
    if (this.#newest === undefined) return 'same';
    const { kv, ...event } = this.#newest;
    const { key, mod_revision: revision } = kv;
    if (witnesses.some((witness) => witness.revision === revision)) return 'same';
    const readAt = (at: string): Promise<IRangeResponse | undefined> =>
      this.context.client.callUnless('compacted', 'KV', 'range', { key, revision: at }, this.signal);
    if (!isDelete(event)) {
      const then = await readAt(revision);
      if (then === undefined) return 'unknown';
      return isSameEntry(then.kvs[0], kv) ? 'same' : 'other';
    }
    const [then, before] = await Promise.all([readAt(revision), readAt((BigInt(revision) - 1n).toString())]);
    if (then === undefined || before === undefined) return 'unknown';
    return then.kvs.length === 0 && before.kvs.length > 0 ? 'same' : 'other';
  }

  /**
   * Whether what happened after the newest witness is part of this history, too: what was deleted leaves none.
   *
   * @remarks What is not shown by this is a reservation or an unreadable entry that another one took the place of.
   */
  async #isTailKnown({ revision, leases, bad, config }: World): Promise<boolean> {
    const { keys, client } = this.context;
    const { key, rangeEnd } = prefixRange(keys.subnets);
    const [subnets, configuration] = await Promise.all(
      [
        { key, range_end: rangeEnd, revision, count_only: true },
        { key: Buffer.from(keys.config), revision },
      ].map((request) => client.callUnless<IRangeResponse>('compacted', 'KV', 'range', request, this.signal)),
    );
    if (subnets === undefined || configuration === undefined) {
      this.#noteCompaction();
      return false;
    }
    return Number(subnets.count) === leases.size + bad.size && configuration.kvs[0]?.mod_revision === config?.revision;
  }

  #read(request: { readonly key: Buffer; readonly range_end?: Buffer }): Promise<IRangeResponse> {
    return this.context.client.call('KV', 'range', request, this.signal);
  }

  /** From the configuration to the last lease, with whatever lies between. */
  #range(): Required<KeyRange> {
    const { config, subnets } = this.context.keys;
    return { key: Buffer.from(config), rangeEnd: prefixRange(subnets).rangeEnd };
  }

  #take(response: IWatchResponse): void {
    if (this.#world === undefined || response.events.length === 0) return;
    for (const event of response.events) this.#noteChange(event);
    this.#tell(applyEvents(this.context.keys, this.#world, response.events));
  }

  #tell(world: World): void {
    if (this.signal.aborted || world === this.#world) return;
    this.#world = world;
    try {
      this.onWorld(world);
    } catch (error) {
      this.context.log.error('a change in etcd was not processed', { revision: world.revision, error });
    }
  }

  #noteEpoch(continuity: Continuity | undefined, revision: string): void {
    const { log } = this.context;
    if (continuity === 'other') {
      log.warn('etcd was restored or wiped, or is another one: everything is read and the own lease asserted again', {
        revision,
        hint: 'peers that it does not know are kept for some minutes, so that they can do the same',
      });
    } else {
      log.info('etcd has forgotten what happened meanwhile, everything is read again', { revision });
    }
  }

  #noteEnd(failure: Failure | undefined): void {
    if (failure === undefined || this.#isDistrusted()) return;
    const { log } = this.context;
    if (failure.kind === 'compacted') {
      this.#noteCompaction();
      // The watch was opened on a history that was recognised.
      this.#relist = 'same';
    } else if (failure.kind === 'final') {
      throw failure.error;
    } else {
      log.debug('watch broke and is opened again', { detail: failure.detail });
    }
  }

  #noteCompaction(): void {
    const { log, counters } = this.context;
    counters.compactions++;
    log.info('etcd compacted the history, everything is listed again', { revision: this.#world?.revision });
  }
}

/** Whether an entry is the very one that a mark tells of. */
function isWitnessed(entry: IKeyValue | undefined, mark: HistoryMark): boolean {
  return (
    entry?.mod_revision === mark.revision &&
    entry.create_revision === mark.createdAt &&
    entry.lease === toEtcdId(mark.etcdLeaseId)
  );
}

/** Whether two entries are of one key, written by one and the same change. */
function isSameEntry(entry: IKeyValue | undefined, other: IKeyValue): boolean {
  return (
    entry?.mod_revision === other.mod_revision &&
    entry.create_revision === other.create_revision &&
    entry.lease === other.lease &&
    entry.value.equals(other.value)
  );
}
