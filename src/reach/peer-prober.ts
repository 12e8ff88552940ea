import type { FamilyContext } from '../backend/families.js';
import type { Clock } from '../clock.js';
import { guarded } from '../guard.js';
import type { Family } from '../ip/address.js';
import type { Lease } from '../lease/lease.js';
import type { Logger } from '../log.js';
import type { Steps } from '../pace.js';
import { errnoName } from '../sys/libc.js';
import type { EchoPort, EchoReply, OpenEchoPort } from './echo-socket.js';
import { type PathHealth, type ReachState, UNKNOWN_HEALTH, afterProbe } from './path-health.js';
import { ReachLog } from './reach-log.js';
import { type ProbePath, type ProbeTarget, probePaths } from './targets.js';

/** Time for an answer: ten times that across a continent and back. */
const ANSWER_MS = 2000;

/** Probes are sent in groups, so that thousands of peers do not wake the process thousands of times a second. */
const GROUP_MS = 100;

/** Together with {@link GROUP_MS} at most 100 probes a second; with more peers than that allows, each waits longer. */
const GROUP_SIZE = 10;

/** Probes go out up to so much later than they might, so that those of many hosts do not stay in step. */
const JITTER = 0.25;

/** A peer that has just joined is given time to set itself up, and those known at the start are not all asked at once. */
const FIRST_MS = 1000;
const FIRST_SPREAD_MS = 5000;

/** Without a socket nothing can be probed; whether there is one is looked at again after that time. */
const REOPEN_MS = 60_000;

/** Errors of a send that say nothing about the peer: this host's own queue is full. */
const NOT_SENT: ReadonlySet<string> = new Set(['EAGAIN', 'ENOBUFS', 'ENOMEM']);

/** Upper bounds of the round trips in seconds: from the same rack to a path that is in trouble. */
export const PROBE_BOUNDS_SECONDS = [
  0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2,
] as const;

/** How one path is doing, for the status. */
export interface PathReport {
  readonly path: ProbePath;
  readonly health: PathHealth;
  /** What answered the last probe; undefined if nothing did. */
  readonly answeredBy: ProbeTarget | undefined;
  /** Why the kernel did not send the last probe, or one echo of it, as an errno's name. */
  readonly errno: string | undefined;
}

/** All paths together. */
export interface ProbeTotals {
  /** Why there is no socket to send from; undefined while there is. */
  readonly error: unknown;
  /** Between two probes of the same peer, before jitter. */
  readonly intervalMs: number;
  /** Peers by the worst of their paths. */
  readonly peers: Readonly<Record<ReachState, number>>;
  /** Probes by how they ended: with an answer, without one, refused by this host's kernel. */
  readonly probes: { readonly answered: number; readonly lost: number; readonly failed: number };
  /** Answers by {@link PROBE_BOUNDS_SECONDS}, last those above all of them, and the sum of all. */
  readonly roundTrips: { readonly buckets: readonly number[]; readonly sumSeconds: number };
}

/** What a {@link PeerProber} works with. */
export interface PeerProberOptions {
  readonly clock: Clock;
  readonly log: Logger;
  readonly openPort: OpenEchoPort;
  /** Between two probes of the same path. */
  readonly intervalMs: number;
}

/** Whom {@link PeerProber.follow} is about. */
export interface ProbedPeers extends FamilyContext {
  readonly peers: readonly Lease[];
  /** Peers that nothing is sent to for a reason that is told elsewhere. */
  readonly skipped: readonly { readonly lease: Lease }[];
}

/** What is known of one path, and the latest probe on it. */
interface Track {
  /** Equal for the same path whatever lease object it came from. */
  readonly key: string;
  readonly path: ProbePath;
  health: PathHealth;
  dueMs: number;
  /** Of the path's targets, the first that has ever answered. */
  best: number | undefined;
  /** Of the path's targets, the first that answered the latest probe that has ended. */
  answered: number | undefined;
  /** Likewise for the latest probe, which may be under way. */
  answering: number | undefined;
  errno: string | undefined;
  sentAtMs: number;
  /** Requests of the latest probe that may still be answered. */
  outstanding: number;
  /** Whether the latest probe has ended; until then there is no other. */
  isDecided: boolean;
}

