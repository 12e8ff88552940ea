import { backoffMs } from '../clock.js';
import type { NetworkConfig } from '../config/network-config.js';
import type { Prefix } from '../ip/prefix.js';
import {
  type KnownLeases,
  type LeasePlan,
  type SubnetSource,
  doesFit,
  findOlderRival,
  findRivals,
  planLease,
} from './allocator.js';
import { areAttributesEqual } from './attributes.js';
import type { Lease, LeaseAttributes, LeaseSubnets } from './lease.js';
import { type BadEntry, type LeaseRecord, type Revision, type EtcdLeaseId, isAfter } from './record.js';
import type { CreateResult, UpdateResult } from './store.js';
import { type World, changedKeys } from './world.js';

/**
 * Why a lease was lost: somebody deleted the key; its time ran out; nobody could confirm it in time; the store was wiped
 * or restored and does not have it; another host wrote its own address there; another host holds an older lease with
 * the same addresses; the configuration no longer has that subnet.
 */
export type LossReason =
  'deleted' | 'expired' | 'unconfirmed' | 'forgotten' | 'taken' | 'overlapped' | 'network-changed';

/** A lease that the host has; times are on the monotonic clock. */
export interface Holding {
  readonly lease: LeaseRecord;
  /** The epoch in which the store told of the lease last. */
  readonly epoch: number;
  readonly sinceMs: number;
  /** When it must be treated as lost unless it is renewed. */
  readonly deadlineMs: number;
  readonly keepAliveAtMs: number;
  readonly failedKeepAlives: number;
  /** Whether its end was found to be near. */
  readonly isEnding: boolean;
  /** No writing of the value before that. */
  readonly rewriteAtMs: number;
  readonly failedRewrites: number;
  readonly overwrites: number;
  /** The value is not even readable, so it cannot be compared. */
  readonly isUnreadable: boolean;
  /** What this host asked the store to write and got no answer to: a change to one of these is its own doing. */
  readonly unanswered: readonly LeaseAttributes[];
  /** Keys of others that overlap the lease and are younger. */
  readonly rivals: readonly string[];
}

/** A key of the host's own in a network that was configured before; it may be wanted again soon. */
export interface LeaseAside {
  readonly lease: LeaseRecord;
  readonly untilMs: number;
}

/** Everything that a host knows and wants about its own lease. */
export interface OwnState {
  readonly network: NetworkConfig;
  readonly attributes: LeaseAttributes;
  readonly ttlSeconds: number;
  /** Time before the end of a lease from which on it is reported as ending. */
  readonly warningMs: number;
  /** The lease that an earlier process held last; undefined if that is not known, and once a lease is held. */
  readonly former: Lease | undefined;
  /** Subnets that the host had, the latest first; a network that is configured again brings them back. */
  readonly wishes: readonly Partial<LeaseSubnets>[];
  /** Subnets of peers that the store has forgotten and that may come back. */
  readonly avoid: readonly Prefix[];
  readonly holding: Holding | undefined;
  readonly aside: readonly LeaseAside[];
  /** A lease that was created over an older one of another host, to be deleted again. */
  readonly mistake: LeaseRecord | undefined;
  /** The state of the store that an answer told of; a world before that is out of date. */
  readonly answered: { readonly epoch: number; readonly revision: Revision };
  /** While a lease is sought: no attempt before that. */
  readonly notBeforeMs: number;
  readonly races: number;
  readonly failures: number;
  /** Leases lost in close succession. */
  readonly losses: number;
  /** Key of the lease that was lost last if that was to an older one: it has been told whom it gives way to. */
  readonly overlapped: string | undefined;
}

/** What to ask of the store next, or how long there is nothing to do. */
export type Command =
  | LeasePlan
  | { readonly kind: 'wait'; readonly untilMs: number }
  | { readonly kind: 'delete'; readonly lease: LeaseRecord }
  | { readonly kind: 'publish'; readonly lease: LeaseRecord }
  | { readonly kind: 'keep-alive'; readonly etcdLeaseId: EtcdLeaseId };

