import type { Tunnel, TunnelOptions } from '../dataplane/tunnel.js';
import type { ServiceManager } from '../systemd/notify.js';

type Inherited = NonNullable<TunnelOptions['inherited']>;

/** Names of the descriptors in the service manager's store: what it is, a dot, the device. */
const TUN = 'tun.';
const SOCKET = 'udp.';
const MAPS = 'bpf-map.';
const LINKS = 'bpf-link.';

/** Tunnels by device that the process before this one has left with the service manager. */
export function inheritedTunnels(descriptors: ReadonlyMap<string, readonly number[]>): Map<string, Inherited> {
  const tunnels = new Map<string, Inherited>();
  for (const [name, tun] of descriptors) {
    if (!name.startsWith(TUN)) continue;
    const device = name.slice(TUN.length);
    const [socket = [], maps, links = []] = [SOCKET, MAPS, LINKS].map((kind) => descriptors.get(kind + device));
    tunnels.set(device, { tun, socket, ...(maps && { kernelPath: { maps, links } }) });
  }
  return tunnels;
}

/** What has been stored under each name, as an object that is another one whenever the descriptors are others. */
const stored = new WeakMap<ServiceManager, Map<string, object>>();

/** Leaves the descriptors of the open tunnels with the service manager, and takes back those of closed ones. */
export function storeTunnels(service: ServiceManager, tunnels: readonly Tunnel[]): void {
  if (!service.isPresent) return;
  const known = stored.get(service) ?? new Map<string, object>();
  stored.set(service, known);
  const wanted = new Map(tunnels.flatMap((tunnel) => [...entriesOf(tunnel)]));
  for (const [name, owner] of known) {
    if (wanted.get(name)?.owner === owner) continue;
    known.delete(name);
    service.removeDescriptors(name);
  }
  for (const [name, { owner, descriptors, hasFormer }] of wanted) {
    if (known.has(name)) continue;
    known.set(name, owner);
    if (hasFormer) service.removeDescriptors(name);
    service.storeDescriptors(name, descriptors);
  }
}

/** Takes back what an earlier process has left of the kernel path. */
export function forgetKernelPath(service: ServiceManager, device: string): void {
  for (const kind of [MAPS, LINKS]) service.removeDescriptors(kind + device);
}

interface Entry {
  readonly owner: object;
  readonly descriptors: readonly number[];
  /** An earlier process may have left others, which nobody uses any more. */
  readonly hasFormer: boolean;
}

function entriesOf(tunnel: Tunnel): ReadonlyMap<string, Entry> {
  const { device, kernelPath } = tunnel;
  const { tun, socket } = tunnel.descriptors();
  const entries = new Map<string, Entry>([
    [TUN + device, { owner: tunnel, descriptors: tun, hasFormer: false }],
    [SOCKET + device, { owner: tunnel, descriptors: socket, hasFormer: false }],
  ]);
  if (kernelPath === undefined) return entries;
  const { descriptors: owner } = kernelPath;
  entries.set(MAPS + device, { owner, descriptors: owner.maps, hasFormer: true });
  entries.set(LINKS + device, { owner, descriptors: owner.links, hasFormer: true });
  return entries;
}
