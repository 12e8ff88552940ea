import type { TunnelSpec } from '../dataplane/tunnel-spec.js';
import type { Family, IpAddress } from '../ip/address.js';
import type { MacAddress } from '../ip/mac.js';
import type { Prefix } from '../ip/prefix.js';

/**
 * Number that marks our routes in the kernel (`rtm_protocol`), so that after a restart we know them from everybody
 * else's. Not assigned in iproute2's `rt_protos` nor in `uapi/linux/rtnetlink.h`.
 */
export const ROUTE_PROTOCOL = 173;

/** What every kind of link has. */
interface LinkCommon {
  readonly name: string;
  /** Bytes of the largest IP packet. */
  readonly mtu: number;
}

/**
 * A TUN device. It is made by the tunnel that holds its descriptor; the reconciler only sets what is here and waits
 * while it is not there yet.
 */
export interface TunLink extends LinkCommon {
  readonly kind: 'tun';
  readonly txQueueLength: number;
}

/** A VXLAN device with unicast forwarding entries only (flannel's form: no group, no L2/L3 miss). */
export interface VxlanLink extends LinkCommon {
  readonly kind: 'vxlan';
  readonly mac: MacAddress;
  /** 24 bits. */
  readonly vni: number;
  /** Interface index of the underlay device. */
  readonly underlayIndex: number;
  /** Outer source address. */
  readonly local: IpAddress;
  /** Outer UDP destination port; 0 leaves the choice to the kernel (8472). */
  readonly port: number;
  readonly learning: boolean;
  readonly gbp: boolean;
}

/** An IPIP device without a fixed remote. */
export interface IpipLink extends LinkCommon {
  readonly kind: 'ipip';
  readonly local: IpAddress;
}

/** A network device that must exist, be up and look like this. Identity: `name`. */
export type LinkSpec = TunLink | VxlanLink | IpipLink;

/** An address on a device of ours. Identity: device and prefix. Other addresses of that family on it are removed, link-local IPv6 excepted. */
export interface AddressSpec {
  readonly device: string;
  readonly address: IpAddress;
  /** Prefix length on the device; 32 or 128 for everything flannel makes. */
  readonly length: number;
}

/**
 * A route in the main table. Identity: destination and metric. Routes on devices of ours and routes with our
 * {@link ROUTE_PROTOCOL} that are not desired are removed.
 */
export interface RouteSpec {
  readonly destination: Prefix;
  readonly type: 'unicast' | 'blackhole';
  /** Output device by name; undefined for a blackhole. */
  readonly device: string | undefined;
  readonly gateway: IpAddress | undefined;
  /** The gateway is taken as reachable on the device although no address there says so (`RTNH_F_ONLINK`). */
  readonly isOnlink: boolean;
  readonly scope: 'global' | 'link';
  /** 32 bits; of several routes to one destination the lowest is used. Default {@link defaultMetric}. */
  readonly metric?: number;
}

/** The metric that a route without one gets (`IP6_RT_PRIO_USER` for IPv6). */
export function defaultMetric(family: Family): number {
  return family === 4 ? 0 : 1024;
}

/** A permanent ARP/ND entry on a device of ours. Identity: device and address. */
export interface NeighSpec {
  readonly device: string;
  readonly address: IpAddress;
  readonly mac: MacAddress;
}

/** A permanent forwarding entry of a VXLAN device of ours (`bridge fdb … self`). Identity: device and MAC. */
export interface FdbSpec {
  readonly device: string;
  readonly mac: MacAddress;
  /** VTEP that the MAC is behind. */
  readonly destination: IpAddress;
}

/** A file under `/proc/sys`. */
export interface SysctlSpec {
  /** Path below `/proc/sys`, with slashes: `net/ipv6/conf/flannel.1/accept_ra`. */
  readonly path: string;
  readonly value: string;
}

/** Everything that must exist on this host for the overlay to work. Pure data; order does not matter. */
export interface DesiredState {
  readonly links: readonly LinkSpec[];
  readonly addresses: readonly AddressSpec[];
  readonly routes: readonly RouteSpec[];
  readonly neighbours: readonly NeighSpec[];
  readonly fdb: readonly FdbSpec[];
  readonly tunnels: readonly TunnelSpec[];
  readonly sysctls: readonly SysctlSpec[];
}

/** The state of a host that carries nothing: what clean-up reconciles to. */
export const EMPTY_STATE: DesiredState = {
  links: [],
  addresses: [],
  routes: [],
  neighbours: [],
  fdb: [],
  tunnels: [],
  sysctls: [],
};

/** All parts of several states together; plain loops, since there may be a state for each of thousands of peers. */
export function mergeStates(states: readonly Partial<DesiredState>[]): DesiredState {
  const merged = {
    links: [] as LinkSpec[],
    addresses: [] as AddressSpec[],
    routes: [] as RouteSpec[],
    neighbours: [] as NeighSpec[],
    fdb: [] as FdbSpec[],
    tunnels: [] as TunnelSpec[],
    sysctls: [] as SysctlSpec[],
  };
  for (const state of states) {
    append(merged.links, state.links);
    append(merged.addresses, state.addresses);
    append(merged.routes, state.routes);
    append(merged.neighbours, state.neighbours);
    append(merged.fdb, state.fdb);
    append(merged.tunnels, state.tunnels);
    append(merged.sysctls, state.sysctls);
  }
  return merged;
}

function append<T>(to: T[], from: readonly T[] | undefined): void {
  if (from !== undefined) for (const item of from) to.push(item);
}
