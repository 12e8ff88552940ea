import type { TunnelSpec } from '../dataplane/tunnel-spec.js';
import type { Family, IpAddress } from '../ip/address.js';
import type { MacAddress } from '../ip/mac.js';
import type { Prefix } from '../ip/prefix.js';
import type { WireguardPublicKey, WireguardSecret } from '../ip/wireguard-key.js';
import type { WireguardEndpoint } from '../netlink/wireguard.js';

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

/** A WireGuard device; what it is set to is a {@link WireguardSpec}. */
export interface WireguardLink extends LinkCommon {
  readonly kind: 'wireguard';
}

/** A device with a MAC address of its own on another device. */
export interface MacvlanLink extends LinkCommon {
  readonly kind: 'macvlan';
  readonly mac: MacAddress;
  /** Interface index of the device that it lies on. */
  readonly lowerIndex: number;
  readonly mode: 'bridge';
}

/** A device with the MAC address of the one that it lies on. Mode and flag are those of all ipvlan devices there. */
export interface IpvlanLink extends LinkCommon {
  readonly kind: 'ipvlan';
  /** Interface index of the device that it lies on. */
  readonly lowerIndex: number;
  readonly mode: 'l2' | 'l3' | 'l3s';
  readonly flag: 'bridge';
}

/** An 802.1Q sub-interface: the tagged frames of one VLAN on another device. Its MAC address is that one's. */
export interface VlanLink extends LinkCommon {
  readonly kind: 'vlan';
  /** Interface index of the device that carries the tagged frames. */
  readonly lowerIndex: number;
  /** 1…4094. */
  readonly id: number;
}

/** A device that leads nowhere. */
export interface DummyLink extends LinkCommon {
  readonly kind: 'dummy';
}

/** A bridge; what is on it are {@link PortSpec}s. */
export interface BridgeLink extends LinkCommon {
  readonly kind: 'bridge';
  /** Undefined leaves it to the kernel: that of one of its ports, and another one when that port goes. */
  readonly mac: MacAddress | undefined;
}

/**
 * The end of a pair that stays on the host. It is made, with the other one, by whoever gives that away; the reconciler
 * only sets what is here and waits while it is not there yet.
 */
export interface VethLink extends LinkCommon {
  readonly kind: 'veth';
}

/** The kinds of devices that can be desired. */
export interface LinkKinds {
  readonly tun: TunLink;
  readonly vxlan: VxlanLink;
  readonly ipip: IpipLink;
  readonly wireguard: WireguardLink;
  readonly macvlan: MacvlanLink;
  readonly ipvlan: IpvlanLink;
  readonly vlan: VlanLink;
  readonly dummy: DummyLink;
  readonly bridge: BridgeLink;
  readonly veth: VethLink;
}

/** A network device that must exist, be up and look like this. Identity: `name`. */
export type LinkSpec = LinkKinds[keyof LinkKinds];

/** Kinds that others make: a tunnel its TUN device. */
export type GivenLinkKind = 'tun' | 'veth';

/** Kinds that the reconciler makes. */
export type MadeLinkKind = Exclude<keyof LinkKinds, GivenLinkKind>;

/** What of a device of that kind can differ from what is desired. */
export type LinkField<K extends keyof LinkKinds> = Exclude<keyof LinkKinds[K], 'kind' | 'name'>;

/** An address on a device of ours. Identity: device and prefix. Other addresses of that family on it are removed, link-local IPv6 excepted. */
export interface AddressSpec {
  readonly device: string;
  readonly address: IpAddress;
  /** Prefix length on the device; 32 or 128 for everything flannel makes. */
  readonly length: number;
  /** The kernel makes no route to its prefix. Default false. */
  readonly noPrefixRoute?: boolean;
}

/**
 * A route in the main table. Identity: destination and metric. Routes on devices of ours and routes with our
 * {@link ROUTE_PROTOCOL} that are not desired are removed.
 */
