import type { Family, IpAddress } from '../ip/address.js';
import type { Prefix } from '../ip/prefix.js';
import { isSame } from '../ip/same.js';
import type { Lease } from '../lease/lease.js';
import { formatSubnetKey } from '../lease/subnet-key.js';
import type { HostPlace } from './host-place.js';
import type { AdmittedFacts } from './reach-admission.js';

/** Containers that are reached through a peer, besides those of its subnets. */
export interface PeerReach {
  readonly lease: Lease;
  /** As the real network carries them. */
  readonly direct: readonly Prefix[];
  /** Through the backend that the lease names. */
  readonly overlay: readonly Prefix[];
  /** The host on the underlay, where it has told it. */
  readonly gateways: Readonly<Partial<Record<Family, IpAddress>>>;
}

/** A host that has addresses of containers, and of which nobody knows where it is. */
export interface UnplacedHost {
  readonly host: string;
  readonly prefixes: number;
  readonly detail: string;
}

/** Result of {@link placeHosts}. */
export interface PlacedHosts {
  /** In order of their leases. */
  readonly peers: readonly PeerReach[];
  readonly unplaced: readonly UnplacedHost[];
}

/**
 * Finds the peer behind each host that has addresses of containers. Pure.
 *
 * @param peers - leases that are believed.
 * @param isFit - whether packets may be sent to an address that no lease tells.
 * @remarks What a host says of where it is counts as far as a lease says the same: the lease that it names has to have
 * the public addresses that it names. An IPv6 address that the lease lacks, as in an overlay without IPv6, counts by
 * itself.
 */
export function placeHosts(
  { others, places }: Pick<AdmittedFacts, 'others' | 'places'>,
  peers: readonly Lease[],
  isFit: (address: IpAddress) => boolean,
): PlacedHosts {
  if (others.size === 0) return { peers: [], unplaced: [] };
  const leases = new Map(peers.map((lease) => [formatSubnetKey(lease), lease]));
  const placed = new Map<Lease, PeerReach>();
  const unplaced: UnplacedHost[] = [];
  for (const [host, { direct, overlay }] of others) {
    const place = places.get(host);
    const lease = place && leases.get(place.leaseKey);
    const detail = whyUnplaced(place, lease);
    if (place === undefined || lease === undefined || detail !== undefined) {
      unplaced.push({ host, prefixes: direct.length + overlay.length, detail: detail ?? '' });
      continue;
    }
    const gateways = gatewaysOf(place, lease, isFit);
    const other = placed.get(lease);
    placed.set(
      lease,
      other === undefined
        ? { lease, direct, overlay, gateways }
        : { lease, direct: [...other.direct, ...direct], overlay: [...other.overlay, ...overlay], gateways },
    );
  }
  return { peers: [...placed.values()].sort((a, b) => a.lease.subnet.compare(b.lease.subnet)), unplaced };
}

/**
 * Where hosts are on the underlay, with containers or without, as far as {@link placeHosts} would believe it. Pure.
 */
export function hostAddresses(
  places: AdmittedFacts['places'],
  peers: readonly Lease[],
  isFit: (address: IpAddress) => boolean,
): readonly IpAddress[] {
  const leases = new Map(peers.map((lease) => [formatSubnetKey(lease), lease]));
  return [...places.values()].flatMap((place) => {
    const lease = leases.get(place.leaseKey);
    if (lease === undefined || whyUnplaced(place, lease) !== undefined) return [];
    return Object.values(gatewaysOf(place, lease, isFit));
  });
}

function gatewaysOf(
  { addresses }: HostPlace,
  { attributes: { publicIpv6 } }: Lease,
  isFit: (address: IpAddress) => boolean,
): PeerReach['gateways'] {
  const v6 = publicIpv6 ?? addresses[6];
  const isFitV6 = v6 !== undefined && (publicIpv6 !== undefined || isFit(v6));
  return { ...(addresses[4] && { 4: addresses[4] }), ...(isFitV6 && { 6: v6 }) };
}

function whyUnplaced(place: HostPlace | undefined, lease: Lease | undefined): string | undefined {
  if (place === undefined) return 'it does not tell where it is';
  if (lease === undefined) return `it names the lease ${place.leaseKey}, which no peer has`;
  const { publicIp, publicIpv6 } = lease.attributes;
  const told = publicIp.isUnspecified ? undefined : publicIp;
  const isPlausible =
    isSame(told, place.addresses[4]) && (publicIpv6 === undefined || isSame(publicIpv6, place.addresses[6]));
  return isPlausible ? undefined : `it names the lease ${place.leaseKey}, which has other addresses`;
}
