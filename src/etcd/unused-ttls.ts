import type { TtlId } from '../lease/record.js';
import type { Logger } from '../log.js';

/** Far more than ever wait at a time; beyond it the oldest are left to end by themselves. */
const MAX_WAITING = 256;

/**
 * etcd leases that nothing needs any more: those whose key was written by another way, deleted, or never came about.
 *
 * @remarks An etcd lease without keys lives for its whole TTL, a day; a host that may not write, or whose key somebody
 * deletes again and again, would leave thousands. Each is given up as soon as etcd answers and no key hangs on it.
 */
export class UnusedTtls {
  readonly #waiting = new Set<TtlId>();
  #running: Promise<void> | undefined;

  /** @param release - gives one up unless keys hang on it; may reject. */
  constructor(
    private readonly release: (ttlId: TtlId) => Promise<'released' | 'in-use'>,
    private readonly log: Logger,
  ) {}

  /** Has it given up, at once if possible. */
  add(ttlId: TtlId): void {
    this.#waiting.add(ttlId);
    const [oldest] = this.#waiting;
    if (this.#waiting.size > MAX_WAITING && oldest !== undefined) this.#waiting.delete(oldest);
    void this.sweep();
  }

  /** Tries all that wait; never rejects. Worth a call whenever etcd has just answered. */
  sweep(): Promise<void> {
    if (this.#waiting.size === 0) return Promise.resolve();
    this.#running ??= this.#releaseAll().finally(() => (this.#running = undefined));
    return this.#running;
  }

  async #releaseAll(): Promise<void> {
    for (const ttlId of [...this.#waiting]) {
      try {
        if ((await this.release(ttlId)) === 'released') this.#waiting.delete(ttlId);
      } catch (error) {
        this.log.debug('an unused etcd lease stays for now', { etcdLeaseId: ttlId, error });
        return; // the others would fail in the same way
      }
    }
  }
}
