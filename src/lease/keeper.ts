import type { Clock } from '../clock.js';
import type { NetworkConfig } from '../config/network-config.js';
import { isOverlayError } from '../errors.js';
import { Gatherer, LINE_PACE, type Some, listed, mergeSome, some } from '../gatherer.js';
import { guarded } from '../guard.js';
import type { Prefix } from '../ip/prefix.js';
import type { LogFields, Logger } from '../log.js';
import { RateLimitedLog } from '../rate-limited-log.js';
import { contradicts } from './contradiction.js';
import {
  type Command,
  type LossReason,
  type Note,
  type Outcome,
  type OwnState,
  decide,
  isPublished,
  retryNow,
  applyOutcome,
} from './decide.js';
import type { Lease, LeaseAttributes, LeaseSubnets } from './lease.js';
import type { LeaseRecord } from './record.js';
import type { OwnLeaseStore, Subscription } from './store.js';
import type { World } from './world.js';

/** Where the host stands with its own lease; see the drawing at {@link LeaseKeeper}. */
export type KeeperState = 'acquiring' | 'held' | 'renewing' | 'lost' | 'closed';

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
  readonly store: OwnLeaseStore;
  readonly clock: Clock;
  readonly log: Logger;
  readonly network: NetworkConfig;
  readonly attributes: LeaseAttributes;
  /** The lease that an earlier process held last, if that is known. */
  readonly former?: Lease | undefined;
  /** From subnet.env of an earlier run. */
  readonly previousSubnets?: Partial<LeaseSubnets>;
  /** Minutes before its end at which a lease that could not be renewed is reported. Default 60, as in flannel. */
  readonly renewMarginMinutes?: number;
  /** Default 86 400, as in flannel. */
  readonly ttlSeconds?: number;
}

/** flannel's TTL: one day. */
export const LEASE_TTL_SECONDS = 86_400;

/** Before the next step after one that threw what nothing expected. */
const DEFECT_PAUSE_MS = 1000;

/**
 * Acquires the host's lease and keeps it.
 *
 * ```
 *             ┌────────────────────────────────────────────────────┐
 *             ▼                                                    │
 *  start ─▶ acquiring ──▶ held ◀──▶ renewing ──▶ lost ─────────────┘
 *                          └────────────────────▲
 *  renewing: less than the margin is left and no keep-alive gets through
 *  lost:     key deleted, expired, forgotten or taken, or its subnet no longer configured
 * ```
 *
 * @remarks
 * *API.* {@link observe} with every world that the store tells, {@link publish} and {@link setNetwork} with what the host
 * wants; {@link onChange} tells what became of it.
 *
 * *Design.* Level-triggered: what to do next is decided by {@link decide} from the latest world and what is known of the
 * own lease; this class only carries it out, one request at a time, and tells about it.
 *
 * *Errors.* None are thrown: whatever fails is tried again with growing delays, told once and then once a minute.
 */
export class LeaseKeeper {
  readonly #options: LeaseKeeperOptions;
  readonly #closing = new AbortController();
  readonly #callbacks = new Set<(change: KeeperChange) => void>();
  readonly #counters = { renewals: 0, failedRenewals: 0, losses: 0, overwrites: 0, lostRaces: 0 };
  #own: OwnState;
  #world: World | undefined;
  #isClosed = false;
  #lease: LeaseRecord | undefined;
  #running: Promise<void> | undefined;
  #isAwake = false;
  #wake: () => void = () => {};
  #overwrittenAtMs: number | undefined;
  readonly #complaints: RateLimitedLog;
  /** Keys that name addresses of the own lease, by its subnets: a single host may write thousands. */
  readonly #rivals: Gatherer<string, Some<string>>;

