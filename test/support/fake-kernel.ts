import { OverlayError } from '../../src/errors.js';
import type { Family, IpAddress } from '../../src/ip/address.js';
import { type MacAddress, parseMac } from '../../src/ip/mac.js';
import type { WireguardPublicKey } from '../../src/ip/wireguard-key.js';
import { Prefix } from '../../src/ip/prefix.js';
import type { AddressInfo } from '../../src/netlink/address.js';
import type { FilterInfo } from '../../src/netlink/filter.js';
import { stationProgram } from '../../src/netlink/filter-program.js';
import type { LinkInfo } from '../../src/netlink/link.js';
import type { LinkDetails } from '../../src/netlink/link-details.js';
import type { NetlinkEvent } from '../../src/netlink/monitor.js';
import type { FdbInfo, NeighInfo, ProxyNeigh } from '../../src/netlink/neighbour.js';
import type { RouteInfo } from '../../src/netlink/route.js';
import type { NewWireguardPeer, WireguardInfo, WireguardPeerInfo } from '../../src/netlink/wireguard.js';
import { type LinkKinds, type MadeLinkKind, ROUTE_PROTOCOL, type RouteSpec } from '../../src/reconcile/desired.js';
import type { Kernel, KernelSubscription } from '../../src/reconcile/kernel.js';
import type { KernelObjectKind, Operation } from '../../src/reconcile/operation.js';
import { later } from './later.js';

/** Somebody who follows changes, with those that were not delivered yet. */
interface Listener {
  readonly onEvent: (event: NetlinkEvent) => void;
  queue: NetlinkEvent[];
}

/**
 * A kernel in memory, as far as the reconciler sees one: what exists already cannot be added, what does not exist
 * cannot be changed, devices take along what lies on them, and IPv4 routes vanish with them without an event.
 *
 * The reconciler acts through {@link apply}. Everything else that changes the state is somebody else's doing.
 */
export class FakeKernel implements Kernel {
  readonly links = new Map<number, LinkInfo>();
  readonly addresses = new Map<string, AddressInfo>();
  readonly neighbours = new Map<string, NeighInfo>();
  readonly proxies = new Map<string, ProxyNeigh>();
  /** Unicast MACs have one destination each. */
  readonly fdb = new Map<string, FdbInfo>();
  readonly filters = new Map<string, FilterInfo>();
  /** Of WireGuard devices, by index: their keys and ports. */
  readonly wireguard = new Map<number, Omit<WireguardInfo, 'peers'>>();
  readonly wireguardPeers = new Map<string, WireguardPeerInfo>();
  readonly routes = new Map<string, RouteInfo[]>();
  readonly sysctls = new Map<string, string>();
  /** Every operation that was carried out. */
  readonly applied: Operation[] = [];
  /** Gives the errno by which an operation is refused. */
  refuse: (operation: Operation) => string | undefined = () => undefined;
  dumps = 0;
  /** Makes listing fail. */
  isUnreadable = false;
  private lastIndex = 0;
  private readonly listeners = new Set<Listener>();

  // What the reconciler uses

  listLinks(): Promise<readonly LinkInfo[]> {
    this.dumps++;
    if (this.isUnreadable) {
      const error = new OverlayError('ERR_NETLINK', 'cannot list devices: ENOMEM', { context: { errno: 'ENOMEM' } });
      return Promise.reject(error);
    }
    return Promise.resolve([...this.links.values()]);
  }

  getLink(name: string): LinkInfo | undefined {
    return [...this.links.values()].find((link) => link.name === name);
  }

  listAddresses(index: number): Promise<readonly AddressInfo[]> {
    return Promise.resolve([...this.addresses.values()].filter((address) => address.index === index));
  }

  listRoutes(family: Family): Promise<readonly RouteInfo[]> {
    const all = [...this.routes.values()].flat();
    return Promise.resolve(all.filter((route) => route.destination.family === family));
  }

  listNeighbours(family: Family, index: number): Promise<readonly NeighInfo[]> {
    const all = [...this.neighbours.values()];
    return Promise.resolve(all.filter((one) => one.index === index && one.address.family === family));
  }

  listProxies(): Promise<readonly ProxyNeigh[]> {
    return Promise.resolve([...this.proxies.values()]);
  }

  listFdb(index: number): Promise<readonly FdbInfo[]> {
    return Promise.resolve([...this.fdb.values()].filter((entry) => entry.index === index));
  }

  listFilters(index: number): Promise<readonly FilterInfo[]> {
    return Promise.resolve([...this.filters.values()].filter((filter) => filter.index === index));
  }