/** An echo request that may still be answered. */
interface Request {
  readonly track: Track;
  readonly target: number;
  readonly sentAtMs: number;
}

/**
 * Asks every peer now and then whether it answers through the overlay.
 *
 * API: {@link follow} says who the peers are, {@link reportsOf} and {@link totals} tell what is known of them. A probe is
 * one echo to the peer's device address; to every address that may answer for it at first, and when that one did not
 * answer last time.
 * Limits: one probe per path and interval, with up to a quarter of jitter on top, and 100 a second in all: beyond
 * 100 paths for each second of the interval, the interval grows.
 * Errors: without a socket nothing is probed and every peer stays as it is; it is tried again each minute.
 * Logs: {@link ReachLog}.
 *
 * @remarks ICMP echo, because every kernel answers it without a program of ours, flannel's peers included, and one
 * socket serves all of them. A UDP datagram to a closed port needs a socket per peer to hear of the refusal, and kernels
 * limit refusals to one a second and destination (`icmp_ratelimit`); ping(8) is a process per probe.
 */
export class PeerProber {
  private byLease: ReadonlyMap<Lease, readonly Track[]> = new Map();
  /** All of them; those that were probed longest ago come first. */
  private readonly order = new Set<Track>();
  /** By sequence number, the oldest first. */
  private readonly requests = new Map<number, Request>();
  private sequence = 0;
  private readonly ports = new Map<Family, EchoPort>();
  private failure: { readonly error: unknown; readonly untilMs: number } | undefined;
  private input: ProbedPeers | undefined;
  private cancelTimer: (() => void) | undefined;
  private lastGroupMs = Number.NEGATIVE_INFINITY;
  private readonly counts = { answered: 0, lost: 0, failed: 0 };
  private readonly buckets = new Array<number>(PROBE_BOUNDS_SECONDS.length + 1).fill(0);
  private sumSeconds = 0;
  private readonly reachLog: ReachLog;
  private readonly onTimer: () => void;
  private readonly onReply: (reply: EchoReply) => void;

  constructor(private readonly options: PeerProberOptions) {
    const { clock, log: logger } = options;
    this.reachLog = new ReachLog(clock, logger, () => this.unreachablePeers());
    const guard = { clock, logger, what: 'probes of peers' };
    this.onTimer = guarded({ ...guard, recover: () => this.schedule() }, () => this.work());
    this.onReply = guarded(guard, (reply) => this.takeReply(reply));
  }

  /**
   * Says who the peers are from now on, peer by peer; none other may begin before it has ended. Paths that stay keep what
   * is known of them.
   */
  *follow(input: ProbedPeers): Steps<void> {
    const former = this.input;
    this.input = input;
    const isSameHost = former?.network === input.network && former.host === input.host && former.own === input.own;
    if (isSameHost && former.peers === input.peers && former.skipped.length + input.skipped.length === 0) return;
    const skipped = new Set(input.skipped.map(({ lease }) => lease));
    const leases = new Set(skipped.size === 0 ? input.peers : input.peers.filter((lease) => !skipped.has(lease)));
    const leaving = new Map<string, Track>();
    for (const [lease, tracks] of this.byLease) {
      if (!isSameHost || !leases.has(lease)) for (const track of tracks) leaving.set(track.key, track);
    }
    const byLease = new Map<Lease, readonly Track[]>();
    for (const lease of leases) {
      const known = isSameHost ? this.byLease.get(lease) : undefined;
      byLease.set(lease, known ?? probePaths(input, lease).map((path) => this.takeOver(path, leaving)));
      yield;
    }
    this.byLease = byLease;
    for (const track of leaving.values()) this.drop(track);
    this.schedule();
  }

  /** What is known of the ways to a peer, one for each address family; empty for a peer that is not probed. */
  reportsOf(lease: Lease): readonly PathReport[] {
    return (this.byLease.get(lease) ?? []).map(({ path, health, answered, errno }) => ({
      path,
      health,
      answeredBy: answered === undefined ? undefined : path.targets[answered],
      errno,
    }));
  }