/** Something to tell, count or pass on. */
export type Note =
  | { readonly kind: 'acquired'; readonly lease: LeaseRecord; readonly source: SubnetSource }
  | { readonly kind: 'lost'; readonly lease: LeaseRecord; readonly reason: LossReason; readonly rival?: string }
  | { readonly kind: 'changed' | 'published' | 'ending' | 'renewed-again'; readonly lease: LeaseRecord }
  | { readonly kind: 'reserved' | 'unreserved' | 'renewed-by-other'; readonly lease: LeaseRecord }
  | {
      readonly kind: 'overwritten';
      readonly lease: LeaseRecord;
      readonly isUnreadable: boolean;
      readonly count: number;
      readonly delayMs: number;
    }
  | { readonly kind: 'rival' | 'yielded'; readonly lease: LeaseRecord; readonly key: string }
  | { readonly kind: 'lost-race' | 'failed-renewal' | 'renewal' }
  | { readonly kind: 'unused-ttl'; readonly etcdLeaseId: EtcdLeaseId }
  | { readonly kind: 'failed'; readonly what: 'acquire' | 'publish' | 'renew' | 'tidy'; readonly error: unknown };

/** Result of {@link decide} and {@link applyOutcome}. */
export interface Decision {
  readonly own: OwnState;
  readonly notes: readonly Note[];
}

/** How a command ended. */
export type Outcome =
  | { readonly kind: 'reuse' | 'publish'; readonly result: UpdateResult }
  | { readonly kind: 'create'; readonly result: CreateResult }
  | { readonly kind: 'delete'; readonly result: 'deleted' | 'changed' }
  /** Seconds that the etcd lease has now, undefined if it is gone. */
  | { readonly kind: 'keep-alive'; readonly result: number | undefined }
  | { readonly kind: 'failed'; readonly error: unknown };

/** How long a subnet is kept after the configuration left it: a typing mistake is noticed and fixed in that time. */
export const ASIDE_MS = 600_000;

/** Subnets that are remembered. */
const MAX_WISHES = 8;

/** Values whose fate is unknown that are remembered. */
const MAX_UNANSWERED = 8;

/** Cheap enough for thousands of hosts, and three hundred chances before the time of a lease is over. */
const KEEP_ALIVE_EVERY_MS = 300_000;

/** At most that part of a short TTL passes between two keep-alives. */
const KEEP_ALIVE_TTL_SHARE = 1 / 3;

/** Two hosts with one public address would otherwise rewrite their key as fast as etcd allows. */
const REWRITE_BASE_MS = 1000;
const REWRITE_CAP_MS = 300_000;

/** A host that finds no subnet says so that often. */
const REMIND_MS = 60_000;

/** Longest pause before a lease that was lost again and again is sought: peers go on sending for a little longer. */
const LOSS_CAP_MS = 500;

/** A lease held for that long was not lost in succession. */
const STABLE_MS = 60_000;

/**
 * Time after which a lease must be treated as lost, measured on the monotonic clock.
 *
 * @remarks Counted from when the last acknowledged keep-alive was *sent*: etcd starts its own countdown later than that.
 * @returns milliseconds on the same clock, one second before the server may expire the key.
 */
export function leaseDeadlineMs(ttlSeconds: number, sentAtMs: number): number {
  return sentAtMs + (ttlSeconds - 1) * 1000;
}

/** Whether the store has what the host wants to tell its peers. */
export function isPublished({ holding, attributes }: OwnState): boolean {
  return holding !== undefined && !needsRewrite(holding, attributes);
}

/**
 * Decides what a host does about its lease. Pure: the same world, state, time and chance give the same answer.
 *
 * @param world - what the store says; undefined before it has said anything.
 * @param nowMs - on the monotonic clock.
 */
export function decide(
  world: World | undefined,
  own: OwnState,
  nowMs: number,
  random: () => number,
): Decision & { readonly command: Command } {
  const notes: Note[] = [];
  const fresh = world !== undefined && !isOutOfDate(world, own) ? world : undefined;
  let next = fresh === undefined ? own : considerWorld(fresh, own, { nowMs, random, notes });
  next = considerTime(next, { nowMs, random, notes });
  if (next.holding !== undefined && !doesFit(next.network, next.holding.lease)) {
    next = lose(next, next.holding, 'network-changed', { nowMs, random, notes });
  }
  if (next.holding === undefined) return seek(fresh, next, { nowMs, random, notes });
  return { own: next, notes, command: keep(next.holding, next, nowMs) };
}

