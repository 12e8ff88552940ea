import type { AddressInfo } from '../netlink/address.js';
import type { FilterInfo } from '../netlink/filter.js';
import type { LinkInfo } from '../netlink/link.js';
import type { FdbInfo, NeighInfo, ProxyNeigh } from '../netlink/neighbour.js';
import type { RouteInfo } from '../netlink/route.js';
import type { WireguardEndpoint, WireguardInfo, WireguardPeerInfo } from '../netlink/wireguard.js';
import { type FormerValues, FormerValuesInMemory } from './former-values.js';
import type { ObjectKey } from './object-key.js';
import type { Ownership } from './ownership.js';
import type { DesiredObjects } from './spec-list.js';

/**
 * What the kernel looks like, as far as it can matter: every device's name and state; addresses, neighbours and
 * forwarding entries of our devices; routes of the main table that are ours or lie where ours lie.
 *
 * @remarks The modules in `kinds/` fill it from a dump, and keep it by change events and by what we do ourselves.
 */
export class ActualState {
  readonly links = new Map<string, LinkInfo>();
  readonly addresses = new Map<ObjectKey, AddressInfo>();
  /** Permanent ones only. */
  readonly neighbours = new Map<ObjectKey, NeighInfo>();
  /** Those of others included. */
  readonly proxyNeighbours = new Map<ObjectKey, ProxyNeigh>();
  /** Permanent ones of unicast MACs only; those have one destination each (`vxlan_fdb_update_existing()`). */
  readonly fdb = new Map<ObjectKey, FdbInfo>();
  readonly filters = new Map<ObjectKey, FilterInfo>();
  readonly wireguard = new Map<ObjectKey, Omit<WireguardInfo, 'peers'>>();
  readonly wireguardPeers = new Map<ObjectKey, WireguardPeerInfo>();
  /** All with the same destination and metric, in the kernel's order: the first of those with equal tos is used. */
  readonly routes = new Map<ObjectKey, readonly RouteInfo[]>();
  /** Texts of the parameters that exist. */
  readonly sysctls = new Map<ObjectKey, string>();
  /** Next hop objects that routes use, or have used since the last dump. */
  readonly nexthopIds = new Set<number>();
  private readonly byIndex = new Map<number, LinkInfo>();
  private readonly ours = new Map<number, string>();

  /**
   * @param defaultVxlanPort - UDP port of VXLAN devices that were made without one.
   * @param setEndpoints - where this process has told the kernel to look for peers of WireGuard devices; from one dump to
   * the next, as the kernel only tells where they are now.
   * @param formerValues - of parameters that get them back.
   */
  constructor(
    readonly desired: DesiredObjects,
    readonly ownership: Ownership,
    readonly defaultVxlanPort: number,
    readonly setEndpoints = new Map<ObjectKey, SetEndpoint>(),
    readonly formerValues: FormerValues = new FormerValuesInMemory(),
  ) {}

  /** Indexes and names of our devices. */
  get ourDevices(): ReadonlyMap<number, string> {
    return this.ours;
  }

  readonly linkOf = (index: number): LinkInfo | undefined => this.byIndex.get(index);

  /** Index of the device that an operation names; 0 for none. */
  indexOf(device: string | undefined): number {
    return device === undefined ? 0 : (this.links.get(device)?.index ?? 0);
  }

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
}

/** An endpoint with the index of the device that it was set on. */
export interface SetEndpoint extends WireguardEndpoint {
  readonly index: number;
}
