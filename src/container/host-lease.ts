import type { Clock } from '../clock.js';
import { leaseDeadlineMs } from '../lease/decide.js';
import type { EtcdLeaseId } from '../lease/record.js';
import type { SharedValueStore } from '../lease/store.js';

/** What outlives the process of a {@link HostLease}. */
export interface SavedHostLease {
  readonly etcdLeaseId: EtcdLeaseId;
  /** Milliseconds since the epoch. */
  readonly savedAtMs: number;
  /** When it ends unless it is renewed, in milliseconds since the epoch. */
  readonly expiresAtMs: number;
}

/** What a {@link HostLease} is made of. */
export interface HostLeaseOptions {
  readonly store: SharedValueStore;
  readonly clock: Clock;
  readonly ttlSeconds: number;
}

/**
 * The etcd lease that all addresses of this host are attached to: while its time has not run out, nobody else can have
 * them, whether etcd answers or not.
 *
 * @remarks *Time* counts from when the last acknowledged keep-alive was sent, on the monotonic clock, which stands still
 * while the machine is suspended, and on the wall clock, which may be set: the earlier end counts. A saved lease is
 * believed only if the wall clock has not gone back since.
 *
 * *Generation.* A number that changes whenever the time may have run out, or etcd has another history: what was confirmed under an earlier one has to
 * be confirmed anew before any of it is given out.
 */
export class HostLease {
  readonly #options: HostLeaseOptions;
  #etcdLeaseId: EtcdLeaseId | undefined;
  #deadlineMs = Number.NEGATIVE_INFINITY;
  #wallDeadlineMs = Number.NEGATIVE_INFINITY;
  #generation = 0;

  constructor(options: HostLeaseOptions) {
    this.#options = options;
  }

  get id(): EtcdLeaseId | undefined {
    return this.#etcdLeaseId;
  }

  get generation(): number {
    return this.#generation;
  }

  /** When it ends unless it is renewed, in milliseconds since the epoch; undefined if it has ended. */
  get expiresAtMs(): number | undefined {
    return this.isValid() ? this.#wallDeadlineMs : undefined;
  }

  /** Whether nobody else can have what is attached to it. */
  isValid(): boolean {
    const { clock } = this.#options;
    return clock.monotonicMs() < this.#deadlineMs && clock.wallMs() < this.#wallDeadlineMs;
  }

  /** Goes on with the lease of an earlier process. @returns whether what that one had confirmed still holds. */
  restore({ etcdLeaseId, savedAtMs, expiresAtMs }: SavedHostLease): boolean {
    const { clock } = this.#options;
    this.#etcdLeaseId = etcdLeaseId;
    const nowMs = clock.wallMs();
    if (savedAtMs > nowMs || expiresAtMs <= nowMs) return false;
    this.#wallDeadlineMs = expiresAtMs;
    this.#deadlineMs = clock.monotonicMs() + expiresAtMs - nowMs;
    return true;
  }

  /** What to save; undefined if there is nothing to go on with. */
  save(): SavedHostLease | undefined {
    if (this.#etcdLeaseId === undefined) return undefined;
    const savedAtMs = this.#options.clock.wallMs();
    return { etcdLeaseId: this.#etcdLeaseId, savedAtMs, expiresAtMs: this.expiresAtMs ?? savedAtMs };
  }

  /**
   * Renews it, or gets another one if etcd has it no more.
   *
   * @throws the errors of the store
   */
  async renew(signal?: AbortSignal): Promise<void> {
    const { store, clock, ttlSeconds } = this.#options;
    const sent = { monotonicMs: clock.monotonicMs(), wallMs: clock.wallMs() };
    const { generation } = this;
    if (this.#etcdLeaseId !== undefined) {
      const seconds = await store.keepAlive(this.#etcdLeaseId, signal);
      if (this.#generation !== generation) return this.renew(signal); // that was another history
      if (seconds !== undefined) {
        if (!this.isValid()) this.#generation++;
        this.#extend(seconds, sent);
        return;
      }
      this.forget();
    }
    this.#etcdLeaseId = await store.grantTtl(ttlSeconds, signal);
    this.#extend(ttlSeconds, sent);
  }

  /** Nobody knows whether etcd has it still: it has to be renewed, and all that is attached to it confirmed anew. */
  distrust(): void {
    this.#deadlineMs = Number.NEGATIVE_INFINITY;
    this.#generation++;
  }

  /** Nothing that was confirmed under it holds any more. */
  forget(): void {
    this.#etcdLeaseId = undefined;
    this.#deadlineMs = Number.NEGATIVE_INFINITY;
    this.#generation++;
  }

  /** @param sent - when it was asked for: the machine may have been suspended before the answer was read. */
  #extend(ttlSeconds: number, sent: { readonly monotonicMs: number; readonly wallMs: number }): void {
    this.#deadlineMs = leaseDeadlineMs(ttlSeconds, sent.monotonicMs);
    this.#wallDeadlineMs = leaseDeadlineMs(ttlSeconds, sent.wallMs);
  }
}
