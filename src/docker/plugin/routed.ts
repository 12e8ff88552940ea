import type { NetworkProperties } from '../../container/addresses.js';
import { ADDRESS_BITS, type Family, IpAddress } from '../../ip/address.js';
import { Prefix } from '../../ip/prefix.js';
import { type Addressing, type ContainerNetwork, hostEndOf, linkNameOf } from './network.js';
import {
  type ContainerRoute,
  type ContainerRouting,
  type NetworkType,
  type OptionName,
  onLink,
} from './network-type.js';

/**
 * Where containers send what is not on their link, on whatever host they are: an address of the link alone (RFC 3927,
 * RFC 4291 2.5.6), which each host has on its bridges.
 */
export const HOST_GATEWAY: Readonly<Record<Family, IpAddress>> = {
  4: IpAddress.parse('169.254.1.1'),
  6: IpAddress.parse('fe80::1'),
};

/** Over the routing of the hosts, from address to address. */
export const bridgeType = routedType(['address', 'mtu', 'icc', 'ipv6-firewall', 'ndp-proxy'], ['subnet', 'host']);

/** Through what carries the daemon's own overlay. */
export const overlayType = routedType(['address', 'mtu', 'icc', 'ipv6-firewall', 'ndp-proxy'], ['host']);

/**
 * Whether a container takes nothing but its gateway to be on its link.
 *
 * @remarks IPv6 is always so: the kernel answers neighbour solicitations for others one address at a time
 * (`pneigh_lookup()`), and nobody knows all of those on other hosts; ARP requests it answers for whatever it would route
 * elsewhere (`arp_fwd_proxy()`).
 */
export function hasGatewayAlone({ addressing }: Pick<ContainerNetwork, 'addressing'>, family: Family): boolean {
  return addressing === 'host' || family === 6;
}

/** Containers on a bridge that each host of the network has, with the host as their router. */
function routedType(options: readonly OptionName[], addressings: NetworkType['addressings']): NetworkType {
  return {
    options,
    modes: [],
    flags: [],
    addressings,

    properties: ({ addressing, hasNdpProxy, isIccAllowed }): NetworkProperties => ({
      address: addressing satisfies Addressing,
      ...(isIccAllowed ? {} : { icc: 'false' }),
      ...(hasNdpProxy ? { 'ndp-proxy': 'true' } : {}),
    }),

    checkNetwork() {},

    checkEndpoint() {},

    addressLength: (network, { family, length }) => (hasGatewayAlone(network, family) ? ADDRESS_BITS[family] : length),

    newLink: (_network, { id, mac }, { index, mtu }) => ({
      kind: 'veth',
      name: hostEndOf(id),
      mtu,
      masterIndex: index,
      peer: { name: linkNameOf(id), mtu, mac },
    }),

    routing,
  };
}

function routing(network: ContainerNetwork): ContainerRouting {
  const { isInternal, subnets } = network;
  const families = ([4, 6] as const).filter((family) => subnets.some(({ subnet }) => subnet.family === family));
  const throughHost = families.filter((family) => hasGatewayAlone(network, family));
  const routes = throughHost.flatMap((family): ContainerRoute[] => {
    const gateway = HOST_GATEWAY[family];
    const own = subnets.filter(({ subnet }) => subnet.family === family);
    return [
      { destination: Prefix.host(gateway), gateway: undefined },
      ...(isInternal ? own.map(({ subnet }) => ({ destination: subnet, gateway })) : []),
    ];
  });
  const ownGateways = onLink(network).gateways.filter(({ family }) => !hasGatewayAlone(network, family));
  return { gateways: isInternal ? [] : [...ownGateways, ...throughHost.map((family) => HOST_GATEWAY[family])], routes };
}
