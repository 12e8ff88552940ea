import type { IpAddress } from '../ip/address.js';
import type { MacAddress } from '../ip/mac.js';
import {
  IFF,
  IFLA,
  IFLA_INFO,
  IFLA_IPTUN,
  IFLA_IPVLAN_MODE,
  IFLA_MACVLAN_MODE,
  IFLA_VLAN_ID,
  IFLA_VXLAN,
  RTEXT_FILTER_SKIP_STATS,
  VETH_INFO_PEER,
} from './constants.js';
import { AttributeTable, type MessageReader, type MessageWriter } from './message.js';

/** What only a VXLAN device has, as far as it decides whether a device is the wanted one. */
export interface VxlanDetails {
  readonly kind: 'vxlan';
  readonly vni: number;
  /** 0 if the device is not tied to an underlay device. */
  readonly underlayIndex: number;
  readonly local: IpAddress | undefined;
  /** Multicast group or fixed remote. */
  readonly group: IpAddress | undefined;
  readonly port: number;
  readonly learning: boolean;
  readonly gbp: boolean;
  readonly l2miss: boolean;
  readonly l3miss: boolean;
  /** The device takes its parameters from each packet's metadata (`external`). */
  readonly isExternal: boolean;
}

/** What only an IPIP device has. */
export interface IpipDetails {
  readonly kind: 'ipip';
  readonly local: IpAddress | undefined;
  readonly remote: IpAddress | undefined;
  /** 0 inherits the inner packet's. */
  readonly ttl: number;
  readonly pmtuDiscovery: boolean;
}

/** What only a VLAN device has. */
export interface VlanDetails {
  readonly kind: 'vlan';
  readonly id: number;
}

/** What only a macvlan or ipvlan device has. */
export interface ChildDetails {
  readonly kind: 'macvlan' | 'ipvlan';
  readonly mode: string;
}

/** Attributes of the kinds that have any we read. */
export type LinkDetails = VxlanDetails | IpipDetails | VlanDetails | ChildDetails;

/** A network device as the kernel describes it. */
export interface LinkInfo {
  readonly index: number;
  readonly name: string;
  /** `vxlan`, `tun`, `veth` …; empty for hardware and the loopback device. */
  readonly kind: string;
  readonly isUp: boolean;
  /** Administratively up and the lower layer has a carrier. */
  readonly isRunning: boolean;
  readonly isLoopback: boolean;
  readonly mtu: number;
  readonly mac: MacAddress | undefined;
  readonly txQueueLength: number;
  /** Free text that an operator or program left on the device; empty if none. */
  readonly alias: string;
  /** Index of the bridge or bond it is a port of, 0 if none. */
  readonly masterIndex: number;
  /** Index of the device below it or of its peer (`IFLA_LINK`), 0 if none. */
  readonly lowerIndex: number;
  readonly details: LinkDetails | undefined;
}

const MACVLAN_MODES = { private: 1, vepa: 2, bridge: 4, passthru: 8, source: 16 } as const;
const IPVLAN_MODES = { l2: 0, l3: 1, l3s: 2 } as const;

/** What every new device can be given; an alias only afterwards (`rtnl_create_link()` ignores it). What is absent is left to the kernel. */
interface NewLinkCommon {
  readonly name: string;
  readonly mtu?: number;
  readonly mac?: MacAddress;
  readonly txQueueLength?: number;
  readonly isUp?: boolean;
  readonly masterIndex?: number;
}

/** A device to make; the kinds of tunnels and of what containers are attached with. */
export type NewLink =
  | (NewLinkCommon & {
      readonly kind: 'vxlan';
      readonly vni: number;
      readonly underlayIndex?: number;
      readonly local?: IpAddress;
      readonly group?: IpAddress;
      /** 0 leaves it to the kernel, which takes 8472. */
      readonly port?: number;
      readonly learning?: boolean;
      readonly gbp?: boolean;
      readonly l2miss?: boolean;
      readonly l3miss?: boolean;
    })
  | (NewLinkCommon & {
      readonly kind: 'ipip';
      readonly local?: IpAddress;
      readonly remote?: IpAddress;
      readonly ttl?: number;
      readonly pmtuDiscovery?: boolean;
    })
  | (NewLinkCommon & { readonly kind: 'bridge' | 'dummy' })
  /** The peer starts down: the kernel opens no end before both are there. */
  | (NewLinkCommon & { readonly kind: 'veth'; readonly peer: Omit<NewLinkCommon, 'isUp'> })
  | (NewLinkCommon & { readonly kind: 'vlan'; readonly lowerIndex: number; readonly id: number })
  | (NewLinkCommon & {
      readonly kind: 'macvlan';
      readonly lowerIndex: number;
      readonly mode: keyof typeof MACVLAN_MODES;
    })
  | (NewLinkCommon & {
      readonly kind: 'ipvlan';
      readonly lowerIndex: number;
      readonly mode: keyof typeof IPVLAN_MODES;
    });

/** Where a device is moved to. */
export type NetnsTarget = { readonly pid: number } | { readonly fd: number };

