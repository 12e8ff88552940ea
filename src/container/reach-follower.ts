import { Alarm } from '../alarm.js';
import type { Clock } from '../clock.js';
import { CoalescingTask } from '../coalescing-task.js';
import { guarded } from '../guard.js';
import type { Prefix } from '../ip/prefix.js';
import type { SharedValueStore, ValueEntry, ValueNews, ValuesFollowing } from '../lease/store.js';
import type { World } from '../lease/world.js';
import type { Logger } from '../log.js';
import { errnoOf } from '../sys/errno.js';
import type { TextFiles } from '../sys/text-files.js';
import { FACTS_PATH, type Fact, isSameFact, readFact } from './network-facts.js';
import { readObject } from './records.js';

/** What is known of where packets for containers go; another object whenever it says something else. */
export interface KnownFacts {
  /** By path. */
  readonly facts: ReadonlyMap<string, Fact>;
  /** Paths of those that etcd does not have any more, and that are kept for a while. */
  readonly fading: ReadonlySet<string>;
  /** Paths that cannot be read. */
  readonly bad: ReadonlySet<string>;
}

/** What a {@link ReachFollower} is made of. */
export interface ReachFollowerOptions {
  readonly store: Pick<SharedValueStore, 'followValues'>;
  readonly clock: Clock;
  readonly log: Logger;
  readonly files: TextFiles;
  /** Where what is known is kept. */
  readonly file: string;
  /** Of the keys, so that what was kept for another cluster is told apart. */
  readonly etcdPrefix: string;
  /** Called when {@link ReachFollower.known} is another one. */
  readonly onChange: () => void;
}

/** What comes within that time is told together: an address that moves is deleted here and written there. */
const COLLECT_MS = 20;

/**
 * What is gone and back within that time has never been away: a host that lost its etcd lease by mistake takes another
 * one at once. Single addresses have no such time, since an address may be anywhere as soon as its key is gone.
 */
const GRACE_MS = 2000;

/**
 * How long is kept what a listing does not have: etcd may have been wiped or restored, and hosts look at it within a
 * minute, and once they have learned of it at once. As long as for leases, see `PeerSet`.
 */
const RETENTION_MS = 400_000;

/** Paths that are remembered; 5000 hosts with ten networks each have fewer. */
const MAX_FACTS = 131_072;

/** A file that is longer than any that is written is not read. */
const MAX_FILE = 32 * 1024 * 1024;

/** Changes come in bursts, and the file matters at a start without etcd only. */
const SAVE_DELAY_MS = 10_000;

/** Containers that come and go all day must not wear the disk out: 64 KiB in ten seconds. */
const BYTES_PER_MS = 65_536 / 10_000;

const RETRY_MS = 60_000;

const MODES = { file: 0o600, directory: 0o700 } as const;

/** What is remembered of a key. */
interface Known extends Pick<ValueEntry, 'path' | 'text' | 'createdAt'> {
  readonly fact: Fact;
}

/**
 * Follows which host has which addresses of containers, and where the hosts are.
 *
 * @remarks
 * *API.* {@link load} what an earlier process saved, {@link start}, {@link observe} with every world, {@link close};
 * {@link known} at any time.
 *
 * *Rules.* What is deleted goes, blocks and hosts after a grace. What a listing lacks was not given up by anybody, since
 * etcd may have another history: it is kept for some minutes, unless somebody else has it by then.
 *
 * *Limits.* {@link MAX_FACTS} keys are remembered; changes that say nothing new of where packets go, such as a container
 * more in a block, are not told.
 */
export class ReachFollower {
  readonly #options: ReachFollowerOptions;
  readonly #entries = new Map<string, Known>();
  /** When, on the monotonic clock, those go that etcd does not have, by path. */
  readonly #fading = new Map<string, number>();
  readonly #bad = new Set<string>();
  /** How many single addresses there are in each pool that has any. */
  readonly #singles = new Map<string, number>();
  readonly #telling: Alarm;
  readonly #expiry: Alarm;
  readonly #saving: CoalescingTask;
  #known: KnownFacts = { facts: new Map(), fading: new Set(), bad: new Set() };
  #following: ValuesFollowing | undefined;
  #epoch = 0;
  #saveNotBeforeMs = Number.NEGATIVE_INFINITY;
  #hasFailed = false;
  #isUnsaved = false;

