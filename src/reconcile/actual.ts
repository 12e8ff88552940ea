import type { IpAddress } from '../ip/address.js';
import { type MacAddress, isUnicastMac } from '../ip/mac.js';
import { isSame } from '../ip/same.js';
import type { AddressInfo } from '../netlink/address.js';
import { RT_TABLE_MAIN } from '../netlink/constants.js';
import type { LinkInfo } from '../netlink/link.js';
import type { LinkDetails } from '../netlink/link-details.js';
import type { NetlinkEvent } from '../netlink/monitor.js';
import type { FdbInfo, NeighInfo } from '../netlink/neighbour.js';
import type { RouteInfo } from '../netlink/route.js';
import { ROUTE_PROTOCOL, type RouteSpec, defaultMetric } from './desired.js';
import type { DesiredIndex } from './desired-index.js';
import { type ObjectKey, objectKey } from './object-key.js';
import type { Operation } from './operation.js';
import { type Ownership, hopIndexes } from './ownership.js';

/**
 * What the kernel looks like, as far as it can matter: every device's name and state; addresses, neighbours and
 * forwarding entries of our devices; routes of the main table that are ours or lie where ours lie.
 *
 * @remarks Filled from a dump, then kept by change events ({@link apply}) and by what we do ourselves ({@link record}).
 * Whatever an event does not tell for certain makes the state doubtful, and a dump is due.
 */
export class ActualState {
  readonly links = new Map<string, LinkInfo>();
  readonly addresses = new Map<ObjectKey, AddressInfo>();
  /** Permanent ones only. */
  readonly neighbours = new Map<ObjectKey, NeighInfo>();
  /** Permanent ones of unicast MACs only; those have one destination each (`vxlan_fdb_update_existing()`). */
  readonly fdb = new Map<ObjectKey, FdbInfo>();
  /** All with the same destination and metric, in the kernel's order: the first of those with equal tos is used. */
  readonly routes = new Map<ObjectKey, readonly RouteInfo[]>();
  /** Texts of the parameters that exist. */
  readonly sysctls = new Map<ObjectKey, string>();
  /** Next hop objects that routes use, or have used since the last dump. */
  private readonly nexthopIds = new Set<number>();
  private readonly byIndex = new Map<number, LinkInfo>();
  private readonly ours = new Map<number, string>();

  /** @param defaultVxlanPort - UDP port of VXLAN devices that were made without one. */
  constructor(
    private readonly desired: DesiredIndex,
    private readonly ownership: Ownership,
    readonly defaultVxlanPort: number,
  ) {}

  /** Indexes and names of our devices. */
  get ourDevices(): ReadonlyMap<number, string> {
    return this.ours;
  }

  readonly linkOf = (index: number): LinkInfo | undefined => this.byIndex.get(index);

  isOurRoute(route: RouteInfo): boolean {
    return this.ownership.isOurRoute(route, this.linkOf);
  }

  putLink(link: LinkInfo): void {
    this.removeLink(link.index);
    const namesake = this.links.get(link.name);
    if (namesake !== undefined) this.removeLink(namesake.index);
    this.links.set(link.name, link);
    this.byIndex.set(link.index, link);
    if (this.ownership.isOurDevice(link)) this.ours.set(link.index, link.name);
  }

  removeLink(index: number): void {
    const link = this.byIndex.get(index);
    if (link === undefined) return;
    this.byIndex.delete(index);
    this.ours.delete(index);
    if (this.links.get(link.name)?.index === index) this.links.delete(link.name);
  }

  /** Forgets everything on a device, as the kernel does when it is deleted. */
  forgetObjectsOf(index: number): void {
    for (const objects of [this.addresses, this.neighbours, this.fdb]) {
      for (const [key, { index: at }] of objects) if (at === index) objects.delete(key);
    }
    for (const [key, routes] of this.routes) {
      const rest = routes.filter((route) => !hopIndexes(route).includes(index));
      if (rest.length !== routes.length) this.setRoutes(key, rest);
    }
  }