  getWireguard(index: number): Promise<WireguardInfo | undefined> {
    const own = this.wireguard.get(index);
    const peers = [...this.wireguardPeers.values()].filter((peer) => peer.index === index);
    return Promise.resolve(own && { ...own, peers });
  }

  readSysctl(path: string): string | undefined {
    return this.sysctls.get(path);
  }

  defaultVxlanPort(): number {
    return 8472;
  }

  subscribe(onEvent: (event: NetlinkEvent) => void): KernelSubscription {
    const listener: Listener = { onEvent, queue: [] };
    this.listeners.add(listener);
    return {
      drain: (limit) => this.deliverTo(listener, limit),
      close: () => {
        this.listeners.delete(listener);
      },
    };
  }

  /** Ends what one user of the kernel has open; the state stays, as others use it too. */
  close(): void {}

  apply(operation: Operation, indexOf: (device: string) => number): boolean {
    const errno = this.refuse(operation);
    if (errno !== undefined) throw refused(operation.key, errno);
    const isChanged = this.carryOut(operation, indexOf);
    if (isChanged) this.applied.push(operation);
    return isChanged;
  }

  /** One for each kind of object; says whether it changed anything. */
  private readonly doers: {
    readonly [K in KernelObjectKind]: (operation: Operation<K>, indexOf: (device: string) => number) => boolean;
  } = {
    link: (operation, indexOf) => this.applyLink(operation, indexOf),
    sysctl: ({ path, value }) => {
      const before = this.sysctls.get(path);
      if (before === undefined) {
        if (path.startsWith('net/ipv6/')) return false;
        throw new OverlayError('ERR_SYSCTL', `cannot set kernel parameter ${path}: this kernel does not have it`);
      }
      this.sysctls.set(path, value);
      return before !== value;
    },
    address: ({ verb, device, address, length, peer }, indexOf) => {
      if (verb === 'del') return this.delAddress(indexOf(device), address, length, peer);
      this.putAddress(indexOf(device), address, length);
      return true;
    },
    neighbour: ({ key, verb, device, address, mac }, indexOf) => {
      const index = indexOf(device);
      if (verb === 'del') return this.delNeighbour(index, address);
      this.putNeighbour(index, address, mac ?? fail(key, 'EINVAL'));
      return true;
    },
    'proxy-neighbour': ({ verb, device, address }, indexOf) => {
      const index = indexOf(device);
      if (verb === 'del') return this.delProxy(index, address);
      this.putProxy({ index, address, protocol: ROUTE_PROTOCOL });
      return true;
    },
    fdb: (operation, indexOf) => {
      const index = indexOf(operation.device);
      if (operation.verb === 'del') return this.delFdb(index, operation.mac);
      this.replaceFdb(index, operation.mac, operation.destination);
      return true;
    },
    filter: ({ verb, device, direction, stations }, indexOf) => {
      const index = indexOf(device);
      if (verb === 'del') return this.delFilter(index, direction);
      this.replaceFilter({ index, direction, program: stationProgram(direction, stations) });
      return true;
    },
    port: ({ device, bridge, isIsolated, isHairpin }, indexOf) => {
      this.setLink(indexOf(device), { masterIndex: indexOf(bridge), isIsolated, isHairpin });
      return true;
    },
    wireguard: ({ device, privateKey, listenPort }, indexOf) => {
      this.setWireguard(indexOf(device), { publicKey: privateKey.publicKey, listenPort });
      return true;
    },
    'wireguard-peer': (operation, indexOf) => {
      const index = indexOf(operation.device);
      if (operation.verb === 'del') {
        if (!this.wireguard.has(index)) return false;
        this.delWireguardPeer(index, operation.publicKey);
      } else {
        const { peer, setsEndpoint } = operation;
        this.putWireguardPeer({ ...peer, index, endpoint: setsEndpoint ? peer.endpoint : undefined });
      }
      return true; // the kernel does not say
    },
    route: (operation, indexOf) => {
      if (operation.verb === 'del') return this.delRoute(operation.route);
      this.putRoute(this.routeOf(operation.route, indexOf), operation.verb);
      return true;
    },
  };

  private carryOut<K extends KernelObjectKind>(operation: Operation<K>, indexOf: (device: string) => number): boolean {
    return this.doers[operation.kind](operation, indexOf);
  }

  // What others do

  /** Delivers the events that wait. Called by itself a turn after they came up. */
  deliver(): void {
    for (const listener of [...this.listeners]) this.deliverTo(listener);
  }

