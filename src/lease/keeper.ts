import { type Clock, backoffMs } from '../clock.js';
import type { NetworkConfig } from '../config/network-config.js';
import { isOverlayError } from '../errors.js';
import type { Logger } from '../log.js';
import { doesFit, findOverlapping, planLease } from './allocator.js';
import { areAttributesEqual } from './attributes.js';
import type { LeaseAttributes, LeaseSubnets } from './lease.js';
import {
  type LeaseObservation,
  type LeaseRecord,
  type LeaseStore,
  type Subscription,
  type TtlId,
  isAfter,
} from './store.js';

/** Where the host stands with its own lease; see the drawing at {@link LeaseKeeper}. */
export type KeeperState = 'acquiring' | 'held' | 'renewing' | 'lost' | 'closed';

/**
 * Why a lease was lost: somebody deleted the key; its time ran out; nobody could confirm it in time; another host
 * wrote its own address there; the configuration no longer has that subnet.
 */
export type LossReason = 'deleted' | 'expired' | 'unconfirmed' | 'taken' | 'network-changed';

/** What a {@link LeaseKeeper} reports. */
export interface KeeperChange {
  readonly state: KeeperState;
  /** The lease held now or last; forwarding goes on with it while another one is sought. */
  readonly lease: LeaseRecord | undefined;
  /** With state `lost`. */
  readonly reason?: LossReason;
}

/** Numbers that only grow. */
export interface KeeperCounters {
  readonly renewals: number;
  readonly failedRenewals: number;
  readonly losses: number;
  /** Times somebody else wrote the own key. */
  readonly overwrites: number;
  /** Attempts to get a subnet that another host got first. */
  readonly lostRaces: number;
}

/** What a {@link LeaseKeeper} is made of. */
export interface LeaseKeeperOptions {
  readonly store: LeaseStore;
  readonly clock: Clock;
  readonly log: Logger;
  readonly network: NetworkConfig;
  readonly attributes: LeaseAttributes;
  /** From subnet.env of an earlier run. */
  readonly previousSubnets?: Partial<LeaseSubnets>;
  /** Minutes before its end at which a lease that could not be renewed is reported. Default 60, as in flannel. */
  readonly renewMarginMinutes?: number;
  /** Default 86 400, as in flannel. */
  readonly ttlSeconds?: number;
}

/** flannel's TTL: one day. */
export const LEASE_TTL_SECONDS = 86_400;

/** Cheap enough for thousands of hosts, and three hundred chances before the time of a lease is over. */
const KEEP_ALIVE_EVERY_MS = 300_000;

/** At most that part of a short TTL passes between two keep-alives. */
const KEEP_ALIVE_TTL_SHARE = 1 / 3;

const COMPLAIN_EVERY_MS = 60_000;

/** Two hosts with one public address would otherwise rewrite their key as fast as etcd allows. */
const REWRITE_BASE_MS = 1000;
const REWRITE_CAP_MS = 300_000;

/**
 * Time after which a lease must be treated as lost, measured on the monotonic clock.
 *
 * @remarks Counted from when the last acknowledged keep-alive was *sent*: etcd starts its own countdown later than that.
 * @returns milliseconds on the same clock, one second before the server may expire the key.
 */
export function leaseDeadlineMs(ttlSeconds: number, sentAtMs: number): number {
  return sentAtMs + (ttlSeconds - 1) * 1000;
}

interface Held {
  lease: LeaseRecord;
  readonly sinceMs: number;
  deadlineMs: number;
  keepAliveAtMs: number;
  failedKeepAlives: number;
  /** No rewriting of the value before that. */
  rewriteAtMs: number;
  overwrites: number;
  failedRewrites: number;
  /** The value is not even readable, so it cannot be compared. */
  isUnreadable: boolean;
  /** What this host last asked the store to write; a change to it is its own doing. */
  sent: LeaseAttributes;
}

