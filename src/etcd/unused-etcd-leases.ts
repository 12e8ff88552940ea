import { type Clock, backoffMs } from '../clock.js';
import type { EtcdLeaseId } from '../lease/record.js';
import type { Logger } from '../log.js';

/** Far more than ever wait at a time; beyond it the oldest are left to end by themselves. */
const MAX_WAITING = 256;

/** Another key attached to one is moved within seconds; one that stays is looked at as often as leases are renewed. */
const RETRY_BASE_MS = 1000;
const RETRY_CAP_MS = 300_000;

/**
 * etcd leases that nothing needs any more: those whose key was written by another way, deleted, or never came about.
 *
 * @remarks An etcd lease without keys lives for its whole TTL, a day; a host that may not write, or whose key somebody
 * deletes again and again, would leave thousands. Each is revoked as soon as etcd answers and no key is attached to it.
 */
export class UnusedEtcdLeases {
  readonly #waiting = new Set<EtcdLeaseId>();
  #running: Promise<void> | undefined;
  #cancelRetry: (() => void) | undefined;
  #attempt = 0;
  #isClosed = false;

  /** @param release - revokes one unless keys are attached to it; may reject. */
  constructor(
    private readonly release: (etcdLeaseId: EtcdLeaseId) => Promise<'released' | 'in-use'>,
    private readonly clock: Clock,
    private readonly log: Logger,
  ) {}

  /** Has it given up, at once if possible. */
  add(etcdLeaseId: EtcdLeaseId): void {
    this.#waiting.add(etcdLeaseId);
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
    for (const etcdLeaseId of [...this.#waiting]) {
      try {
        if ((await this.release(etcdLeaseId)) === 'released') this.#waiting.delete(etcdLeaseId);
      } catch (error) {
        this.log.debug('an unused etcd lease stays for now', { etcdLeaseId: etcdLeaseId, error });
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