  /** Loses the events that wait, as the kernel does when the receive buffer is full. */
  loseEvents(): void {
    for (const listener of this.listeners) listener.queue = [];
    this.emit({ type: 'resync' });
  }

  /** Reports something that did not happen. */
  disturb(event: NetlinkEvent): void {
    this.emit(event);
  }

  addLink(link: Partial<LinkInfo> & { readonly name: string }): LinkInfo {
    if (this.getLink(link.name) !== undefined) fail(link.name, 'EEXIST');
    const index = ++this.lastIndex;
    const made: LinkInfo = {
      kind: '',
      isUp: false,
      isRunning: false,
      isLoopback: false,
      mtu: 1500,
      mac: link.kind === 'tun' ? undefined : parseMac(`02:ff:00:00:00:${index.toString(16).padStart(2, '0')}`),
      txQueueLength: 1000,
      alias: '',
      masterIndex: 0,
      isIsolated: false,
      isHairpin: false,
      lowerIndex: 0,
      details: undefined,
      ...link,
      index,
    };
    this.links.set(index, made);
    if (made.kind === 'wireguard') this.wireguard.set(index, { index, publicKey: undefined, listenPort: 0 });
    this.emit({ type: 'link', isDeleted: false, link: made });
    return made;
  }

  setLink(index: number, change: Partial<LinkInfo>): void {
    const before = this.links.get(index) ?? fail(String(index), 'ENODEV');
    const after = { ...before, ...change };
    this.links.set(index, after);
    if (before.isUp && !after.isUp) this.forgetRoutesOf(index);
    if ((before.isUp && !after.isUp) || (before.isRunning && !after.isRunning)) this.forgetProxiesOf(index);
    if (before.mac !== after.mac) {
      for (const [key, neighbour] of this.neighbours) {
        if (neighbour.index !== index) continue;
        this.neighbours.delete(key);
        this.emit({ type: 'neighbour', isDeleted: true, neighbour });
      }
    }
    this.emit({ type: 'link', isDeleted: false, link: after });
  }

  delLink(index: number): void {
    const link = this.links.get(index) ?? fail(String(index), 'ENODEV');
    this.forgetRoutesOf(index);
    for (const [key, address] of this.addresses) {
      if (address.index !== index) continue;
      this.addresses.delete(key);
      this.emit({ type: 'address', isDeleted: true, address });
    }
    for (const [key, neighbour] of this.neighbours) if (neighbour.index === index) this.neighbours.delete(key);
    this.forgetProxiesOf(index);
    for (const [key, entry] of this.fdb) if (entry.index === index) this.fdb.delete(key);
    for (const [key, filter] of this.filters) if (filter.index === index) this.filters.delete(key);
    for (const [key, peer] of this.wireguardPeers) if (peer.index === index) this.wireguardPeers.delete(key);
    this.wireguard.delete(index);
    this.links.delete(index);
    this.emit({ type: 'link', isDeleted: true, link: { ...link, isUp: false } });
  }

  putAddress(index: number, address: IpAddress, length: number, peer?: IpAddress): void {
    this.needLink(index);
    const scope = 0;
    const flags = { isPermanent: true, isTentative: false, isDeprecated: false, isSecondary: false };
    const info: AddressInfo = { index, address, length, peer, scope, ...flags };
    this.addresses.set(addressKey(index, address, length, peer), info);
    this.emit({ type: 'address', isDeleted: false, address: info });
  }

  delAddress(index: number, address: IpAddress, length: number, peer?: IpAddress): boolean {
    const key = addressKey(index, address, length, peer);
    const info = this.addresses.get(key);
    if (info === undefined) return false;
    this.addresses.delete(key);
    this.emit({ type: 'address', isDeleted: true, address: info });
    const others = [...this.addresses.values()].filter(
      (other) => other.index === index && other.address.family === address.family,
    );
    if (address.family === 4 && others.length === 0) this.forgetRoutesOf(index, 4);
    if (address.family === 4) this.forgetRoutesFrom(address);
    return true;
  }

  putNeighbour(index: number, address: IpAddress, mac: MacAddress, isPermanent = true): void {
    this.needLink(index);
    const neighbour: NeighInfo = { index, address, mac, isPermanent, isFailed: false };
    this.neighbours.set(`${index} ${address.toString()}`, neighbour);
    this.emit({ type: 'neighbour', isDeleted: false, neighbour });
  }

