import type { HostAtStart, HostFacts, KernelPathFacts } from '../backend/backend.js';
import { isBackendDevice } from '../backend/registry.js';
import type { IpAddress } from '../ip/address.js';
import { parseMac } from '../ip/mac.js';
import type { WireguardSecret } from '../ip/wireguard-key.js';
import type { Prefix } from '../ip/prefix.js';
import { RTPROT } from '../netlink/constants.js';
import type { NetlinkEvent } from '../netlink/monitor.js';
import { ROUTE_PROTOCOL } from '../reconcile/desired.js';
import { ALIAS_PREFIX } from '../reconcile/ownership.js';
import type { HostNetlink } from '../underlay/host-network.js';
import type { Underlay } from '../underlay/underlay.js';
import { OnLinkCache, type RouteLookup } from './on-link.js';
import type { PrivateKeyFile } from './private-key.js';

/**
 * Collects what backends may know of the host.
 *
 * API: {@link open} looks at the devices that are there; {@link refresh} gives the facts, the same object as before if
 * nothing has changed; {@link giveUp} leaves a link address to the host that had it first. `onRoutesChanged` is called
 * when an answer to {@link HostFacts.isOnLink} may be another one.
 */
export class HostFactsSource {
  private readonly onLink: OnLinkCache;
  /** Likewise, of hosts with containers: more of those are no reason to look at every peer again. */
  private readonly directLink: OnLinkCache;
  private isDirect: (address: IpAddress) => boolean = () => false;
  private isAsked = { byBackends: false, byContainers: false };
  private contested: ReadonlySet<string> = new Set();
  private current: HostFacts | undefined;
  private key: WireguardSecret | undefined;
  private monitor: { close(): void } | undefined;

  private constructor(
    private readonly netlink: HostNetlink,
    private readonly atStart: HostAtStart,
    private readonly privateKey: Pick<PrivateKeyFile, 'load'>,
    private readonly onRoutesChanged: () => void,
  ) {
    const lookUp: RouteLookup = (address) => {
      const route = netlink.routes.lookup(address);
      return Promise.resolve(route && { ifindex: route.index, gateway: route.gateway, mtu: route.mtu });
    };
    this.onLink = new OnLinkCache(lookUp);
    this.directLink = new OnLinkCache(lookUp);
  }

  /** @param options - what is found here besides the devices. */
  static async open({
    netlink,
    privateKey,
    onRoutesChanged,
    ...found
  }: Omit<HostAtStart, 'devices'> & {
    readonly netlink: HostNetlink;
    readonly privateKey: Pick<PrivateKeyFile, 'load'>;
    readonly onRoutesChanged: () => void;
  }): Promise<HostFactsSource> {
    const devices = (await netlink.links.list())
      .filter(({ name }) => name.startsWith('flannel'))
      .map(({ name, kind, mac }) => ({ name, kind, mac: mac === undefined ? undefined : parseMac(mac) }));
    return new HostFactsSource(netlink, { ...found, devices }, privateKey, onRoutesChanged);
  }

  /**
   * @param options.onLinkAddresses - addresses that a backend will ask about; empty if none does.
   * @param options.kernelPath - undefined unless the kernel is to carry what it can.
   * @param options.needsPrivateKey - whether peers know this host by its key; one that was needed once stays known.
   * @throws {@link OverlayError} `ERR_PRIVATE_KEY`
   */
  async refresh(options: {
    readonly underlay: Underlay;
    readonly onLinkAddresses: readonly IpAddress[];
    readonly needsPrivateKey: boolean;
    readonly kernelPath?: KernelPathFacts | undefined;
  }): Promise<HostFacts> {
    const { underlay, onLinkAddresses, needsPrivateKey, kernelPath } = options;
    this.watchRoutes({ byBackends: onLinkAddresses.length > 0 });
    const hasChanged = await this.onLink.refresh(onLinkAddresses, underlay.ifindex);
    if (needsPrivateKey) this.key = await this.privateKey.load();
    const isSame =
      this.current?.underlay === underlay &&
      this.current.privateKey === this.key &&
      this.current.kernelPath?.isAnnounced === kernelPath?.isAnnounced;
    if (!hasChanged && this.current !== undefined && isSame) return this.current;
    this.current = {
      underlay,
      atStart: this.atStart,
      contested: this.contested,
      privateKey: this.key,
      isOnLink: (address) => this.onLink.isOnLink(address),
      routeMtu: (address) => this.onLink.routeMtu(address),
      ...(kernelPath && { kernelPath }),
    };
    return this.current;
  }

  /** What the host published last when the daemon started. */
  get published(): HostAtStart['published'] {
    return this.atStart.published;
  }

  /**
   * Whether hosts with containers are on the link of the underlay's device; the same function as before as long as the
   * answers are the same.
   *
   * @param addresses - those that will be asked about.
   */
  async directLinks(addresses: readonly IpAddress[], underlay: Underlay): Promise<(address: IpAddress) => boolean> {
    this.watchRoutes({ byContainers: addresses.length > 0 });
    const hasChanged = await this.directLink.refresh(addresses, underlay.ifindex);
    if (hasChanged) this.isDirect = (address) => this.directLink.isOnLink(address);
    return this.isDirect;
  }

  /**
   * Puts a device among {@link HostFacts.contested}: a host that was copied, or that lost its state and its address but
   * not its devices, gets a link address of its own that way.
   */
  giveUp(device: string): void {
    this.contested = new Set([...this.contested, device]);
    this.current = undefined;
  }

  /**
   * Devices that a flanneld left behind for these networks, whatever backend it had: nobody else will remove them.
   * Those that carry the mark of a daemon of this kind are that daemon's business.
   */
  async flannelDevices(networks: readonly Prefix[]): Promise<string[]> {
    const candidates = (await this.netlink.links.list()).filter(
      (link) => isBackendDevice(link.name) && !link.alias.startsWith(ALIAS_PREFIX),
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
  private watchRoutes(asked: Partial<typeof this.isAsked>): void {
    this.isAsked = { ...this.isAsked, ...asked };
    if (!this.isAsked.byBackends && !this.isAsked.byContainers) {
      this.monitor?.close();
      this.monitor = undefined;
    } else {
      this.monitor ??= this.netlink.subscribe(['route'], (event) => {
        if (!mayChangeReachability(event)) return;
        this.onLink.forget();
        this.directLink.forget();
        this.onRoutesChanged();
      });
    }
  }
}

function mayChangeReachability(event: NetlinkEvent): boolean {
  if (event.type === 'resync') return true;
  return event.type === 'route' && event.route.protocol !== ROUTE_PROTOCOL && event.route.protocol !== RTPROT.REDIRECT;
}
