import type { Tunnel, TunnelOptions } from '../dataplane/tunnel.js';
import type { ServiceManager } from '../systemd/notify.js';

type Inherited = NonNullable<TunnelOptions['inherited']>;

/** Names of the descriptors in the service manager's store: what it is, a dot, the device. */
const TUN = 'tun.';
const SOCKET = 'udp.';

/** Tunnels by device that the process before this one has left with the service manager. */
export function inheritedTunnels(descriptors: ReadonlyMap<string, readonly number[]>): Map<string, Inherited> {
  const tunnels = new Map<string, Inherited>();
  for (const [name, tun] of descriptors) {
    if (!name.startsWith(TUN)) continue;
    const device = name.slice(TUN.length);
    tunnels.set(device, { tun, socket: descriptors.get(SOCKET + device) ?? [] });
  }
  return tunnels;
}

const stored = new WeakMap<ServiceManager, Map<string, Tunnel>>();

/** Leaves the descriptors of the open tunnels with the service manager, and takes back those of closed ones. */
export function storeTunnels(service: ServiceManager, tunnels: readonly Tunnel[]): void {
  if (!service.isPresent) return;
  const known = stored.get(service) ?? new Map<string, Tunnel>();
  stored.set(service, known);
  const open = new Set(tunnels);
  for (const [device, tunnel] of known) {
    if (open.has(tunnel)) continue;
    known.delete(device);
    service.removeDescriptors(TUN + device);
    service.removeDescriptors(SOCKET + device);
  }
  for (const tunnel of tunnels) {
    if (known.has(tunnel.device)) continue;
    known.set(tunnel.device, tunnel);
    const { tun, socket } = tunnel.descriptors();
    service.storeDescriptors(TUN + tunnel.device, tun);
    service.storeDescriptors(SOCKET + tunnel.device, socket);
  }
}
