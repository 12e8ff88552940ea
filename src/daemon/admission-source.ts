import type { NetworkConfig } from '../config/network-config.js';
import type { ReachContext } from '../container/reach-admission.js';
import type { IpAddress } from '../ip/address.js';
import { Prefix } from '../ip/prefix.js';
import {
  type AdmissionContext,
  type GuardedAddress,
  OWN_HOST,
  type OwnClaim,
  STORE_OWNER,
  assertNetworkFree,
} from '../lease/admission.js';
import type { AddressInfo } from '../netlink/address.js';
import type { HostNetlink } from '../underlay/host-network.js';
import type { Underlay } from '../underlay/underlay.js';

/** What a {@link AdmissionSource.context} is made of, besides what the source knows itself. */
export interface AdmissionInput {
  readonly network: NetworkConfig;
  /** Networks that were configured a moment ago, and the current ones. */
  readonly networks: readonly Prefix[];
  readonly underlay: Underlay;
  readonly publicIp: IpAddress;
  readonly own: OwnClaim | undefined;
}

/**
 * Collects the addresses of the real network that the overlay must never take: etcd's and the host's own.
 *
 * API: {@link setStore} with the addresses of etcd, {@link refresh} before each decision; then {@link assertSafe} and
 * {@link context}, which is the same object as before unless something in it has changed.
 */
export class AdmissionSource {
  private store: readonly GuardedAddress[] = [];
  private host: readonly GuardedAddress[] = [];
  private broadcasts: readonly IpAddress[] = [];
  /** Networks that the underlay's device is in. */
  private connected: readonly Prefix[] = [];
  private deviceV6: IpAddress | undefined;
  private reach: { readonly key: string; readonly context: ReachContext } | undefined;
  private current: AdmissionContext | undefined;
  private currentKey = '';

  constructor(private readonly netlink: Pick<HostNetlink, 'addresses'>) {}

  setStore(addresses: readonly IpAddress[]): void {
    this.store = addresses.map((address) => ({ address, owner: STORE_OWNER }));
  }

  /** Reads the host's addresses. */
  async refresh(underlay: Underlay): Promise<void> {
    const listed = await this.netlink.addresses.list();
    const all = [...announcedBy(underlay), ...listed.map((each) => each.address)];
    const unique = new Map(all.map((each) => [each.toString(), each]));
    this.host = [...unique.values()].map((each) => ({ address: each, owner: OWN_HOST }));
    this.connected = listed
      .filter((each) => each.index === underlay.ifindex && !each.address.isLinkLocal)
      .map((each) => Prefix.of(each.address, each.length));
    this.deviceV6 = listed
      .filter((each) => each.index === underlay.ifindex && isLasting(each))
      .toSorted((a, b) => Number(b.isPermanent) - Number(a.isPermanent))
      .at(0)?.address;
    this.broadcasts = listed
      .filter((each) => each.index === underlay.ifindex && each.address.family === 4 && each.length < 31)
      .map((each) => Prefix.of(each.address, each.length).last);
  }

  /** An IPv6 address of the underlay's device, also where the overlay has no IPv6; undefined if it has none that lasts. */
  get underlayV6(): IpAddress | undefined {
    return this.deviceV6;
  }

  /**
   * Refuses a network that would draw etcd or the way to other hosts into the overlay.
   *
   * @param underlay - undefined while it is not chosen; then etcd's addresses alone are looked at.
   * @throws {@link OverlayError} `ERR_NETWORK_CONFIG`
   */
  assertSafe(network: NetworkConfig, underlay: Underlay | undefined): void {
    const { address, addressV6, publicIp, publicIpv6 } = underlay ?? {};
    const own = [address, addressV6, publicIp, publicIpv6]
      .filter((each) => each !== undefined)
      .map((each): GuardedAddress => ({ address: each, owner: OWN_HOST }));
    assertNetworkFree(network, [...this.store, ...own]);
  }

  /**
   * What decides where containers of other hosts are believed to be.
   *
   * @param host - stands for this one in etcd.
   * @param context - of the leases, for the same state.
   */
  reachContext(host: string, { guarded, networks }: AdmissionContext, underlay: Underlay): ReachContext {
    const announced = announcedBy(underlay);
    const isAnnounced = ({ address }: GuardedAddress): boolean => announced.some((each) => each.equals(address));
    const context: ReachContext = {
      host,
      overlay: networks,
      onLink: this.connected,
      guarded: guarded.filter((each) => each.owner === STORE_OWNER || isAnnounced(each)),
      local: guarded.filter((each) => each.owner === OWN_HOST).map(({ address }) => address),
    };
    const key = JSON.stringify(context);
    if (this.reach?.key !== key) this.reach = { key, context };
    return this.reach.context;
  }

  /** What decides which leases are believed. */
  context({ network, networks, underlay, publicIp, own }: AdmissionInput): AdmissionContext {
    // A bridge may still have an address of a subnet that is another host's by now: inside the overlay, leases decide.
    const announced = announcedBy(underlay);
    const isOverlay = (address: IpAddress): boolean =>
      !announced.some((each) => each.equals(address)) && networks.some((each) => each.contains(address));
    const guarded = [...this.store, ...this.host.filter(({ address }) => !isOverlay(address))];
    const context: AdmissionContext = {
      networks,
      needsIpv4: network.ipv4 !== undefined,
      publicIp,
      own: own && { subnet: own.subnet, ipv6Subnet: own.ipv6Subnet, revision: own.revision },
      guarded,
      broadcasts: this.broadcasts,
    };
    const key = JSON.stringify(context);
    if (this.current === undefined || key !== this.currentKey) this.current = context;
    this.currentKey = key;
    return this.current;
  }
}

/** The addresses under which other hosts know this one. */
function announcedBy({ address, addressV6, publicIp, publicIpv6 }: Underlay): readonly IpAddress[] {
  return [address, addressV6, publicIp, publicIpv6].filter((each) => each !== undefined);
}

/** Whether other hosts may be told the address: it is global, in use, and no privacy address that changes daily. */
function isLasting({ address, isDeprecated, isSecondary, isTentative }: AddressInfo): boolean {
  return address.family === 6 && address.isGlobalUnicast && !isDeprecated && !isSecondary && !isTentative;
}