  delNeighbour(index: number, address: IpAddress): boolean {
    const key = `${index} ${address.toString()}`;
    const neighbour = this.neighbours.get(key);
    if (neighbour === undefined) return false;
    this.neighbours.delete(key);
    this.emit({ type: 'neighbour', isDeleted: true, neighbour });
    return true;
  }

  /** No event comes of it, nor of its end. */
  putProxy(proxy: ProxyNeigh): void {
    this.needLink(proxy.index);
    this.proxies.set(`${proxy.index} ${proxy.address.toString()}`, proxy);
  }

  delProxy(index: number, address: IpAddress): boolean {
    return this.proxies.delete(`${index} ${address.toString()}`);
  }

  private forgetProxiesOf(index: number): void {
    for (const [key, proxy] of this.proxies) if (proxy.index === index) this.proxies.delete(key);
  }

  replaceFdb(index: number, mac: MacAddress, destination: IpAddress, more: Partial<FdbInfo> = {}): void {
    if (this.needLink(index).kind !== 'vxlan') fail(String(index), 'EOPNOTSUPP');
    const plain = { port: undefined, vni: undefined, viaIndex: undefined, masterIndex: 0 };
    const entry = { index, mac, destination, ...plain, isPermanent: true, isSelf: true, ...more };
    this.fdb.set(`${index} ${mac}`, entry);
    this.emit({ type: 'fdb', isDeleted: false, entry });
  }

  delFdb(index: number, mac: MacAddress): boolean {
    const key = `${index} ${mac}`;
    const entry = this.fdb.get(key);
    if (entry === undefined) return false;
    this.fdb.delete(key);
    this.emit({ type: 'fdb', isDeleted: true, entry });
    return true;
  }

  replaceFilter(filter: FilterInfo): void {
    this.needLink(filter.index);
    this.filters.set(`${filter.index} ${filter.direction}`, filter);
    this.emit({ type: 'filter', index: filter.index, filter });
  }

  delFilter(index: number, direction: FilterInfo['direction']): boolean {
    if (!this.filters.delete(`${index} ${direction}`)) return false;
    this.emit({ type: 'filter', index, filter: undefined });
    return true;
  }

  /** The device takes no peer with its own key, and drops one that has it. */
  setWireguard(index: number, settings: Omit<WireguardInfo, 'index' | 'peers'>): void {
    if (!this.wireguard.has(index)) fail(String(index), this.links.has(index) ? 'EOPNOTSUPP' : 'ENODEV');
    this.wireguard.set(index, { index, ...settings });
    if (settings.publicKey !== undefined) this.delWireguardPeer(index, settings.publicKey);
  }

  /** What the peer is allowed, no other peer of the device is any more. */
  putWireguardPeer({ index, publicKey, ...peer }: NewWireguardPeer): void {
    const own = this.wireguard.get(index);
    if (own === undefined) fail(String(index), this.links.has(index) ? 'EOPNOTSUPP' : 'ENODEV');
    if (own.publicKey === publicKey) return;
    for (const [key, other] of this.wireguardPeers) {
      if (other.index !== index) continue;
      const allowedIps = other.allowedIps.filter((prefix) => !peer.allowedIps.some((moved) => moved.equals(prefix)));
      this.wireguardPeers.set(key, { ...other, allowedIps });
    }
    const before = this.wireguardPeers.get(`${index} ${publicKey}`);
    this.wireguardPeers.set(`${index} ${publicKey}`, {
      lastHandshakeMs: undefined,
      rxBytes: 0,
      txBytes: 0,
      ...before,
      index,
      publicKey,
      presharedKey: peer.presharedKey,
      endpoint: peer.endpoint ?? before?.endpoint,
      keepaliveSeconds: peer.keepaliveSeconds,
      allowedIps: peer.allowedIps,
    });
  }

  delWireguardPeer(index: number, publicKey: WireguardPublicKey): void {
    this.wireguardPeers.delete(`${index} ${publicKey}`);
  }

  /** What happens in the kernel of itself: a handshake, from wherever the peer is, and bytes. */
  touchWireguardPeer(index: number, publicKey: WireguardPublicKey, change: Partial<WireguardPeerInfo>): void {
    const key = `${index} ${publicKey}`;
    const before = this.wireguardPeers.get(key) ?? fail(key, 'ENOENT');
    this.wireguardPeers.set(key, { ...before, ...change });
  }

