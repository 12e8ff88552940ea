import type { NetworkProperties } from '../../container/addresses.js';
import type { IpAddress } from '../../ip/address.js';
import type { Prefix } from '../../ip/prefix.js';
import type { LinkInfo, NewLink } from '../../netlink/link.js';
import type { Addressing, ContainerNetwork, Endpoint, NetworkSet } from './network.js';

/** What `docker network create` takes with `-o`, besides `type`. */
export type OptionName =
  | 'parent'
  | 'vlan'
  | 'mode'
  | 'flag'
  | 'address'
  | 'mtu'
  | 'host-access'
  | 'probe'
  | 'icc'
  | 'ipv6-firewall'
  | 'ndp-proxy';

/** How a device stands on this host. */
export interface ParentDevice {
  /** Of a sub-interface that is not there yet, its trunk: what is above that is not above it. */
  readonly link: LinkInfo;
  /** The device that it is a port of. */
  readonly master: LinkInfo | undefined;
  /** What others have put on it in the host's own namespace. */
  readonly upper: readonly LinkInfo[];
}

/** Where a container sends what is not on its link. */
export interface ContainerRouting {
  /** Of its default routes; at most one of each family. */
  readonly gateways: readonly IpAddress[];
  readonly routes: readonly ContainerRoute[];
}

/** A route inside of a container. */
export interface ContainerRoute {
  readonly destination: Prefix;
  /** Undefined: it is on the link. */
  readonly gateway: IpAddress | undefined;
}

/** One way to connect containers. */
export interface NetworkType {
  /** The options that it has. */
  readonly options: readonly OptionName[];
  /** Values of `-o mode=`, the default first; none where it has no such option, here and below. */
  readonly modes: readonly string[];
  /** Values of `-o flag=`. */
  readonly flags: readonly string[];
  /** Values of `-o address=`; the first where it has no such option. */
  readonly addressings: readonly [Addressing, ...Addressing[]];
  /** What all hosts of a network have to agree on, besides what is the same for all types. */
  properties(network: ContainerNetwork): NetworkProperties;
  /**
   * Refuses a network that the kernel would not carry.
   *
   * @param parent - never that of an internal or routed network, which has a device of its own.
   * @param others - networks and endpoints on the same parent.
   * @throws {@link OverlayError} `ERR_CONTAINER_NETWORK`
   */
  checkNetwork(network: ContainerNetwork, parent: ParentDevice, others: NetworkSet): void;
  /** Likewise for one more interface. */
  checkEndpoint(network: ContainerNetwork, others: NetworkSet): void;
  /** Prefix length of the address of a container. */
  addressLength(network: ContainerNetwork, subnet: Prefix): number;
  /** The interface that is moved into a container, named by `linkNameOf`; with its other end, if it has one. */
  newLink(network: ContainerNetwork, endpoint: Endpoint, parent: LinkInfo): NewLink;
  /** What the container is told of the way out. */
  routing(network: ContainerNetwork): ContainerRouting;
}

/** As on a LAN: everything of the subnets is on the link, the gateways lead to the rest. */
export function onLink({ subnets }: ContainerNetwork): ContainerRouting {
  const gatewayOf = (family: 4 | 6): IpAddress | undefined =>
    subnets.find(({ subnet, gateway }) => subnet.family === family && gateway !== undefined)?.gateway;
  return { gateways: [gatewayOf(4), gatewayOf(6)].filter((each) => each !== undefined), routes: [] };
}
