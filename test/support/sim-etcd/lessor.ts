import type { Clock } from '../../../src/clock.js';
import { ETCD_ERRORS } from './protocol.js';

/** An etcd lease. */
export interface SimLease {
  readonly id: string;
  readonly ttlSeconds: number;
  readonly expiresAtMs: number;
}

/** etcd refuses longer ones. */
const MAX_TTL_SECONDS = 9_000_000_000;

/** Timers of Node have 31 bits. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** Counts the time of leases and says when one is over. */
export class Lessor {
  readonly #leases = new Map<string, SimLease>();
  #cancelTimer: () => void = () => {};
  #timerAtMs = Number.POSITIVE_INFINITY;
  #isRunning = true;
  #ids = 0x7000_0000;

  /** @param onExpired - shall {@link remove} it. */
  constructor(
    private readonly clock: Clock,
    private readonly minTtlSeconds: number,
    private readonly onExpired: (id: string) => void,
  ) {}

  get leases(): readonly SimLease[] {
    return [...this.#leases.values()];
  }

  has(id: string): boolean {
    return this.#leases.has(id);
  }

  get(id: string): SimLease | undefined {
    return this.#leases.get(id);
  }

  /** @param id - `0` to have one chosen. @throws {@link RpcError} */
  grant(id: string, ttlSeconds: number): SimLease {
    if (ttlSeconds > MAX_TTL_SECONDS) throw ETCD_ERRORS.leaseTtlTooLarge();
    if (this.#leases.has(id)) throw ETCD_ERRORS.leaseExists();
    const chosen = id === '0' ? String(++this.#ids) : id;
    return this.#start(chosen, Math.max(ttlSeconds, this.minTtlSeconds));
  }

  /** Starts its time anew. @returns its TTL in seconds, 0 if there is no such lease. */
  renew(id: string): number {
    const lease = this.#leases.get(id);
    return lease === undefined ? 0 : this.#start(id, lease.ttlSeconds).ttlSeconds;
  }

  /** In whole seconds, −1 if there is no such lease. */
  remainingSeconds(id: string): number {
    const lease = this.#leases.get(id);
    return lease === undefined ? -1 : Math.floor((lease.expiresAtMs - this.clock.monotonicMs()) / 1000);
  }

  remove(id: string): void {
    this.#leases.delete(id);
  }

  /** A new leader gives every lease its full time again, as etcd does not store when they end. */
  startAgain(leases: readonly SimLease[] = this.leases): void {
    this.#isRunning = true;
    this.#leases.clear();
    for (const { id, ttlSeconds } of leases) this.#start(id, ttlSeconds);
  }

  /** Without a leader, no lease ends. */
  stop(): void {
    this.#isRunning = false;
    this.#cancelTimer();
    this.#timerAtMs = Number.POSITIVE_INFINITY;
  }

  #start(id: string, ttlSeconds: number): SimLease {
    const lease = { id, ttlSeconds, expiresAtMs: this.clock.monotonicMs() + ttlSeconds * 1000 };
    this.#leases.set(id, lease);
    this.#arm(lease.expiresAtMs);
    return lease;
  }

  /** One timer, for the lease that ends first; it may find that this one was renewed. */
  #arm(atMs: number): void {
    if (!this.#isRunning || atMs >= this.#timerAtMs) return;
    this.#cancelTimer();
    this.#timerAtMs = atMs;
    const delayMs = Math.min(atMs - this.clock.monotonicMs(), MAX_TIMER_MS);
    this.#cancelTimer = this.clock.after(delayMs, () => this.#expire());
  }

  #expire(): void {
    this.#timerAtMs = Number.POSITIVE_INFINITY;
    const now = this.clock.monotonicMs();
    let nextMs = Number.POSITIVE_INFINITY;
    for (const lease of this.leases) {
      if (lease.expiresAtMs <= now) this.onExpired(lease.id);
      else nextMs = Math.min(nextMs, lease.expiresAtMs);
    }
    if (Number.isFinite(nextMs)) this.#arm(nextMs);
  }
}
