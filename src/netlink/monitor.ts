import { isOverlayError } from '../errors.js';
import { pollFd, type FdPoller } from '../sys/fd-poller.js';
import * as libc from '../sys/libc.js';
import { SYS } from '../sys/libc.js';
import { type AddressInfo, readAddress } from './address.js';
import { NLMSG, RTNLGRP } from './constants.js';
import { type FilterInfo, readFilter, readFilterDevice } from './filter.js';
import { type LinkInfo, readLink } from './link.js';
import { MessageReader } from './message.js';
import { type FdbInfo, type NeighInfo, isFdb, readFdb, readNeigh } from './neighbour.js';
import { readNexthopId } from './nexthop.js';
import { type RouteInfo, isClonedRoute, readRoute } from './route.js';
import { openNetlink, receiveInto, socketError } from './socket.js';

/** A change that the kernel reports, with the state after it, or before a deletion. */
export type NetlinkEvent =
  | { readonly type: 'link'; readonly isDeleted: boolean; readonly link: LinkInfo }
  | { readonly type: 'address'; readonly isDeleted: boolean; readonly address: AddressInfo }
  | { readonly type: 'route'; readonly isDeleted: boolean; readonly isReplacement: boolean; readonly route: RouteInfo }
  | { readonly type: 'neighbour'; readonly isDeleted: boolean; readonly neighbour: NeighInfo }
  | { readonly type: 'fdb'; readonly isDeleted: boolean; readonly entry: FdbInfo }
  /** A filter was put in our place on a device; undefined: some or all of its filters went. */
  | { readonly type: 'filter'; readonly index: number; readonly filter: FilterInfo | undefined }
  /** A next hop object was made, changed or deleted, and with it the routes that use it; those of IPv4 are not reported. */
  | { readonly type: 'nexthop'; readonly id: number }
  /** Events were lost (`ENOBUFS`): list everything again. */
  | { readonly type: 'resync' };

/** What changes can be subscribed to. */
export type NetlinkTopic = 'link' | 'address' | 'route' | 'neighbour' | 'nexthop' | 'filter';

const GROUPS: Readonly<Record<NetlinkTopic, readonly number[]>> = {
  link: [RTNLGRP.LINK],
  address: [RTNLGRP.IPV4_IFADDR, RTNLGRP.IPV6_IFADDR],
  route: [RTNLGRP.IPV4_ROUTE, RTNLGRP.IPV6_ROUTE],
  neighbour: [RTNLGRP.NEIGH],
  nexthop: [RTNLGRP.NEXTHOP],
  filter: [RTNLGRP.TC],
};

/** Came with next hop objects in 5.3; an older kernel, which knows no such group, has nothing to report either. */
const OPTIONAL_GROUPS: ReadonlySet<number> = new Set([RTNLGRP.NEXTHOP]);

/** Messages of the kernel, most of which hold one event, that are taken before others have a turn, or the time is looked at. */
export const MESSAGES_PER_TURN = 64;

/** `NLM_F_REPLACE` in a route event: it took the place of the first route with its destination, tos and metric. */
const REPLACED = 0x100;

/**
 * Follows changes in the kernel.
 *
 * API: calls back for every change of the chosen topics, in the kernel's order; {@link drain} delivers at once what is
 * waiting, so that the caller can act on the present. Forwarding entries belong to the topic `neighbour`.
 * Threads: none; callbacks come from the event loop or from within {@link drain}.
 * Limits: the receive buffer holds some ten thousand events; beyond that the kernel drops and `resync` is delivered.
 * IPv4 routes that vanish with their device, or because it went down, are not reported by the kernel.
 * Errors: whatever goes wrong in receiving or understanding is answered with `resync`, as events may be missing. What
 * `onEvent` throws reaches the event loop, so guard it.
 */
export class NetlinkMonitor {
  private readonly reader = new MessageReader(new Uint8Array(128 * 1024));
  private readonly fd: number;
  private readonly poller: FdPoller;
  private isClosed = false;

  /**
   * @param receiveBytes - room for events that were not read yet; the kernel counts about 1 KiB for each.
   * @throws {@link OverlayError} `ERR_NETLINK`
   */
  constructor(
    topics: readonly NetlinkTopic[],
    private readonly onEvent: (event: NetlinkEvent) => void,
    receiveBytes = 16 * 1024 * 1024,
  ) {
    this.fd = openNetlink(receiveBytes);
    try {
      for (const group of topics.flatMap((topic) => GROUPS[topic])) {
        const result = libc.setsockoptInt(this.fd, SYS.SOL_NETLINK, SYS.NETLINK_ADD_MEMBERSHIP, group);
        const isUnknown = libc.errnoName(result) === 'EINVAL' && OPTIONAL_GROUPS.has(group);
        if (result < 0 && !isUnknown) throw socketError(`subscribe to netlink group ${group}`, result);
      }
      // The poller calls again while there is more.
      this.poller = pollFd(this.fd, () => {
        this.receive(MESSAGES_PER_TURN);
      });
    } catch (error) {
      libc.close(this.fd);
      throw error;
    }
  }

