import { OverlayError } from '../errors.js';
import { Prefix } from '../ip/prefix.js';
import type { TunnelPeer } from '../dataplane/tunnel-spec.js';
import { KERNEL_PATH_DATA, announcesKernelPath } from '../lease/kernel-announcement.js';
import type { Lease } from '../lease/lease.js';
import { SYSCTL } from '../netlink/sysctl-paths.js';
import type { RouteSpec } from '../reconcile/desired.js';
import { type AdditionalPrefixes, type FoundDevice, type HostFacts, NO_LEASE_DATA, defineBackend } from './backend.js';
import { type PeerDestination, destinationsOf } from './families.js';

/** Outer IPv4 header (20) and UDP header (8). */
const ENCAP_OVERHEAD = 28;

/** Each of them is a comparison for every packet that comes in. */
const MAX_GUARDED = 16;

/** Packets the TUN queues before it drops; half of them are the kernel's default of 500, too few for one burst of super-packets. */
const TX_QUEUE_LENGTH = 1000;

/**
 * Userspace tunnel: TUN device, one bare IPv4 packet per UDP datagram.
 *
 * @remarks The TUN takes the whole overlay network, so that a packet for a subnet without a lease is answered by the
 * tunnel (network unreachable), as flannel does. Where udp only serves some peers, each of them has its own route.
 * The forwarding table always holds every lease: a peer that has not yet seen our new backend still sends here, and
 * the source check has to know it.
 * @see flannel `pkg/backend/udp/udp_network_amd64.go`
 */
export const udpBackend = defineBackend({
  type: 'udp',
  publishedType: '',
  families: [4],
  deviceKind: 'tun',
  deviceNames: undefined,
  rules: {
    port: { key: 'Port', kind: 'int', min: 1, max: 65535, default: 8285 },
    verifySource: { key: 'VerifySource', kind: 'choice', choices: ['off', 'outer', 'strict'], default: 'outer' },
  },
  configure: ({ port, verifySource }) => ({
    carrier: { protocol: 'udp', port },
    asksOnLink: false,

    check(network, underlay) {
      if (network.ipv4 === undefined || underlay.address === undefined) {
        throw new OverlayError('ERR_BACKEND_HOST', 'cannot run backend udp: it carries IPv4 over IPv4 only', {
          hint: 'enable IPv4 or choose vxlan',
        });
      }
    },

    mtu: (_network, underlay) => underlay.mtu - ENCAP_OVERHEAD,
    leaseData: (_network, { kernelPath }) =>
      kernelPath?.isAnnounced === true ? { ...NO_LEASE_DATA, backendData: KERNEL_PATH_DATA } : NO_LEASE_DATA,

    desired(context) {
      const { network, host, own, peers, isOwn } = context;
      const { address } = host.underlay;
      if (network.ipv4 === undefined || address === undefined) return { base: {}, peer: () => ({ state: {} }) };
      const mtu = host.underlay.mtu - ENCAP_OVERHEAD;
      const device = host.atStart.tunDevices[0] ?? firstFreeName(host.atStart.devices);
      return {
        base: {
          links: [{ kind: 'tun', name: device, mtu, txQueueLength: TX_QUEUE_LENGTH }],
          addresses: [{ device, address: own.subnet.address, length: 32 }],
          // The kernel then drops what claims to come from any address of this host (fib_validate_source()), whatever
          // the tunnel knows of them. An earlier version, whose device may live on, had it set.
          sysctls: [{ path: SYSCTL.acceptLocal(device), value: '0' }],
          routes: isOwn ? [tunRoute(device, { destination: network.ipv4.network })] : [],
          tunnels: [
            {
              device,
              bindAddress: address,
              port,
              mtu,
              verifySource,
              icmpSource: own.subnet.address,
              ownPrefixes: [own.subnet, Prefix.host(address), ...guarded(context.ownAdditional)],
              peers: tunnelPeers(peers, host, context.additional),
              ...(host.kernelPath && { uplink: { device: host.underlay.device, index: host.underlay.ifindex } }),
            },
          ],
        },
        peer(lease) {
          if (isOwn && context.additional?.has(lease) !== true) return { state: {} };
          const [subnet, ...more] = destinationsOf(lease, 4, context);
          const wanted = isOwn || subnet === undefined ? more : [subnet, ...more];
          return { state: { routes: wanted.map((to) => tunRoute(device, to)) } };
        },
      };
    },
  }),
});

/** The name that the kernel gives flannel, which asks it for `flannel%d`. */
function firstFreeName(devices: readonly FoundDevice[]): string {
  const taken = new Set(devices.map(({ name }) => name));
  let number = 0;
  while (taken.has(`flannel${number}`)) number++;
  return `flannel${number}`;
}

function tunRoute(device: string, to: PeerDestination): RouteSpec {
  return { ...to, type: 'unicast', device, gateway: undefined, isOnlink: false };
}

/** A loop, since there may be thousands of them, and each change makes the table anew. */
function tunnelPeers(
  peers: readonly Lease[],
  host: HostFacts,
  additional: AdditionalPrefixes = new Map(),
): readonly TunnelPeer[] {
  const all: TunnelPeer[] = [];
  for (const lease of peers) {
    const { publicIp } = lease.attributes;
    const kernel = isKernelPeer(lease, host) ? { isKernelPeer: true } : undefined;
    all.push({ subnet: lease.subnet, publicIp, ...kernel });
    const more = additional.get(lease);
    if (more === undefined) continue;
    for (const subnet of more) if (subnet.family === 4) all.push({ subnet, publicIp, ...kernel });
  }
  return all;
}

/**
 * Behind a router the path may be narrower than the uplink, and a route may say so itself: the tunnel finds that out, and
 * tells who sends too much; the programs know one MTU.
 */
function isKernelPeer({ attributes }: Lease, { kernelPath, isOnLink, routeMtu, underlay }: HostFacts): boolean {
  const { publicIp } = attributes;
  if (kernelPath === undefined || !announcesKernelPath(attributes) || !isOnLink(publicIp)) return false;
  return (routeMtu(publicIp) ?? underlay.mtu) >= underlay.mtu;
}

/** Those networks of containers on this host that are guarded although sources are not checked strictly: the largest. */
function guarded(own: readonly Prefix[] = []): readonly Prefix[] {
  return own
    .filter(({ family }) => family === 4)
    .toSorted((a, b) => a.length - b.length)
    .slice(0, MAX_GUARDED);
}
