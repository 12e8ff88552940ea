import type { NetworkConfig } from '../config/network-config.js';
import { OverlayError } from '../errors.js';
import type { IpAddress } from '../ip/address.js';
import type { Prefix } from '../ip/prefix.js';
import type { Lease, LeaseSubnets } from './lease.js';
import type { Revision } from './record.js';

/** An address of the real network that no lease may draw into the overlay, and whose it is. */
export interface GuardedAddress {
  readonly address: IpAddress;
  /** For a person: "etcd", "this host". */
  readonly owner: string;
}

/**
 * Refuses a network that would draw an address of the real network into the overlay.
 *
 * @throws {@link OverlayError} `ERR_NETWORK_CONFIG`
 */
export function assertNetworkFree(network: NetworkConfig, guarded: readonly GuardedAddress[]): void {
  for (const prefix of networksOf(network)) {
    const hit = guarded.find(({ address }) => prefix.contains(address));
    if (hit === undefined) continue;
    throw new OverlayError(
      'ERR_NETWORK_CONFIG',
      `cannot use the network ${prefix.toString()}: it contains ${hit.address.toString()}, an address of ${hit.owner}`,
      { hint: 'choose a network that nothing else uses' },
    );
  }
}

/** The overlay's networks of the families that it has. */
export function networksOf({ ipv4, ipv6 }: NetworkConfig): readonly Prefix[] {
  return [ipv4?.network, ipv6?.network].filter((prefix) => prefix !== undefined);
}

/** {@link GuardedAddress.owner} of the host's own addresses. */
export const OWN_HOST = 'this host';

/** {@link GuardedAddress.owner} of the store's. */
export const STORE_OWNER = 'etcd';

/** The lease that the host holds. */
export interface OwnClaim extends LeaseSubnets {
  /** When it was written last; its key has a former address for a moment after that of the host has changed. */
  readonly revision?: Revision | undefined;
}

/** What decides whether a lease is believed; the same object as long as nothing in it has changed. */
export interface AdmissionContext {
  /** Of the network configuration, of each family that it has; also of one that was replaced a moment ago. */
  readonly networks: readonly Prefix[];
  /** Whether peers are reached over IPv4; if not, they publish 0.0.0.0. */
  readonly needsIpv4: boolean;
  /** The host's own identity. */
  readonly publicIp: IpAddress;
  /** Undefined before a lease is held. */
  readonly own: OwnClaim | undefined;
  readonly guarded: readonly GuardedAddress[];
  /** Where broadcasts go on the underlay. */
  readonly broadcasts: readonly IpAddress[];
}

/** Why a lease is not believed, for metrics. */
export const QUARANTINE_REASONS = [
  'outside-network',
  'overlaps-own',
  'covers-guarded',
  'bad-public-ip',
  'overlaps-peer',
] as const;

/** One of {@link QUARANTINE_REASONS}. */
export type QuarantineReason = (typeof QUARANTINE_REASONS)[number];

/** A lease in the store that this host does not route to. */
export interface Quarantined {
  readonly key: string;
  readonly lease: Lease;
  readonly reason: QuarantineReason;
  /** What is wrong, for a person. */
  readonly detail: string;
}

type Fault = Pick<Quarantined, 'reason' | 'detail'>;

/** What one lease is by itself: this host's, another's, or what is wrong with it. */
export type Verdict = 'own' | 'sound' | Fault;

/**
 * Judges one lease by itself. Pure; with {@link Candidates} the one place where what other hosts wrote is believed or not.
 *
 * @remarks
 * A lease that this host could be harmed by is not routed: outside the overlay's network, overlapping the own subnet,
 * covering etcd or an address of this host, or with a public address that nothing can be sent to. Leases with the own
 * public address are neither peers nor a fault: what an earlier configuration left behind is the keeper's business.
 */
export function judge(lease: Lease, context: AdmissionContext): Verdict {
  return isOwn(lease, context) ? 'own' : (findFault(lease, context) ?? 'sound');
}

function isOwn(lease: Lease, { publicIp, own }: AdmissionContext): boolean {
  if (own?.revision === lease.revision && lease.subnet.equals(own.subnet)) return true;
  if (!publicIp.isUnspecified) return lease.attributes.publicIp.equals(publicIp);
  return own !== undefined && lease.subnet.equals(own.subnet);
}

function findFault(lease: Lease, context: AdmissionContext): Fault | undefined {
  const { networks, own, guarded } = context;
  const subnets = prefixesOf(lease);
  const outside = subnets.find((subnet) => !networks.some((network) => network.covers(subnet)));
  if (outside !== undefined) {
    return { reason: 'outside-network', detail: `${outside.toString()} is outside ${networks.join(', ')}` };
  }
  const ownSubnet = own && prefixesOf(own).find((subnet) => subnets.some((each) => each.overlaps(subnet)));
  if (ownSubnet !== undefined) {
    return { reason: 'overlaps-own', detail: `it overlaps the own subnet ${ownSubnet.toString()}` };
  }
  const covered = guarded.find(({ address }) => subnets.some((subnet) => subnet.contains(address)));
  if (covered !== undefined) {
    const detail = `it covers ${covered.address.toString()}, an address of ${covered.owner}`;
    return { reason: 'covers-guarded', detail };
  }
  const { publicIp, publicIpv6 } = lease.attributes;
  const addresses = [
    ...(context.needsIpv4 || !publicIp.isUnspecified ? [publicIp] : []),
    ...(publicIpv6 === undefined ? [] : [publicIpv6]),
  ];
  for (const address of addresses) {
    const why = whyUnreachable(address, context);
    if (why !== undefined)
      return { reason: 'bad-public-ip', detail: `its public address ${address.toString()} ${why}` };
  }
  return undefined;
}

/** Why nothing can be sent to an address that another host names as its own; undefined if something can. */
export function whyUnreachable(address: IpAddress, context: AdmissionContext): string | undefined {
  if (address.isUnspecified) return 'is unspecified';
  if (address.isLoopback) return 'is a loopback address';
  if (address.isMulticast) return 'is a multicast address';
  // RFC 1122 3.2.1.3: {0, host} stands for a host on "this network", {-1, -1} for all hosts on it.
  if (address.family === 4 && address.value >> 24n === 0n) return 'is of "this network"';
  if (address.family === 4 && address.value === 0xffff_ffffn) return 'is a broadcast address';
  if (context.broadcasts.some((broadcast) => broadcast.equals(address))) return 'is a broadcast address';
  if (context.networks.some((network) => network.contains(address))) return 'lies inside the overlay';
  const own = context.guarded.find((each) => each.owner === OWN_HOST && each.address.equals(address));
  return own === undefined ? undefined : 'is an address of this host';
}

function prefixesOf({ subnet, ipv6Subnet }: LeaseSubnets): readonly Prefix[] {
  return ipv6Subnet === undefined ? [subnet] : [subnet, ipv6Subnet];
}
