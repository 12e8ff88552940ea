import { deriveMac } from '../../ip/mac.js';
import { ADDRESS_BITS } from '../../ip/address.js';
import { Prefix } from '../../ip/prefix.js';
import { SYSCTL } from '../../netlink/sysctl-paths.js';
import type { AddressSpec, DesiredState, SysctlSpec } from '../../reconcile/desired.js';
import { keepsDefaultRoute } from '../../reconcile/uplink-parameters.js';
import type { HostFacts } from './host-access.js';
import { type ContainerNetwork, type Endpoint, type NetworkSet, bridgeNameOf, hostEndOf, isRouted } from './network.js';
import { HOST_GATEWAY, hasGatewayAlone } from './routed.js';

/** Every path carries it (RFC 8200 5): for containers that start before it is known what theirs does. */
const SAFE_MTU = 1280;

/** Length of the prefix of link-local addresses (RFC 4291 2.5.6). */
const LINK_LOCAL_LENGTH = 64;

/**
 * What routed networks need on this host: a bridge for each, with the address that its containers send to; their
 * interfaces as its ports; and a route and a permanent neighbour for every container, so that an address is found wherever
 * it is, and nobody else can answer for it.
 */
export function bridgeStates(set: NetworkSet, facts: HostFacts): readonly Partial<DesiredState>[] {
  const networks = set.networks.filter(isRouted);
  const first = new Map(networks.map((network) => [bridgeNameOf(network), network] as const).reverse());
  const bridges = [...first].map(([device, network]) => {
    const ids = new Set(networks.filter((each) => bridgeNameOf(each) === device).map(({ id }) => id));
    const local = set.endpoints.filter(({ networkId, sandbox }) => sandbox !== undefined && ids.has(networkId));
    return bridgeState(network, local, facts);
  });
  return [...bridges, { sysctls: ipv6Forwarding(networks, facts) }];
}

/** For the whole host, since IPv6 has no other (`ip6_forward()`); that for IPv4, Docker sees to. */
function ipv6Forwarding(networks: readonly ContainerNetwork[], { defaultParent }: HostFacts): readonly SysctlSpec[] {
  const isNeeded = networks.some(({ subnets }) => subnets.some(({ subnet }) => subnet.family === 6));
  if (!isNeeded) return [];
  return [
    ...(defaultParent === undefined ? [] : [keepsDefaultRoute(defaultParent)]),
    { path: SYSCTL.ipv6Forwarding, value: '1' },
  ];
}

function bridgeState(network: ContainerNetwork, local: readonly Endpoint[], facts: HostFacts): Partial<DesiredState> {
  const device = bridgeNameOf(network);
  const mtu = mtuOf(network, facts);
  const hostEnds = facts.links.filter(
    ({ kind, name }) => kind === 'veth' && local.some(({ id }) => hostEndOf(id) === name),
  );
  const places = local.flatMap(({ mac, addresses }) => addresses.map(({ address }) => ({ mac, address })));
  return {
    links: [
      { kind: 'bridge', name: device, mtu, mac: deriveMac(facts.identity, device) },
      ...hostEnds.map(({ name }) => ({ kind: 'veth', name, mtu }) as const),
    ],
    ports: hostEnds.map(({ name }) => ({
      device: name,
      bridge: device,
      isIsolated: !network.isIccAllowed,
      // Only where it is needed: such a container also gets its own broadcasts.
      isHairpin: local.some(({ id, ports = [] }) => hostEndOf(id) === name && ports.length > 0),
    })),
    addresses: gatewayAddresses(network, device),
    sysctls: bridgeSysctls(network, device),
    neighbours: places.map(({ address, mac }) => ({ device, address, mac })),
    routes: places.map(({ address }) => ({
      destination: Prefix.host(address),
      type: 'unicast',
      device,
      gateway: undefined,
      isOnlink: false,
    })),
  };
}

/** What carries the packets decides, unless an operator does; through the overlay no larger ones pass. */
function mtuOf(network: ContainerNetwork, { links, defaultParent, overlayMtu }: HostFacts): number {
  const mtuOn = (name: string | undefined): number | undefined => links.find((link) => link.name === name)?.mtu;
  if (network.type === 'overlay') {
    const carried = overlayMtu ?? mtuOn(bridgeNameOf(network)) ?? SAFE_MTU;
    return Math.min(network.mtu ?? carried, carried);
  }
  return network.mtu ?? mtuOn(defaultParent) ?? mtuOn(bridgeNameOf(network)) ?? SAFE_MTU;
}

function gatewayAddresses(network: ContainerNetwork, device: string): readonly AddressSpec[] {
  const { isInternal, subnets } = network;
  const own = subnets.flatMap(({ subnet, gateway }): AddressSpec[] =>
    isInternal || gateway === undefined || network.addressing === 'host'
      ? []
      : [{ device, address: gateway, length: subnet.length }],
  );
  const families = ([4, 6] as const).filter((family) => subnets.some(({ subnet }) => subnet.family === family));
  const shared = families
    .filter((family) => hasGatewayAlone(network, family))
    .map((family): AddressSpec => {
      const length = family === 4 ? ADDRESS_BITS[4] : LINK_LOCAL_LENGTH;
      return { device, address: HOST_GATEWAY[family], length };
    });
  return [...own, ...shared];
}

/** Containers are routed for, and believed nothing: neither routes (RFC 4861 6.2.6) nor redirects. */
function bridgeSysctls({ addressing }: ContainerNetwork, device: string): readonly SysctlSpec[] {
  return [
    { path: SYSCTL.deviceForwarding(device), value: '1' },
    { path: SYSCTL.acceptRedirects(device), value: '0' },
    { path: SYSCTL.acceptRouterAdvertisements(device), value: '0' },
    { path: SYSCTL.acceptRedirects6(device), value: '0' },
    ...(addressing === 'host'
      ? []
      : [
          { path: SYSCTL.proxyArp(device), value: '1' },
          // Otherwise up to 0.8 s, since somebody else might answer.
          { path: SYSCTL.proxyArpDelay(device), value: '0' },
        ]),
  ];
}