  constructor(options: ReachFollowerOptions) {
    this.#options = options;
    const { clock, log: logger } = options;
    const guard = { clock, logger, what: 'addresses of containers on other hosts' };
    this.#telling = new Alarm(
      clock,
      guarded(guard, () => this.#tell()),
    );
    this.#expiry = new Alarm(
      clock,
      guarded(guard, () => this.#expire()),
    );
    this.#saving = new CoalescingTask(clock, () => this.#save());
  }

  get known(): KnownFacts {
    return this.#known;
  }

  /** Takes up what an earlier process saved, until etcd tells. */
  async load(): Promise<void> {
    const { file, files, log } = this.#options;
    let text: string;
    try {
      text = await files.read(file);
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') log.warn('where containers are was saved and cannot be read', { file, error });
      return;
    }
    const entries = readSaved(text, this.#options.etcdPrefix);
    if (entries === undefined) {
      log.warn('where containers are was saved and cannot be used, it is read from etcd', { file });
      return;
    }
    for (const entry of entries) this.#put(entry);
    for (const path of this.#entries.keys()) this.#fading.set(path, Number.POSITIVE_INFINITY);
    this.#isUnsaved = false;
    this.#tell();
  }

  /** Begins to follow; what was loaded counts until etcd has told. */
  start(): void {
    this.#following = this.#options.store.followValues(FACTS_PATH, (news) => this.#take(news));
  }

  /** Takes notice of the history that etcd has now. */
  observe({ epoch }: Pick<World, 'epoch'>): void {
    if (epoch === this.#epoch) return;
    this.#epoch = epoch;
    this.#following?.relist();
  }

  /** Writes what is still to be written. Idempotent. */
  async close(): Promise<void> {
    this.#following?.close();
    this.#telling.cancel();
    this.#expiry.cancel();
    if (this.#isUnsaved) {
      this.#saveNotBeforeMs = Number.NEGATIVE_INFINITY;
      await this.#saving.runNow();
    }
    await this.#saving.close();
  }

  #take({ isListing, written, deleted }: ValueNews): void {
    const nowMs = this.#options.clock.monotonicMs();
    let isNews = false;
    if (isListing) {
      const present = new Set(written.map(({ path }) => path));
      for (const path of this.#bad) if (!present.has(path)) isNews = this.#bad.delete(path) || isNews;
      for (const path of this.#entries.keys()) {
        if (present.has(path) || Number.isFinite(this.#fading.get(path))) continue;
        this.#fading.set(path, nowMs + RETENTION_MS);
        isNews = true;
      }
    }
    for (const entry of written) isNews = this.#put(entry) || isNews;
    for (const path of deleted) isNews = this.#drop(path, nowMs) || isNews;
    this.#setExpiry();
    if (isNews) this.#telling.set(COLLECT_MS);
  }

  /** @returns whether that says something new. */
  #put({ path, text, createdAt }: Pick<ValueEntry, 'path' | 'text' | 'createdAt'>): boolean {
    const wasFading = this.#fading.delete(path);
    const former = this.#entries.get(path);
    if (former?.text === text && former.createdAt === createdAt) return wasFading;
    const fact = readFact({ path, text, createdAt });
    if (fact === 'bad' || fact === 'none') {
      const wasBad = this.#bad.has(path);
      if (fact === 'bad' && this.#bad.size < MAX_FACTS) this.#bad.add(path);
      else this.#bad.delete(path);
      return this.#forget(path) || wasBad !== this.#bad.has(path);
    }
    if (former === undefined && this.#entries.size >= MAX_FACTS) return false;
    this.#count(former?.fact, -1);
    this.#count(fact, 1);
    this.#entries.set(path, { path, text, createdAt, fact });
    const isNews = this.#bad.delete(path) || !this.#isSame(former?.fact, fact);
    if (isNews) this.#noteUnsaved();
    return isNews || wasFading;
  }

  /** Which addresses the host of a block may give out matters only where others have single ones. */
  #isSame(former: Fact | undefined, fact: Fact): boolean {
    if (isSameFact(former, fact)) return true;
    if (former?.kind !== 'block' || fact.kind !== 'block') return false;
    return former.host === fact.host && !this.#singles.has(fact.pool);
  }

  #count(fact: Fact | undefined, more: 1 | -1): void {
    if (fact?.kind !== 'address') return;
    const count = (this.#singles.get(fact.pool) ?? 0) + more;
    if (count === 0) this.#singles.delete(fact.pool);
    else this.#singles.set(fact.pool, count);
  }

  #forget(path: string): boolean {
    this.#count(this.#entries.get(path)?.fact, -1);
    this.#fading.delete(path);
    return this.#entries.delete(path);
  }

  /** @returns whether that says something new. */
  #drop(path: string, nowMs: number): boolean {
    const wasBad = this.#bad.delete(path);
    const former = this.#entries.get(path);
    if (former === undefined) return wasBad;
    this.#noteUnsaved();
    if (former.fact.kind === 'address') return this.#forget(path);
    this.#fading.set(path, Math.min(this.#fading.get(path) ?? Number.POSITIVE_INFINITY, nowMs + GRACE_MS));
    return true;
  }

  #expire(): void {
    const nowMs = this.#options.clock.monotonicMs();
    let isNews = false;
    for (const [path, untilMs] of this.#fading) {
      if (untilMs > nowMs) continue;
      isNews = this.#forget(path) || isNews;
    }
    this.#setExpiry();
    if (!isNews) return;
    this.#noteUnsaved();
    this.#tell();
  }

  #setExpiry(): void {
    this.#expiry.cancel();
    let nextMs = Number.POSITIVE_INFINITY;
    for (const untilMs of this.#fading.values()) nextMs = Math.min(nextMs, untilMs);
    if (Number.isFinite(nextMs)) this.#expiry.set(Math.max(0, nextMs - this.#options.clock.monotonicMs()));
  }

  #tell(): void {
    this.#telling.cancel();
    const facts = new Map<string, Fact>();
    for (const [path, { fact }] of this.#entries) facts.set(path, fact);
    this.#known = { facts, fading: new Set(this.#fading.keys()), bad: new Set(this.#bad) };
    this.#options.onChange();
  }

  #noteUnsaved(): void {
    this.#isUnsaved = true;
    this.#saving.schedule(SAVE_DELAY_MS);
  }

  async #save(): Promise<void> {
    const { clock, etcdPrefix, file, files, log } = this.#options;
    if (!this.#isUnsaved) return;
    const waitMs = this.#saveNotBeforeMs - clock.monotonicMs();
    if (waitMs > 0) {
      this.#saving.schedule(waitMs);
      return;
    }
    this.#isUnsaved = false;
    const entries = [...this.#entries.values()].map(({ path, text, createdAt }) => [path, text, createdAt]);
    const saved = `${JSON.stringify({ version: 1, etcdPrefix, entries })}\n`;
    this.#saveNotBeforeMs = clock.monotonicMs() + saved.length / BYTES_PER_MS;
    try {
      await files.write(file, saved, MODES);
      this.#hasFailed = false;
    } catch (error) {
      this.#isUnsaved = true;
      this.#saving.schedule(RETRY_MS);
      if (this.#hasFailed) return;
      this.#hasFailed = true;
      log.warn('where containers are cannot be saved, a start without etcd would not know it', {
        file,
        error,
        hint: 'make the directory writable, or name another one with --state-dir',
      });
    }
  }
}

/** Routed networks that an earlier process saved; none if the text is of no process of this cluster. */
export function readSavedNetworks(text: string, etcdPrefix: string): readonly Prefix[] {
  const facts = (readSaved(text, etcdPrefix) ?? []).map(readFact);
  return facts.flatMap((fact) => (typeof fact === 'object' && fact.kind === 'network' ? [fact.subnet] : []));
}

/** Undefined for what no process of this cluster has written. */
function readSaved(
  text: string,
  etcdPrefix: string,
): readonly Pick<ValueEntry, 'path' | 'text' | 'createdAt'>[] | undefined {
  const saved = text.length <= MAX_FILE ? readObject(text, MAX_FILE) : undefined;
  const entries = saved?.['entries'];
  if (saved?.['version'] !== 1 || saved['etcdPrefix'] !== etcdPrefix || !Array.isArray(entries)) return undefined;
  return entries.flatMap((entry: unknown) => {
    const [path, value, createdAt] = Array.isArray(entry) ? (entry as readonly unknown[]) : [];
    const isEntry = typeof path === 'string' && typeof value === 'string' && typeof createdAt === 'string';
    return isEntry && /^\d{1,20}$/.test(createdAt) ? [{ path, text: value, createdAt }] : [];
  });
}