/**
 * Acquires the host's lease and keeps it.
 *
 * ```
 *             ┌────────────────────────────────────────────────────┐
 *             ▼                                                    │
 *  start ─▶ acquiring ──▶ held ◀──▶ renewing ──▶ lost ─────────────┘
 *                          └────────────────────▲
 *  renewing: less than the margin is left and no keep-alive gets through
 *  lost:     key deleted, expired or taken, or its subnet no longer configured
 * ```
 *
 * @remarks
 * *API.* {@link start}, then {@link state}, {@link lease} and {@link onChange}; {@link publish} and {@link setNetwork}
 * at any time. {@link close} leaves the key in the store, so that a restart finds it.
 *
 * *Rules.* Every write depends on the key being what this host last saw, so nothing deleted is resurrected and nothing
 * of another host is overwritten. A key without TTL is a reservation and never gets one here. A loss never ends
 * anything: the same subnet is asked for again, else another one is taken.
 *
 * *Errors.* None are thrown. While the store is away, it says so itself; everything else is logged once a minute.
 */
export class LeaseKeeper {
  readonly #options: LeaseKeeperOptions;
  readonly #ttlSeconds: number;
  readonly #marginMs: number;
  readonly #closing = new AbortController();
  readonly #callbacks = new Set<(change: KeeperChange) => void>();
  readonly #counters = { renewals: 0, failedRenewals: 0, losses: 0, overwrites: 0, lostRaces: 0 };
  #network: NetworkConfig;
  #attributes: LeaseAttributes;
  #state: KeeperState = 'acquiring';
  #lease: LeaseRecord | undefined;
  #held: Held | undefined;
  #previous: Partial<LeaseSubnets>;
  /** The latest news of the own key that has not been looked at. */
  #news: LeaseObservation | undefined;
  /** A key that was created although its subnet overlaps another; it goes before anything else is tried. */
  #mistake: LeaseRecord | undefined;
  #wake: () => void = () => {};
  #isAwake = false;
  #complainedAtMs = Number.NEGATIVE_INFINITY;
  #running: Promise<void> | undefined;

  constructor(options: LeaseKeeperOptions) {
    this.#options = options;
    this.#network = options.network;
    this.#attributes = options.attributes;
    this.#previous = options.previousSubnets ?? {};
    this.#ttlSeconds = options.ttlSeconds ?? LEASE_TTL_SECONDS;
    this.#marginMs = (options.renewMarginMinutes ?? 60) * 60_000;
  }

  get state(): KeeperState {
    return this.#state;
  }

  /** The lease held now or, while another one is sought, last. */
  get lease(): LeaseRecord | undefined {
    return this.#lease;
  }

  get counters(): KeeperCounters {
    return { ...this.#counters };
  }

  /** When, on the monotonic clock, the lease ends unless it is renewed; undefined for a reservation or without a lease. */
  get expiresAtMs(): number | undefined {
    return this.#held?.lease.isReservation === false ? this.#held.deadlineMs : undefined;
  }

  /** Since when, on the monotonic clock, the lease is held without interruption. */
  get heldSinceMs(): number | undefined {
    return this.#held?.sinceMs;
  }

  /** Begins to acquire; ends when the signal is aborted or with {@link close}. */
  start(signal?: AbortSignal): void {
    if (this.#running !== undefined) return;
    const stop = (): void => this.#closing.abort();
    signal?.addEventListener('abort', stop, { once: true });
    if (signal?.aborted === true) stop();
    this.#closing.signal.addEventListener('abort', () => this.#wake());
    this.#running = this.#run().finally(() => {
      signal?.removeEventListener('abort', stop);
      this.#report('closed');
    });
  }