  /** Forgets the ARP and ND entries of a device, as the kernel does when its MAC changes. */
  forgetNeighboursOf(index: number): void {
    for (const [key, neighbour] of this.neighbours) if (neighbour.index === index) this.neighbours.delete(key);
  }

  putAddress(info: AddressInfo): void {
    const key = this.addressKey(info);
    if (key !== undefined) this.addresses.set(key, info);
  }

  putNeighbour(info: NeighInfo): void {
    const device = this.ours.get(info.index);
    if (device !== undefined && info.isPermanent) {
      this.neighbours.set(objectKey.neighbour(device, info.address), info);
    }
  }

  putFdb(info: FdbInfo): void {
    const device = this.ours.get(info.index);
    if (device !== undefined && isUnicastSelf(info) && info.isPermanent) {
      this.fdb.set(objectKey.fdb(device, info.mac), info);
    }
  }

  /** Adds a route behind those with the same destination, as dumps list them. */
  putRoute(route: RouteInfo): void {
    const key = this.relevantRouteKey(route);
    if (key === undefined) return;
    this.routes.set(key, [...(this.routes.get(key) ?? []), route]);
    if (route.nexthopId !== 0) this.nexthopIds.add(route.nexthopId);
  }

  /**
   * Takes over a change that the kernel reports.
   *
   * @param touched - gets the keys of what is now different from what was known.
   * @returns whether the state is doubtful now, and only a dump tells.
   */
  apply(event: NetlinkEvent, touched: Set<ObjectKey>): boolean {
    switch (event.type) {
      case 'resync':
        return true;
      case 'link':
        return this.applyLink(event.link, event.isDeleted, touched);
      case 'address':
        return this.applyAddress(event.address, event.isDeleted, touched);
      case 'neighbour':
        this.applyNeighbour(event.neighbour, event.isDeleted, touched);
        return false;
      case 'fdb':
        this.applyFdb(event.entry, event.isDeleted, touched);
        return false;
      case 'route':
        return this.applyRoute(event, touched);
      case 'nexthop':
        return this.nexthopIds.has(event.id);
    }
  }

  /** Takes over an operation of ours that succeeded, except those on devices, after which the device is read again. */
  record(operation: Operation): void {
    const index = operation.device === undefined ? 0 : (this.links.get(operation.device)?.index ?? 0);
    const { key } = operation;
    switch (operation.kind) {
      case 'link':
        break;
      case 'sysctl':
        this.sysctls.set(key, operation.value);
        break;
      case 'address': {
        const { address, length, peer } = operation;
        if (operation.verb === 'del') this.addresses.delete(key);
        else {
          const flags = { isPermanent: true, isTentative: false, isDeprecated: false, isSecondary: false };
          this.addresses.set(key, { index, address, length, peer, scope: 0, ...flags });
        }
        break;
      }
      case 'neighbour':
        if (operation.verb === 'del') this.neighbours.delete(key);
        else this.neighbours.set(key, { index, address: operation.address, mac: operation.mac, isPermanent: true });
        break;
      case 'fdb':
        if (operation.verb === 'del') this.fdb.delete(key);
        else this.fdb.set(key, plainFdb(index, operation.mac, operation.destination));
        break;
      case 'route':
        if (operation.verb === 'del') {
          const { route } = operation;
          this.setRoutes(
            key,
            (this.routes.get(key) ?? []).filter((other) => !isSameRouteInfo(other, route)),
          );
        } else {
          this.insertRoute(key, madeRoute(operation.route, index), operation.verb === 'replace');
        }
        break;
    }
  }