  putRoute(route: RouteInfo, verb: 'add' | 'replace' | 'append'): void {
    if (route.index !== 0 && this.links.get(route.index)?.isUp !== true) fail(routeKey(route), 'ENETDOWN');
    const key = route.destination.toString();
    const present = this.routes.get(key) ?? [];
    const at = present.findIndex((other) => other.tos === route.tos && other.metric === route.metric);
    if (at >= 0 && verb === 'add') fail(routeKey(route), 'EEXIST');
    if (present.some((other) => routeKey(other) === routeKey(route))) return; // no two equal routes
    const place = at < 0 || verb === 'append' ? present.length : at;
    const isReplacement = at >= 0 && verb === 'replace';
    this.routes.set(key, present.toSpliced(place, isReplacement ? 1 : 0, route));
    this.emit({ type: 'route', isDeleted: false, isReplacement, route });
  }

  delRoute(route: RouteInfo): boolean {
    const key = route.destination.toString();
    const present = this.routes.get(key) ?? [];
    const at = present.findIndex((other) => routeKey(other) === routeKey(route));
    const found = present[at];
    if (found === undefined) return false;
    const rest = present.toSpliced(at, 1);
    if (rest.length === 0) this.routes.delete(key);
    else this.routes.set(key, rest);
    this.emit({ type: 'route', isDeleted: true, isReplacement: false, route: found });
    return true;
  }

  /** Deletes a next hop object: routes that use it go without an event of their own. */
  delNexthop(id: number): void {
    for (const [key, routes] of this.routes) {
      const rest = routes.filter(({ nexthopId }) => nexthopId !== id);
      if (rest.length === 0) this.routes.delete(key);
      else this.routes.set(key, rest);
    }
    this.emit({ type: 'nexthop', id });
  }

  /** Everything there is, as sorted lines without device indexes. */
  describe(): string[] {
    const name = (index: number): string => this.links.get(index)?.name ?? '-';
    return [
      ...Array.from(this.links.values(), (link) => `link ${JSON.stringify({ ...link, index: undefined })}`),
      ...Array.from(this.addresses.keys(), (key) => `address ${key.replace(/^\d+/, (index) => name(Number(index)))}`),
      ...Array.from(
        this.neighbours.values(),
        (one) => `neighbour ${name(one.index)} ${one.address.toString()} ${one.mac ?? ''} ${one.isPermanent}`,
      ),
      ...Array.from(
        this.proxies.values(),
        (one) => `proxy-neighbour ${name(one.index)} ${one.address.toString()} ${one.protocol}`,
      ),
      ...[...this.wireguard.values()].map(
        (own) => `wireguard ${name(own.index)} ${own.publicKey ?? '-'} port ${own.listenPort}`,
      ),
      ...[...this.wireguardPeers.values()].map(
        (one) =>
          `wireguard-peer ${name(one.index)} ${one.publicKey} ${one.endpoint?.address.toString() ?? '-'} ${one.endpoint?.port ?? ''} ${one.keepaliveSeconds} ${one.presharedKey?.toBase64() ?? '-'} ${one.allowedIps.map(String).sort().join()}`,
      ),
      ...[...this.fdb.values()].map((one) => `fdb ${name(one.index)} ${one.mac} ${String(one.destination)}`),
      ...[...this.routes.values()]
        .flat()
        .map((route) => `route ${routeKey({ ...route, index: 0 })} dev ${name(route.index)}`),
    ].sort();
  }

  private applyLink(operation: Operation<'link'>, indexOf: (device: string) => number): boolean {
    const { device: name } = operation;
    if (operation.verb === 'del') {
      if (!this.links.has(indexOf(name))) return false;
      this.delLink(indexOf(name));
    } else if (operation.verb === 'set') {
      const { vxlan, ...change } = operation.change;
      const { details } = this.needLink(indexOf(name));
      const isLearning = vxlan !== undefined && details?.kind === 'vxlan';
      this.setLink(indexOf(name), {
        ...change,
        ...(isLearning ? { details: { ...details, learning: vxlan.learning } } : {}),
      });
    } else {
      if (operation.replaces) this.delLink(indexOf(name));
      const { spec, alias } = operation;
      const mac = 'mac' in spec ? { mac: spec.mac } : {};
      const lower = 'lowerIndex' in spec ? { lowerIndex: spec.lowerIndex } : {};
      this.addLink({
        name,
        kind: spec.kind,
        mtu: spec.mtu,
        alias,
        ...mac,
        ...lower,
        txQueueLength: 0,
        details: detailsOf(spec),
      });
    }
    return true;
  }

