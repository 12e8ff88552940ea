import type { Prefix } from '../ip/prefix.js';
import { AUTOMATIC_PROTOCOLS } from '../netlink/constants.js';
import type { LinkInfo } from '../netlink/link.js';
import type { ProxyNeigh } from '../netlink/neighbour.js';
import type { RouteInfo } from '../netlink/route.js';
import { ROUTE_PROTOCOL } from './desired.js';
import { isFlannelsKind } from './kinds/links/table.js';
import type { DesiredObjects } from './spec-list.js';

/** What tells this daemon's objects from those of others, other daemons of the same kind included. */
export interface OwnershipRules {
  /** Names this daemon among those on the host, the same after every restart; at most 200 bytes. */
  readonly instance: string;
  /** Overlay networks of this daemon, those it had before included: routes outside are never touched for their protocol number. */
  readonly scope: readonly Prefix[];
  /** Subnets whose addresses this reconciler, and no other one on the host, has answered for; likewise. Default none. */
  readonly proxyScope?: readonly Prefix[];
  /** Devices of a flanneld that was replaced, which nobody else will remove. */
  readonly staleDevices: readonly string[];
}

/** Begins the alias of every device that a daemon of this kind has made or taken over; the instance follows. */
export const ALIAS_PREFIX = 'tsflannel:';

/** The name that tells a daemon with this `--etcd-prefix` from others on its host, as in the alias of its devices. */
export function instanceOf(etcdPrefix: string): string {
  return etcdPrefix.replace(/^\/+|\/+$/g, '');
}

/**
 * Decides what is ours.
 *
 * @remarks The mark is the device's alias (`IFLA_IFALIAS`): the kernel keeps it as long as the device, `ip link` shows
 * it, and nothing else depends on it. A device is ours if it carries our mark, or if we desire a device of that name and
 * kind and it carries no other daemon's mark (so that flannel's are taken over, and marked then), or if it is listed as
 * stale. What lies on a device of ours is ours. Routes have no room for a name: on devices of others, and without any,
 * they are ours if they have our protocol number and lead into our networks.
 */
export class Ownership {
  /** Alias of our devices. */
  readonly mark: string;

  constructor(
    readonly rules: OwnershipRules,
    private readonly desired: Pick<DesiredObjects, 'linkNamed'>,
  ) {
    this.mark = `${ALIAS_PREFIX}${rules.instance}`;
  }

  isOurDevice(link: LinkInfo): boolean {
    if (link.alias === this.mark) return true;
    if (this.isOthersDevice(link)) return false;
    const spec = this.desired.linkNamed(link.name);
    return spec === undefined
      ? this.rules.staleDevices.includes(link.name) && isFlannelsKind(link.kind)
      : spec.kind === link.kind;
  }

  /** Whether another daemon of this kind has marked the device. */
  isOthersDevice(link: LinkInfo): boolean {
    return link.alias.startsWith(ALIAS_PREFIX) && link.alias !== this.mark;
  }

  /** Whether the destination lies in a network of ours. */
  isInScope(destination: Prefix): boolean {
    return this.rules.scope.some((network) => network.covers(destination));
  }

  /** Whether a proxy entry is ours: it has our protocol number and lies in the subnets for which we answer. */
  isOurProxy({ protocol, address }: ProxyNeigh): boolean {
    const { proxyScope = [] } = this.rules;
    return protocol === ROUTE_PROTOCOL && proxyScope.some((subnet) => subnet.contains(address));
  }

  /**
   * @param linkOf - finds a device by its index.
   */
  isOurRoute(route: RouteInfo, linkOf: (index: number) => LinkInfo | undefined): boolean {
    if (AUTOMATIC_PROTOCOLS.has(route.protocol)) return false;
    const links = hopIndexes(route).map(linkOf);
    if (links.some((link) => link !== undefined && this.isOthersDevice(link))) return false;
    if (links.length > 0 && links.every((link) => link !== undefined && this.isOurDevice(link))) return true;
    return route.protocol === ROUTE_PROTOCOL && this.isInScope(route.destination);
  }
}

/** Indexes of the devices that a route leads through; none for a blackhole. */
export function hopIndexes(route: RouteInfo): number[] {
  if (route.multipath.length > 0) return route.multipath.map((hop) => hop.index);
  return route.index === 0 ? [] : [route.index];
}
