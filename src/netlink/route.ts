import { ADDRESS_BITS, type Family, IpAddress } from '../ip/address.js';
import { Prefix } from '../ip/prefix.js';
import { AF, RT_TABLE_MAIN, RTA, RTAX, RTM_F_CLONED, RTNH_F, RTPROT, SCOPES } from './constants.js';
import { AttributeTable, type MessageReader, type MessageWriter } from './message.js';

const TYPES = {
  unicast: 1,
  local: 2,
  broadcast: 3,
  anycast: 4,
  multicast: 5,
  blackhole: 6,
  unreachable: 7,
  prohibit: 8,
  throw: 9,
  nat: 10,
} as const;

/** What a route does with packets. */
export type RouteType = keyof typeof TYPES;

/** How far away its destinations are. IPv6 routes are all `global`. */
export type RouteScope = keyof typeof SCOPES;

/** One way a route sends packets. */
export interface NextHop {
  /** Output device, 0 if none. */
  readonly index: number;
  /** Undefined if destinations are on the link. May be of the other family (`via inet6`). */
  readonly gateway: IpAddress | undefined;
  readonly isOnlink: boolean;
  readonly weight: number;
}

/** A route as the kernel describes it. */
export interface RouteInfo extends Omit<NextHop, 'weight'> {
  readonly destination: Prefix;
  readonly type: RouteType;
  readonly table: number;
  /** `rtm_protocol`: who made it. */
  readonly protocol: number;
  readonly scope: RouteScope;
  readonly tos: number;
  /** 0 for IPv4 routes without one; the kernel gives IPv6 routes 1024. */
  readonly metric: number;
  readonly prefsrc: IpAddress | undefined;
  /** Bytes of the largest packet that takes it, if the route says so itself, or the kernel has learned it on the way. */
  readonly mtu?: number;
  /** The next hop object that the route uses (`nhid`, 5.3), 0 if none: the route changes and goes with it. */
  readonly nexthopId: number;
  /** All ways of a multipath route; then `index` and `gateway` are those of the first. Empty otherwise. */
  readonly multipath: readonly NextHop[];
}

/** A route to make or delete. For deletion what is absent matches anything. */
export interface NewRoute {
  readonly destination: Prefix;
  /** Default unicast. */
  readonly type?: RouteType | undefined;
  readonly index?: number | undefined;
  readonly gateway?: IpAddress | undefined;
  readonly isOnlink?: boolean | undefined;
  readonly scope?: RouteScope | undefined;
  /** Default 3, `boot`. For deletion default any. */
  readonly protocol?: number | undefined;
  readonly metric?: number | undefined;
  readonly tos?: number | undefined;
  readonly prefsrc?: IpAddress | undefined;
  /** Default the main table, 254. */
  readonly table?: number | undefined;
}

/** Which routes to list. What is absent matches anything. */
export interface RouteFilter {
  readonly family: Family;
  readonly table?: number | undefined;
  readonly protocol?: number | undefined;
  readonly index?: number | undefined;
}

/** `sizeof(struct rtmsg)` */
const HEADER = 12;

const TYPE_NAMES = namesOf(TYPES);
const SCOPE_NAMES = namesOf(SCOPES);

function namesOf<T extends string>(numbers: Readonly<Record<T, number>>): ReadonlyMap<number, T> {
  return new Map(Object.entries(numbers).map(([name, number]) => [number as number, name as T]));
}

function netlinkFamily(family: Family): number {
  return family === 4 ? AF.INET : AF.INET6;
}

/** `struct rtmsg`: family, destination length, source length, tos, table, protocol, scope, type, flags. */
function writeHeader(
  writer: MessageWriter,
  fields: { family: Family; length?: number; sourceLength?: number; tos?: number; table?: number } & {
    protocol?: number;
    scope?: number;
    type?: number;
    flags?: number;
  },
): MessageWriter {
  const table = fields.table ?? 0;
  return writer
    .u8(netlinkFamily(fields.family))
    .u8(fields.length ?? 0)
    .u8(fields.sourceLength ?? 0)
    .u8(fields.tos ?? 0)
    .u8(table < 256 ? table : 0) // larger numbers go into RTA_TABLE only
    .u8(fields.protocol ?? 0)
    .u8(fields.scope ?? 0)
    .u8(fields.type ?? 0)
    .u32(fields.flags ?? 0);
}

