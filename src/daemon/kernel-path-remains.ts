import type { Clock } from '../clock.js';
import { type FormerSettings, restoreGro } from '../dataplane/kernel-tunnel.js';
import type { InheritedTunnel } from '../dataplane/tunnel.js';
import { close } from '../sys/libc.js';
import type { ServiceManager } from '../systemd/notify.js';
import { forgetKernelPath } from './tunnel-store.js';

/** Until then peers have seen that this host does not announce the kernel path any more. */
const WITHDRAWAL_MS = 5000;

/**
 * Ends the kernel path that an earlier process has left to one which does not use it: a moment later, since what peers
 * send until they know is only for the programs.
 *
 * @returns the tunnels without it.
 */
export function withdrawKernelPath(
  tunnels: ReadonlyMap<string, InheritedTunnel>,
  parts: { readonly clock: Clock; readonly service: ServiceManager; readonly former: FormerSettings },
): Map<string, InheritedTunnel> {
  const { clock, former, service } = parts;
  const paths = [...tunnels].flatMap(([device, { kernelPath }]) => (kernelPath ? [{ device, ...kernelPath }] : []));
  clock.after(paths.length === 0 ? 0 : WITHDRAWAL_MS, () => {
    for (const { device, maps, links } of paths) {
      for (const fd of [...maps, ...links]) close(fd);
      forgetKernelPath(service, device);
    }
    restoreGro(former);
  });
  return new Map([...tunnels].map(([device, { tun, socket }]) => [device, { tun, socket }]));
}
