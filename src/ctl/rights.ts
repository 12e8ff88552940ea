import { OverlayError } from '../errors.js';
import { errnoOf, isDenied } from '../sys/errno.js';

/** What somebody who is not root can do about it. */
export const AS_ROOT_HINT = 'run this as root, with sudo for example';

/**
 * Ends a command that only root can carry out before it has done half of it.
 *
 * @param task - as in `clean up this host`.
 * @throws {@link OverlayError} `ERR_NOT_PRIVILEGED`
 */
export function requireRoot(task: string): void {
  if (process.geteuid?.() === 0) return;
  throw new OverlayError('ERR_NOT_PRIVILEGED', `cannot ${task}: only root may`, { hint: AS_ROOT_HINT });
}

/** Whether the system refused something because of who this process is. */
export function isRefused(error: unknown): boolean {
  return isDenied(errnoOf(error));
}