/** Body of an `RTM_GETROUTE` dump. The kernel filters since 4.20 if asked to check strictly, and else lists all. */
export function writeRouteList(writer: MessageWriter, filter: RouteFilter): void {
  writeHeader(writer, {
    family: filter.family,
    table: filter.table ?? 0,
    protocol: filter.protocol ?? 0,
  });
  if (filter.table !== undefined) writer.attributeU32(RTA.TABLE, filter.table);
  if (filter.index !== undefined) writer.attributeU32(RTA.OIF, filter.index);
}

/** A packet that comes in by a device, and that this host forwards. */
export interface ForwardedPacket {
  readonly source: IpAddress;
  readonly inputIndex: number;
}

/** Body of an `RTM_GETROUTE` request: which route a packet to the address takes; by default one of this host. */
export function writeRouteLookup(
  writer: MessageWriter,
  destination: IpAddress,
  forwarded: ForwardedPacket | undefined,
): void {
  const { family } = destination;
  const length = ADDRESS_BITS[family];
  writeHeader(writer, { family, length, sourceLength: forwarded === undefined ? 0 : length });
  writer.attributeAddress(RTA.DST, destination);
  if (forwarded === undefined) return;
  writer.attributeAddress(RTA.SRC, forwarded.source).attributeU32(RTA.IIF, forwarded.inputIndex);
}

/** Body of an `RTM_NEWROUTE` request. */
export function writeNewRoute(writer: MessageWriter, route: NewRoute): void {
  const hasGateway = route.gateway !== undefined;
  const isUnicast = (route.type ?? 'unicast') === 'unicast';
  writeRoute(writer, route, {
    protocol: route.protocol ?? RTPROT.BOOT,
    // as iproute2 chooses: what is reached without a gateway is on the link
    scope: SCOPES[route.scope ?? (isUnicast && !hasGateway && route.destination.family === 4 ? 'link' : 'global')],
    type: TYPES[route.type ?? 'unicast'],
  });
}

/** Body of an `RTM_DELROUTE` request. */
export function writeDelRoute(writer: MessageWriter, route: NewRoute): void {
  writeRoute(writer, route, {
    protocol: route.protocol ?? RTPROT.UNSPEC,
    scope: SCOPES[route.scope ?? 'nowhere'], // nowhere matches any
    type: route.type === undefined ? 0 : TYPES[route.type],
  });
}

function writeRoute(
  writer: MessageWriter,
  route: NewRoute,
  { protocol, scope, type }: { protocol: number; scope: number; type: number },
): void {
  const { destination } = route;
  const table = route.table ?? RT_TABLE_MAIN;
  writeHeader(writer, {
    family: destination.family,
    length: destination.length,
    tos: route.tos ?? 0,
    table,
    protocol,
    scope,
    type,
    flags: route.isOnlink === true ? RTNH_F.ONLINK : 0,
  });
  if (destination.length > 0) writer.attributeAddress(RTA.DST, destination.address);
  if (route.index !== undefined) writer.attributeU32(RTA.OIF, route.index);
  if (route.gateway !== undefined) writer.attributeAddress(RTA.GATEWAY, route.gateway);
  if (route.metric !== undefined) writer.attributeU32(RTA.PRIORITY, route.metric);
  if (route.prefsrc !== undefined) writer.attributeAddress(RTA.PREFSRC, route.prefsrc);
  if (table > 255) writer.attributeU32(RTA.TABLE, table);
}

const table = new AttributeTable(RTA.MAX);
const hopTable = new AttributeTable(RTA.MAX);
const metricTable = new AttributeTable(RTAX.MAX);