interface Circumstances {
  readonly nowMs: number;
  readonly random: () => number;
  readonly notes: Note[];
}

function isOutOfDate(world: World, { answered }: OwnState): boolean {
  return world.epoch === answered.epoch && isAfter(answered.revision, world.revision);
}

/** Has what failed tried again at once: the store, which was away, answers again. */
export function retryNow(own: OwnState, nowMs: number): OwnState {
  const { holding } = own;
  if (holding === undefined) return own.failures === 0 ? own : { ...own, failures: 0, notBeforeMs: nowMs };
  const { failedRewrites, failedKeepAlives } = holding;
  const rewrite = failedRewrites === 0 ? {} : { failedRewrites: 0, rewriteAtMs: nowMs };
  const keepAlive = failedKeepAlives === 0 ? {} : { keepAliveAtMs: nowMs };
  return { ...own, holding: { ...holding, ...rewrite, ...keepAlive } };
}

/** Compares the own keys with what the store says of them now; the same world again tells nothing new. */
function considerWorld(world: World, own: OwnState, now: Circumstances): OwnState {
  const aside = own.aside.flatMap(({ lease, untilMs }) => {
    const current = world.leases.get(lease.key);
    const isOurs = current?.attributes.publicIp.equals(lease.attributes.publicIp) === true;
    return isOurs && current.key !== own.holding?.lease.key ? [{ lease: current, untilMs }] : [];
  });
  const next: OwnState = { ...own, aside };
  const { holding } = next;
  if (holding === undefined) return next;
  const { nowMs, random, notes } = now;
  const bad = world.bad.get(holding.lease.key);
  if (bad !== undefined) {
    if (holding.isUnreadable && bad.revision === holding.lease.revision) return next;
    const lease = { ...holding.lease, revision: bad.revision };
    return { ...next, holding: overwritten({ ...holding, lease, epoch: world.epoch, isUnreadable: true }, now) };
  }
  const known = holding.lease;
  const seen = world.leases.get(known.key);
  if (seen === undefined) {
    const reason = nowMs >= holding.deadlineMs ? 'expired' : world.epoch === holding.epoch ? 'deleted' : 'forgotten';
    return lose(next, holding, reason, now);
  }
  const isNewEpoch = world.epoch !== holding.epoch;
  if (!isOwnKey(seen, own, holding, isNewEpoch)) return lose(next, holding, 'taken', now);
  const rivals = rivalsIn(world, seen);
  const older = rivals.find(({ createdAt }) => isAfter(seen.createdAt, createdAt));
  if (older !== undefined) return lose(next, holding, 'overlapped', now, older.key);

  const keys = rivals.map(({ key }) => key);
  let held: Holding = { ...holding, lease: seen, epoch: world.epoch, isUnreadable: false, rivals: keys };
  for (const key of held.rivals) if (!holding.rivals.includes(key)) notes.push({ kind: 'rival', lease: seen, key });
  if (seen.revision === known.revision && !isNewEpoch) return { ...next, holding: held };
  // Another history: what is attached to the etcd lease, and whether it is there, has to be asked anew.
  if (isNewEpoch) held = { ...held, keepAliveAtMs: nowMs, rewriteAtMs: nowMs };
  if (seen.etcdLeaseId !== known.etcdLeaseId) held = withOtherTtl(held, known, own.ttlSeconds, now);
  const expected = [own.attributes, ...holding.unanswered];
  const isExpected = expected.some((each) => areAttributesEqual(each, seen.attributes));
  if (!isExpected && !isNewEpoch) held = overwritten(held, { nowMs, random, notes });
  else if (!isNewEpoch && seen.etcdLeaseId !== known.etcdLeaseId && !seen.isReservation && !known.isReservation) {
    notes.push({ kind: 'renewed-by-other', lease: seen });
  }
  notes.push({ kind: 'changed', lease: seen });
  return { ...next, holding: held };
}

