import type { Clock } from '../clock.js';
import { OverlayError } from '../errors.js';
import type { Family } from '../ip/address.js';
import type { AddressInfo } from '../netlink/address.js';
import { RT_TABLE_MAIN } from '../netlink/constants.js';
import type { LinkInfo, NewLink } from '../netlink/link.js';
import type { NetlinkEvent } from '../netlink/monitor.js';
import type { FdbInfo, NeighInfo } from '../netlink/neighbour.js';
import { Netlink } from '../netlink/netlink.js';
import type { RouteInfo } from '../netlink/route.js';
import { netlinkErrno } from '../netlink/socket.js';
import { readSysctl, writeSysctl } from '../netlink/sysctl.js';
import { readFileSync } from 'node:fs';
import { type IpipLink, ROUTE_PROTOCOL, type VxlanLink } from './desired.js';
import type { Operation } from './operation.js';

/** Change events of the kernel. */
export interface KernelSubscription {
  /** Delivers every event that waits, now. */
  drain(): void;
  close(): void;
}

/** What the reconciler needs of a kernel; {@link NetlinkKernel} is the real one. */
export interface Kernel {
  listLinks(): Promise<readonly LinkInfo[]>;
  getLink(name: string): LinkInfo | undefined;
  listAddresses(index: number): Promise<readonly AddressInfo[]>;
  /** Routes of the main table. */
  listRoutes(family: Family): Promise<readonly RouteInfo[]>;
  listNeighbours(family: Family, index: number): Promise<readonly NeighInfo[]>;
  listFdb(index: number): Promise<readonly FdbInfo[]>;
  /** Undefined if there is no such parameter. */
  readSysctl(path: string): string | undefined;
  /** UDP port of VXLAN devices that are made without one. */
  defaultVxlanPort(): number;
  subscribe(onEvent: (event: NetlinkEvent) => void): KernelSubscription;
  /**
   * Carries out one operation.
   *
   * @param indexOf - index of a device that exists.
   * @returns whether it changed anything: false if what should be deleted is gone already, and for a kernel parameter
   * that has its value or that cannot exist.
   * @throws {@link OverlayError} `ERR_NETLINK`, `ERR_SYSCTL` or `ERR_DEVICE_TAKEN`
   */
  apply(operation: Operation, indexOf: (device: string) => number): boolean;
  close(): void;
}

/** The kernel of the network namespace that the daemon runs in. */
export class NetlinkKernel implements Kernel {
  private readonly netlink: Netlink;

  /** @throws {@link OverlayError} `ERR_NETLINK` */
  constructor(clock: Clock) {
    this.netlink = Netlink.open({ clock });
  }

  listLinks(): Promise<readonly LinkInfo[]> {
    return this.netlink.links.list();
  }

  getLink(name: string): LinkInfo | undefined {
    const link = this.netlink.links.get(name);
    return link?.name === name ? link : undefined; // the kernel finds devices by their alternative names, too (5.5)
  }

  listAddresses(index: number): Promise<readonly AddressInfo[]> {
    return this.netlink.addresses.list(index);
  }

  listRoutes(family: Family): Promise<readonly RouteInfo[]> {
    return this.netlink.routes.list({ family, table: RT_TABLE_MAIN });
  }

  listNeighbours(family: Family, index: number): Promise<readonly NeighInfo[]> {
    return this.netlink.neighbours.list(family, index);
  }

  listFdb(index: number): Promise<readonly FdbInfo[]> {
    return this.netlink.fdb.list(index);
  }

  readSysctl(path: string): string | undefined {
    return readSysctl(path);
  }

  defaultVxlanPort(): number {
    try {
      return Number(readFileSync('/sys/module/vxlan/parameters/udp_port', 'utf8'));
    } catch {
      return 8472; // the module is not loaded yet, and this is its default (drivers/net/vxlan/vxlan_core.c)
    }
  }

  subscribe(onEvent: (event: NetlinkEvent) => void): KernelSubscription {
    return this.netlink.subscribe(['link', 'address', 'route', 'neighbour', 'nexthop'], onEvent);
  }

  apply(operation: Operation, indexOf: (device: string) => number): boolean {
    if (operation.kind === 'sysctl') return this.applySysctl(operation.path, operation.value);
    try {
      this.carryOut(operation, indexOf);
      return true;
    } catch (error) {
      if (operation.verb === 'del' && GONE.has(netlinkErrno(error) ?? '')) return false;
      throw error;
    }
  }

  close(): void {
    this.netlink.close();
  }

