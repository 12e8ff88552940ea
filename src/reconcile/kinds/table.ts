import type { NetlinkEvent } from '../../netlink/monitor.js';
import type { Netlink } from '../../netlink/netlink.js';
import type { ActualState } from '../actual.js';
import type { ObjectKind } from '../desired.js';
import type { ObjectKey } from '../object-key.js';
import type { KernelObjectKind, Operation } from '../operation.js';
import { addressKind } from './address.js';
import { fdbKind } from './fdb.js';
import { filterKind } from './filter.js';
import type { KernelKind, Kind } from './kind.js';
import { linkKind } from './link.js';
import { neighbourKind } from './neighbour.js';
import { portKind } from './port.js';
import { proxyNeighbourKind } from './proxy-neighbour.js';
import { routeKind } from './route.js';
import { sysctlKind } from './sysctl.js';
import { tunnelKind } from './tunnel.js';
import { wireguardKind } from './wireguard.js';
import { wireguardPeerKind } from './wireguard-peer.js';

/** Kinds of objects in the kernel, in the order in which they are read and planned: devices first. */
export const KERNEL_KINDS: { readonly [K in KernelObjectKind]: KernelKind<K> } = {
  link: linkKind,
  port: portKind,
  sysctl: sysctlKind,
  address: addressKind,
  neighbour: neighbourKind,
  fdb: fdbKind,
  filter: filterKind,
  wireguard: wireguardKind,
  'wireguard-peer': wireguardPeerKind,
  route: routeKind,
  'proxy-neighbour': proxyNeighbourKind,
};

/** All kinds of objects. */
export const KINDS: { readonly [K in ObjectKind]: Kind<K> } = { ...KERNEL_KINDS, tunnel: tunnelKind };

/** Those of {@link KERNEL_KINDS}, in its order. */
export const KERNEL_OBJECT_KINDS = Object.keys(KERNEL_KINDS) as readonly KernelObjectKind[];

/** Does as {@link Kernel.apply} says, except that deleting what is not there may throw. */
export function carryOut<K extends KernelObjectKind>(
  netlink: Netlink,
  operation: Operation<K>,
  indexOf: (device: string) => number,
): boolean {
  return KERNEL_KINDS[operation.kind].carryOut(netlink, operation, indexOf);
}

/** Takes over an operation of ours that succeeded. */
export function record<K extends KernelObjectKind>(actual: ActualState, operation: Operation<K>): void {
  KERNEL_KINDS[operation.kind].record(actual, operation);
}

/**
 * Takes over a change that the kernel reports.
 *
 * @param touched - gets the keys of what is now different from what was known.
 * @returns whether the state is doubtful now, and only a dump tells.
 */
export function follow(actual: ActualState, event: NetlinkEvent, touched: Set<ObjectKey>): boolean {
  switch (event.type) {
    case 'resync':
      return true;
    case 'nexthop':
      return actual.nexthopIds.has(event.id);
    case 'link':
      return linkKind.follow(actual, event, touched);
    case 'address':
      return addressKind.follow(actual, event, touched);
    case 'neighbour':
      return neighbourKind.follow(actual, event, touched);
    case 'fdb':
      return fdbKind.follow(actual, event, touched);
    case 'filter':
      return filterKind.follow(actual, event, touched);
    case 'route':
      return routeKind.follow(actual, event, touched);
  }
}