/** Whether what lies under the own key is of this host: it names an address of ours, or is an older version of our key. */
function isOwnKey(seen: LeaseRecord, own: OwnState, holding: Holding, isNewEpoch: boolean): boolean {
  const { lease, unanswered } = holding;
  const ours = [lease.attributes, own.attributes, ...unanswered];
  if (ours.some(({ publicIp }) => publicIp.equals(seen.attributes.publicIp))) return true;
  return isNewEpoch && seen.createdAt === lease.createdAt && isAfter(lease.revision, seen.revision);
}

function overwritten(holding: Holding, { nowMs, random, notes }: Circumstances): Holding {
  const count = holding.overwrites + 1;
  const delayMs = backoffMs(count, REWRITE_BASE_MS, REWRITE_CAP_MS, random);
  const { lease, isUnreadable } = holding;
  notes.push({ kind: 'overwritten', lease, isUnreadable, count, delayMs });
  return { ...holding, overwrites: count, rewriteAtMs: nowMs + delayMs };
}

function withOtherTtl(held: Holding, known: LeaseRecord, ttlSeconds: number, { nowMs, notes }: Circumstances): Holding {
  const { lease } = held;
  if (lease.isReservation) notes.push({ kind: 'reserved', lease });
  else if (known.isReservation) notes.push({ kind: 'unreserved', lease });
  if (known.etcdLeaseId !== undefined) notes.push({ kind: 'unused-ttl', etcdLeaseId: known.etcdLeaseId });
  const deadlineMs = leaseDeadlineMs(ttlSeconds, nowMs);
  return { ...held, keepAliveAtMs: nowMs, deadlineMs, failedKeepAlives: 0, isEnding: false };
}

function considerTime(own: OwnState, now: Circumstances): OwnState {
  const { nowMs, notes } = now;
  const { holding } = own;
  if (holding === undefined || holding.lease.isReservation || holding.failedKeepAlives === 0) return own;
  const leftMs = holding.deadlineMs - nowMs;
  if (leftMs <= 0) return lose(own, holding, 'unconfirmed', now);
  if (leftMs > own.warningMs || holding.isEnding) return own;
  notes.push({ kind: 'ending', lease: holding.lease });
  return { ...own, holding: { ...holding, isEnding: true } };
}

function lose(
  own: OwnState,
  { lease, sinceMs }: Holding,
  reason: LossReason,
  { nowMs, random, notes }: Circumstances,
  rival?: string,
): OwnState {
  notes.push({ kind: 'lost', lease, reason, ...(rival === undefined ? {} : { rival }) });
  const isKept = reason === 'network-changed' && own.network.ipv4?.network.overlaps(lease.subnet) === false;
  if (!isKept && lease.etcdLeaseId !== undefined) notes.push({ kind: 'unused-ttl', etcdLeaseId: lease.etcdLeaseId });
  const losses = nowMs - sinceMs >= STABLE_MS ? 0 : own.losses + 1;
  return {
    ...own,
    holding: undefined,
    wishes: remember(lease, own.wishes),
    aside: isKept && !lease.isReservation ? [...own.aside, { lease, untilMs: nowMs + ASIDE_MS }] : own.aside,
    losses,
    overlapped: reason === 'overlapped' ? lease.key : undefined,
    notBeforeMs: losses < 2 ? nowMs : nowMs + backoffMs(losses - 1, 50, LOSS_CAP_MS, random),
  };
}

function remember(lease: LeaseSubnets, wishes: OwnState['wishes']): OwnState['wishes'] {
  const { subnet, ipv6Subnet } = lease;
  const others = wishes.filter((wish) => !subnet.equals(wish.subnet) || wish.ipv6Subnet?.equals(ipv6Subnet) === false);
  return [{ subnet, ...(ipv6Subnet === undefined ? {} : { ipv6Subnet }) }, ...others].slice(0, MAX_WISHES);
}