  constructor(options: LeaseKeeperOptions) {
    this.#options = options;
    this.#complaints = new RateLimitedLog(options.clock);
    const { network, attributes, former, previousSubnets = {}, renewMarginMinutes = 60, clock } = options;
    const ttlSeconds = options.ttlSeconds ?? LEASE_TTL_SECONDS;
    this.#own = {
      network,
      attributes,
      ttlSeconds,
      // The margin, but never more than half of a TTL that is shorter than usual.
      warningMs: Math.min(renewMarginMinutes * 60_000, ttlSeconds * 500),
      former,
      wishes: [previousSubnets],
      avoid: [],
      holding: undefined,
      aside: [],
      mistake: undefined,
      answered: { epoch: -1, revision: '0' },
      notBeforeMs: clock.monotonicMs(),
      races: 0,
      failures: 0,
      losses: 0,
      overlapped: undefined,
    };
    const tell = (subnet: string, keys: Some<string>): void => this.#tellRivals(subnet, keys);
    this.#rivals = new Gatherer({ ...LINE_PACE, clock, merge: mergeSome, tell });
  }

  get state(): KeeperState {
    if (this.#isClosed) return 'closed';
    const { holding } = this.#own;
    if (holding === undefined) return 'acquiring';
    return holding.isEnding ? 'renewing' : 'held';
  }

  /** The lease held now or, while another one is sought, last. */
  get lease(): LeaseRecord | undefined {
    return this.#lease;
  }

  /** Whether a lease is held and the store tells of it what the host wants it to tell. */
  get isPublished(): boolean {
    return isPublished(this.#own);
  }

  /** Keys of others that name addresses of the own lease and are younger than it. */
  get rivals(): readonly string[] {
    return this.#own.holding?.rivals ?? [];
  }

  /** When another host or program last wrote the own lease, in milliseconds since 1970. */
  get overwrittenAtMs(): number | undefined {
    return this.#overwrittenAtMs;
  }

  get counters(): KeeperCounters {
    return { ...this.#counters };
  }

  /** When, on the monotonic clock, the lease ends unless it is renewed; undefined for a reservation or without a lease. */
  get expiresAtMs(): number | undefined {
    const { holding } = this.#own;
    return holding?.lease.isReservation === false ? holding.deadlineMs : undefined;
  }

  /** Since when, on the monotonic clock, the lease is held without interruption. */
  get heldSinceMs(): number | undefined {
    return this.#own.holding?.sinceMs;
  }

  /** Begins to acquire; ends with {@link close}. */
  start(): void {
    if (this.#running !== undefined) return;
    this.#closing.signal.addEventListener('abort', () => this.#wake());
    this.#report('acquiring');
    this.#running = this.#run().finally(() => {
      this.#isClosed = true;
      this.#report('closed');
    });
  }

  /** Calls back on every change of state and of the lease. */
  onChange(callback: (change: KeeperChange) => void): Subscription {
    const { clock, log: logger } = this.#options;
    const safe = guarded({ clock, logger, what: 'changes of the own lease' }, callback);
    this.#callbacks.add(safe);
    return { close: () => this.#callbacks.delete(safe) };
  }

  /** Takes what the store says now. */
  observe(world: World): void {
    this.#world = world;
    this.#alert();
  }

  /** Has these attributes written under the own key as soon as possible; nothing happens if they are there already. */
  publish(attributes: LeaseAttributes): void {
    this.#own = { ...this.#own, attributes };
    this.#alert();
  }

  /** Checks the own subnet against another configuration; one that no longer fits is exchanged. */
  setNetwork(network: NetworkConfig): void {
    this.#own = { ...this.#own, network };
    this.#alert();
  }

  /** Subnets that are given to this host only if no other is free: their hosts may come back for them. */
  setAvoid(avoid: readonly Prefix[]): void {
    this.#own = { ...this.#own, avoid };
  }

  /** Says that the store answers again: what failed meanwhile does not wait any longer. */
  retryNow(): void {
    this.#own = retryNow(this.#own, this.#options.clock.monotonicMs());
    this.#alert();
  }

  /** Stops. The key stays in the store. Idempotent. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#running;
    this.#rivals.flush();
  }

  async #run(): Promise<void> {
    const { clock } = this.#options;
    while (!this.#isClosing()) {
      try {
        await this.#step();
      } catch (error) {
        this.#complain('defect while the own lease is kept, going on', error);
        await this.#pause(clock.monotonicMs() + DEFECT_PAUSE_MS);
      }
    }
  }

  /** One decision and what it asks for. */
  async #step(): Promise<void> {
    const { clock, store } = this.#options;
    const random = (): number => clock.random();
    const world = this.#world;
    const decision = decide(world, this.#own, clock.monotonicMs(), random);
    const { command } = decision;
    this.#own = decision.own;
    this.#tell(decision.notes);
    if (command.kind === 'wait') return this.#pause(command.untilMs);
    const { attributes } = this.#own;
    const sentAtMs = clock.monotonicMs();
    const outcome = await this.#carryOut(command, attributes);
    if (this.#isClosing()) return;
    if (world !== undefined && contradicts(world, command, outcome, this.#own.races)) store.distrust(world);
    const occasion = { epoch: world?.epoch ?? 0, sentAtMs, nowMs: clock.monotonicMs(), random, attributes };
    // What the host wants may have changed meanwhile: the outcome is taken in by the state as it is now.
    const next = applyOutcome(this.#own, command, outcome, occasion);
    this.#own = next.own;
    this.#tell(next.notes);
  }

  #isClosing(): boolean {
    return this.#closing.signal.aborted;
  }

  async #carryOut(command: Exclude<Command, { kind: 'wait' }>, attributes: LeaseAttributes): Promise<Outcome> {
    const { store } = this.#options;
    const { signal } = this.#closing;
    const { ttlSeconds } = this.#own;
    const { kind } = command;
    try {
      switch (kind) {
        case 'reuse':
          return { kind, result: await store.reuseLease(command.lease, attributes, ttlSeconds, signal) };
        case 'create': {
          const { subnets, replacing } = command;
          const ttl = replacing?.isReservation === true ? undefined : ttlSeconds;
          return { kind, result: await store.createLease({ subnets, attributes, ttlSeconds: ttl, replacing }, signal) };
        }
        case 'delete':
          return { kind, result: await store.deleteLease(command.lease, signal) };
        case 'publish':
          return { kind, result: await store.publishLease(command.lease, attributes, signal) };
        case 'keep-alive':
          return { kind, result: await store.keepAlive(command.etcdLeaseId, signal) };
      }
    } catch (error) {
      return { kind: 'failed', error };
    }
  }

  /** Ends the current or next pause. */
  #alert(): void {
    this.#isAwake = true;
    this.#wake();
  }

  /** Waits until that time on the monotonic clock, the next {@link #alert}, or the end. */
  async #pause(untilMs: number): Promise<void> {
    const { clock } = this.#options;
    if (!this.#isAwake && !this.#closing.signal.aborted) {
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
    this.#isAwake = false;
  }

  #tell(notes: readonly Note[]): void {
    for (const note of notes) this.#tellOne(note);
  }

  #tellOne(note: Note): void {
    const { log, store } = this.#options;
    switch (note.kind) {
      case 'acquired':
        this.#logAcquired(note.lease, note.source);
        this.#report('held', note.lease);
        return;
      case 'lost':
        this.#reportLoss(note.lease, note.reason, note.rival);
        return;
      case 'changed':
        this.#report(this.state, note.lease);
        return;
      case 'published':
        log.info('own lease was published', fieldsOf(note.lease));
        this.#report(this.state, note.lease);
        return;
      case 'ending':
        log.warn('own lease ends soon and cannot be renewed', {
          ...fieldsOf(note.lease),
          hint: 'bring etcd back; forwarding goes on meanwhile',
        });
        this.#report('renewing', note.lease);
        return;
      case 'renewed-again':
        log.info('own lease is renewed again', fieldsOf(note.lease));
        this.#report('held', note.lease);
        return;
      case 'reserved':
        log.info('own lease was made a reservation', fieldsOf(note.lease));
        return;
      case 'unreserved':
        log.info('own reservation was ended, the lease is renewed from now on', fieldsOf(note.lease));
        return;
      case 'renewed-by-other':
        this.#overwrittenAtMs = this.#options.clock.wallMs();
        log.warn('own lease was renewed by another program', {
          ...fieldsOf(note.lease),
          hint: 'make sure that no other host has this public address and that no flanneld runs here',
        });
        return;
      case 'overwritten': {
        const { lease, isUnreadable, count, delayMs } = note;
        this.#counters.overwrites++;
        this.#overwrittenAtMs = this.#options.clock.wallMs();
        log.warn(
          isUnreadable
            ? 'own lease was overwritten with something unreadable'
            : 'own lease was overwritten by another host with the same public address',
          {
            ...fieldsOf(lease),
            count,
            delayMs,
            hint: 'give each host its own --public-ip; while two share one, each undoes what the other wrote',
          },
        );
        return;
      }
      case 'rival':
        this.#rivals.add(describeSubnets(note.lease), some([note.key]));
        return;
      case 'yielded': {
        const { text, hint } = LOSS_MESSAGES.overlapped;
        log.error(text, { ...fieldsOf(note.lease), key: note.key, hint });
        return;
      }
      case 'lost-race':
        this.#counters.lostRaces++;
        return;
      case 'renewal':
        this.#counters.renewals++;
        return;
      case 'failed-renewal':
        this.#counters.failedRenewals++;
        return;
      case 'unused-ttl':
        store.discardEtcdLease(note.etcdLeaseId);
        return;
      case 'failed':
        this.#complain(FAILURE_MESSAGES[note.what], note.error);
    }
  }

  #tellRivals(subnet: string, keys: Some<string>): void {
    this.#options.log.warn('another key names addresses of the own lease', {
      subnet,
      count: keys.count,
      key: listed(keys),
      hint: 'the older key is the rightful one; delete the other, or let its host take another subnet',
    });
  }

  #reportLoss(lease: LeaseRecord, reason: LossReason, rival: string | undefined): void {
    const { log } = this.#options;
    this.#counters.losses++;
    const { level, text, hint } = LOSS_MESSAGES[reason];
    log[level](text, { ...fieldsOf(lease), kind: reason, key: rival, hint });
    this.#report('lost', lease, reason);
    this.#report('acquiring');
  }

  #logAcquired(lease: LeaseRecord, source: string): void {
    const { log } = this.#options;
    const before = this.#lease;
    log.info('lease acquired', {
      ...fieldsOf(lease),
      ipv6Subnet: lease.ipv6Subnet?.toString(),
      kind: lease.isReservation ? 'reservation' : source,
    });
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
    if (lease !== undefined) this.#lease = lease;
    const change: KeeperChange = { state, lease: this.#lease, ...(reason === undefined ? {} : { reason }) };
    for (const callback of [...this.#callbacks]) callback(change);
  }

  /** The first time at once, then once a minute. A store that is away has said so itself. */
  #complain(message: string, error: unknown): void {
    if (isOverlayError(error, 'ERR_ETCD_UNAVAILABLE')) return;
    this.#complaints.tell(() => {
      this.#options.log.error(message, { error });
    });
  }
}