/** Copies that the kernel keeps per destination are not routes anybody made. */
export function isClonedRoute(reader: MessageReader): boolean {
  return (reader.u32(8) & RTM_F_CLONED) !== 0;
}

/**
 * Reads an `RTM_NEWROUTE` or `RTM_DELROUTE` message.
 *
 * @returns undefined for families other than IPv4 and IPv6, such as multicast forwarding entries, and for what is no route.
 */
export function readRoute(reader: MessageReader): RouteInfo | undefined {
  const family = reader.u8(0) === AF.INET ? 4 : reader.u8(0) === AF.INET6 ? 6 : undefined;
  if (family === undefined || reader.u8(1) > ADDRESS_BITS[family]) return undefined;
  const attributes = table.parse(reader, reader.start + HEADER, reader.end);
  const multipath = readMultipath(reader, attributes);
  const first = multipath[0];
  const destination = attributes.address(RTA.DST) ?? IpAddress.fromValue(family, 0n);
  if (destination.family !== family) return undefined;
  return {
    destination: Prefix.of(destination, reader.u8(1)),
    type: TYPE_NAMES.get(reader.u8(7)) ?? 'unicast',
    table: attributes.u32(RTA.TABLE) ?? reader.u8(4),
    protocol: reader.u8(5),
    scope: SCOPE_NAMES.get(reader.u8(6)) ?? 'global',
    tos: reader.u8(3),
    metric: attributes.u32(RTA.PRIORITY) ?? 0,
    prefsrc: attributes.address(RTA.PREFSRC),
    index: first?.index ?? attributes.u32(RTA.OIF) ?? 0,
    gateway: first === undefined ? readGateway(reader, attributes) : first.gateway,
    isOnlink: first?.isOnlink ?? (reader.u32(8) & RTNH_F.ONLINK) !== 0,
    nexthopId: attributes.u32(RTA.NH_ID) ?? 0,
    multipath,
    ...(attributes.has(RTA.METRICS) && readMetrics(reader, attributes)),
  };
}

function readMetrics(reader: MessageReader, attributes: AttributeTable): Pick<RouteInfo, 'mtu'> {
  const { offset, length } = attributes.range(RTA.METRICS);
  const mtu = metricTable.parse(reader, offset, offset + length).u32(RTAX.MTU);
  return mtu === undefined ? {} : { mtu };
}

/** A gateway of the route's own family, or of the other one (`RTA_VIA`, 5.2: family in two bytes, then the address). */
function readGateway(reader: MessageReader, attributes: AttributeTable): IpAddress | undefined {
  if (attributes.has(RTA.GATEWAY)) return attributes.address(RTA.GATEWAY);
  const { offset, length } = attributes.range(RTA.VIA);
  if (length !== 2 + 4 && length !== 2 + 16) return undefined;
  return IpAddress.fromBytes(reader.bytes.subarray(offset + 2, offset + length));
}

/** `struct rtnexthop` (length u16, flags u8, hops u8 = weight − 1, index), each followed by attributes. */
function readMultipath(reader: MessageReader, attributes: AttributeTable): readonly NextHop[] {
  const { offset, length } = attributes.range(RTA.MULTIPATH);
  const end = offset + length;
  const hops: NextHop[] = [];
  const HOP_HEADER = 8;
  for (let at = offset; at + HOP_HEADER <= end;) {
    const base = at - reader.start;
    const bytes = reader.u16(base);
    if (bytes < HOP_HEADER || at + bytes > end) break;
    const hop = hopTable.parse(reader, at + HOP_HEADER, at + bytes);
    hops.push({
      index: reader.u32(base + 4),
      gateway: readGateway(reader, hop),
      isOnlink: (reader.u8(base + 2) & RTNH_F.ONLINK) !== 0,
      weight: reader.u8(base + 3) + 1,
    });
    at += (bytes + 3) & ~3;
  }
  return hops;
}
