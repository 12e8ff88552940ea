import type { HostFacts } from '../backend/backend.js';
import type { IpAddress } from '../ip/address.js';
import { type MacAddress, parseMac } from '../ip/mac.js';
import type { Prefix } from '../ip/prefix.js';
import { RTPROT } from '../netlink/constants.js';
import type { LinkInfo } from '../netlink/link.js';
import type { NetlinkEvent } from '../netlink/monitor.js';
import { ROUTE_PROTOCOL } from '../reconcile/desired.js';
import { ALIAS_PREFIX } from '../reconcile/ownership.js';
import type { HostNetlink } from '../underlay/host-network.js';
import type { Underlay } from '../underlay/underlay.js';
import { deriveMac } from './host-identity.js';
import { OnLinkCache } from './on-link.js';

/** Devices that flannel names so, whatever the VNI. */
const FLANNEL_DEVICE = /^flannel(-v6)?\.(\d+|ipip)$/;

/**
 * Collects what backends may know of the host.
 *
 * API: {@link open} looks at the devices that are there; {@link refresh} gives the facts, the same object as before if
 * nothing has changed; {@link giveUpMac} leaves a MAC to the host that had it first. `onRoutesChanged` is called when an
 * answer to {@link HostFacts.isOnLink} may be another one.
 */
export class HostFactsSource {
  private readonly onLink: OnLinkCache;
  private current: HostFacts | undefined;
  private monitor: { close(): void } | undefined;

  private constructor(
    private readonly netlink: HostNetlink,
    private readonly tunDevice: string,
    private readonly macs: Map<string, MacAddress>,
    private readonly identity: string,
    private readonly onRoutesChanged: () => void,
  ) {
    this.onLink = new OnLinkCache((address) => {
      const route = netlink.routes.lookup(address);
      return Promise.resolve(route && { ifindex: route.index, gateway: route.gateway });
    });
  }

  /**
   * @param options.tunDevice - name of a TUN device that was handed down; else the first free `flannelN` is taken, as
   * the kernel does for flannel.
   * @param options.identity - of the host, for MAC addresses.
   * @param options.publishedMacs - what peers send to as long as they have not been told otherwise, by devices that may be
   * gone after a reboot.
   */
  static async open(options: {
    readonly netlink: HostNetlink;
    readonly tunDevice: string | undefined;
    readonly identity: string;
    readonly publishedMacs: ReadonlyMap<string, MacAddress>;
    readonly onRoutesChanged: () => void;
  }): Promise<HostFactsSource> {
    const links = await options.netlink.links.list();
    const macs = new Map([
      ...options.publishedMacs,
      ...links.flatMap((link): [string, MacAddress][] =>
        FLANNEL_DEVICE.test(link.name) && link.kind === 'vxlan' && link.mac !== undefined
          ? [[link.name, parseMac(link.mac)]]
          : [],
      ),
    ]);
    const tunDevice = options.tunDevice ?? firstFreeName(links);
    return new HostFactsSource(options.netlink, tunDevice, macs, options.identity, options.onRoutesChanged);
  }

  /**
   * @param options.onLinkAddresses - addresses that a backend will ask about; empty if none does.
   */
  async refresh(options: {
    readonly underlay: Underlay;
    readonly onLinkAddresses: readonly IpAddress[];
  }): Promise<HostFacts> {
    const { underlay, onLinkAddresses } = options;
    this.watchRoutes(onLinkAddresses.length > 0);
    const hasChanged = await this.onLink.refresh(onLinkAddresses, underlay.ifindex);
    if (!hasChanged && this.current?.underlay === underlay) return this.current;
    this.current = {
      underlay,
      tunDevice: this.tunDevice,
      vtepMac: (device) => this.macs.get(device) ?? this.derivedMac(device, underlay),
      isOnLink: (address) => this.onLink.isOnLink(address),
    };
    return this.current;
  }

  /**
   * Replaces the MAC that a device was found with by the derived one, which contains the public address: a host that
   * was copied, or that lost its state and its address but not its devices, gets one of its own that way.
   *
   * @returns the new one; undefined if there is no other one.
   */
  giveUpMac(device: string): MacAddress | undefined {
    const found = this.macs.get(device);
    if (found === undefined || this.current === undefined) return undefined;
    const derived = this.derivedMac(device, this.current.underlay);
    if (derived === found) return undefined;
    this.macs.delete(device);
    this.current = undefined;
    return derived;
  }

  private derivedMac(device: string, { publicIp }: Underlay): MacAddress {
    return deriveMac(`${this.identity} ${publicIp?.toString() ?? ''}`, device);
  }

  /**
   * Devices that a flanneld left behind for these networks, whatever backend it had: nobody else will remove them.
   * Those that bear the mark of a daemon of this kind are that daemon's business.
   */
  async flannelDevices(networks: readonly Prefix[]): Promise<string[]> {
    const candidates = (await this.netlink.links.list()).filter(
      (link) => FLANNEL_DEVICE.test(link.name) && !link.alias.startsWith(ALIAS_PREFIX),
    );
    if (candidates.length === 0) return [];
    const lists = await Promise.all(
      candidates.map(async ({ name, index }) => ({ name, addresses: await this.netlink.addresses.list(index) })),
    );
    return lists
      .filter(({ addresses }) => addresses.some(({ address }) => networks.some((network) => network.contains(address))))
      .map(({ name }) => name);
  }

  close(): void {
    this.monitor?.close();
  }

  /** Route events cost time on a host with thousands of peers, so they are followed only where they matter. */
  private watchRoutes(isNeeded: boolean): void {
    if (!isNeeded) {
      this.monitor?.close();
      this.monitor = undefined;
    } else {
      this.monitor ??= this.netlink.subscribe(['route'], (event) => {
        if (!mayChangeReachability(event)) return;
        this.onLink.forget();
        this.onRoutesChanged();
      });
    }
  }
}

function mayChangeReachability(event: NetlinkEvent): boolean {
  if (event.type === 'resync') return true;
  return event.type === 'route' && event.route.protocol !== ROUTE_PROTOCOL && event.route.protocol !== RTPROT.REDIRECT;
}

function firstFreeName(links: readonly LinkInfo[]): string {
  const taken = new Set(links.map((link) => link.name));
  let number = 0;
  while (taken.has(`flannel${number}`)) number++;
  return `flannel${number}`;
}