const FAILURE_MESSAGES = {
  acquire: 'cannot acquire a lease, still trying',
  publish: 'cannot publish the own lease, still trying',
  renew: 'cannot renew the own lease, still trying',
  tidy: 'cannot delete a key of an earlier network, still trying',
} as const;

const LOSS_MESSAGES: Readonly<
  Record<LossReason, { readonly level: 'error' | 'warn'; readonly text: string; readonly hint: string }>
> = {
  deleted: { level: 'warn', text: 'own lease was deleted', hint: 'the same subnet is asked for again' },
  expired: { level: 'warn', text: 'own lease expired', hint: 'the same subnet is asked for again' },
  unconfirmed: {
    level: 'warn',
    text: 'own lease may have expired, etcd could not be asked in time',
    hint: 'bring etcd back; forwarding goes on meanwhile',
  },
  forgotten: {
    level: 'warn',
    text: 'own lease is not in what was restored in etcd',
    hint: 'the same subnet is asked for again',
  },
  taken: {
    level: 'error',
    text: 'own subnet was taken by another host',
    hint: 'another subnet is taken; it happens after a restore of etcd, and when a stock flanneld renews a lease that has expired',
  },
  overlapped: {
    level: 'error',
    text: 'own subnet overlaps an older lease of another host',
    hint: 'another subnet is taken; containers of this host must be restarted',
  },
  'network-changed': {
    level: 'error',
    text: 'own subnet does not fit the new network configuration',
    hint: 'another subnet is taken; containers of this host must be restarted',
  },
};

function fieldsOf(lease: LeaseRecord): LogFields {
  return {
    subnet: lease.subnet.toString(),
    publicIp: lease.attributes.publicIp.toString(),
    revision: lease.revision,
    etcdLeaseId: lease.etcdLeaseId,
  };
}

function describeSubnets(subnets: LeaseSubnets): string {
  const { subnet, ipv6Subnet } = subnets;
  return ipv6Subnet === undefined ? subnet.toString() : `${subnet.toString()} ${ipv6Subnet.toString()}`;
}
