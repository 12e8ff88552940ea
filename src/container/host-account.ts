import { type Clock, backoffMs } from '../clock.js';
import { CoalescingTask } from '../coalescing-task.js';
import { Deadline } from '../deadline.js';
import { isOverlayError } from '../errors.js';
import type { EtcdLeaseId } from '../lease/record.js';
import type { SharedValueStore } from '../lease/store.js';
import type { Logger } from '../log.js';
import { RateLimitedLog } from '../rate-limited-log.js';
import { Turns } from '../turns.js';
import { accountPath, encodeHostName, encodeUse, hostNamePath, usePath } from './account-records.js';
import type { SavedUse } from './address-book.js';
import type { HostLease } from './host-lease.js';
import { type HostPlace, encodePlace, placePath } from './host-place.js';
import type { PoolIdentity } from './pool-id.js';

/** Changes within that time are told together. */
const COLLECT_MS = 1000;

/** Changes in one step; etcd takes 128 (`--max-txn-ops`). */
const STEP = 100;

/** Addresses of one host that are told; a host has far fewer containers. */
const MAX_USES = 4096;

const TIMEOUT_MS = 10_000;
const RETRY_BASE_MS = 2000;
const RETRY_CAP_MS = 60_000;

/** What a {@link HostAccount} is made of. */
export interface HostAccountOptions {
  readonly host: string;
  /** For people. */
  readonly hostName: string;
  readonly store: SharedValueStore;
  readonly clock: Clock;
  readonly log: Logger;
  readonly lease: Pick<HostLease, 'id' | 'isValid'>;
  /** Where this host is; undefined until it has a lease in the overlay. */
  readonly place: () => HostPlace | undefined;
  /** What this host has of each network now. */
  readonly networks: () => readonly { readonly identity: PoolIdentity; readonly uses: Iterable<SavedUse> }[];
}

/** What etcd has of an account, by path. */
type Told = Map<string, { readonly text: string; readonly etcdLeaseId: EtcdLeaseId | undefined }>;

/**
 * Tells other hosts where this one is, and, for people who look at the cluster, what has which of its addresses.
 *
 * @remarks *API.* {@link changed} and {@link moved} say that there may be something to tell, {@link distrust} that etcd may have anything,
 * {@link clear} takes all back, {@link close} ends. *Cost.* At most one write each second, of at most 100 changes and
 * nothing but changes; nobody waits for it. *Errors.* What cannot be told is tried again with growing delays, and told
 * to the log once a minute.
 */
export class HostAccount {
  readonly #options: HostAccountOptions;
  readonly #task: CoalescingTask;
  readonly #turns = new Turns();
  readonly #closing = new AbortController();
  readonly #complaints: RateLimitedLog;
  #failures = 0;
  /** Undefined where etcd has to be asked. */
  #told: Told | undefined;
  #distrusts = 0;

  constructor(options: HostAccountOptions) {
    this.#options = options;
    this.#complaints = new RateLimitedLog(options.clock);
    this.#task = new CoalescingTask(options.clock, () => this.#run());
  }

  changed(): void {
    this.#task.schedule(COLLECT_MS);
  }

  /** Where this host is has changed, or is to be known for the first time: others wait for it. */
  moved(): void {
    this.#task.schedule(0);
  }

  /** Etcd may have anything: it was changed by others, or a write that was given up is carried out late. */
  distrust(): void {
    this.#distrusts++;
    this.#told = undefined;
    this.changed();
  }

  /**
   * Takes back what was told: its etcd lease is about to be given up.
   *
   * @throws the errors of the store
   */
  async clear(signal: AbortSignal): Promise<void> {
    while (await this.#turns.take(() => this.#tell(new Map(), signal), signal));
  }

  /** What was told stays. Idempotent. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#task.close();
  }

  async #run(): Promise<void> {
    const { clock, log, lease } = this.#options;
    if (!lease.isValid()) return; // whoever renews it says so
    const deadline = new Deadline(clock, TIMEOUT_MS, this.#closing.signal);
    try {
      const isMore = await this.#turns.take(() => this.#tell(this.#wanted(), deadline.signal), deadline.signal);
      if (isMore) this.changed();
      this.#failures = 0;
    } catch (error) {
      if (this.#closing.signal.aborted) return;
      this.#task.schedule(backoffMs(++this.#failures, RETRY_BASE_MS, RETRY_CAP_MS, () => clock.random()));
      if (isOverlayError(error, 'ERR_ETCD_UNAVAILABLE')) return; // the client of etcd tells
      this.#complaints.tell((count) => {
        log.warn('other hosts were not told what has which container address', { count, error });
      });
    } finally {
      deadline.clear();
    }
  }

  #wanted(): ReadonlyMap<string, string> {
    const { host, hostName, networks, place: placeNow } = this.#options;
    const all = networks();
    const place = placeNow();
    const uses = all
      .flatMap(({ identity, uses: each }) => [...each].map((use) => ({ identity, use })))
      .filter(({ use }) => !use.isLost)
      .slice(0, MAX_USES);
    return new Map([
      ...(all.length === 0 || place === undefined ? [] : [[placePath(host), encodePlace(place)] as const]),
      ...(all.length === 0 ? [] : [[hostNamePath(host), encodeHostName(hostName)] as const]),
      ...uses.map(({ identity, use }) => [usePath(host, identity, use.address), encodeUse(use)] as const),
    ]);
  }

  /** Has etcd know some of what differs. @returns whether more may differ. */
  async #tell(wanted: ReadonlyMap<string, string>, signal: AbortSignal): Promise<boolean> {
    const { store, lease } = this.#options;
    const told = (this.#told ??= await this.#list(signal));
    const { id: etcdLeaseId } = lease;
    const isTold = (path: string, text: string): boolean =>
      told.get(path)?.text === text && told.get(path)?.etcdLeaseId === etcdLeaseId;
    const deletes = [...told.keys()].filter((path) => !wanted.has(path)).slice(0, STEP);
    const puts = [...wanted]
      .filter(([path, text]) => !isTold(path, text))
      .slice(0, STEP - deletes.length)
      .map(([path, text]) => ({ path, text, etcdLeaseId }));
    const count = puts.length + deletes.length;
    if (count === 0) return false;
    const distrusts = this.#distrusts;
    this.#told = undefined; // unless etcd acknowledges it
    await store.transactValues({ conditions: [], puts, deletes }, signal);
    if (this.#distrusts !== distrusts) return true;
    this.#told = told;
    for (const path of deletes) told.delete(path);
    for (const { path, text } of puts) told.set(path, { text, etcdLeaseId });
    return count === STEP;
  }

  async #list(signal: AbortSignal): Promise<Told> {
    const { host, store } = this.#options;
    const place = (await store.listValues(placePath(host), signal)).filter(({ path }) => path === placePath(host));
    const entries = [...place, ...(await store.listValues(accountPath(host), signal))];
    return new Map(entries.map(({ path, text, etcdLeaseId }) => [path, { text, etcdLeaseId }]));
  }
}