  totals(): ProbeTotals {
    const peers = { reachable: 0, unreachable: 0, unknown: 0 };
    for (const tracks of this.byLease.values()) if (tracks.length > 0) peers[worstState(tracks)]++;
    return {
      error: this.failure?.error,
      intervalMs: Math.max(this.options.intervalMs, (this.order.size * GROUP_MS) / GROUP_SIZE),
      peers,
      probes: { ...this.counts },
      roundTrips: { buckets: [...this.buckets], sumSeconds: this.sumSeconds },
    };
  }

  /** Idempotent. */
  close(): void {
    this.cancelTimer?.();
    this.byLease = new Map();
    this.order.clear();
    this.requests.clear();
    this.reachLog.close();
    for (const port of this.ports.values()) port.close();
    this.ports.clear();
  }

  // Who is probed

  /** The track of that path, out of `leaving` if it is there. */
  private takeOver(path: ProbePath, leaving: Map<string, Track>): Track {
    const key = path.targets.map(({ address }) => address.toString()).join();
    const known = leaving.get(key);
    leaving.delete(key);
    if (known !== undefined) return known;
    const { clock, intervalMs } = this.options;
    const track: Track = {
      key,
      path,
      health: UNKNOWN_HEALTH,
      dueMs: clock.monotonicMs() + FIRST_MS + clock.random() * Math.min(FIRST_SPREAD_MS, intervalMs),
      best: undefined,
      answered: undefined,
      answering: undefined,
      errno: undefined,
      sentAtMs: Number.NEGATIVE_INFINITY,
      outstanding: 0,
      isDecided: true,
    };
    this.order.add(track);
    return track;
  }

  private drop(track: Track): void {
    this.order.delete(track);
    for (const [sequence, request] of this.requests) if (request.track === track) this.requests.delete(sequence);
    if (track.health.state === 'unreachable') this.reachLog.changed();
  }

  private unreachablePeers(): { readonly names: readonly string[]; readonly count: number } {
    const names: string[] = [];
    let count = 0;
    for (const [{ subnet, attributes }, tracks] of this.byLease) {
      if (tracks.length === 0) continue;
      count++;
      if (worstState(tracks) === 'unreachable') names.push(`${subnet.toString()} (${attributes.publicIp.toString()})`);
    }
    return { names, count };
  }

  // Probes

  private schedule(): void {
    this.cancelTimer?.();
    this.cancelTimer = undefined;
    const nextMs = Math.min(this.nextGroupMs(), this.nextExpiryMs());
    if (!Number.isFinite(nextMs)) return;
    this.cancelTimer = this.options.clock.after(Math.max(0, nextMs - this.options.clock.monotonicMs()), this.onTimer);
  }

  private nextGroupMs(): number {
    let dueMs = Number.POSITIVE_INFINITY;
    for (const track of this.order) if (track.isDecided) dueMs = Math.min(dueMs, track.dueMs);
    return Math.max(dueMs, this.lastGroupMs + GROUP_MS, this.failure?.untilMs ?? 0);
  }

  private nextExpiryMs(): number {
    for (const { sentAtMs } of this.requests.values()) return sentAtMs + ANSWER_MS;
    return Number.POSITIVE_INFINITY;
  }

  private work(): void {
    // What arrived while this process was busy or stopped is no loss.
    for (const port of this.ports.values()) port.receive();
    const nowMs = this.options.clock.monotonicMs();
    for (const [sequence, { track, sentAtMs }] of this.requests) {
      if (sentAtMs + ANSWER_MS > nowMs) break;
      this.requests.delete(sequence);
      if (sentAtMs === track.sentAtMs) this.endRequest(track);
    }
    if (this.nextGroupMs() <= nowMs) this.sendGroup(nowMs);
    this.schedule();
  }

  private sendGroup(nowMs: number): void {
    this.lastGroupMs = nowMs;
    const group: Track[] = [];
    for (const track of this.order) {
      if (group.length === GROUP_SIZE) break;
      if (track.isDecided && track.dueMs <= nowMs) group.push(track);
    }
    for (const track of group) {
      const port = this.portFor(track.path.family, nowMs);
      if (port === undefined) return;
      this.order.delete(track);
      this.order.add(track);
      this.probe(track, port, nowMs);
    }
  }