/** The next step of a host without a lease. */
function seek(
  world: World | undefined,
  own: OwnState,
  { nowMs, random, notes }: Circumstances,
): Decision & { readonly command: Command } {
  const wait = (untilMs: number, next = own): Decision & { readonly command: Command } => ({
    own: next,
    notes,
    command: { kind: 'wait', untilMs },
  });
  if (nowMs < own.notBeforeMs) return wait(own.notBeforeMs);
  if (own.mistake !== undefined) return { own, notes, command: { kind: 'delete', lease: own.mistake } };
  if (world === undefined) return wait(Number.POSITIVE_INFINITY);
  const { network, wishes, avoid, attributes } = own;
  const former = [...(own.former === undefined ? [] : [own.former]), ...own.aside.map(({ lease }) => lease)];
  try {
    const known = knownOf(world);
    const plan = planLease({ network, publicIp: attributes.publicIp, known, former, wishes, avoid, random });
    return { own, notes, command: plan };
  } catch (error) {
    // Nothing was asked of the store: only another world, or another configuration, can change it. It is told again.
    notes.push({ kind: 'failed', what: 'acquire', error });
    return wait(nowMs + REMIND_MS);
  }
}

/** The next step of a host with a lease. */
function keep(holding: Holding, own: OwnState, nowMs: number): Command {
  const { lease, keepAliveAtMs, rewriteAtMs, failedKeepAlives, deadlineMs } = holding;
  const { etcdLeaseId } = lease;
  const times: number[] = own.aside.map(({ untilMs }) => untilMs);
  const due = own.aside.find(({ untilMs }) => untilMs <= nowMs);
  if (due !== undefined) return { kind: 'delete', lease: due.lease };
  if (needsRewrite(holding, own.attributes)) {
    if (rewriteAtMs <= nowMs) return { kind: 'publish', lease };
    times.push(rewriteAtMs);
  }
  if (etcdLeaseId !== undefined) {
    if (keepAliveAtMs <= nowMs) return { kind: 'keep-alive', etcdLeaseId };
    times.push(keepAliveAtMs);
    if (failedKeepAlives > 0) times.push(holding.isEnding ? deadlineMs : deadlineMs - own.warningMs);
  }
  return { kind: 'wait', untilMs: Math.min(...times) };
}

function needsRewrite(holding: Holding, wanted: LeaseAttributes): boolean {
  return holding.isUnreadable || !areAttributesEqual(holding.lease.attributes, wanted);
}

/** When and in which history a command was carried out. */
export interface Occasion {
  /** Of the world that the command was decided on. */
  readonly epoch: number;
  /** When the request left, on the monotonic clock. */
  readonly sentAtMs: number;
  /** When the answer was there. */
  readonly nowMs: number;
  readonly random: () => number;
  /** What the command was to write. */
  readonly attributes: LeaseAttributes;
}

/** Takes in how a command ended. Pure, like {@link decide}. */
export function applyOutcome(own: OwnState, command: Command, outcome: Outcome, occasion: Occasion): Decision {
  const notes: Note[] = [];
  return { own: takeIn(own, command, outcome, occasion, notes), notes };
}

function takeIn(own: OwnState, command: Command, outcome: Outcome, now: Occasion, notes: Note[]): OwnState {
  switch (outcome.kind) {
    case 'create':
      return created(own, command, outcome.result, now, notes);
    case 'reuse':
      return reused(own, outcome.result, now, notes);
    case 'publish':
      return published(own, outcome.result, now, notes);
    case 'keep-alive':
      return keptAlive(own, outcome.result, now, notes);
    case 'delete':
      return deleted(own, command);
    case 'failed':
      return noteFailure(own, command, outcome.error, now, notes);
  }
}

function noteFailure(
  own: OwnState,
  command: Command,
  error: unknown,
  { nowMs, random, attributes }: Occasion,
  notes: Note[],
): OwnState {
  const { holding } = own;
  if (holding === undefined) {
    notes.push({ kind: 'failed', what: 'acquire', error });
    return failed(own, nowMs, random);
  }
  if (command.kind === 'keep-alive') {
    notes.push({ kind: 'failed-renewal' }, { kind: 'failed', what: 'renew', error });
    const failedKeepAlives = holding.failedKeepAlives + 1;
    const keepAliveAtMs = nowMs + backoffMs(failedKeepAlives, 1000, 30_000, random);
    return { ...own, holding: { ...holding, failedKeepAlives, keepAliveAtMs } };
  }
  if (command.kind === 'publish') {
    notes.push({ kind: 'failed', what: 'publish', error });
    return { ...own, holding: postponeRewrite(holding, attributes, nowMs, random) };
  }
  notes.push({ kind: 'failed', what: 'tidy', error });
  return { ...own, aside: own.aside.map((each) => ({ ...each, untilMs: Math.max(each.untilMs, nowMs + 30_000) })) };
}

