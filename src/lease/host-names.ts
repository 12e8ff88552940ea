import type { Clock } from '../clock.js';
import type { Logger } from '../log.js';
import { HOST_STATUS_PATH, decodeHostStatus } from './host-status.js';
import type { ValueStore } from './store.js';

/** The names change when hosts come and go; a listing has every host of the cluster. */
const PAUSE_MS = 60_000;

/** RFC 1035 2.3.4 as text; Linux allows 64. */
const HOST_NAME = /^[\w.-]{1,253}$/;

/**
 * The names that other hosts announce, for people only.
 *
 * API: {@link refresh} whenever somebody looks, {@link nameOf} at any time. The store is asked only then, and at most
 * once a minute: a cluster in which nobody looks pays nothing.
 * Errors: none; what cannot be read or is no name stays unknown.
 */
export class HostNames {
  private names: ReadonlyMap<string, string> = new Map();
  private reading: Promise<void> | undefined;
  private notBeforeMs = Number.NEGATIVE_INFINITY;

  constructor(
    private readonly store: Pick<ValueStore, 'listValues'>,
    private readonly clock: Clock,
    private readonly log: Logger,
  ) {}

  /** @param publicIp - of the host, as text. */
  nameOf(publicIp: string): string | undefined {
    return this.names.get(publicIp);
  }

  /**
   * Asks the store if that was not done lately; resolves when it has answered or failed.
   *
   * @param publicIps - of the hosts whose names are wanted, as text; no others are kept.
   */
  refresh(publicIps: ReadonlySet<string>): Promise<void> {
    if (this.reading === undefined && this.clock.monotonicMs() >= this.notBeforeMs) {
      this.notBeforeMs = this.clock.monotonicMs() + PAUSE_MS;
      this.reading = this.read(publicIps).finally(() => (this.reading = undefined));
    }
    return this.reading ?? Promise.resolve();
  }

  private async read(publicIps: ReadonlySet<string>): Promise<void> {
    try {
      const entries = await this.store.listValues(HOST_STATUS_PATH);
      const names = entries.map(({ path, text }) => {
        return [path.slice(HOST_STATUS_PATH.length), decodeHostStatus(text)?.hostName ?? ''] as const;
      });
      this.names = new Map(names.filter(([publicIp, name]) => publicIps.has(publicIp) && HOST_NAME.test(name)));
    } catch (error) {
      this.log.debug('names of hosts not read', { error });
    }
  }
}