export interface RouteSpec {
  readonly destination: Prefix;
  /** What is sent into a `blackhole` is never heard of again; of `unreachable` destinations the sender is told. */
  readonly type: 'unicast' | 'blackhole' | 'unreachable';
  /** Output device by name; undefined unless it is unicast. */
  readonly device: string | undefined;
  readonly gateway: IpAddress | undefined;
  /** The gateway is taken as reachable on the device although no address there says so (`RTNH_F_ONLINK`). */
  readonly isOnlink: boolean;
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

/**
 * An address that this host answers neighbour solicitations for on a device of the host, such as its uplink. Identity:
 * device and address. IPv6 alone. The device needs `proxy_ndp` and forwarding.
 */
export interface ProxyNeighSpec {
  readonly device: string;
  readonly address: IpAddress;
}

/** A permanent forwarding entry of a VXLAN device of ours (`bridge fdb … self`). Identity: device and MAC. */
export interface FdbSpec {
  readonly device: string;
  readonly mac: MacAddress;
  /** VTEP that the MAC is behind. */
  readonly destination: IpAddress;
}

/** What a WireGuard device of ours is known by and listens on. Identity: device. */
export interface WireguardSpec {
  readonly device: string;
  readonly privateKey: WireguardSecret;
  /** UDP. */
  readonly listenPort: number;
}

/** A peer of a WireGuard device of ours. Identity: device and public key. */
export interface WireguardPeerSpec {
  readonly device: string;
  readonly publicKey: WireguardPublicKey;
  readonly presharedKey: WireguardSecret | undefined;
  /**
   * Where the peer is to be looked for. The kernel follows a peer that sends from elsewhere, and that is left as it is
   * until another endpoint is desired.
   */
  readonly endpoint: WireguardEndpoint;
  /** 0: no keep-alives. */
  readonly keepaliveSeconds: number;
  /** What is sent to it and believed of it, each of them of one peer of the device only. Order does not matter. */
  readonly allowedIps: readonly Prefix[];
}

/** That a device of ours is a port of a bridge. Identity: device. */
export interface PortSpec {
  readonly device: string;
  /** Device name. */
  readonly bridge: string;
  /** It exchanges no frames with other isolated ports, only with the host. */
  readonly isIsolated: boolean;
  /**
   * Frames may leave through it that came in through it: a container that calls a port of the host which leads to itself,
   * where `br_netfilter` translates on the bridge.
   */
  readonly isHairpin: boolean;
}

/** Which way frames go through a device, as the host sees it. */
export type FilterDirection = 'ingress' | 'egress';

/**
 * Lets only frames of some stations in (`ingress`: by their source), or only frames to them out (`egress`: by their
 * destination), on a device of ours. Identity: device and direction.
 */
export interface FilterSpec {
  readonly device: string;
  readonly direction: FilterDirection;
  /** MAC addresses; at most `MAX_STATIONS`. Order does not matter. */
  readonly stations: readonly MacAddress[];
}

/** A file under `/proc/sys`. */
export interface SysctlSpec {
  /** Path below `/proc/sys`, with slashes: `net/ipv6/conf/flannel.1/accept_ra`. */
  readonly path: string;
  readonly value: string;
  /** Change it from this value alone: any other is what somebody wants. Default from every one. */
  readonly from?: string;
  /** Once it is no longer desired, it gets back what it was, unless somebody has changed it since. Default false. */
  readonly isRestored?: boolean;
  /** Unlike that, it stays as it is as long as this parameter has this value. */
  readonly keptWhile?: { readonly path: string; readonly value: string };
}

/** The kinds of objects that can be desired. What is in this table has a module in `kinds/`. */
export interface Kinds {
  readonly link: LinkSpec;
  readonly address: AddressSpec;
  readonly route: RouteSpec;
  readonly neighbour: NeighSpec;
  readonly 'proxy-neighbour': ProxyNeighSpec;
  readonly fdb: FdbSpec;
  readonly filter: FilterSpec;
  readonly port: PortSpec;
  readonly wireguard: WireguardSpec;
  readonly 'wireguard-peer': WireguardPeerSpec;
  readonly sysctl: SysctlSpec;
  readonly tunnel: TunnelSpec;
}

/** One of {@link Kinds}; the `kind` label of logs and counters. */
export type ObjectKind = keyof Kinds;

/** The list of a {@link DesiredState} that holds the objects of a kind. */
export const LISTS = {
  link: 'links',
  address: 'addresses',
  route: 'routes',
  neighbour: 'neighbours',
  'proxy-neighbour': 'proxyNeighbours',
  fdb: 'fdb',
  filter: 'filters',
  port: 'ports',
  wireguard: 'wireguard',
  'wireguard-peer': 'wireguardPeers',
  sysctl: 'sysctls',
  tunnel: 'tunnels',
} as const satisfies Readonly<Record<ObjectKind, string>>;

/** All kinds, in the order in which they are told. */
export const OBJECT_KINDS = Object.keys(LISTS) as readonly ObjectKind[];

/** Everything that must exist on this host for the overlay to work. Pure data; order does not matter. */
export type DesiredState = { readonly [K in ObjectKind as (typeof LISTS)[K]]: readonly Kinds[K][] };

/** The state of a host that carries nothing: what clean-up reconciles to. */
export const EMPTY_STATE: DesiredState = emptyLists();

/** All parts of several states together; plain loops, since there may be a state for each of thousands of peers. */
export function mergeStates(states: readonly Partial<DesiredState>[]): DesiredState {
  const merged = emptyLists();
  for (const list of Object.values(LISTS)) {
    const all: unknown[] = merged[list];
    for (const state of states) {
      const items = state[list];
      if (items !== undefined) for (const item of items) all.push(item);
    }
  }
  return merged;
}

function emptyLists(): { [K in ObjectKind as (typeof LISTS)[K]]: Kinds[K][] } {
  return {
    links: [],
    addresses: [],
    routes: [],
    neighbours: [],
    proxyNeighbours: [],
    fdb: [],
    filters: [],
    ports: [],
    wireguard: [],
    wireguardPeers: [],
    sysctls: [],
    tunnels: [],
  };
}
