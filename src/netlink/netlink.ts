import { systemClock } from '../clock.js';
import { OverlayError } from '../errors.js';
import type { Family, IpAddress } from '../ip/address.js';
import { type AddressInfo, type NewAddress, readAddress, writeAddress, writeAddressList } from './address.js';
import { NLM_F, NLMSG } from './constants.js';
import {
  type FilterIdentity,
  type FilterInfo,
  readFilter,
  writeClsact,
  writeFilter,
  writeFilterIdentity,
  writeFilterList,
} from './filter.js';
import {
  type LinkChange,
  type LinkInfo,
  type NewLink,
  readLink,
  writeLinkChange,
  writeLinkIdentity,
  writeLinkList,
  writeNewLink,
} from './link.js';
import type { MessageReader, MessageWriter } from './message.js';
import { type NetlinkEvent, NetlinkMonitor, type NetlinkTopic } from './monitor.js';
import {
  type FdbInfo,
  type NeighInfo,
  type NewFdb,
  type NewNeigh,
  type ProxyNeigh,
  readFdb,
  readNeigh,
  readProxy,
  writeFdb,
  writeFdbList,
  writeNeigh,
  writeNeighList,
  writeNeighQuestion,
  writeProxy,
  writeProxyList,
} from './neighbour.js';
import {
  type NewRoute,
  type ForwardedPacket,
  type RouteFilter,
  type RouteInfo,
  isClonedRoute,
  readRoute,
  writeDelRoute,
  writeNewRoute,
  writeRouteList,
  writeRouteLookup,
} from './route.js';
import { NetlinkSocket, type NetlinkSocketOptions, netlinkErrno } from './socket.js';
import { NetlinkWireguard } from './wireguard-devices.js';

/** How a new object relates to one that is there: `add` must not exist, `replace` creates or overwrites, `append` goes beside. */
const VERB_FLAGS = {
  add: NLM_F.CREATE | NLM_F.EXCL,
  replace: NLM_F.CREATE | NLM_F.REPLACE,
  append: NLM_F.CREATE | NLM_F.APPEND,
} as const;

type Verb = keyof typeof VERB_FLAGS;

/**
 * The kernel's devices, addresses, routes, neighbours and forwarding entries, and what WireGuard devices are set to.
 *
 * API: verbs as in iproute2: add = must not exist, replace = create or overwrite, append = beside what is there, del, list, get. Changes and
 * look-ups return when the kernel has done them; lists are read in parts.
 * Threads: none. Changes may be made while a list is read; lists queue behind one another.
 * Limits: everything happens in the network namespace the thread is in when {@link open} is called,
 * or that of the sockets it is given.
 * Errors: {@link OverlayError} `ERR_NETLINK`; {@link netlinkErrno} gives the kernel's reason.
 */
export class Netlink {
  readonly links: NetlinkLinks;
  readonly addresses: NetlinkAddresses;
  readonly routes: NetlinkRoutes;
  readonly neighbours: NetlinkNeighbours;
  readonly proxies: NetlinkProxies;
  readonly fdb: NetlinkFdb;
  readonly filters: NetlinkFilters;

  private constructor(
    private readonly channel: Channel,
    readonly wireguard: NetlinkWireguard,
  ) {
    this.links = new NetlinkLinks(channel);
    this.addresses = new NetlinkAddresses(channel);
    this.routes = new NetlinkRoutes(channel);
    this.neighbours = new NetlinkNeighbours(channel);
    this.proxies = new NetlinkProxies(channel);
    this.fdb = new NetlinkFdb(channel);
    this.filters = new NetlinkFilters(channel);
  }

  /**
   * @param options.deadlineMs - longest duration of a list. Default 5000.
   * @throws {@link OverlayError} `ERR_NETLINK`
   */
  static open(options: Partial<NetlinkSocketOptions> = {}): Netlink {
    const { clock = systemClock, deadlineMs = 5000, openSocket } = options;
    const wireguard = new NetlinkWireguard({ clock, deadlineMs, isElsewhere: openSocket !== undefined });
    return new Netlink(new Channel({ clock, deadlineMs, openSocket }), wireguard);
  }

