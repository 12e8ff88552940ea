import type { Family, IpAddress } from '../ip/address.js';
import type { Prefix } from '../ip/prefix.js';
import type { JsonValue, Lease } from '../lease/lease.js';
import type { BackendContext } from './backend.js';

/** The parts of the own host that belong to one address family of the overlay. */
export interface OwnSide {
  readonly family: Family;
  readonly subnet: Prefix;
  /** Address on the underlay device. */
  readonly local: IpAddress;
}

/** The parts of a peer that belong to one address family of the overlay. */
export interface PeerSide {
  readonly family: Family;
  readonly subnet: Prefix;
  readonly publicIp: IpAddress | undefined;
  readonly data: JsonValue | undefined;
}

/** The own host's families: those that the network has, the lease has a subnet for and the underlay an address. */
export function ownSides({ network, own, host: { underlay } }: BackendContext): OwnSide[] {
  const sides: OwnSide[] = [];
  if (network.ipv4 !== undefined && underlay.address !== undefined) {
    sides.push({ family: 4, subnet: own.subnet, local: underlay.address });
  }
  if (network.ipv6 !== undefined && own.ipv6Subnet !== undefined && underlay.addressV6 !== undefined) {
    sides.push({ family: 6, subnet: own.ipv6Subnet, local: underlay.addressV6 });
  }
  return sides;
}

/** The families in which this host and the peer can talk; a family that only one of them has is left out. */
export function peerSides(context: BackendContext, lease: Lease): PeerSide[] {
  const { publicIp, publicIpv6, backendData, backendV6Data } = lease.attributes;
  return ownSides(context).flatMap(({ family }): PeerSide[] => {
    if (family === 4) return [{ family, subnet: lease.subnet, publicIp, data: backendData }];
    if (lease.ipv6Subnet === undefined) return [];
    return [{ family, subnet: lease.ipv6Subnet, publicIp: publicIpv6, data: backendV6Data }];
  });
}
