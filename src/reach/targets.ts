import { type FamilyContext, type PeerSide, peerSides } from '../backend/families.js';
import { findBackend } from '../backend/registry.js';
import type { Family, IpAddress } from '../ip/address.js';
import type { Prefix } from '../ip/prefix.js';
import { type Lease, backendOf } from '../lease/lease.js';

/**
 * What an echo comes back from: the host on the real network, the host at its end of the overlay, its containers' bridge,
 * or a container.
 */
export type ProbeLayer = 'underlay' | 'overlay' | 'bridge' | 'container';

/** An address of a peer that is asked. */
export interface ProbeTarget {
  readonly layer: ProbeLayer;
  readonly address: IpAddress;
}

/** The way to a peer in one address family. */
export interface ProbePath {
  readonly family: Family;
  /** Those that may answer for the peer, the one that tells most first. */
  readonly targets: readonly ProbeTarget[];
}

/** Address of the containers' bridge, as `FLANNEL_SUBNET` names it for Docker and CNI: the first host address. */
export function bridgeAddress(subnet: Prefix): IpAddress {
  return subnet.address.add(1n);
}

/** Address of the device that a peer's backend has for its subnet; undefined for a backend without one. */
export function deviceAddress(type: string, subnet: Prefix): IpAddress | undefined {
  return doesCarry(type, subnet.family) && findBackend(type)?.deviceKind !== undefined ? subnet.address : undefined;
}

/** Whether packets of that family reach a peer with that backend at all. */
export function doesCarry(type: string, family: Family): boolean {
  return findBackend(type)?.families.includes(family) === true;
}

/**
 * Where a peer answers echoes by itself, whatever containers it has.
 *
 * @remarks A device of the overlay answers at the network address of the subnet. Before Linux 5.14 that address is the
 * bridge's broadcast address too, and where the bridge was there first the host keeps silent at it: the bridge is asked
 * then. Without a device (host-gw) it is the bridge, and the public address on hosts that have no bridge (yet).
 * @returns nothing for a peer that this host does not send to.
 */
export function probePaths(context: FamilyContext, lease: Lease): readonly ProbePath[] {
  const sides = peerSides(context, lease);
  if ('reason' in sides || findBackend(context.network.backendType)?.families.length === 0) return [];
  const type = backendOf(lease.attributes);
  return sides
    .filter(({ family }) => doesCarry(type, family))
    .map((side) => ({ family: side.family, targets: targetsOf(type, side) }));
}

function targetsOf(type: string, { subnet, publicIp }: PeerSide): readonly ProbeTarget[] {
  const bridge: ProbeTarget = { layer: 'bridge', address: bridgeAddress(subnet) };
  const device = deviceAddress(type, subnet);
  return device === undefined
    ? [bridge, { layer: 'underlay', address: publicIp }]
    : [{ layer: 'overlay', address: device }, bridge];
}
