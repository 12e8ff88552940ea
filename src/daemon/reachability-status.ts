import type { Clock } from '../clock.js';
import { describeError } from '../errors.js';
import type { Lease } from '../lease/lease.js';
import type { PathStatus, ReachabilityStatus } from '../observe/status.js';
import { lossOf } from '../reach/path-health.js';
import type { PeerProber } from '../reach/peer-prober.js';

/** What is known of the ways to a peer, as plain data. */
export function describePaths(prober: PeerProber | undefined, lease: Lease, clock: Clock): readonly PathStatus[] {
  if (prober === undefined) return [];
  const startedMs = clock.wallMs() - clock.monotonicMs();
  return prober.reportsOf(lease).map(({ path, health, answeredBy, errno }) => ({
    family: path.family,
    state: health.state,
    since: health.sinceMs === undefined ? null : new Date(startedMs + health.sinceMs).toISOString(),
    roundTripSeconds: health.roundTripMs === undefined ? null : health.roundTripMs / 1000,
    loss: lossOf(health) ?? null,
    answeredBy: answeredBy === undefined ? null : answeredBy.layer,
    address: (answeredBy ?? path.targets[0])?.address.toString() ?? null,
    errno: errno ?? null,
  }));
}

/** What is known of all of them together; null where probes are switched off. */
export function describeReachability(prober: PeerProber | undefined): ReachabilityStatus | null {
  if (prober === undefined) return null;
  const { error, intervalMs, ...rest } = prober.totals();
  return { ...rest, error: error === undefined ? null : describeError(error), intervalSeconds: intervalMs / 1000 };
}