  private carryOut(
    operation: Exclude<Operation, { readonly kind: 'sysctl' }>,
    indexOf: (device: string) => number,
  ): void {
    switch (operation.kind) {
      case 'link':
        this.applyLink(operation, indexOf);
        break;
      case 'address': {
        const { address, length, peer } = operation;
        const target = { index: indexOf(operation.device), address, length, peer };
        // An address of the overlay is given by a lease: nobody else can have it, so nothing has to be waited for.
        if (operation.verb === 'replace') this.netlink.addresses.replace({ ...target, noDad: address.family === 6 });
        else this.netlink.addresses.del(target);
        break;
      }
      case 'neighbour': {
        const { address, mac } = operation;
        const target = { index: indexOf(operation.device), address, mac };
        if (operation.verb === 'replace') this.netlink.neighbours.replace(target);
        else this.netlink.neighbours.del(target);
        break;
      }
      case 'fdb': {
        const target = { index: indexOf(operation.device), mac: operation.mac };
        if (operation.verb === 'replace') this.netlink.fdb.replace({ ...target, destination: operation.destination });
        else this.netlink.fdb.del(target);
        break;
      }
      case 'route':
        this.applyRoute(operation, indexOf);
        break;
    }
  }

  private applyLink(operation: Operation & { readonly kind: 'link' }, indexOf: (device: string) => number): void {
    const { device: name } = operation;
    if (operation.verb === 'set') {
      this.netlink.links.set({ index: indexOf(name), name }, operation.change);
      return;
    }
    if (operation.verb === 'del') {
      this.netlink.links.del({ index: indexOf(name), name });
      return;
    }
    if (operation.replaces) this.netlink.links.del({ index: indexOf(name), name });
    this.addLink(operation.spec);
    const index = this.netlink.links.get(name)?.index;
    if (index === undefined) {
      throw new OverlayError('ERR_NETLINK', `cannot make device ${name}: it was deleted at once`, {
        context: { errno: 'ENODEV' },
        isRetryable: true,
      });
    }
    this.netlink.links.set({ index, name }, { alias: operation.alias });
  }

  private addLink(spec: VxlanLink | IpipLink): void {
    const { name, kind } = spec;
    try {
      this.netlink.links.add(newLink(spec));
    } catch (error) {
      const holder = netlinkErrno(error) === 'EEXIST' ? this.netlink.links.get(name) : undefined;
      if (holder === undefined || holder.name === name) throw error;
      const message = `cannot make ${kind} device ${name}: ${holder.name} has that as an alternative name`;
      throw new OverlayError('ERR_DEVICE_TAKEN', message, {
        cause: error,
        context: { dev: name },
        hint: `remove it (ip link property del dev ${holder.name} altname ${name})`,
      });
    }
  }

  /** @returns whether the parameter had another value. */
  private applySysctl(path: string, value: string): boolean {
    const text = readSysctl(path);
    if (text === value) return false;
    if (text !== undefined) {
      writeSysctl(path, value);
      return true;
    }
    // Where IPv6 is off there is nothing that its parameters could regulate.
    if (path.startsWith('net/ipv6/')) return false;
    throw new OverlayError('ERR_SYSCTL', `cannot set kernel parameter ${path}: this kernel does not have it`);
  }

  private applyRoute(operation: Operation & { readonly kind: 'route' }, indexOf: (device: string) => number): void {
    if (operation.verb === 'del') {
      const { destination, type, index, gateway, scope, protocol, metric, tos, multipath, nexthopId } = operation.route;
      // A next hop that is named must be one of the route's; a multipath route is found by the rest, and so is one with
      // a next hop object, which matches no hop at all (fib_nh_match()).
      const hasPlainHop = type === 'unicast' && multipath.length === 0 && nexthopId === 0;
      const hop = hasPlainHop ? { index, gateway } : {};
      this.netlink.routes.del({ destination, type, scope, protocol, metric, tos, ...hop });
      return;
    }
    const { destination, type, device, gateway, isOnlink, scope, metric } = operation.route;
    const index = device === undefined ? undefined : indexOf(device);
    const route = { destination, type, isOnlink, scope, protocol: ROUTE_PROTOCOL, index, gateway, metric };
    if (operation.verb === 'add') this.netlink.routes.add(route);
    else this.netlink.routes.replace(route);
  }
}

/** By these the kernel says that what should be deleted is not there: device, address, route, neighbour. */
const GONE: ReadonlySet<string> = new Set(['ENODEV', 'EADDRNOTAVAIL', 'ESRCH', 'ENOENT']);

/** As flannel makes them: no queue of their own, and for IPIP no path MTU discovery. */
function newLink(spec: VxlanLink | IpipLink): NewLink {
  const { name, mtu, local } = spec;
  const common = { name, mtu, local, txQueueLength: 0 };
  if (spec.kind === 'ipip') return { kind: 'ipip', ...common, ttl: 0, pmtuDiscovery: false };
  const { mac, vni, underlayIndex, port, learning, gbp } = spec;
  return { kind: 'vxlan', ...common, mac, vni, underlayIndex, port, learning, gbp };
}
