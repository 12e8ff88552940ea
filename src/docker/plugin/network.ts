import type { PoolId } from '../../container/pool-id.js';
import type { PublishedPort } from '../../firewall/containers/container-rules.js';
import type { IpAddress } from '../../ip/address.js';
import type { MacAddress } from '../../ip/mac.js';
import type { Prefix } from '../../ip/prefix.js';

/** Values of `-o type=`. */
export type NetworkTypeName = 'macvlan' | 'ipvlan' | 'bridge' | 'overlay';

/**
 * What containers take to be on their link: all of the network's subnet, or nothing but a gateway on their host, so that
 * an address is reached wherever its container is.
 */
export type Addressing = 'subnet' | 'host';

/** What an operator says of a network with `-o`; what its type has no option for is as if nobody had said anything. */
export interface NetworkSettings {
  readonly type: NetworkTypeName;
  /** One of those of the type, such as `bridge` for macvlan; empty where it has none. */
  readonly mode: string;
  /** Likewise: which of its interfaces on a parent exchange frames, such as `private` for ipvlan. */
  readonly flag: string;
  readonly addressing: Addressing;
  /** Bytes; undefined: that of what carries its packets. */
  readonly mtu: number | undefined;
  /** Whether this host and its containers reach each other, where a type does not have it so anyway. */
  readonly hasHostAccess: boolean;
  /** Whether the network is asked for an address before a container gets it. */
  readonly isProbed: boolean;
  /** Whether its containers reach each other. */
  readonly isIccAllowed: boolean;
  /** Whether connections from outside reach its containers over IPv6 without published ports. */
  readonly ipv6Firewall: 'closed' | 'open';
  /** Whether this host answers neighbour solicitations for its containers outside. */
  readonly hasNdpProxy: boolean;
}

/** One subnet of a network, as Docker says at its creation. */
export interface NetworkSubnet {
  readonly subnet: Prefix;
  /** Undefined where containers get none. */
  readonly gateway: IpAddress | undefined;
  /** No container gets these. */
  readonly auxiliary: readonly IpAddress[];
  /** Undefined where its addresses are another IPAM driver's. */
  readonly pool: PoolId | undefined;
  /** An address of the pool that this host has itself, for its access to containers; none where it needs none. */
  readonly host?: IpAddress | undefined;
}

/** That the frames of a network are tagged. */
export interface NetworkVlan {
  /** 1…4094 (IEEE 802.1Q). */
  readonly id: number;
  /** Device on which the parent is made as a sub-interface; undefined where somebody else has made it. */
  readonly trunk: string | undefined;
}

/** A network that Docker, or tsflannelctl, has made with this driver. */
export interface ContainerNetwork extends NetworkSettings {
  /** Docker's, another one on each host; or our own, see {@link isOwn}. */
  readonly id: string;
  /** Device of the host that its interfaces lie on, or are ports of. */
  readonly parent: string;
  /** Of the parent; undefined where frames carry no tag that the host would know of. */
  readonly vlan: NetworkVlan | undefined;
  /** Nothing leads out of it. */
  readonly isInternal: boolean;
  readonly subnets: readonly NetworkSubnet[];
}

/** An address of an interface. */
export interface EndpointAddress {
  readonly address: IpAddress;
  readonly length: number;
}

/** An interface of a container, from when Docker asks for it. */
export interface Endpoint {
  readonly id: string;
  readonly networkId: string;
  /** That of the parent where it has none of its own. */
  readonly mac: MacAddress;
  readonly addresses: readonly EndpointAddress[];
  /** Network namespace of the container, as a path, as long as it is in one. */
  readonly sandbox: string | undefined;
  /** In no container when an engine started last: one that the engine does not know of any more, unless it soon is. */
  readonly isStale: boolean;
  /** Ports of this host that lead to it. */
  readonly ports?: readonly PublishedPort[];
}

/** What all kinds of networks and endpoints are found in. */
export interface NetworkSet {
  readonly networks: readonly ContainerNetwork[];
  readonly endpoints: readonly Endpoint[];
}

/** Name of the interface on its way into the container: 15 characters, the most that the kernel takes. */
export function linkNameOf(endpointId: string): string {
  return `${LINK_PREFIX}${endpointId.slice(0, 11)}`;
}

/** Whether the interfaces of containers have MAC addresses of their own, and not that of what they lie on. */
export function hasOwnMac({ type }: { readonly type: string }): boolean {
  return type !== 'ipvlan';
}

/** Whether nothing is resolved on the interfaces of containers, which hand packets to the routing of the host. */
export function isLayer3({ type, mode }: Pick<ContainerNetwork, 'type' | 'mode'>): boolean {
  return type === 'ipvlan' && mode !== 'l2';
}

/** Whether a network has a bridge on each of its hosts, and leads over their routing instead of through an interface. */
export function isRouted({ type }: { readonly type: string }): boolean {
  return type === 'bridge' || type === 'overlay';
}

/** The bridge of a routed network on this host: one for all networks here that have the same addresses. */
export function bridgeNameOf({ parent }: Pick<ContainerNetwork, 'parent'>): string {
  return parent;
}

/** Name of the end, on the host, of the interface of a container in a routed network. */
export function hostEndOf(endpointId: string): string {
  return `tsfv${endpointId.slice(0, 11)}`;
}

/** Whether this host has the parent of a network only for as long as it has networks there. */
export function hasOwnParent(network: ContainerNetwork): boolean {
  return network.isInternal || isRouted(network) || network.vlan?.trunk !== undefined;
}

/** Name of the device that this host makes for a network that lies on none of its interfaces. */
export function ownParentOf(network: Pick<ContainerNetwork, 'id' | 'type'>): string {
  return `${isRouted(network) ? 'tsfb' : 'tsfi'}-${network.id.slice(0, 10)}`;
}

const LINK_PREFIX = 'tsfc';

/** Whether a device has a name as {@link linkNameOf} gives. */
export function isLinkName(name: string): boolean {
  return name.startsWith(LINK_PREFIX) && name.length > LINK_PREFIX.length;
}

/** The rest of a set: networks and endpoints on the parent of a network, without its own. */
export function othersOn(network: ContainerNetwork, { networks, endpoints }: NetworkSet): NetworkSet {
  const onParent = new Set(networks.filter(({ parent }) => parent === network.parent).map(({ id }) => id));
  return {
    networks: networks.filter(({ id }) => id !== network.id && onParent.has(id)),
    endpoints: endpoints.filter(({ networkId }) => onParent.has(networkId)),
  };
}
