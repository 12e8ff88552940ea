import { type Clock, backoffMs } from '../clock.js';
import type { TtlId } from '../lease/record.js';
import type { Logger } from '../log.js';

/** Far more than ever wait at a time; beyond it the oldest are left to end by themselves. */
const MAX_WAITING = 256;

/** Another key that hangs on one is moved within seconds; one that stays is looked at as often as leases are renewed. */
const RETRY_BASE_MS = 1000;
const RETRY_CAP_MS = 300_000;

/**
 * etcd leases that nothing needs any more: those whose key was written by another way, deleted, or never came about.
 *
 * @remarks An etcd lease without keys lives for its whole TTL, a day; a host that may not write, or whose key somebody
 * deletes again and again, would leave thousands. Each is given up as soon as etcd answers and no key hangs on it.
 */
export class UnusedTtls {
  readonly #waiting = new Set<TtlId>();
  #running: Promise<void> | undefined;
  #cancelRetry: (() => void) | undefined;
  #attempt = 0;
  #isClosed = false;

  /** @param release - gives one up unless keys hang on it; may reject. */
  constructor(
    private readonly release: (ttlId: TtlId) => Promise<'released' | 'in-use'>,
    private readonly clock: Clock,
    private readonly log: Logger,
  ) {}

  /** Has it given up, at once if possible. */
  add(ttlId: TtlId): void {
    this.#waiting.add(ttlId);
    const [oldest] = this.#waiting;
    if (this.#waiting.size > MAX_WAITING && oldest !== undefined) this.#waiting.delete(oldest);
    this.#attempt = 0;
    void this.sweep();
  }

  /** Tries all that wait; never rejects. Worth a call whenever etcd has just answered. */
  sweep(): Promise<void> {
    if (this.#waiting.size === 0 || this.#isClosed) return Promise.resolve();
    this.#running ??= this.#releaseAll().finally(() => {
      this.#running = undefined;
      this.#scheduleRetry();
    });
    return this.#running;
  }

  /** Tries no more. Idempotent. */
  close(): void {
    this.#isClosed = true;
    this.#cancelRetry?.();
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

  #scheduleRetry(): void {
    this.#cancelRetry?.();
    if (this.#waiting.size === 0 || this.#isClosed) return;
    const delayMs = backoffMs(++this.#attempt, RETRY_BASE_MS, RETRY_CAP_MS, () => this.clock.random());
    this.#cancelRetry = this.clock.after(delayMs, () => void this.sweep());
  }
}