  /**
   * Delivers events that the kernel has queued, then returns. Not to be called by a callback.
   *
   * @param limit - so many messages of the kernel at most; default all.
   * @returns whether more may wait.
   */
  drain(limit = Number.POSITIVE_INFINITY): boolean {
    return this.receive(limit);
  }

  /** No callback comes after it. Idempotent. */
  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.poller.close();
    libc.close(this.fd);
  }

  /** A callback may close the monitor while more events wait in the buffer. */
  private deliver(event: NetlinkEvent): void {
    if (!this.isClosed) this.onEvent(event);
  }

  /** @returns whether more may wait. */
  private receive(limit: number): boolean {
    for (let count = 0; count < limit && !this.isClosed; count++) {
      const length = receiveInto(this.fd, this.reader);
      if (length < 0) {
        const errno = libc.errnoName(length);
        if (errno === 'EAGAIN') return false;
        // Whatever the error, events may be missing; after most of them the socket goes on.
        this.deliver({ type: 'resync' });
        if (errno !== 'ENOBUFS' && errno !== 'EMSGSIZE' && errno !== 'EINTR') return false;
        continue;
      }
      for (let event = this.nextEvent(); event !== undefined; event = this.nextEvent()) this.deliver(event);
    }
    return !this.isClosed;
  }

  /** The next event of the datagram; of one that contradicts itself the rest is given up. */
  private nextEvent(): NetlinkEvent | undefined {
    try {
      while (this.reader.next()) {
        const event = decodeEvent(this.reader);
        if (event !== undefined) return event;
      }
      return undefined;
    } catch (error) {
      if (!isOverlayError(error, 'ERR_NETLINK')) throw error;
      this.reader.reset(0);
      return { type: 'resync' };
    }
  }
}

/**
 * The change that a message reports.
 *
 * @returns undefined for messages that report none of what we follow.
 * @internal
 */
export function decodeEvent(reader: MessageReader): NetlinkEvent | undefined {
  switch (reader.type) {
    case NLMSG.RTM_NEWLINK:
    case NLMSG.RTM_DELLINK:
      // A bridge reports its ports in messages of its own family; they lack most attributes and delete no device.
      if (reader.u8(0) !== 0) return undefined;
      return { type: 'link', isDeleted: reader.type === NLMSG.RTM_DELLINK, link: readLink(reader) };
    case NLMSG.RTM_NEWADDR:
    case NLMSG.RTM_DELADDR: {
      const address = readAddress(reader);
      return address && { type: 'address', isDeleted: reader.type === NLMSG.RTM_DELADDR, address };
    }
    case NLMSG.RTM_NEWROUTE:
    case NLMSG.RTM_DELROUTE: {
      const route = isClonedRoute(reader) ? undefined : readRoute(reader);
      const isReplacement = (reader.flags & REPLACED) !== 0;
      return route && { type: 'route', isDeleted: reader.type === NLMSG.RTM_DELROUTE, isReplacement, route };
    }
    case NLMSG.RTM_NEWNEIGH:
    case NLMSG.RTM_DELNEIGH: {
      const isDeleted = reader.type === NLMSG.RTM_DELNEIGH;
      if (isFdb(reader)) {
        const entry = readFdb(reader);
        return entry && { type: 'fdb', isDeleted, entry };
      }
      const neighbour = readNeigh(reader);
      return neighbour && { type: 'neighbour', isDeleted, neighbour };
    }
    case NLMSG.RTM_NEWTFILTER: {
      const filter = readFilter(reader);
      return filter && { type: 'filter', index: filter.index, filter };
    }
    case NLMSG.RTM_DELQDISC:
    case NLMSG.RTM_DELTFILTER:
      return { type: 'filter', index: readFilterDevice(reader), filter: undefined };
    case NLMSG.RTM_NEWNEXTHOP:
    case NLMSG.RTM_DELNEXTHOP: {
      const id = readNexthopId(reader);
      return id === undefined ? undefined : { type: 'nexthop', id };
    }
    default:
      return undefined;
  }
}