/** What can be changed on a device that exists. What is absent stays as it is. */
export interface LinkChange {
  readonly isUp?: boolean;
  readonly name?: string;
  readonly mtu?: number;
  readonly mac?: MacAddress;
  readonly txQueueLength?: number;
  /** Empty removes it. */
  readonly alias?: string;
  /** 0 takes it out of its bridge. */
  readonly masterIndex?: number;
  /** Only for a VXLAN device; the one attribute of its kind that the kernel changes in place (4.20). */
  readonly vxlan?: { readonly learning: boolean };
  readonly netns?: NetnsTarget;
}

/** `struct ifinfomsg`: family, padding, type, index, flags, mask of the flags that are meant. */
function writeHeader(writer: MessageWriter, index: number, isUp: boolean | undefined): MessageWriter {
  const mask = isUp === undefined ? 0 : IFF.UP;
  return writer
    .u8(0)
    .u8(0)
    .u16(0)
    .u32(index)
    .u32(isUp === true ? IFF.UP : 0)
    .u32(mask);
}

/** `sizeof(struct ifinfomsg)` */
const HEADER = 16;

/** Body of an `RTM_GETLINK` dump, without counters. */
export function writeLinkList(writer: MessageWriter): void {
  writeHeader(writer, 0, undefined).attributeU32(IFLA.EXT_MASK, RTEXT_FILTER_SKIP_STATS);
}

/** Body of an `RTM_GETLINK` or `RTM_DELLINK` request for one device. */
export function writeLinkIdentity(writer: MessageWriter, identity: { index?: number; name?: string }): void {
  writeHeader(writer, identity.index ?? 0, undefined);
  if (identity.name !== undefined) writer.attributeText(IFLA.IFNAME, identity.name);
}

/** Body of an `RTM_NEWLINK` request that makes a device. */
export function writeNewLink(writer: MessageWriter, link: NewLink): void {
  writeHeader(writer, 0, link.isUp);
  writeCommon(writer, link);
  if ('lowerIndex' in link) writer.attributeU32(IFLA.LINK, link.lowerIndex);
  writer.nested(IFLA.LINKINFO, () => {
    writer.attributeText(IFLA_INFO.KIND, link.kind);
    writer.nested(IFLA_INFO.DATA, () => {
      writeData(writer, link);
    });
  });
}

/** Body of an `RTM_NEWLINK` request that changes a device. */
export function writeLinkChange(writer: MessageWriter, index: number, change: LinkChange): void {
  writeHeader(writer, index, change.isUp);
  writeCommon(writer, change);
  if (change.netns !== undefined) {
    if ('pid' in change.netns) writer.attributeU32(IFLA.NET_NS_PID, change.netns.pid);
    else writer.attributeU32(IFLA.NET_NS_FD, change.netns.fd);
  }
  const { vxlan } = change;
  if (vxlan === undefined) return;
  writer.nested(IFLA.LINKINFO, () => {
    writer.attributeText(IFLA_INFO.KIND, 'vxlan');
    writer.nested(IFLA_INFO.DATA, () => {
      writer.attributeU8(IFLA_VXLAN.LEARNING, Number(vxlan.learning));
    });
  });
}

function writeCommon(writer: MessageWriter, link: Partial<NewLinkCommon> & { readonly alias?: string }): void {
  if (link.name !== undefined) writer.attributeText(IFLA.IFNAME, link.name);
  if (link.mtu !== undefined) writer.attributeU32(IFLA.MTU, link.mtu);
  if (link.mac !== undefined) writer.attributeMac(IFLA.ADDRESS, link.mac);
  if (link.txQueueLength !== undefined) writer.attributeU32(IFLA.TXQLEN, link.txQueueLength);
  if (link.alias !== undefined) writer.attributeText(IFLA.IFALIAS, link.alias);
  if (link.masterIndex !== undefined) writer.attributeU32(IFLA.MASTER, link.masterIndex);
}

