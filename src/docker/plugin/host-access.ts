import { createHash } from 'node:crypto';
import type { IpAddress } from '../../ip/address.js';
import { ADDRESS_BITS } from '../../ip/address.js';
import { deriveMac } from '../../ip/mac.js';
import { Prefix } from '../../ip/prefix.js';
import type { AddressInfo } from '../../netlink/address.js';
import { MAX_DEVICE_NAME } from '../../netlink/device-name.js';
import type { LinkInfo } from '../../netlink/link.js';
import type { DesiredState, LinkKinds } from '../../reconcile/desired.js';
import { type ContainerNetwork, type Endpoint, type NetworkSet, hasOwnMac } from './network.js';

/** What the state of the host depends on besides networks and containers. */
export interface HostFacts {
  readonly links: readonly LinkInfo[];
  readonly addresses: readonly AddressInfo[];
  /** The interface that the daemon itself uses: where the host has its addresses if a parent has none. */
  readonly defaultParent: string | undefined;
  /** Bytes of the largest packet that the overlay carries; undefined while nobody knows. */
  readonly overlayMtu: number | undefined;
  /** Stays the same on this host and differs between hosts. */
  readonly identity: string;
  /** Alias of what is on the host for networks. */
  readonly mark: string;
}

/**
 * The interface by which this host reaches containers on a parent: one beside theirs and of their type, since the kernel
 * passes no frame between a parent and what lies on it (`macvlan_handle_frame()`).
 */
export function shimNameOf(parent: string): string {
  const name = `${parent}-host`;
  return name.length <= MAX_DEVICE_NAME
    ? name
    : `tsfh-${createHash('sha256').update(parent).digest('hex').slice(0, 10)}`;
}

/**
 * What makes this host and its containers reach each other, under the addresses that the host has anyway.
 *
 * @remarks With macvlan: on each parent a shim with the host's own addresses, without routes to their prefixes; a route and a permanent
 * neighbour for every container; and filters by which the shim exchanges frames with these containers alone. So nobody
 * else ever hears of its MAC address: the host would otherwise answer for its addresses with two of them.
 */
export function hostAccessStates(set: NetworkSet, facts: HostFacts): readonly Partial<DesiredState>[] {
  const networks = set.networks.filter(({ hasHostAccess }) => hasHostAccess);
  const parents = new Set(networks.map(({ parent }) => parent));
  return [...parents].map((parent) => {
    const link = facts.links.find(({ name }) => name === parent);
    if (link === undefined) return {};
    const onIt = networks.filter((network) => network.parent === parent);
    const ids = new Set(onIt.map(({ id }) => id));
    const local = set.endpoints.filter(({ networkId, sandbox }) => sandbox !== undefined && ids.has(networkId));
    return onIt.every(hasOwnMac) ? shimState(link, local, facts) : ipvlanState(link, onIt, local);
  });
}

function shimState(parent: LinkInfo, local: readonly Endpoint[], facts: HostFacts): Partial<DesiredState> {
  const device = shimNameOf(parent.name);
  const stations = [...new Set(local.map(({ mac }) => mac))].sort();
  const places = local.flatMap(({ mac, addresses }) => addresses.map(({ address }) => ({ mac, address })));
  return {
    links: [
      {
        kind: 'macvlan',
        name: device,
        mtu: parent.mtu,
        mac: deriveMac(facts.identity, device),
        lowerIndex: parent.index,
        mode: 'bridge',
      },
    ],
    addresses: hostAddresses(parent, facts).map((address) => ({
      device,
      address,
      length: ADDRESS_BITS[address.family],
      noPrefixRoute: true,
    })),
    filters: (['ingress', 'egress'] as const).map((direction) => ({ device, direction, stations })),
    neighbours: places.map(({ address, mac }) => ({ device, address, mac })),
    routes: places.map(({ address }) => routeTo(address, device)),
  };
}

/**
 * The like of it for ipvlan, of the mode that its parent has: no frame of it has another MAC address than the parent's, so
 * nothing has to be kept from others. It has the addresses that the host has leased, where there are any, and not those
 * that the host has anyway: what comes in for an address of an ipvlan interface, comes in by that.
 */
function ipvlanState(
  parent: LinkInfo,
  networks: readonly ContainerNetwork[],
  local: readonly Endpoint[],
): Partial<DesiredState> {
  const device = shimNameOf(parent.name);
  const leased = networks.flatMap(({ subnets }) => subnets.flatMap(({ host }) => host ?? []));
  const own = leased.filter((each, index) => leased.findIndex((other) => other.equals(each)) === index);
  const mode = networks[0]?.mode as LinkKinds['ipvlan']['mode'];
  return {
    links: [{ kind: 'ipvlan', name: device, mtu: parent.mtu, lowerIndex: parent.index, mode, flag: 'bridge' }],
    addresses: own.map((address) => ({ device, address, length: ADDRESS_BITS[address.family], noPrefixRoute: true })),
    routes: local.flatMap(({ addresses }) => addresses.map(({ address }) => routeTo(address, device))),
  };
}

function routeTo(address: IpAddress, device: string): DesiredState['routes'][number] {
  return { destination: Prefix.host(address), type: 'unicast', device, gateway: undefined, isOnlink: false };
}

/** Those of the parent; in a family in which it has none, those by which the host is known otherwise. */
function hostAddresses(parent: LinkInfo, { links, addresses, defaultParent }: HostFacts): readonly IpAddress[] {
  const other = links.find(({ name }) => name === defaultParent);
  return ([4, 6] as const).flatMap((family) => {
    const on = (link: LinkInfo | undefined): readonly IpAddress[] =>
      addresses
        .filter(({ index, address }) => index === link?.index && address.family === family)
        .filter(({ address }) => address.isGlobalUnicast)
        .map(({ address }) => address);
    const own = on(parent);
    return own.length > 0 ? own : on(other);
  });
}
