import { readFileSync } from 'node:fs';
import { OverlayError } from '../errors.js';

/** Bit of `CAP_NET_ADMIN` in a capability set (include/uapi/linux/capability.h). */
const CAP_NET_ADMIN = 12n;

/**
 * Checks that the process may change devices, routes and rules.
 *
 * @throws {@link OverlayError} `ERR_NOT_PRIVILEGED`
 */
export function requirePrivileges(status: string = readFileSync('/proc/self/status', 'utf8')): void {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1];
  if (effective !== undefined && ((BigInt(`0x${effective}`) >> CAP_NET_ADMIN) & 1n) === 1n) return;
  throw new OverlayError('ERR_NOT_PRIVILEGED', 'cannot change network devices: CAP_NET_ADMIN is missing', {
    hint: 'run as root, or with AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW',
  });
}
