import type { Family, IpAddress } from '../ip/address.js';
import type { Prefix } from '../ip/prefix.js';
import type { JsonValue, Lease } from '../lease/lease.js';
import type { BackendContext, SkippedPeer } from './backend.js';

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
  readonly publicIp: IpAddress;
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

/**
 * The families in which this host and the peer can talk; a family that only one of them has is left out.
 *
 * @returns the peer as skipped if it cannot be sent to in one of them.
 */
export function peerSides(context: BackendContext, lease: Lease): readonly PeerSide[] | SkippedPeer {
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
    const skipped = skipUnusable(context, lease, address);
    if (skipped !== undefined) return skipped;
    sides.push({ family, subnet, publicIp: address, data: family === 4 ? backendData : backendV6Data });
  }
  return sides;
}

/** The peer as skipped if nothing can be sent to its address. */
export function skipUnusable(context: BackendContext, lease: Lease, address: IpAddress): SkippedPeer | undefined {
  const flaw = flawOf(context, address);
  if (flaw === undefined) return undefined;
  const flag = address.family === 4 ? '--public-ip' : '--public-ipv6';
  const hint = `start the daemon of that host with ${flag} and an address at which others reach it, or delete the lease`;
  return { lease, cause: 'address', reason: `its public address ${address.toString()} ${flaw}`, hint };
}

/**
 * Why the address cannot be the outer destination, or the gateway, of a peer's packets.
 *
 * @returns undefined if it can.
 */
export function flawOf({ network, host: { underlay } }: BackendContext, address: IpAddress): string | undefined {
  if (!address.isGlobalUnicast && !address.isLinkLocal) return 'is not that of a host';
  const [local, announced] =
    address.family === 4 ? [underlay.address, underlay.publicIp] : [underlay.addressV6, underlay.publicIpv6];
  if (address.equals(local) || address.equals(announced)) return 'is that of this host';
  // What is sent there would be routed into the overlay again, for ever.
  const overlay = address.family === 4 ? network.ipv4?.network : network.ipv6?.network;
  return overlay?.contains(address) === true ? 'lies inside the overlay' : undefined;
}
