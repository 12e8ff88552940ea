import path from 'node:path';
import { parseNetworkConfig } from '../config/network-config.js';
import { describeError } from '../errors.js';
import type { Lease } from '../lease/lease.js';
import { decodePeerCache, encodePeerCache } from '../lease/peer-cache.js';
import { type HistoryMark, decodeMark, encodeMark } from '../lease/world.js';
import type { Logger } from '../log.js';
import { type TextFiles, systemFiles } from '../sys/text-files.js';

/** What the daemon knew last, enough to carry packets while the store is away. */
export interface SavedState {
  /** Text of the network configuration. */
  readonly config: string;
  readonly own: Lease;
  readonly peers: readonly Lease[];
  /** By which the store's history is recognised; undefined if it is not known. */
  readonly mark: HistoryMark | undefined;
}

const FILES = { config: 'config.json', own: 'own-lease.json', peers: 'peers.json' } as const;

/** Missing where an earlier version wrote the state: then nothing is known of the history. */
const MARK_FILE = 'history.json';

/**
 * Peers change often in a large cluster, writing thousands of them takes tens of milliseconds, and the file only
 * matters at a start without etcd. An orderly end writes at once.
 */
const SAVE_DELAY_MS = 10_000;

/**
 * Keeps the last known state in `--state-dir`.
 *
 * Errors: a file that cannot be written is logged once, until writing works again; one that cannot be read counts as absent.
 */
export class StateDirectory {
  private readonly written = new Map<string, string>();
  private pending: (() => SavedState) | undefined;
  private cancelTimer: (() => void) | undefined;
  private writing: Promise<void> = Promise.resolve();
  private hasFailed = false;

  constructor(
    private readonly directory: string,
    private readonly log: Logger,
    private readonly after: (ms: number, callback: () => void) => () => void,
    private readonly files: TextFiles = systemFiles,
  ) {}

  /** What an earlier process saved, undefined if it is not all there and valid. */
  async load(): Promise<SavedState | undefined> {
    try {
      const [config, own, peers] = await Promise.all(
        Object.values(FILES).map((name) => this.files.read(path.join(this.directory, name))),
      );
      parseNetworkConfig(config ?? '');
      const [lease] = decodePeerCache(own ?? '');
      if (lease === undefined) return undefined;
      return { config: config ?? '', own: lease, peers: decodePeerCache(peers ?? ''), mark: await this.loadMark() };
    } catch (error) {
      this.log.debug('no saved state to start from', { file: this.directory, error });
      return undefined;
    }
  }

  private async loadMark(): Promise<HistoryMark | undefined> {
    try {
      return decodeMark(await this.files.read(path.join(this.directory, MARK_FILE)));
    } catch (error) {
      this.log.debug('the history of the store is not known', { file: MARK_FILE, error });
      return undefined;
    }
  }

  /** Has the state written soon, as it is then; of several calls the last one counts. */
  save(state: () => SavedState): void {
    this.pending = state;
    this.cancelTimer ??= this.after(SAVE_DELAY_MS, () => void this.flush());
  }

  /** Writes at once what is still to be written. */
  async flush(): Promise<void> {
    this.cancelTimer?.();
    this.cancelTimer = undefined;
    const { pending } = this;
    this.pending = undefined;
    if (pending !== undefined) this.writing = this.writing.then(() => this.write(pending));
    await this.writing;
  }

  private async write(pending: () => SavedState): Promise<void> {
    try {
      const state = pending();
      const texts = {
        [FILES.config]: state.config,
        [FILES.own]: encodePeerCache([state.own]),
        [FILES.peers]: encodePeerCache(state.peers),
        // Last: a mark that is older than what else was saved says less, one that is younger would say too much.
        [MARK_FILE]: state.mark === undefined ? '' : encodeMark(state.mark),
      };
      for (const [name, text] of Object.entries(texts)) {
        if (this.written.get(name) === text) continue;
        await this.files.write(path.join(this.directory, name), text, { file: 0o600, directory: 0o700 });
        this.written.set(name, text);
      }
      this.hasFailed = false;
    } catch (error) {
      if (!this.hasFailed) {
        this.log.warn('last known peers cannot be saved, a start without etcd would not know them', {
          file: this.directory,
          detail: describeError(error),
          hint: 'make the directory writable, or name another one with --state-dir',
        });
      }
      this.hasFailed = true;
    }
  }
}
