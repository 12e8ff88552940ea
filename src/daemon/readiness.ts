import { describeError } from '../errors.js';
import { describeAspect } from '../reconcile/aspects.js';
import type { ObjectKind } from '../reconcile/desired.js';
import { kindOf } from '../reconcile/object-key.js';
import type { ReconcilerStatus } from '../reconcile/status.js';
import type { SavedUse } from './saved-origin.js';

/** What {@link reasonsNotReady} looks at. */
export interface ReadinessParts {
  readonly hasNetwork: boolean;
  /** Why the configuration in the store is not in use. */
  readonly rejectedConfig?: string | undefined;
  /** Why the overlay cannot be carried as configured, if it cannot. */
  readonly problem: string | undefined;
  readonly isLeaseHeld: boolean;
  /** What a saved lease is good for that stands in because the store has not answered; undefined if none does. */
  readonly savedUse: Exclude<SavedUse['kind'], 'nothing'> | undefined;
  /** Whether the store tells peers what this host wants it to tell. */
  readonly isLeasePublished: boolean;
  /** Which command of the backend has not succeeded. */
  readonly pendingCommand?: string | undefined;
  readonly isSubnetFileWritten: boolean;
  readonly kernel: Pick<ReconcilerStatus, 'isConverged' | 'failures'>;
  /** Devices of former backends, kept for peers that have not seen the change yet. */
  readonly lingeringDevices: readonly string[];
  /** Whether this process was ready before. */
  readonly wasReady: boolean;
}

/** All that is missing on a host that works with its saved state. */
const STANDING_IN = {
  all: 'the lease is the saved one, etcd has not confirmed it',
  subnet: 'the lease is the saved one and may have ended: nothing is sent to other hosts until etcd answers',
} as const;

/** Without which kinds no packet of a container gets anywhere; a single route or peer may be missing. */
const IS_ESSENTIAL: Readonly<Record<ObjectKind, boolean>> = {
  link: true,
  address: true,
  tunnel: true,
  sysctl: true,
  route: false,
  neighbour: false,
  'proxy-neighbour': false,
  fdb: false,
  filter: false,
  port: false,
  wireguard: true,
  'wireguard-peer': false,
};

/**
 * What is still missing until lease, kernel and packet path are all in place, in words.
 *
 * @remarks A backend that was changed for another one no longer carries what this host sends: nothing that fails on its
 * devices makes the host unready.
 */
export function reasonsNotReady(parts: ReadinessParts): readonly string[] {
  const { isConverged, failures } = parts.kernel;
  const reasons: string[] = [];
  const { rejectedConfig } = parts;
  if (!parts.hasNetwork)
    reasons.push(`no valid network configuration${rejectedConfig === undefined ? '' : `: ${rejectedConfig}`}`);
  if (parts.problem !== undefined) reasons.push(parts.problem);
  if (parts.pendingCommand !== undefined) reasons.push(parts.pendingCommand);
  if (!parts.isLeaseHeld) reasons.push(parts.savedUse === undefined ? 'no lease' : STANDING_IN[parts.savedUse]);
  else if (!parts.isLeasePublished) reasons.push('lease not yet written as it should be');
  if (!parts.isSubnetFileWritten) reasons.push('subnet file not written');
  const missing = failures.filter(
    ({ key, device }) =>
      IS_ESSENTIAL[kindOf(key)] && !(device !== undefined && parts.lingeringDevices.includes(device)),
  );
  if (missing.length > 0)
    reasons.push(...missing.map(({ key, aspect, error }) => `${describeAspect(key, aspect)}: ${describeError(error)}`));
  else if (!isConverged && !parts.wasReady) reasons.push('kernel state is being set up');
  return reasons;
}

/** Whether what waits for the subnet file, such as Docker, may go on: a saved lease is good enough for that. */
export function isReadyForOthers(reasons: readonly string[]): boolean {
  return reasons.every((reason) => Object.values<string>(STANDING_IN).includes(reason));
}