function failed(own: OwnState, nowMs: number, random: () => number): OwnState {
  const failures = own.failures + 1;
  return { ...own, failures, notBeforeMs: nowMs + backoffMs(failures, 1000, 30_000, random) };
}

function lostRace(own: OwnState, revision: Revision | undefined, { epoch, nowMs, random }: Occasion): OwnState {
  const races = own.races + 1;
  const answered = revision === undefined ? own.answered : { epoch, revision };
  return { ...own, answered, races, notBeforeMs: nowMs + backoffMs(races, 20, 2000, random) };
}

function postponeRewrite(holding: Holding, tried: LeaseAttributes, nowMs: number, random: () => number): Holding {
  const failedRewrites = holding.failedRewrites + 1;
  const isKnown = holding.unanswered.some((each) => areAttributesEqual(each, tried));
  const unanswered = isKnown ? holding.unanswered : [tried, ...holding.unanswered].slice(0, MAX_UNANSWERED);
  const rewriteAtMs = nowMs + backoffMs(failedRewrites, 1000, 30_000, random);
  return { ...holding, unanswered, failedRewrites, rewriteAtMs };
}

function created(own: OwnState, command: Command, result: CreateResult, now: Occasion, notes: Note[]): OwnState {
  if (command.kind !== 'create') return own;
  if (result.outcome === 'taken') {
    notes.push({ kind: 'lost-race' });
    return lostRace(own, result.revision, now);
  }
  const { lease, snapshot } = result;
  const rival = findOlderRival(lease, snapshot);
  if (rival !== undefined) {
    notes.push({ kind: 'lost-race' }, { kind: 'rival', lease, key: rival.key });
    return { ...lostRace(own, lease.revision, now), mistake: lease };
  }
  const { yielding } = command;
  if (yielding !== undefined && yielding.lease.key !== own.overlapped) {
    notes.push({ kind: 'yielded', lease: yielding.lease, key: yielding.rival });
  }
  notes.push({ kind: 'acquired', lease, source: command.source });
  const aside = command.aside.map((each) => ({ lease: each, untilMs: now.nowMs + ASIDE_MS }));
  return hold(
    { ...own, aside: [...own.aside, ...aside.filter(({ lease: { key } }) => !isAside(own, key))] },
    lease,
    now,
  );
}

function isAside(own: OwnState, key: string): boolean {
  return own.aside.some(({ lease }) => lease.key === key);
}

function reused(own: OwnState, result: UpdateResult, now: Occasion, notes: Note[]): OwnState {
  if (result.outcome === 'changed') {
    notes.push({ kind: 'lost-race' });
    const { lease, bad } = result.now;
    return lostRace(own, (lease ?? bad)?.revision, now);
  }
  const { lease } = result;
  notes.push({ kind: 'acquired', lease, source: 'public-ip' });
  const others = own.aside.filter(({ lease: { key } }) => key !== lease.key);
  // Back in the network of before: the one in between was the mistake, and nobody will want it again.
  const aside = isAside(own, lease.key) ? others.map((each) => ({ ...each, untilMs: now.nowMs })) : others;
  return hold({ ...own, aside }, lease, now);
}

function hold(own: OwnState, lease: LeaseRecord, { epoch, sentAtMs, random }: Occasion): OwnState {
  const holding: Holding = {
    lease,
    epoch,
    sinceMs: sentAtMs,
    deadlineMs: leaseDeadlineMs(own.ttlSeconds, sentAtMs),
    keepAliveAtMs: sentAtMs + keepAliveDelayMs(own, random),
    failedKeepAlives: 0,
    isEnding: false,
    rewriteAtMs: sentAtMs,
    failedRewrites: 0,
    overwrites: 0,
    isUnreadable: false,
    unanswered: [],
    rivals: [],
  };
  const answered = { epoch, revision: lease.revision };
  return { ...own, holding, answered, former: undefined, races: 0, failures: 0 };
}

