import { describeError } from '../errors.js';
import { deviceOf, kindOf } from '../reconcile/object-key.js';
import type { ReconcilerStatus } from '../reconcile/status.js';

/** What {@link reasonsNotReady} looks at. */
export interface ReadinessParts {
  readonly hasNetwork: boolean;
  /** Why the overlay cannot be carried as configured, if it cannot. */
  readonly problem: string | undefined;
  readonly isLeaseHeld: boolean;
  /** Whether a saved lease stands in because the store has not answered. */
  readonly isLeaseSaved: boolean;
  /** Whether the store tells peers what this host wants it to tell. */
  readonly isLeasePublished: boolean;
  readonly isSubnetFileWritten: boolean;
  readonly kernel: Pick<ReconcilerStatus, 'isConverged' | 'failures'>;
  /** Devices of former backends, kept for peers that have not seen the change yet. */
  readonly lingeringDevices: readonly string[];
  /** Whether this process was ready before. */
  readonly wasReady: boolean;
}

/** All that is missing on a host that works with its saved state: what waits for the subnet file may go on. */
export const UNCONFIRMED = 'the lease is the saved one, etcd has not confirmed it';

/** Without these no packet of a container gets anywhere; a single route or peer may be missing. */
const ESSENTIAL = new Set(['link', 'address', 'tunnel', 'sysctl']);

/**
 * What is still missing until lease, kernel and packet path are all in place, in words.
 *
 * @remarks A backend that was changed for another one no longer carries what this host sends: nothing that fails on its
 * devices makes the host unready.
 */
export function reasonsNotReady(parts: ReadinessParts): readonly string[] {
  const { isConverged, failures } = parts.kernel;
  const reasons: string[] = [];
  if (!parts.hasNetwork) reasons.push('no valid network configuration');
  if (parts.problem !== undefined) reasons.push(parts.problem);
  if (!parts.isLeaseHeld) reasons.push(parts.isLeaseSaved ? UNCONFIRMED : 'no lease');
  else if (!parts.isLeasePublished) reasons.push('lease not yet written as it should be');
  if (!parts.isSubnetFileWritten) reasons.push('subnet file not written');
  const missing = failures.filter(
    ({ key }) => ESSENTIAL.has(kindOf(key)) && !parts.lingeringDevices.includes(deviceOf(key) ?? ''),
  );
  if (missing.length > 0) reasons.push(...missing.map(({ key, error }) => `${key}: ${describeError(error)}`));
  else if (!isConverged && !parts.wasReady) reasons.push('kernel state is being set up');
  return reasons;
}
