import { type FamilyContext, type PeerSide, peerSides } from '../backend/families.js';
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

/** Backends whose device has the network address of its host's subnet, in flannel as well, with the families they carry. */
const DEVICE_FAMILIES: ReadonlyMap<string, readonly Family[]> = new Map([
  ['udp', [4]],
  ['ipip', [4]],
  ['vxlan', [4, 6]],
]);

/** Address of the containers' bridge, as `FLANNEL_SUBNET` names it for Docker and CNI: the first host address. */
export function bridgeAddress(subnet: Prefix): IpAddress {
  return subnet.address.add(1n);
}

/** Address of the device that a peer's backend has for its subnet; undefined for a backend without one. */
export function deviceAddress(backend: string, subnet: Prefix): IpAddress | undefined {
  return DEVICE_FAMILIES.get(backend)?.includes(subnet.family) === true ? subnet.address : undefined;
}

/**
 * Where a peer answers echoes by itself, whatever containers it has.
 *
 * @remarks A device of the overlay answers at the network address of the subnet. Before Linux 5.14 that address is the
 * bridge's broadcast address too, and where the bridge was there first the host keeps silent at it: the bridge is asked
 * then. host-gw has no device: there it is the bridge, and the public address on hosts that have no bridge (yet).
 * @returns nothing for a peer that this host does not send to.
 */
export function probePaths(context: FamilyContext, lease: Lease): readonly ProbePath[] {
  const backend = backendOf(lease.attributes);
  const sides = peerSides(context, lease);
  if ('reason' in sides || context.network.backendType === 'alloc') return [];
  return sides.flatMap((side) => {
    const targets = targetsOf(backend, side);
    return targets.length === 0 ? [] : [{ family: side.family, targets }];
  });
}

function targetsOf(backend: string, { subnet, publicIp }: PeerSide): readonly ProbeTarget[] {
  const bridge: ProbeTarget = { layer: 'bridge', address: bridgeAddress(subnet) };
  if (backend === 'host-gw') return [bridge, { layer: 'underlay', address: publicIp }];
  const device = deviceAddress(backend, subnet);
  return device === undefined ? [] : [{ layer: 'overlay', address: device }, bridge];
}
