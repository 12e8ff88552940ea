import { readFileSync } from 'node:fs';
import type { Clock } from '../clock.js';
import type { Family } from '../ip/address.js';
import type { AddressInfo } from '../netlink/address.js';
import { RT_TABLE_MAIN } from '../netlink/constants.js';
import type { FilterInfo } from '../netlink/filter.js';
import type { LinkInfo } from '../netlink/link.js';
import type { NetlinkEvent } from '../netlink/monitor.js';
import type { FdbInfo, NeighInfo, ProxyNeigh } from '../netlink/neighbour.js';
import { Netlink } from '../netlink/netlink.js';
import type { RouteInfo } from '../netlink/route.js';
import { netlinkErrno } from '../netlink/socket.js';
import { readSysctl } from '../netlink/sysctl.js';
import type { WireguardInfo } from '../netlink/wireguard.js';
import type { Kernel, KernelSubscription } from './kernel.js';
import { carryOut } from './kinds/table.js';
import type { Operation } from './operation.js';

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

  listProxies(): Promise<readonly ProxyNeigh[]> {
    return this.netlink.proxies.list();
  }

  listFdb(index: number): Promise<readonly FdbInfo[]> {
    return this.netlink.fdb.list(index);
  }

  listFilters(index: number): Promise<readonly FilterInfo[]> {
    return this.netlink.filters.list(index);
  }

  getWireguard(index: number): Promise<WireguardInfo | undefined> {
    return this.netlink.wireguard.get(index);
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
    return this.netlink.subscribe(['link', 'address', 'route', 'neighbour', 'nexthop', 'filter'], onEvent);
  }

  apply(operation: Operation, indexOf: (device: string) => number): boolean {
    try {
      return carryOut(this.netlink, operation, indexOf);
    } catch (error) {
      if (operation.verb === 'del' && GONE.has(netlinkErrno(error) ?? '')) return false;
      throw error;
    }
  }

  close(): void {
    this.netlink.close();
  }
}

/** By these the kernel says that what should be deleted is not there: device, address, route, neighbour. */
const GONE: ReadonlySet<string> = new Set(['ENODEV', 'EADDRNOTAVAIL', 'ESRCH', 'ENOENT']);