  /**
   * Follows changes until the monitor is closed, which is up to the caller.
   *
   * @throws {@link OverlayError} `ERR_NETLINK`
   */
  subscribe(topics: readonly NetlinkTopic[], onEvent: (event: NetlinkEvent) => void): NetlinkMonitor {
    return new NetlinkMonitor(topics, onEvent);
  }

  /** Closes the sockets; lists under way fail. Idempotent. */
  close(): void {
    this.channel.close();
    this.wireguard.close();
  }
}

/** Two sockets: one for changes, one for lists, which take turns on it. */
class Channel {
  private readonly changes: NetlinkSocket;
  private readonly lists: NetlinkSocket;
  private lastList: Promise<unknown> = Promise.resolve();

  constructor(options: NetlinkSocketOptions) {
    this.changes = NetlinkSocket.open(options);
    this.lists = NetlinkSocket.open(options);
  }

  change(type: number, flags: number, what: () => string, fill: (writer: MessageWriter) => void): void {
    this.changes.request(type, flags, what, fill);
  }

  get<T>(
    type: number,
    what: () => string,
    fill: (writer: MessageWriter) => void,
    read: (reader: MessageReader) => T | undefined,
  ): T | undefined {
    let found: T | undefined;
    this.changes.request(type, 0, what, fill, (reader) => {
      found ??= read(reader);
    });
    return found;
  }

  /** @param type - of the messages that describe an object; the request is sent with `RTM_GET*`, two numbers above. */
  async list<T>(
    type: number,
    what: () => string,
    fill: (writer: MessageWriter) => void,
    read: (reader: MessageReader) => T | undefined,
  ): Promise<readonly T[]> {
    const run = (): Promise<T[]> =>
      this.lists.dump<T[]>(type + 2, what, fill, {
        start: () => [],
        onMessage: (reader, result) => {
          const object = reader.type === type ? read(reader) : undefined;
          if (object !== undefined) result.push(object);
        },
      });
    const mine = this.lastList.then(run, run);
    this.lastList = mine;
    return mine;
  }

  close(): void {
    this.changes.close();
    this.lists.close();
  }
}

/** Network devices. */
class NetlinkLinks {
  constructor(private readonly channel: Channel) {}

  /** Every device of the namespace. */
  list(): Promise<readonly LinkInfo[]> {
    return this.channel.list(NLMSG.RTM_NEWLINK, () => 'list devices', writeLinkList, readLink);
  }

  /** The device with that name or index, undefined if there is none. */
  get(identity: string | number): LinkInfo | undefined {
    const key = typeof identity === 'string' ? { name: identity } : { index: identity };
    return ifExists(() =>
      this.channel.get(
        NLMSG.RTM_GETLINK,
        () => `look up device ${identity}`,
        (writer) => {
          writeLinkIdentity(writer, key);
        },
        readLink,
      ),
    );
  }

  /** Makes a device; EEXIST if the name is taken, EOPNOTSUPP if the kernel lacks that kind. */
  add(link: NewLink): void {
    try {
      this.channel.change(
        NLMSG.RTM_NEWLINK,
        VERB_FLAGS.add,
        () => `make ${link.kind} device ${link.name}`,
        (writer) => {
          writeNewLink(writer, link);
        },
      );
    } catch (error) {
      if (!(error instanceof OverlayError) || netlinkErrno(error) !== 'EOPNOTSUPP') throw error;
      throw new OverlayError(error.code, error.message, {
        cause: error,
        context: error.context,
        hint: `load the kernel module ("modprobe ${link.kind}"), or choose a backend that does without it`,
      });
    }
  }

  /** Changes a device that exists. */
  set(device: { readonly index: number; readonly name: string }, change: LinkChange): void {
    this.channel.change(
      NLMSG.RTM_NEWLINK,
      0,
      () => `set ${Object.keys(change).join(', ')} of device ${device.name}`,
      (writer) => {
        writeLinkChange(writer, device.index, change);
      },
    );
  }

