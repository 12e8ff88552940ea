import { isOverlayError } from '../errors.js';
import type { Logger } from '../log.js';
import type { OpenTunnel } from './tunnel.js';

/**
 * Which implementation carries the packets. `kernel` is the native one with the kernel path in front; `auto` is that
 * with bulk left to the native one.
 */
export type TunnelChoice = 'auto' | 'kernel' | 'native' | 'portable';

/** Whether the kernel path belongs to it. */
export function wantsKernelPath(choice: TunnelChoice): boolean {
  return choice === 'auto' || choice === 'kernel';
}

/** The function that opens tunnels of each kind. */
export type TunnelImplementations = Readonly<Record<Exclude<TunnelChoice, 'auto'>, OpenTunnel>>;

/**
 * The function that opens tunnels of the chosen kind.
 *
 * @remarks `auto` falls back to the portable tunnel only where the addon is missing, and says so once: any other
 * failure, such as a port in use, would meet the portable tunnel as well.
 */
export function openTunnelFor(choice: TunnelChoice, log: Logger, implementations: TunnelImplementations): OpenTunnel {
  if (choice !== 'auto') return implementations[choice];
  let isAddonMissing = false;
  return async (options) => {
    if (isAddonMissing) return implementations.portable(options);
    try {
      return await implementations.kernel(options);
    } catch (error) {
      if (!isOverlayError(error, 'ERR_ADDON_MISSING')) throw error;
      isAddonMissing = true;
      log.warn('native packet path missing, packets go through the slow portable tunnel', {
        error,
      });
      return implementations.portable(options);
    }
  };
}
