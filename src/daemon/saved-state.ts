import path from 'node:path';
import type { Clock } from '../clock.js';
import { STATE_FILES } from '../config/paths.js';
import { CoalescingTask } from '../coalescing-task.js';
import { parseNetworkConfig } from '../config/network-config.js';
import { describeError } from '../errors.js';
import type { Lease } from '../lease/lease.js';
import { decodePeerCache, encodePeerCache } from '../lease/peer-cache.js';
import { areSamePeers } from '../lease/peers.js';
import { type HistoryMark, decodeMark, encodeMark } from '../lease/world.js';
import type { Logger } from '../log.js';
import { errnoOf } from '../sys/errno.js';
import type { TextFiles } from '../sys/text-files.js';
import { type SavedOrigin, decodeOrigin, encodeOrigin } from './saved-origin.js';

/** What the daemon knew last, enough to carry packets while the store is away. */
export interface SavedState {
  /** Text of the network configuration. */
  readonly config: string;
  readonly own: Lease;
  /** Undefined where an earlier version wrote the state. */
  readonly origin: SavedOrigin | undefined;
  /** In order of their subnets. */
  readonly peers: readonly Lease[];
  /** By which the store's history is recognised; undefined if it is not known. */
  readonly mark: HistoryMark | undefined;
}

/** A {@link SavedState} that is to be saved. */
export type StateToSave = SavedState & { readonly origin: SavedOrigin };

const MODES = { file: 0o600, directory: 0o700 } as const;

/** Changes come in bursts, and the files only matter at a start without etcd. An orderly end writes at once. */
const SAVE_DELAY_MS = 10_000;

/** Peers that join and leave all day must not wear the disk out: 64 KiB in ten seconds. A peer takes some 200 bytes. */
const PEER_BYTES_PER_MS = 65_536 / 10_000;

/**
 * Renewals are not written. After this time the end of the lease is, so that a host that lost power knows within six
 * hours how long its lease still runs.
 */
const REFRESH_MS = 6 * 3_600_000;

/** After files could not be written. */
const RETRY_MS = 60_000;

/** What a {@link StateDirectory} is made of. */
export interface StateDirectoryOptions {
  readonly directory: string;
  /** Read where the directory holds nothing: where an earlier version kept the state. */
  readonly former?: string | undefined;
  readonly log: Logger;
  readonly clock: Clock;
  readonly files: TextFiles;
}

/**
 * Keeps the last known state in `--state-dir`.
 *
 * API: {@link load} once, {@link save} after every change, {@link close} at the end.
 * Limits: each file is written only if what it says has changed in a way that matters; renewals do not, of the own lease
 * and of others. How often the peers are written depends on their number.
 * Errors: a file that cannot be written is logged once, until writing works again, and tried again; one that cannot be
 * read is logged and counts as absent.
 */
export class StateDirectory {
  private readonly options: StateDirectoryOptions;
  private written: Partial<StateToSave> = {};
  private latest: (() => StateToSave | undefined) | undefined;
  private readonly writes: CoalescingTask;
  private peersNotBeforeMs = Number.NEGATIVE_INFINITY;
  private hasFailed = false;
  private isClosing = false;

  constructor(options: StateDirectoryOptions) {
    this.options = options;
    this.writes = new CoalescingTask(options.clock, () => this.write(this.isClosing));
  }

  /** What an earlier process saved, undefined if it is not all there and valid. */
  async load(): Promise<SavedState | undefined> {
    const { directory, former, log } = this.options;
    for (const from of former === undefined ? [directory] : [directory, former]) {
      try {
        return await this.loadFrom(from);
      } catch (error) {
        if (errnoOf(error) === 'ENOENT') continue;
        log.warn('the saved state cannot be used', {
          file: from,
          error,
          hint: 'nothing is lost unless etcd is away as well: it is written anew as soon as etcd answers',
        });
        return undefined;
      }
    }
    log.debug('no saved state to start from', { file: directory });
    return undefined;
  }