  /** Deletes a device and everything on it. */
  del(device: { readonly index: number; readonly name: string }): void {
    this.channel.change(
      NLMSG.RTM_DELLINK,
      0,
      () => `delete device ${device.name}`,
      (writer) => {
        writeLinkIdentity(writer, { index: device.index });
      },
    );
  }
}

/** IPv4 and IPv6 addresses on devices. */
class NetlinkAddresses {
  constructor(private readonly channel: Channel) {}

  /** @param index - of a device; 0 or nothing for all of them. */
  async list(index = 0): Promise<readonly AddressInfo[]> {
    const all = await this.channel.list(
      NLMSG.RTM_NEWADDR,
      () => 'list addresses',
      (writer) => {
        writeAddressList(writer, index);
      },
      readAddress,
    );
    return index === 0 ? all : all.filter((address) => address.index === index);
  }

  add(address: NewAddress): void {
    this.put('add', address);
  }

  replace(address: NewAddress): void {
    this.put('replace', address);
  }

  del(address: NewAddress): void {
    this.channel.change(
      NLMSG.RTM_DELADDR,
      0,
      () => `delete address ${describeAddress(address)}`,
      (writer) => {
        writeAddress(writer, address);
      },
    );
  }

  private put(verb: 'add' | 'replace', address: NewAddress): void {
    this.channel.change(
      NLMSG.RTM_NEWADDR,
      VERB_FLAGS[verb],
      () => `${verb} address ${describeAddress(address)}`,
      (writer) => {
        writeAddress(writer, address);
      },
    );
  }
}

/** Routes of any table. */
class NetlinkRoutes {
  constructor(private readonly channel: Channel) {}

  async list(filter: RouteFilter): Promise<readonly RouteInfo[]> {
    const read = (reader: MessageReader): RouteInfo | undefined => {
      const route = isClonedRoute(reader) ? undefined : readRoute(reader);
      if (route === undefined || route.destination.family !== filter.family) return undefined;
      if (filter.table !== undefined && route.table !== filter.table) return undefined;
      if (filter.protocol !== undefined && route.protocol !== filter.protocol) return undefined;
      return filter.index === undefined || route.index === filter.index ? route : undefined;
    };
    try {
      return await this.channel.list(
        NLMSG.RTM_NEWROUTE,
        () => `list IPv${filter.family} routes`,
        (writer) => {
          writeRouteList(writer, filter);
        },
        read,
      );
    } catch (error) {
      // ENOENT: the table is made with its first route. EOPNOTSUPP: the kernel runs without IPv6.
      if (netlinkErrno(error) === 'ENOENT' || netlinkErrno(error) === 'EOPNOTSUPP') return [];
      throw error;
    }
  }

  /** How the kernel would send a packet to the address, undefined if it cannot (no route, unreachable, blackhole). */
  lookup(destination: IpAddress, forwarded?: ForwardedPacket): RouteInfo | undefined {
    return ifExists(() =>
      this.channel.get(
        NLMSG.RTM_GETROUTE,
        () => `look up the route to ${destination.toString()}`,
        (writer) => {
          writeRouteLookup(writer, destination, forwarded);
        },
        readRoute,
      ),
    );
  }

  add(route: NewRoute): void {
    this.put('add', route);
  }

  replace(route: NewRoute): void {
    this.put('replace', route);
  }

  append(route: NewRoute): void {
    this.put('append', route);
  }

  del(route: NewRoute): void {
    this.channel.change(
      NLMSG.RTM_DELROUTE,
      0,
      () => `delete route ${describeRoute(route)}`,
      (writer) => {
        writeDelRoute(writer, route);
      },
    );
  }

  private put(verb: Verb, route: NewRoute): void {
    this.channel.change(
      NLMSG.RTM_NEWROUTE,
      VERB_FLAGS[verb],
      () => `${verb} route ${describeRoute(route)}`,
      (writer) => {
        writeNewRoute(writer, route);
      },
    );
  }
}