  private applyLink(link: LinkInfo, isDeleted: boolean, touched: Set<ObjectKey>): boolean {
    const before = this.byIndex.get(link.index);
    const wasOurs = this.ours.has(link.index);
    const matters = wasOurs || this.desired.refersTo(link.name) || (before && this.desired.refersTo(before.name));
    if (isDeleted) {
      this.removeLink(link.index);
      if (matters !== true || before === undefined) return false;
      touched.add(objectKey.link(before.name));
      return true;
    }
    this.putLink(link);
    const isOurs = this.ours.has(link.index);
    if (matters !== true && !isOurs) return false;
    if (before !== undefined && isSameLinkInfo(before, link)) return false;
    touched.add(objectKey.link(link.name));
    // Going down, a new MAC and a new name take objects along, for which the kernel sends no events.
    return before?.name !== link.name || before.isUp !== link.isUp || before.mac !== link.mac || wasOurs !== isOurs;
  }

  private applyAddress(info: AddressInfo, isDeleted: boolean, touched: Set<ObjectKey>): boolean {
    const key = this.addressKey(info);
    const name = this.byIndex.get(info.index)?.name;
    // With the last IPv4 address of a device go its routes, and with any the routes that use it as source, unreported.
    if (key === undefined) return isDeleted && name !== undefined && this.desired.refersTo(name);
    if (isDeleted) {
      if (!this.addresses.delete(key)) return false;
      touched.add(key);
      return true;
    }
    if (!this.addresses.has(key)) touched.add(key);
    this.addresses.set(key, info);
    return false;
  }

  private applyNeighbour(info: NeighInfo, isDeleted: boolean, touched: Set<ObjectKey>): void {
    const device = this.ours.get(info.index);
    if (device === undefined) return;
    const key = objectKey.neighbour(device, info.address);
    const before = this.neighbours.get(key);
    if (isDeleted || !info.isPermanent) {
      if (this.neighbours.delete(key)) touched.add(key);
    } else if (before?.mac !== info.mac) {
      this.neighbours.set(key, info);
      touched.add(key);
    }
  }

  private applyFdb(info: FdbInfo, isDeleted: boolean, touched: Set<ObjectKey>): void {
    const device = this.ours.get(info.index);
    if (device === undefined || !isUnicastSelf(info)) return;
    const key = objectKey.fdb(device, info.mac);
    const before = this.fdb.get(key);
    const isKnown = before !== undefined && isSameFdb(before, info);
    if (isDeleted && !isKnown) return; // it had been replaced before
    if (!isDeleted && info.isPermanent) {
      if (isKnown) return;
      this.fdb.set(key, info);
    } else if (!this.fdb.delete(key)) {
      return;
    }
    touched.add(key);
  }

  private applyRoute(event: NetlinkEvent & { readonly type: 'route' }, touched: Set<ObjectKey>): boolean {
    const { route, isDeleted, isReplacement } = event;
    const key = this.relevantRouteKey(route);
    if (key === undefined) return false;
    const known = this.routes.get(key) ?? [];
    const slot = known.filter((other) => isSameSlot(other, route));
    // The members of an IPv6 multipath route come and go one by one or all at once.
    if (route.multipath.length > 0 || slot.some((other) => other.multipath.length > 0)) return true;
    const rest = known.filter((other) => !isSameRouteInfo(other, route));
    const isKnown = rest.length !== known.length;
    if (isDeleted) {
      if (!isKnown) return false;
      this.setRoutes(key, rest);
      touched.add(key);
      return false;
    }
    if (isKnown) return false;
    touched.add(key);
    if (route.nexthopId !== 0) this.nexthopIds.add(route.nexthopId);
    this.insertRoute(key, route, isReplacement);
    return slot.length > (isReplacement ? 1 : 0); // its place among several with equal tos and metric is not known
  }

  /** Puts a route before the others of its tos and metric, or in place of the first of them. */
  private insertRoute(key: ObjectKey, route: RouteInfo, isReplacement: boolean): void {
    const known = this.routes.get(key) ?? [];
    const at = known.findIndex((other) => isSameSlot(other, route));
    if (at < 0) this.routes.set(key, [...known, route]);
    else this.routes.set(key, known.toSpliced(at, isReplacement ? 1 : 0, route));
  }

  private setRoutes(key: ObjectKey, routes: readonly RouteInfo[]): void {
    if (routes.length === 0) this.routes.delete(key);
    else this.routes.set(key, routes);
  }

