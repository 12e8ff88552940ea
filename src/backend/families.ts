import type { Family, IpAddress } from '../ip/address.js';
import type { Prefix } from '../ip/prefix.js';
import type { JsonValue } from '../json.js';
import type { Lease } from '../lease/lease.js';
import type { RouteSpec } from '../reconcile/desired.js';
import type { NetworkConfig } from '../config/network-config.js';
import type { BackendContext, BackendFacts, SkippedPeer } from './backend.js';

/** The parts of the own host that belong to one address family of the overlay. */
export interface OwnSide {
  readonly family: Family;
  readonly subnet: Prefix;
  /** Address on the underlay device. */
  readonly local: IpAddress;
}

/** What is reached through a peer: its subnet, or a network of containers. */
export type PeerDestination = Pick<RouteSpec, 'destination' | 'metric'>;

/** The parts of a peer that belong to one address family of the overlay. */
export interface PeerSide {
  readonly family: Family;
  readonly subnet: Prefix;
  /** The subnet first. */
  readonly destinations: readonly PeerDestination[];
  readonly publicIp: IpAddress;
  readonly data: JsonValue | undefined;
}

/** What decides which families a host can talk in, and what about. */
export type FamilyContext = Pick<BackendContext, 'network' | 'own' | 'host' | 'additional'>;

/**
 * Of routes to networks of containers on other hosts: behind those to containers on this host, which have none. So an
 * address that moves here is here at once, and neither route is in the way of the other.
 */
export const ADDITIONAL_METRIC = 2048;

const NOTHING: readonly Prefix[] = [];

/** What is reached through a peer in one family: its subnet first; nothing in a family that its lease does not have. */
export function destinationsOf(
  lease: Lease,
  family: Family,
  { additional }: Pick<BackendContext, 'additional'>,
): readonly PeerDestination[] {
  const subnet = family === 4 ? lease.subnet : lease.ipv6Subnet;
  if (subnet === undefined) return [];
  const more = additional?.get(lease) ?? NOTHING;
  return [{ destination: subnet }, ...more.filter((prefix) => prefix.family === family).map(additionalDestination)];
}

/** The families in which a backend carries networks of containers between hosts that are in all families of the overlay. */
export function additionalFamilies(
  { families, carriesAdditional = true }: Pick<BackendFacts, 'families' | 'carriesAdditional'>,
  { ipv4, ipv6 }: Pick<NetworkConfig, 'ipv4' | 'ipv6'>,
): readonly Family[] {
  return carriesAdditional ? families.filter((family) => (family === 4 ? ipv4 : ipv6) !== undefined) : [];
}

/** A network of containers on another host, as the destination of a route. */
export function additionalDestination(destination: Prefix): PeerDestination {
  return { destination, metric: ADDITIONAL_METRIC };
}

/** The own host's families: those that the network has, the lease has a subnet for and the underlay an address. */
export function ownSides({ network, own, host: { underlay } }: FamilyContext): OwnSide[] {
  const sides: OwnSide[] = [];
  if (network.ipv4 !== undefined && underlay.address !== undefined) {
    sides.push({ family: 4, subnet: own.subnet, local: underlay.address });
  }
  if (network.ipv6 !== undefined && own.ipv6Subnet !== undefined && underlay.addressV6 !== undefined) {
    sides.push({ family: 6, subnet: own.ipv6Subnet, local: underlay.addressV6 });
  }
  return sides;
}

/**
 * The families in which this host and the peer can talk; a family that only one of them has is left out.
 *
 * @returns the peer as skipped if it has not told an address in one of them.
 */
export function peerSides(context: FamilyContext, lease: Lease): readonly PeerSide[] | SkippedPeer {
  const { publicIp, publicIpv6, backendData, backendV6Data } = lease.attributes;
  const sides: PeerSide[] = [];
  for (const { family } of ownSides(context)) {
    const subnet = family === 4 ? lease.subnet : lease.ipv6Subnet;
    const address = family === 4 ? publicIp : publicIpv6;
    if (subnet === undefined) continue;
    if (address === undefined) {
      const hint = 'start the peer with --public-ipv6 or give it an IPv6 address';
      return { lease, cause: 'address', reason: 'its lease has no PublicIPv6', hint };
    }
    const destinations = destinationsOf(lease, family, context);
    sides.push({ family, subnet, destinations, publicIp: address, data: family === 4 ? backendData : backendV6Data });
  }
  return sides;
}