  /** Calls back on every change of state and of the lease. */
  onChange(callback: (change: KeeperChange) => void): Subscription {
    this.#callbacks.add(callback);
    return { close: () => this.#callbacks.delete(callback) };
  }

  /** The lease as soon as there is one; rejects with the signal's reason. */
  async whenHeld(signal: AbortSignal): Promise<LeaseRecord> {
    const held = (): LeaseRecord | undefined =>
      this.#state === 'held' || this.#state === 'renewing' ? this.#lease : undefined;
    signal.throwIfAborted();
    const now = held();
    if (now !== undefined) return now;
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        subscription.close();
        reject(signal.reason as Error);
      };
      const subscription = this.onChange(() => {
        const lease = held();
        if (lease === undefined) return;
        subscription.close();
        signal.removeEventListener('abort', onAbort);
        resolve(lease);
      });
      signal.addEventListener('abort', onAbort, { once: true });
    });
  }

  /** Has these attributes written under the own key as soon as possible; nothing happens if they are there already. */
  publish(attributes: LeaseAttributes): void {
    this.#attributes = attributes;
    this.#alert();
  }

  /** Checks the own subnet against another configuration; one that no longer fits is exchanged. */
  setNetwork(network: NetworkConfig): void {
    this.#network = network;
    this.#alert();
  }

  /** Stops. The key stays in the store. Idempotent. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    while (!this.#isClosing()) {
      this.#report('acquiring');
      const held = await this.#acquire();
      if (held === undefined) return;
      this.#held = held;
      this.#report('held', held.lease);
      const reason = await this.#hold(held);
      this.#held = undefined;
      if (reason !== undefined) this.#reportLoss(held, reason);
    }
  }

  #isClosing(): boolean {
    return this.#closing.signal.aborted;
  }

  async #acquire(): Promise<Held | undefined> {
    const { clock } = this.#options;
    let races = 0;
    let failures = 0;
    while (!this.#isClosing()) {
      let delayMs: number;
      try {
        const held = await this.#tryAcquire();
        if (held !== undefined) return held;
        this.#counters.lostRaces++;
        delayMs = backoffMs(++races, 20, 2000, () => clock.random());
      } catch (error) {
        if (this.#isClosing()) return undefined;
        this.#complain('cannot acquire a lease, still trying', error);
        delayMs = backoffMs(++failures, 1000, 30_000, () => clock.random());
      }
      await this.#pause(clock.monotonicMs() + delayMs);
    }
    return undefined;
  }

  /** One pass of listing, planning and asking. @returns undefined if another host was faster. */
  async #tryAcquire(): Promise<Held | undefined> {
    const { store, clock, log } = this.#options;
    const { signal } = this.#closing;
    if (this.#mistake !== undefined) {
      await store.deleteLease(this.#mistake, signal);
      this.#mistake = undefined;
    }
    const snapshot = await store.listLeases(signal);
    const attributes = this.#attributes;
    const plan = planLease({
      network: this.#network,
      publicIp: attributes.publicIp,
      snapshot,
      previous: this.#previous,
      random: () => clock.random(),
    });
    const sentAtMs = clock.monotonicMs();
    let lease: LeaseRecord;
    if (plan.kind === 'adopt') {
      const result = await store.adoptLease(plan.lease, attributes, this.#ttlSeconds, signal);
      if (result.outcome === 'changed') return undefined;
      lease = result.lease;
    } else {
      const { subnets, replacing } = plan;
      const ttlSeconds = replacing?.isReservation === true ? undefined : this.#ttlSeconds;
      const result = await store.createLease({ subnets, attributes, ttlSeconds, replacing }, signal);
      if (result.outcome === 'taken') return undefined;
      ({ lease } = result);
      const others = [...result.snapshot.leases, ...result.snapshot.bad].flatMap(({ key, ...entry }) => {
        const named = 'subnets' in entry ? entry.subnets : entry;
        return key === lease.key || named === undefined ? [] : { ...named, key };
      });
      const [rival] = findOverlapping(lease, others);
      if (rival !== undefined) {
        log.warn('another host got an overlapping subnet first', { subnet: lease.subnet.toString(), key: rival.key });
        this.#mistake = lease;
        return undefined;
      }
    }
    this.#logAcquired(lease, plan.kind === 'adopt' ? 'public-ip' : plan.source);
    return {
      lease,
      sinceMs: sentAtMs,
      deadlineMs: leaseDeadlineMs(this.#ttlSeconds, sentAtMs),
      keepAliveAtMs: sentAtMs + this.#keepAliveDelayMs(),
      failedKeepAlives: 0,
      rewriteAtMs: sentAtMs,
      overwrites: 0,
      failedRewrites: 0,
      isUnreadable: false,
      sent: attributes,
    };
  }

  /** Keeps the lease until it is lost. @returns undefined when closed. */
  async #hold(held: Held): Promise<LossReason | undefined> {
    const { store } = this.#options;
    this.#news = undefined;
    const subscription = store.followLease(held.lease.key, (news) => {
      this.#news = news;
      this.#alert();
    });
    try {
      while (!this.#isClosing()) {
        const reason =
          this.#considerNews(held) ??
          this.#considerNetwork(held) ??
          (await this.#rewriteIfDue(held)) ??
          (await this.#keepAliveIfDue(held));
        if (reason !== undefined) return reason;
        if (!this.#hasNews()) await this.#pause(this.#nextActionMs(held));
      }
      return undefined;
    } finally {
      subscription.close();
    }
  }

  #hasNews(): boolean {
    return this.#news !== undefined;
  }

  #considerNetwork({ lease }: Held): LossReason | undefined {
    return doesFit(this.#network, lease) ? undefined : 'network-changed';
  }

  /** Compares the own key with what was last known of it. */
  #considerNews(held: Held): LossReason | undefined {
    const news = this.#news;
    this.#news = undefined;
    const known = held.lease;
    if (news === undefined || !isAfter(news.revision, known.revision)) return undefined;
    const { clock, log } = this.#options;
    if (news.bad !== undefined) {
      held.lease = { ...known, revision: news.bad.revision };
      held.isUnreadable = true;
      this.#noteOverwrite(held, 'own lease was overwritten with something unreadable');
      return undefined;
    }
    const seen = news.lease;
    if (seen === undefined) return clock.monotonicMs() >= held.deadlineMs ? 'expired' : 'deleted';
    const isOwn = [known.attributes, this.#attributes, held.sent].some(({ publicIp }) =>
      publicIp.equals(seen.attributes.publicIp),
    );
    if (!isOwn) return 'taken';

    held.lease = seen;
    held.isUnreadable = false;
    if (seen.ttlId !== known.ttlId) this.#noteTtlChange(held, known);
    const isExpected = [this.#attributes, held.sent].some((own) => areAttributesEqual(own, seen.attributes));
    if (!isExpected)
      this.#noteOverwrite(held, 'own lease was overwritten by another host with the same public address');
    else if (seen.ttlId !== known.ttlId && !seen.isReservation && !known.isReservation) {
      log.warn('own lease was renewed by another program', {
        subnet: seen.subnet.toString(),
        publicIp: seen.attributes.publicIp.toString(),
        hint: 'make sure that no other host has this public address and that no flanneld runs here',
      });
    }
    this.#report(this.#state, seen);
    return undefined;
  }

  #noteTtlChange(held: Held, known: LeaseRecord): void {
    const { log, clock } = this.#options;
    const { lease } = held;
    const fields = { subnet: lease.subnet.toString(), revision: lease.revision, etcdLeaseId: lease.ttlId };
    if (lease.isReservation) log.info('own lease was made a reservation', fields);
    else if (known.isReservation) log.info('own reservation was ended, the lease is renewed from now on', fields);
    held.keepAliveAtMs = clock.monotonicMs();
    held.deadlineMs = leaseDeadlineMs(this.#ttlSeconds, clock.monotonicMs());
    held.failedKeepAlives = 0;
    if (this.#state === 'renewing') this.#state = 'held';
    if (known.ttlId !== undefined) void this.#releaseUnused(known.ttlId);
  }

  async #releaseUnused(ttlId: TtlId): Promise<void> {
    try {
      await this.#options.store.releaseTtl(ttlId, this.#closing.signal);
    } catch (error) {
      this.#options.log.debug('an unused etcd lease stays until it ends', { etcdLeaseId: ttlId, error });
    }
  }

  #noteOverwrite(held: Held, message: string): void {
    const { clock, log } = this.#options;
    this.#counters.overwrites++;
    const delayMs = backoffMs(++held.overwrites, REWRITE_BASE_MS, REWRITE_CAP_MS, () => clock.random());
    held.rewriteAtMs = clock.monotonicMs() + delayMs;
    log.warn(message, {
      subnet: held.lease.subnet.toString(),
      publicIp: this.#attributes.publicIp.toString(),
      revision: held.lease.revision,
      count: held.overwrites,
      delayMs,
      hint: 'give each host its own --public-ip; while two share one, each undoes what the other wrote',
    });
  }

  /** Writes the own attributes if the key does not carry them. */
  async #rewriteIfDue(held: Held): Promise<LossReason | undefined> {
    const { store, clock, log } = this.#options;
    const wanted = this.#attributes;
    if (!this.#needsRewrite(held) || clock.monotonicMs() < held.rewriteAtMs) return undefined;
    try {
      held.sent = wanted;
      const result = await store.publishLease(held.lease, wanted, this.#closing.signal);
      held.failedRewrites = 0;
      if (result.outcome === 'changed') {
        this.#news = result.now;
        return undefined;
      }
      const before = held.lease;
      held.lease = result.lease;
      held.isUnreadable = false;
      if (held.lease.ttlId !== before.ttlId) this.#noteTtlChange(held, before);
      log.info('own lease was published', { subnet: held.lease.subnet.toString(), revision: held.lease.revision });
      this.#report(this.#state, held.lease);
    } catch (error) {
      if (this.#isClosing()) return undefined;
      this.#complain('cannot publish the own lease, still trying', error);
      const delayMs = backoffMs(++held.failedRewrites, 1000, 30_000, () => clock.random());
      held.rewriteAtMs = clock.monotonicMs() + delayMs;
    }
    return undefined;
  }

  #needsRewrite(held: Held): boolean {
    return held.isUnreadable || !areAttributesEqual(held.lease.attributes, this.#attributes);
  }

  async #keepAliveIfDue(held: Held): Promise<LossReason | undefined> {
    const { store, clock } = this.#options;
    const { ttlId } = held.lease;
    const sentAtMs = clock.monotonicMs();
    if (ttlId === undefined || sentAtMs < held.keepAliveAtMs) return this.#checkDeadline(held);
    try {
      const ttlSeconds = await store.keepAlive(ttlId, this.#closing.signal);
      // Without its etcd lease the key is gone, unless it has been given another one: the next listing tells.
      if (ttlSeconds === undefined) return 'expired';
      this.#counters.renewals++;
      held.deadlineMs = leaseDeadlineMs(ttlSeconds, sentAtMs);
      held.keepAliveAtMs = sentAtMs + this.#keepAliveDelayMs();
      held.failedKeepAlives = 0;
      if (this.#state === 'renewing') {
        this.#options.log.info('own lease is renewed again', { subnet: held.lease.subnet.toString() });
        this.#report('held', held.lease);
      }
    } catch (error) {
      if (this.#isClosing()) return undefined;
      this.#counters.failedRenewals++;
      const delayMs = backoffMs(++held.failedKeepAlives, 1000, 30_000, () => clock.random());
      held.keepAliveAtMs = clock.monotonicMs() + delayMs;
      if (!isOverlayError(error, 'ERR_ETCD_UNAVAILABLE'))
        this.#complain('cannot renew the own lease, still trying', error);
    }
    return this.#checkDeadline(held);
  }

  #checkDeadline(held: Held): LossReason | undefined {
    if (held.lease.isReservation || held.failedKeepAlives === 0) return undefined;
    const leftMs = held.deadlineMs - this.#options.clock.monotonicMs();
    if (leftMs <= 0) return 'unconfirmed';
    if (leftMs <= this.#warningMs() && this.#state === 'held') {
      this.#options.log.warn('own lease ends soon and cannot be renewed', {
        subnet: held.lease.subnet.toString(),
        etcdLeaseId: held.lease.ttlId,
        count: held.failedKeepAlives,
        delayMs: leftMs,
        hint: 'bring etcd back; forwarding goes on meanwhile',
      });
      this.#report('renewing', held.lease);
    }
    return undefined;
  }

  #nextActionMs(held: Held): number {
    const { lease, keepAliveAtMs, rewriteAtMs, failedKeepAlives, deadlineMs } = held;
    const times: number[] = [];
    if (!lease.isReservation) times.push(keepAliveAtMs);
    if (this.#needsRewrite(held)) times.push(rewriteAtMs);
    if (!lease.isReservation && failedKeepAlives > 0) times.push(deadlineMs);
    return Math.min(...times);
  }

  /** The margin, but never more than half of a TTL that is shorter than usual. */
  #warningMs(): number {
    return Math.min(this.#marginMs, this.#ttlSeconds * 500);
  }

  #keepAliveDelayMs(): number {
    const usual = Math.min(
      KEEP_ALIVE_EVERY_MS,
      this.#ttlSeconds * 1000 * KEEP_ALIVE_TTL_SHARE,
      Math.max(1000, this.#ttlSeconds * 1000 - this.#marginMs),
    );
    return backoffMs(1, usual, usual, () => this.#options.clock.random());
  }

  /** Ends the current or next pause. */
  #alert(): void {
    this.#isAwake = true;
    this.#wake();
  }

  /** Waits until that time on the monotonic clock, the next {@link #alert}, or the end. */
  async #pause(untilMs: number): Promise<void> {
    const { clock } = this.#options;
    if (!this.#isAwake && !this.#isClosing()) {
      await new Promise<void>((resolve) => {
        const cancel = Number.isFinite(untilMs)
          ? clock.after(Math.max(0, untilMs - clock.monotonicMs()), resolve)
          : undefined;
        this.#wake = () => {
          cancel?.();
          resolve();
        };
      });
    }
    this.#wake = () => {};
    this.#isAwake = false;
  }

  #reportLoss(held: Held, reason: LossReason): void {
    const { log } = this.#options;
    this.#counters.losses++;
    this.#previous = held.lease;
    const fields = { subnet: held.lease.subnet.toString(), kind: reason, revision: held.lease.revision };
    const message = LOSS_MESSAGES[reason];
    if (reason === 'taken' || reason === 'network-changed') log.error(message.text, { ...fields, hint: message.hint });
    else log.warn(message.text, { ...fields, hint: message.hint });
    this.#report('lost', held.lease, reason);
  }

  #logAcquired(lease: LeaseRecord, source: string): void {
    const { log } = this.#options;
    const before = this.#lease;
    const fields = {
      subnet: lease.subnet.toString(),
      ipv6Subnet: lease.ipv6Subnet?.toString(),
      publicIp: lease.attributes.publicIp.toString(),
      kind: lease.isReservation ? 'reservation' : source,
      revision: lease.revision,
      etcdLeaseId: lease.ttlId,
    };
    log.info('lease acquired', fields);
    const isMoved =
      before !== undefined &&
      !(
        lease.subnet.equals(before.subnet) &&
        (before.ipv6Subnet === undefined || before.ipv6Subnet.equals(lease.ipv6Subnet))
      );
    if (isMoved) {
      log.error('own subnet is another one now', {
        from: describeSubnets(before),
        to: describeSubnets(lease),
        hint: 'restart the containers of this host, their addresses no longer work',
      });
    }
  }

  #report(state: KeeperState, lease?: LeaseRecord, reason?: LossReason): void {
    this.#state = state;
    if (lease !== undefined) this.#lease = lease;
    const change: KeeperChange = { state, lease: this.#lease, ...(reason === undefined ? {} : { reason }) };
    for (const callback of [...this.#callbacks]) {
      try {
        callback(change);
      } catch (error) {
        this.#options.log.error('a change of the own lease was not processed', { kind: state, error });
      }
    }
  }

  /** The first time at once, then once a minute. A store that is away has said so itself. */
  #complain(message: string, error: unknown): void {
    if (isOverlayError(error, 'ERR_ETCD_UNAVAILABLE')) return;
    const now = this.#options.clock.monotonicMs();
    if (now - this.#complainedAtMs < COMPLAIN_EVERY_MS) return;
    this.#complainedAtMs = now;
    this.#options.log.error(message, { error });
  }
}

const LOSS_MESSAGES: Readonly<Record<LossReason, { readonly text: string; readonly hint: string }>> = {
  deleted: { text: 'own lease was deleted', hint: 'the same subnet is asked for again' },
  expired: { text: 'own lease expired', hint: 'the same subnet is asked for again' },
  unconfirmed: {
    text: 'own lease may have expired, etcd could not be asked in time',
    hint: 'bring etcd back; forwarding goes on meanwhile',
  },
  taken: {
    text: 'own subnet was taken by another host',
    hint: 'another subnet is taken; a stock flanneld that renews after its lease expired overwrites keys like that',
  },
  'network-changed': {
    text: 'own subnet does not fit the new network configuration',
    hint: 'another subnet is taken; containers of this host must be restarted',
  },
};

function describeSubnets(subnets: LeaseSubnets): string {
  const { subnet, ipv6Subnet } = subnets;
  return ipv6Subnet === undefined ? subnet.toString() : `${subnet.toString()} ${ipv6Subnet.toString()}`;
}