  private portFor(family: Family, nowMs: number): EchoPort | undefined {
    const open = this.ports.get(family);
    if (open !== undefined) return open;
    try {
      const port = this.options.openPort(family, this.onReply);
      this.ports.set(family, port);
      this.failure = undefined;
      return port;
    } catch (error) {
      if (this.failure === undefined) this.options.log.warn('peers cannot be probed', { error });
      this.failure = { error, untilMs: nowMs + REOPEN_MS };
      return undefined;
    }
  }

  private probe(track: Track, port: EchoPort, nowMs: number): void {
    const { clock, intervalMs } = this.options;
    const { targets } = track.path;
    const asked = track.answered === 0 ? targets.slice(0, 1) : targets;
    track.dueMs = nowMs + intervalMs * (1 + JITTER * clock.random());
    track.sentAtMs = nowMs;
    track.answering = undefined;
    track.errno = undefined;
    track.isDecided = false;
    track.outstanding = asked.length;
    for (const [target, { address }] of asked.entries()) {
      this.sequence = (this.sequence + 1) & 0xffff;
      const { sequence } = this;
      this.requests.set(sequence, { track, target, sentAtMs: nowMs });
      const result = port.send(address, sequence);
      if (result >= 0) continue;
      track.errno = errnoName(result);
      this.requests.delete(sequence);
      this.endRequest(track);
    }
  }

  private takeReply({ address, sequence }: EchoReply): void {
    const request = this.requests.get(sequence);
    if (request === undefined) return;
    const { track, target, sentAtMs } = request;
    if (track.path.targets[target]?.address.equals(address) !== true) return;
    this.requests.delete(sequence);
    if (sentAtMs !== track.sentAtMs) return; // the next probe is on its way already
    track.best = Math.min(track.best ?? target, target);
    track.answering = Math.min(track.answering ?? target, target);
    // That the host answers on the underlay is enough only as long as its bridge has never answered.
    const isEnough = track.path.targets[target].layer !== 'underlay' || track.best === target;
    if (track.isDecided) track.answered = track.answering;
    else if (isEnough) this.decide(track, this.options.clock.monotonicMs());
    this.endRequest(track);
  }

  /** One request of the latest probe will not be answered (again). */
  private endRequest(track: Track): void {
    track.outstanding--;
    if (track.outstanding === 0 && !track.isDecided) this.decide(track, undefined);
  }

  /** @param answeredAtMs - undefined for a loss. */
  private decide(track: Track, answeredAtMs: number | undefined): void {
    track.isDecided = true;
    track.answered = track.answering;
    const { sentAtMs, errno, health } = track;
    const isAnswered = answeredAtMs !== undefined;
    if (!isAnswered && errno !== undefined && NOT_SENT.has(errno)) return;
    // An answer that is older than that had to wait for this process.
    const elapsedMs = isAnswered ? answeredAtMs - sentAtMs : Number.POSITIVE_INFINITY;
    const roundTripMs = elapsedMs < ANSWER_MS ? elapsedMs : undefined;
    if (roundTripMs !== undefined) this.observe(roundTripMs / 1000);
    this.counts[isAnswered ? 'answered' : errno === undefined ? 'lost' : 'failed']++;
    track.health = afterProbe(health, { sentAtMs, isAnswered, roundTripMs });
    const states = [health.state, track.health.state];
    if (states[0] !== states[1] && states.includes('unreachable')) this.reachLog.changed();
  }

  private observe(seconds: number): void {
    const bucket = PROBE_BOUNDS_SECONDS.findIndex((bound) => seconds <= bound);
    const index = bucket < 0 ? PROBE_BOUNDS_SECONDS.length : bucket;
    this.buckets[index] = (this.buckets[index] ?? 0) + 1;
    this.sumSeconds += seconds;
  }
}

/** A peer is as reachable as the worst of its families; one that has not been probed enough is not known. */
function worstState(tracks: readonly Track[]): ReachState {
  const has = (state: ReachState): boolean => tracks.some(({ health }) => health.state === state);
  return has('unreachable') ? 'unreachable' : has('unknown') ? 'unknown' : 'reachable';
}