  private addressKey({ index, address, length, peer }: AddressInfo): ObjectKey | undefined {
    const device = this.ours.get(index);
    if (device === undefined) return undefined;
    const key = objectKey.address(device, address, length);
    return peer === undefined ? key : `${key} peer ${peer.toString()}`;
  }

  /** Key of a route that is ours or lies where ours lie or may come to lie. */
  private relevantRouteKey(route: RouteInfo): ObjectKey | undefined {
    if (route.table !== RT_TABLE_MAIN) return undefined;
    const key = objectKey.route(route.destination, route.metric);
    const isRelevant =
      route.protocol === ROUTE_PROTOCOL ||
      hopIndexes(route).some((index) => this.ours.has(index)) ||
      this.desired.routes.has(key) ||
      this.ownership.isInScope(route.destination);
    return isRelevant ? key : undefined;
  }
}

/** What the kernel will say about a route that we make. */
function madeRoute(spec: RouteSpec, index: number): RouteInfo {
  const { destination, type, gateway, isOnlink } = spec;
  return {
    destination,
    type,
    table: RT_TABLE_MAIN,
    protocol: ROUTE_PROTOCOL,
    scope: destination.family === 4 ? spec.scope : 'global',
    tos: 0,
    metric: spec.metric ?? defaultMetric(destination.family),
    prefsrc: undefined,
    index,
    gateway,
    isOnlink,
    nexthopId: 0,
    multipath: [],
  };
}

/** What the kernel will say about a forwarding entry that we make. */
function plainFdb(index: number, mac: MacAddress, destination: IpAddress): FdbInfo {
  const common = { port: undefined, vni: undefined, viaIndex: undefined, masterIndex: 0 };
  return { index, mac, destination, ...common, isPermanent: true, isSelf: true };
}

function isUnicastSelf({ isSelf, mac }: FdbInfo): boolean {
  return isSelf && isUnicastMac(mac);
}

function isSameFdb(a: FdbInfo, b: FdbInfo): boolean {
  return isSame(a.destination, b.destination) && a.port === b.port && a.vni === b.vni && a.viaIndex === b.viaIndex;
}

/** Routes to one destination compete by tos and metric; among equal ones only the first is used. */
function isSameSlot(a: RouteInfo, b: RouteInfo): boolean {
  return a.tos === b.tos && a.metric === b.metric;
}

function isSameRouteInfo(a: RouteInfo, b: RouteInfo): boolean {
  return (
    isSameSlot(a, b) &&
    a.type === b.type &&
    a.protocol === b.protocol &&
    a.nexthopId === b.nexthopId &&
    a.multipath.length === b.multipath.length &&
    (a.type !== 'unicast' || // IPv6 shows the loopback device for routes without one
      (a.index === b.index && a.scope === b.scope && a.isOnlink === b.isOnlink && isSame(a.gateway, b.gateway))) &&
    isSame(a.prefsrc, b.prefsrc)
  );
}

function isSameLinkInfo(a: LinkInfo, b: LinkInfo): boolean {
  return (
    a.name === b.name &&
    a.kind === b.kind &&
    a.isUp === b.isUp &&
    a.mtu === b.mtu &&
    a.mac === b.mac &&
    a.txQueueLength === b.txQueueLength &&
    a.alias === b.alias &&
    isSameDetails(a.details, b.details)
  );
}

function isSameDetails(a: LinkDetails | undefined, b: LinkDetails | undefined): boolean {
  if (a?.kind === 'vxlan' && b?.kind === 'vxlan') {
    return (
      a.vni === b.vni &&
      a.underlayIndex === b.underlayIndex &&
      a.port === b.port &&
      a.learning === b.learning &&
      a.gbp === b.gbp &&
      isSame(a.local, b.local) &&
      isSame(a.group, b.group)
    );
  }
  if (a?.kind === 'ipip' && b?.kind === 'ipip') return isSame(a.local, b.local) && isSame(a.remote, b.remote);
  return a?.kind === b?.kind;
}