/** ARP and ND entries. */
class NetlinkNeighbours {
  constructor(private readonly channel: Channel) {}

  /** @param index - of a device; 0 for all of them. */
  async list(family: Family, index = 0): Promise<readonly NeighInfo[]> {
    const all = await this.channel.list(
      NLMSG.RTM_NEWNEIGH,
      () => `list IPv${family} neighbours`,
      (writer) => {
        writeNeighList(writer, family, index);
      },
      readNeigh,
    );
    return index === 0 ? all : all.filter((neighbour) => neighbour.index === index);
  }

  add(neighbour: NewNeigh): void {
    this.put('add', neighbour);
  }

  replace(neighbour: NewNeigh): void {
    this.put('replace', neighbour);
  }

  del(neighbour: NewNeigh): void {
    this.channel.change(
      NLMSG.RTM_DELNEIGH,
      0,
      () => `delete neighbour ${neighbour.address.toString()} on device ${neighbour.index}`,
      (writer) => {
        writeNeigh(writer, neighbour);
      },
    );
  }

  /**
   * Has the kernel ask who has an address; with `mac`, whether that machine still has it. The answer, or that there was
   * none within some 3 s, comes as a change of the entry.
   */
  ask(neighbour: NewNeigh): void {
    this.channel.change(
      NLMSG.RTM_NEWNEIGH,
      VERB_FLAGS.replace,
      () => `ask for neighbour ${neighbour.address.toString()} on device ${neighbour.index}`,
      (writer) => {
        writeNeighQuestion(writer, neighbour);
      },
    );
  }

  private put(verb: Verb, neighbour: NewNeigh): void {
    this.channel.change(
      NLMSG.RTM_NEWNEIGH,
      VERB_FLAGS[verb],
      () => `${verb} neighbour ${neighbour.address.toString()} ${neighbour.mac ?? ''} on device ${neighbour.index}`,
      (writer) => {
        writeNeigh(writer, neighbour);
      },
    );
  }
}

/** Proxy entries of IPv6 (`ip -6 neigh add proxy`). The kernel reports no changes of them. */
class NetlinkProxies {
  constructor(private readonly channel: Channel) {}

  /** Those on all devices. */
  list(): Promise<readonly ProxyNeigh[]> {
    return this.channel.list(NLMSG.RTM_NEWNEIGH, () => 'list proxy entries', writeProxyList, readProxy);
  }

  /** Creates it, or takes it over from whoever has made it: the kernel knows no other way (`neigh_add()`). */
  replace(proxy: ProxyNeigh): void {
    this.change('add', NLMSG.RTM_NEWNEIGH, VERB_FLAGS.replace, proxy);
  }

  del(proxy: ProxyNeigh): void {
    this.change('delete', NLMSG.RTM_DELNEIGH, 0, proxy);
  }

  private change(verb: string, type: number, flags: number, proxy: ProxyNeigh): void {
    this.channel.change(
      type,
      flags,
      () => `${verb} proxy entry ${proxy.address.toString()} on device ${proxy.index}`,
      (writer) => {
        writeProxy(writer, proxy);
      },
    );
  }
}

/** Forwarding entries of devices themselves (`bridge fdb … self`). */
class NetlinkFdb {
  constructor(private readonly channel: Channel) {}

  /** @param index - of a device; 0 for all of them. */
  async list(index = 0): Promise<readonly FdbInfo[]> {
    const all = await this.channel.list(
      NLMSG.RTM_NEWNEIGH,
      () => 'list forwarding entries',
      (writer) => {
        writeFdbList(writer, index);
      },
      readFdb,
    );
    return index === 0 ? all : all.filter((entry) => entry.index === index);
  }

  add(entry: NewFdb): void {
    this.put('add', entry);
  }

  replace(entry: NewFdb): void {
    this.put('replace', entry);
  }