  private routeOf(spec: RouteSpec, indexOf: (device: string) => number): RouteInfo {
    return routeInfo(spec.destination, {
      type: spec.type,
      index: spec.device === undefined ? 0 : indexOf(spec.device),
      gateway: spec.gateway,
      isOnlink: spec.isOnlink,
      protocol: ROUTE_PROTOCOL,
      ...(spec.metric === undefined ? {} : { metric: spec.metric }),
    });
  }

  private forgetRoutesOf(index: number, family?: Family): void {
    for (const [key, routes] of this.routes) {
      const rest = routes.filter(
        (route) => route.index !== index || (family !== undefined && route.destination.family !== family),
      );
      for (const route of routes) {
        if (rest.includes(route) || route.destination.family === 4) continue;
        this.emit({ type: 'route', isDeleted: true, isReplacement: false, route });
      }
      if (rest.length === 0) this.routes.delete(key);
      else this.routes.set(key, rest);
    }
  }

  /** Those of IPv4 go without an event (`fib_sync_down_addr()`). */
  private forgetRoutesFrom(source: IpAddress): void {
    for (const [key, routes] of this.routes) {
      const rest = routes.filter(({ prefsrc }) => prefsrc?.equals(source) !== true);
      if (rest.length === 0) this.routes.delete(key);
      else this.routes.set(key, rest);
    }
  }

  /** Those who follow what changes. */
  get listenerCount(): number {
    return this.listeners.size;
  }

  /** Nobody listens any more: the process that did is gone. */
  dropListeners(): void {
    this.listeners.clear();
  }

  private needLink(index: number): LinkInfo {
    return this.links.get(index) ?? fail(String(index), 'ENODEV');
  }

  private emit(event: NetlinkEvent): void {
    for (const listener of this.listeners) {
      if (listener.queue.length === 0) {
        later(() => {
          this.deliverTo(listener);
        });
      }
      listener.queue.push(event);
    }
  }

  /** @returns whether more wait. */
  private deliverTo(listener: Listener, limit = Number.POSITIVE_INFINITY): boolean {
    for (let count = 0; count < limit; count++) {
      const event = this.listeners.has(listener) ? listener.queue.shift() : undefined;
      if (event === undefined) return false;
      listener.onEvent(event);
    }
    return true;
  }
}

/** A route of the main table; whatever is not given is the default. */
export function routeInfo(destination: Prefix, more: Partial<RouteInfo> = {}): RouteInfo {
  return {
    destination,
    type: 'unicast',
    table: 254,
    protocol: 3,
    scope: 'global',
    tos: 0,
    metric: destination.family === 4 ? 0 : 1024,
    prefsrc: undefined,
    index: 0,
    gateway: undefined,
    isOnlink: false,
    nexthopId: 0,
    multipath: [],
    ...more,
  };
}

/** What the kernel says about a VXLAN or IPIP device that was made to this specification. */
export function detailsOf(spec: LinkKinds[MadeLinkKind]): LinkDetails | undefined {
  if (spec.kind === 'dummy' || spec.kind === 'bridge' || spec.kind === 'wireguard') return undefined;
  if (spec.kind === 'vlan') return { kind: 'vlan', id: spec.id };
  if (spec.kind === 'ipvlan') return { kind: 'ipvlan', mode: spec.mode, flag: spec.flag };
  if (spec.kind === 'macvlan') return { kind: 'macvlan', mode: spec.mode };
  const { local } = spec;
  if (spec.kind === 'ipip') return { kind: 'ipip', local, remote: undefined, ttl: 0, pmtuDiscovery: false };
  const { vni, underlayIndex, port, learning, gbp } = spec;
  const flags = { l2miss: false, l3miss: false, isExternal: false, group: undefined };
  return { kind: 'vxlan', vni, underlayIndex, local, port: port === 0 ? 8472 : port, learning, gbp, ...flags };
}

function addressKey(index: number, address: IpAddress, length: number, peer: IpAddress | undefined): string {
  return `${index} ${address.toString()}/${length} ${peer?.toString() ?? ''}`;
}

function routeKey(route: RouteInfo): string {
  const { destination, type, protocol, scope, tos, metric, index, gateway, isOnlink, prefsrc, multipath } = route;
  return [destination, type, protocol, scope, tos, metric, index, gateway, isOnlink, prefsrc, multipath.length]
    .map(String)
    .join(' ');
}

function refused(what: string, errno: string): OverlayError {
  return new OverlayError('ERR_NETLINK', `cannot change ${what}: ${errno}`, { context: { errno } });
}

function fail(what: string, errno: string): never {
  throw refused(what, errno);
}