  private async loadFrom(directory: string): Promise<SavedState> {
    const [config = '', own = '', peers = ''] = await Promise.all(
      [STATE_FILES.config, STATE_FILES.own, STATE_FILES.peers].map((name) =>
        this.options.files.read(path.join(directory, name)),
      ),
    );
    parseNetworkConfig(config);
    const [lease] = decodePeerCache(own);
    if (lease === undefined) throw new TypeError(`${STATE_FILES.own} has no lease`);
    const { origin } = JSON.parse(own) as { readonly origin?: unknown };
    const mark = await this.loadMark(directory);
    return { config, own: lease, origin: decodeOrigin(origin), peers: decodePeerCache(peers), mark };
  }

  private async loadMark(directory: string): Promise<HistoryMark | undefined> {
    const { files, log } = this.options;
    try {
      return decodeMark(await files.read(path.join(directory, STATE_FILES.mark)));
    } catch (error) {
      log.debug('the history of the store is not known', { file: STATE_FILES.mark, error });
      return undefined;
    }
  }

  /**
   * Has the state written soon, as it is then; of several calls the last one counts.
   *
   * @param state - asked again whenever something is written; undefined where nothing is to be saved now.
   */
  save(state: () => StateToSave | undefined): void {
    this.latest = state;
    this.writes.schedule(SAVE_DELAY_MS);
  }

  /** Writes at once what has changed, the peers only if they are due. */
  async flush(): Promise<void> {
    await this.writes.runNow();
  }

  /** Writes all that is still to be written; nothing afterwards. Idempotent. */
  async close(): Promise<void> {
    this.isClosing = true;
    await this.writes.runNow();
    await this.writes.close();
  }

  private async write(isLast: boolean): Promise<void> {
    const { directory, log } = this.options;
    try {
      const state = this.latest?.();
      if (state === undefined) return;
      await this.writeChanges(state, isLast);
      this.hasFailed = false;
      this.writes.schedule(REFRESH_MS);
    } catch (error) {
      if (!this.hasFailed) {
        log.warn('the last known state cannot be saved, a start without etcd would not know it', {
          file: directory,
          detail: describeError(error),
          hint: 'make the directory writable, or name another one with --state-dir',
        });
      }
      this.hasFailed = true;
      this.writes.schedule(RETRY_MS);
    }
  }

  /** The mark last: one that is older than what else was saved says less, one that is younger would say too much. */
  private async writeChanges(state: StateToSave, isLast: boolean): Promise<void> {
    const { config, own, origin, peers, mark } = state;
    const { written } = this;
    let hasWritten = isLast;
    if (config !== written.config) {
      await this.put(STATE_FILES.config, config);
      this.written = { ...this.written, config };
      hasWritten = true;
    }
    if (isLast || hasOtherOwn(written, state)) {
      await this.put(STATE_FILES.own, encodePeerCache([own], encodeOrigin(origin)));
      this.written = { ...this.written, own, origin };
      hasWritten = true;
    }
    if (written.peers === undefined || !areSamePeers(written.peers, peers)) {
      const waitMs = this.peersNotBeforeMs - this.options.clock.monotonicMs();
      if (waitMs > 0 && !isLast) this.writes.schedule(waitMs);
      else {
        const text = encodePeerCache(peers);
        await this.put(STATE_FILES.peers, text);
        this.peersNotBeforeMs = this.options.clock.monotonicMs() + text.length / PEER_BYTES_PER_MS;
        this.written = { ...this.written, peers };
        hasWritten = true;
      }
    }
    if (hasWritten) await this.put(STATE_FILES.mark, mark === undefined ? '' : encodeMark(mark));
  }

  private put(name: string, text: string): Promise<void> {
    return this.options.files.write(path.join(this.options.directory, name), text, MODES);
  }
}

/** Whether the own lease is another one, or its end has moved so far that it is time to write it. */
function hasOtherOwn(written: Partial<StateToSave>, { own, origin }: StateToSave): boolean {
  if (written.own === undefined || written.origin === undefined) return true;
  if (encodePeerCache([written.own]) !== encodePeerCache([own])) return true;
  const { expiresAtMs } = origin;
  if (expiresAtMs === undefined || written.origin.expiresAtMs === undefined) {
    return expiresAtMs !== written.origin.expiresAtMs;
  }
  return Math.abs(expiresAtMs - written.origin.expiresAtMs) >= REFRESH_MS;
}