  append(entry: NewFdb): void {
    this.put('append', entry);
  }

  del(entry: NewFdb): void {
    this.channel.change(
      NLMSG.RTM_DELNEIGH,
      0,
      () => `delete forwarding entry ${describeFdb(entry)}`,
      (writer) => {
        writeFdb(writer, entry);
      },
    );
  }

  private put(verb: Verb, entry: NewFdb): void {
    this.channel.change(
      NLMSG.RTM_NEWNEIGH,
      VERB_FLAGS[verb],
      () => `${verb} forwarding entry ${describeFdb(entry)}`,
      (writer) => {
        writeFdb(writer, entry);
      },
    );
  }
}

/** Filters for frames, one for each direction of a device. */
class NetlinkFilters {
  constructor(private readonly channel: Channel) {}

  /** Those in our place on the device. */
  async list(index: number): Promise<readonly FilterInfo[]> {
    const both: FilterInfo[] = [];
    for (const direction of ['ingress', 'egress'] as const) {
      try {
        const found = await this.channel.list(
          NLMSG.RTM_NEWTFILTER,
          () => `list filters of device ${index}`,
          (writer) => {
            writeFilterList(writer, { index, direction });
          },
          readFilter,
        );
        both.push(...found);
      } catch (error) {
        // EINVAL: nothing hangs on the device that could have filters. ENODEV: it has gone.
        if (netlinkErrno(error) !== 'EINVAL' && netlinkErrno(error) !== 'ENODEV') throw error;
      }
    }
    return both;
  }

  /** Puts a program in the place of what is there, in one step. */
  replace(filter: FilterInfo): void {
    const what = (): string => `replace the ${filter.direction} filter of device ${filter.index}`;
    try {
      this.channel.change(NLMSG.RTM_NEWQDISC, VERB_FLAGS.add, what, (writer) => {
        writeClsact(writer, filter.index);
      });
    } catch (error) {
      if (netlinkErrno(error) !== 'EEXIST') throw error;
    }
    this.channel.change(NLMSG.RTM_NEWTFILTER, NLM_F.CREATE, what, (writer) => {
      writeFilter(writer, filter);
    });
  }

  del(filter: FilterIdentity): void {
    this.channel.change(
      NLMSG.RTM_DELTFILTER,
      0,
      () => `delete the ${filter.direction} filter of device ${filter.index}`,
      (writer) => {
        writeFilterIdentity(writer, filter);
      },
    );
  }
}

export type {
  NetlinkAddresses,
  NetlinkFdb,
  NetlinkFilters,
  NetlinkLinks,
  NetlinkNeighbours,
  NetlinkRoutes,
  NetlinkWireguard,
};

/** Undefined instead of the errors by which the kernel says that there is no such object. */
function ifExists<T>(get: () => T | undefined): T | undefined {
  try {
    return get();
  } catch (error) {
    const errno = netlinkErrno(error);
    if (errno !== undefined && ABSENT.has(errno)) return undefined;
    throw error;
  }
}

/** ENODEV of a device; ENETUNREACH, EHOSTUNREACH, EACCES (prohibit) and EINVAL (blackhole) of a route look-up. */
const ABSENT: ReadonlySet<string> = new Set(['ENODEV', 'ENETUNREACH', 'EHOSTUNREACH', 'EACCES', 'EINVAL']);

function describeAddress({ address, length, index }: NewAddress): string {
  return `${address.toString()}/${length} on device ${index}`;
}

function describeFdb({ mac, destination, index }: NewFdb): string {
  return `${mac}${destination === undefined ? '' : ` dst ${destination.toString()}`} on device ${index}`;
}

function describeRoute({ destination, gateway, index, type }: NewRoute): string {
  const kind = type === undefined || type === 'unicast' ? '' : `${type} `;
  const via = gateway === undefined ? '' : ` via ${gateway.toString()}`;
  const device = index === undefined || index === 0 ? '' : ` on device ${index}`;
  return `${kind}${destination.toString()}${via}${device}`;
}