function writeData(writer: MessageWriter, link: NewLink): void {
  switch (link.kind) {
    case 'vxlan':
      writer.attributeU32(IFLA_VXLAN.ID, link.vni);
      if (link.underlayIndex !== undefined) writer.attributeU32(IFLA_VXLAN.LINK, link.underlayIndex);
      if (link.local !== undefined) {
        writer.attributeAddress(link.local.family === 4 ? IFLA_VXLAN.LOCAL : IFLA_VXLAN.LOCAL6, link.local);
      }
      if (link.group !== undefined) {
        writer.attributeAddress(link.group.family === 4 ? IFLA_VXLAN.GROUP : IFLA_VXLAN.GROUP6, link.group);
      }
      if (link.port !== undefined && link.port !== 0) writer.attributeU16be(IFLA_VXLAN.PORT, link.port);
      writer.attributeU8(IFLA_VXLAN.LEARNING, Number(link.learning ?? false));
      if (link.l2miss !== undefined) writer.attributeU8(IFLA_VXLAN.L2MISS, Number(link.l2miss));
      if (link.l3miss !== undefined) writer.attributeU8(IFLA_VXLAN.L3MISS, Number(link.l3miss));
      if (link.gbp === true) writer.attributeFlag(IFLA_VXLAN.GBP);
      break;
    case 'ipip':
      if (link.local !== undefined) writer.attributeAddress(IFLA_IPTUN.LOCAL, link.local);
      if (link.remote !== undefined) writer.attributeAddress(IFLA_IPTUN.REMOTE, link.remote);
      writer.attributeU8(IFLA_IPTUN.TTL, link.ttl ?? 0);
      writer.attributeU8(IFLA_IPTUN.PMTUDISC, Number(link.pmtuDiscovery ?? true));
      break;
    case 'veth':
      writer.nested(VETH_INFO_PEER, () => {
        writeHeader(writer, 0, undefined);
        writeCommon(writer, link.peer);
      });
      break;
    case 'vlan':
      writer.attributeU16(IFLA_VLAN_ID, link.id);
      break;
    case 'macvlan':
      writer.attributeU32(IFLA_MACVLAN_MODE, MACVLAN_MODES[link.mode]);
      break;
    case 'ipvlan':
      writer.attributeU16(IFLA_IPVLAN_MODE, IPVLAN_MODES[link.mode]);
      break;
    case 'bridge':
    case 'dummy':
      break;
  }
}

const table = new AttributeTable(IFLA.MAX);
const infoTable = new AttributeTable(IFLA_INFO.MAX);
const dataTable = new AttributeTable(IFLA_VXLAN.MAX);

/** Reads an `RTM_NEWLINK` or `RTM_DELLINK` message. */
export function readLink(reader: MessageReader): LinkInfo {
  const flags = reader.u32(8);
  const attributes = table.parse(reader, reader.start + HEADER, reader.end);
  const info = attributes.nested(IFLA.LINKINFO, infoTable);
  const kind = info.text(IFLA_INFO.KIND) ?? '';
  return {
    index: reader.u32(4),
    name: attributes.text(IFLA.IFNAME) ?? '',
    kind,
    isUp: (flags & IFF.UP) !== 0,
    isRunning: (flags & IFF.RUNNING) !== 0,
    isLoopback: (flags & IFF.LOOPBACK) !== 0,
    mtu: attributes.u32(IFLA.MTU) ?? 0,
    mac: attributes.mac(IFLA.ADDRESS),
    txQueueLength: attributes.u32(IFLA.TXQLEN) ?? 0,
    alias: attributes.text(IFLA.IFALIAS) ?? '',
    masterIndex: attributes.u32(IFLA.MASTER) ?? 0,
    lowerIndex: attributes.u32(IFLA.LINK) ?? 0,
    details: readDetails(kind, info.nested(IFLA_INFO.DATA, dataTable)),
  };
}

function readDetails(kind: string, data: AttributeTable): LinkDetails | undefined {
  switch (kind) {
    case 'vxlan':
      return {
        kind,
        vni: data.u32(IFLA_VXLAN.ID) ?? 0,
        underlayIndex: data.u32(IFLA_VXLAN.LINK) ?? 0,
        local: data.address(IFLA_VXLAN.LOCAL) ?? data.address(IFLA_VXLAN.LOCAL6),
        group: data.address(IFLA_VXLAN.GROUP) ?? data.address(IFLA_VXLAN.GROUP6),
        port: data.u16be(IFLA_VXLAN.PORT) ?? 0,
        learning: data.u8(IFLA_VXLAN.LEARNING) === 1,
        gbp: data.has(IFLA_VXLAN.GBP),
        l2miss: data.u8(IFLA_VXLAN.L2MISS) === 1,
        l3miss: data.u8(IFLA_VXLAN.L3MISS) === 1,
        isExternal: data.u8(IFLA_VXLAN.COLLECT_METADATA) === 1,
      };
    case 'ipip':
      return {
        kind,
        local: specified(data.address(IFLA_IPTUN.LOCAL)),
        remote: specified(data.address(IFLA_IPTUN.REMOTE)),
        ttl: data.u8(IFLA_IPTUN.TTL) ?? 0,
        pmtuDiscovery: data.u8(IFLA_IPTUN.PMTUDISC) === 1,
      };
    case 'vlan':
      return { kind, id: data.u16(IFLA_VLAN_ID) ?? 0 };
    case 'macvlan':
      return { kind, mode: nameOf(MACVLAN_MODES, data.u32(IFLA_MACVLAN_MODE)) };
    case 'ipvlan':
      return { kind, mode: nameOf(IPVLAN_MODES, data.u16(IFLA_IPVLAN_MODE)) };
    default:
      return undefined;
  }
}

function specified(address: IpAddress | undefined): IpAddress | undefined {
  return address?.isUnspecified === true ? undefined : address;
}

function nameOf(names: Readonly<Record<string, number>>, value: number | undefined): string {
  return Object.entries(names).find(([, number]) => number === value)?.[0] ?? String(value);
}