function published(own: OwnState, result: UpdateResult, now: Occasion, notes: Note[]): OwnState {
  const { holding } = own;
  if (holding === undefined) return own;
  const { epoch, nowMs, random, attributes } = now;
  if (result.outcome === 'changed') {
    const { lease, bad } = result.now;
    const entry = lease ?? bad;
    const isNews = entry !== undefined && isAfter(entry.revision, holding.lease.revision);
    const answered = isNews ? { epoch, revision: entry.revision } : own.answered;
    return { ...own, answered, holding: postponeRewrite(holding, attributes, nowMs, random) };
  }
  const { lease } = result;
  const next = { ...holding, lease, unanswered: [], isUnreadable: false, failedRewrites: 0 };
  const isOtherTtl = lease.etcdLeaseId !== holding.lease.etcdLeaseId;
  const held = isOtherTtl ? withOtherTtl(next, holding.lease, own.ttlSeconds, { nowMs, random, notes }) : next;
  notes.push({ kind: 'published', lease });
  return { ...own, answered: { epoch, revision: lease.revision }, holding: held };
}

function keptAlive(own: OwnState, seconds: number | undefined, now: Occasion, notes: Note[]): OwnState {
  const { holding } = own;
  if (holding === undefined) return own;
  // Without its etcd lease the key is gone, unless it has been given another one: the next world tells.
  if (seconds === undefined) return lose(own, holding, 'expired', { nowMs: now.nowMs, random: now.random, notes });
  notes.push({ kind: 'renewal' });
  if (holding.isEnding) notes.push({ kind: 'renewed-again', lease: holding.lease });
  const deadlineMs = leaseDeadlineMs(seconds, now.sentAtMs);
  const keepAliveAtMs = now.sentAtMs + keepAliveDelayMs(own, now.random);
  return { ...own, holding: { ...holding, deadlineMs, keepAliveAtMs, failedKeepAlives: 0, isEnding: false } };
}

function deleted(own: OwnState, command: Command): OwnState {
  if (command.kind !== 'delete') return own;
  const { key } = command.lease;
  // One made by mistake is deleted before anything else is asked for.
  return { ...own, mistake: undefined, aside: own.aside.filter(({ lease }) => lease.key !== key) };
}

function keepAliveDelayMs({ ttlSeconds }: OwnState, random: () => number): number {
  const usual = Math.min(KEEP_ALIVE_EVERY_MS, ttlSeconds * 1000 * KEEP_ALIVE_TTL_SHARE);
  return backoffMs(1, usual, usual, random);
}

const known = new WeakMap<World, KnownLeases>();

type Rival = LeaseRecord | BadEntry;

/** Who was found to claim an address of a lease, and in which world. */
const rivalries = new WeakMap<LeaseRecord, { readonly world: World; readonly rivals: readonly Rival[] }>();

/** As {@link findRivals}; of a world that is the last one but for a few keys, only those are looked at. */
function rivalsIn(world: World, lease: LeaseRecord): readonly Rival[] {
  const last = rivalries.get(lease);
  if (last?.world === world) return last.rivals;
  const keys = changedKeys(last?.world, world);
  const rivals =
    last === undefined || keys === undefined
      ? findRivals(lease, knownOf(world))
      : [...last.rivals.filter(({ key }) => !keys.has(key)), ...findRivals(lease, knownUnder(keys, world))];
  rivalries.set(lease, { world, rivals });
  return rivals;
}

function knownUnder(keys: ReadonlySet<string>, { leases, bad }: World): KnownLeases {
  return {
    leases: [...keys].flatMap((key) => leases.get(key) ?? []),
    bad: [...keys].flatMap((key) => bad.get(key) ?? []),
  };
}

function knownOf(world: World): KnownLeases {
  const before = known.get(world);
  if (before !== undefined) return before;
  const lists = { leases: [...world.leases.values()], bad: [...world.bad.values()] };
  known.set(world, lists);
  return lists;
}
