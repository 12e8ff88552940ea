import type { Clock } from '../clock.js';
import { guarded } from '../guard.js';
import type { Logger } from '../log.js';
import type { DaemonStatus, HistoryEntry, TrafficStatus, TunnelStatus } from './status.js';

/** Time between two entries, and how many are kept: an hour. */
export const HISTORY_STEP_MS = 5000;
/** See {@link HISTORY_STEP_MS}. */
export const HISTORY_ENTRIES = 720;

/** The part of the status that the history is made of; cheap also with many peers. */
export type HistorySource = Pick<DaemonStatus, 'devices' | 'tunnels' | 'store'>;

/** Sums of the counters at one instant. */
interface Totals {
  readonly atMs: number;
  readonly txPackets: number;
  readonly rxPackets: number;
  readonly txBytes: number;
  readonly rxBytes: number;
  readonly drops: Readonly<Record<string, number>>;
  readonly roundTrips: number;
  readonly roundTripSeconds: number;
}

/**
 * Traffic, drops and the latency of etcd over the last hour, for those who look at the page only afterwards.
 *
 * Limits: {@link HISTORY_ENTRIES} entries, with no more reasons than there are.
 */
export class History {
  private readonly kept: HistoryEntry[] = [];
  private before: Totals | undefined;
  private cancelTimer: () => void = () => {};
  private readonly takeGuarded: () => void;

  constructor(
    private readonly clock: Clock,
    private readonly read: () => HistorySource,
    logger: Logger,
  ) {
    this.takeGuarded = guarded({ clock, logger, what: 'the history of traffic' }, () => this.take());
    this.step();
  }

  /** Oldest first. */
  get entries(): readonly HistoryEntry[] {
    return this.kept;
  }

  /** Takes no more. Idempotent. */
  close(): void {
    this.cancelTimer();
  }

  private step(): void {
    this.takeGuarded();
    this.cancelTimer = this.clock.after(HISTORY_STEP_MS, () => this.step());
  }

  private take(): void {
    const now = totalsOf(this.read(), this.clock.monotonicMs());
    if (this.before !== undefined) this.kept.push(entryOf(now, this.before, this.clock.wallMs()));
    if (this.kept.length > HISTORY_ENTRIES) this.kept.shift();
    this.before = now;
  }
}

/**
 * Devices count what tunnels carry, too, except what the kernel path takes before they see it; what has no device is
 * counted by its tunnel.
 */
function totalsOf({ devices, tunnels, store }: HistorySource, atMs: number): Totals {
  const carriers =
    devices.length > 0 ? [...devices, ...tunnels.flatMap(pastTheDevice)] : tunnels.map(({ counters }) => counters);
  const drops: Record<string, number> = {};
  const add = (reason: string, count: number): void => void (drops[reason] = (drops[reason] ?? 0) + count);
  for (const { counters } of tunnels) for (const [reason, count] of Object.entries(counters.drops)) add(reason, count);
  for (const device of devices) {
    add('device out', device.txDropped + device.txErrors);
    add('device in', device.rxDropped + device.rxErrors);
  }
  const sum = (key: 'txPackets' | 'rxPackets' | 'txBytes' | 'rxBytes'): number =>
    carriers.reduce((total, carrier) => total + carrier[key], 0);
  const { roundTripTimes } = store.counters;
  return {
    atMs,
    txPackets: sum('txPackets'),
    rxPackets: sum('rxPackets'),
    txBytes: sum('txBytes'),
    rxBytes: sum('rxBytes'),
    drops,
    roundTrips: roundTripTimes.buckets.reduce((total, count) => total + count, 0),
    roundTripSeconds: roundTripTimes.sumSeconds,
  };
}

function pastTheDevice({ kernelPath }: TunnelStatus): readonly TrafficStatus[] {
  const counters = kernelPath?.counters;
  if (!counters) return [];
  const { sent, received } = counters;
  return [{ txPackets: sent.packets, txBytes: sent.bytes, rxPackets: received.packets, rxBytes: received.bytes }];
}

function entryOf(now: Totals, before: Totals, at: number): HistoryEntry {
  const seconds = (now.atMs - before.atMs) / 1000;
  // A counter that went back belongs to a device or tunnel that was made anew.
  const rate = (to: number, from: number): number => (to >= from ? round((to - from) / seconds) : 0);
  const drops = Object.entries(now.drops).map(([reason, count]) => {
    return [reason, rate(count, before.drops[reason] ?? 0)] as const;
  });
  const roundTrips = now.roundTrips - before.roundTrips;
  return {
    at,
    txPps: rate(now.txPackets, before.txPackets),
    rxPps: rate(now.rxPackets, before.rxPackets),
    txBps: rate(8 * now.txBytes, 8 * before.txBytes),
    rxBps: rate(8 * now.rxBytes, 8 * before.rxBytes),
    drops: Object.fromEntries(drops.filter(([, perSecond]) => perSecond > 0)),
    etcdMs: roundTrips > 0 ? round((1000 * (now.roundTripSeconds - before.roundTripSeconds)) / roundTrips) : null,
  };
}

/** Three digits behind the point tell one packet in an hour and one microsecond of etcd. */
function round(value: number): number {
  return Math.round(value * 1000) / 1000;
}
