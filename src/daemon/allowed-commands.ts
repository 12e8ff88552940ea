import type { ConfiguredBackend } from '../backend/backend.js';
import type { DaemonOptions } from '../config/flags.js';
import { OverlayError } from '../errors.js';

/**
 * Refuses a backend with commands where the operator of this host has not allowed them: they are in etcd, whose writers
 * are not by that root on every host.
 *
 * @throws {@link OverlayError} `ERR_BACKEND_HOST`
 */
export function assertCommandsAllowed(
  { type, commands }: ConfiguredBackend,
  { allowExtensionCommands, etcdPrefix }: Pick<DaemonOptions, 'allowExtensionCommands' | 'etcdPrefix'>,
): void {
  if (commands === undefined || allowExtensionCommands) return;
  throw new OverlayError(
    'ERR_BACKEND_HOST',
    `cannot run backend ${type}: its commands come from etcd, and this host does not run commands from there`,
    {
      hint: `start the daemon with --allow-extension-commands if everybody who may write ${etcdPrefix}/config may do anything on this host`,
    },
  );
}
