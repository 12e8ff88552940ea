import type { Family } from '../ip/address.js';
import type { AddressInfo } from '../netlink/address.js';
import type { FilterInfo } from '../netlink/filter.js';
import type { LinkInfo } from '../netlink/link.js';
import type { NetlinkEvent } from '../netlink/monitor.js';
import type { FdbInfo, NeighInfo, ProxyNeigh } from '../netlink/neighbour.js';
import type { RouteInfo } from '../netlink/route.js';
import type { WireguardInfo } from '../netlink/wireguard.js';
import type { Operation } from './operation.js';

/** Change events of the kernel. */
export interface KernelSubscription {
  /**
   * Delivers events that wait, now.
   *
   * @param limit - so many messages of the kernel at most; default all.
   * @returns whether more wait.
   */
  drain(limit?: number): boolean;
  close(): void;
}

/** What the reconciler needs of a kernel; `NetlinkKernel` is the real one. */
export interface Kernel {
  listLinks(): Promise<readonly LinkInfo[]>;
  getLink(name: string): LinkInfo | undefined;
  listAddresses(index: number): Promise<readonly AddressInfo[]>;
  /** Routes of the main table. */
  listRoutes(family: Family): Promise<readonly RouteInfo[]>;
  listNeighbours(family: Family, index: number): Promise<readonly NeighInfo[]>;
  /** Proxy entries of IPv6 on all devices. */
  listProxies(): Promise<readonly ProxyNeigh[]>;
  listFdb(index: number): Promise<readonly FdbInfo[]>;
  /** The filters of ours, or in the place of ours. */
  listFilters(index: number): Promise<readonly FilterInfo[]>;
  /** What a WireGuard device is set to, and its peers; undefined if the device is gone. */
  getWireguard(index: number): Promise<WireguardInfo | undefined>;
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
