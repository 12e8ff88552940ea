import type { MacAddress } from '../ip/mac.js';
import { IFF, IFLA, IFLA_BRPORT, IFLA_INFO, IFLA_VXLAN, RTEXT_FILTER_SKIP_STATS, VETH_INFO_PEER } from './constants.js';
import { type LinkDetails, type NewLinkData, readDetails, writeDetails } from './link-details.js';
import { AttributeTable, type MessageReader, type MessageWriter } from './message.js';

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
  /** A port of a bridge that exchanges no frames with other such ports; never a kernel's before 4.18. */
  readonly isIsolated: boolean;
  /** A port of a bridge that frames may leave through which they came in through. */
  readonly isHairpin: boolean;
  /** Index of the device below it or of its peer (`IFLA_LINK`), 0 if none. */
  readonly lowerIndex: number;
  readonly details: LinkDetails | undefined;
}

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
  | (NewLinkCommon & Extract<NewLinkData, { readonly kind: 'vxlan' | 'ipip' }>)
  | (NewLinkCommon & { readonly lowerIndex: number } & Extract<
        NewLinkData,
        { readonly kind: 'vlan' | 'macvlan' | 'ipvlan' }
      >)
  | (NewLinkCommon & { readonly kind: 'bridge' })
  | (NewLinkCommon & { readonly kind: 'dummy' })
  | (NewLinkCommon & { readonly kind: 'wireguard' })
  /** The peer starts down: the kernel opens no end before both are there. */
  | (NewLinkCommon & { readonly kind: 'veth'; readonly peer: Omit<NewLinkCommon, 'isUp'> });

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
  /** Only for a port of a bridge, as in {@link LinkInfo}; it has to be one already. */
  readonly isIsolated?: boolean;
  readonly isHairpin?: boolean;
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
  const { vxlan, isIsolated, isHairpin } = change;
  if (isIsolated !== undefined || isHairpin !== undefined) {
    writer.nested(IFLA.LINKINFO, () => {
      writer.attributeText(IFLA_INFO.SLAVE_KIND, 'bridge');
      writer.nested(IFLA_INFO.SLAVE_DATA, () => {
        if (isHairpin !== undefined) writer.attributeU8(IFLA_BRPORT.MODE, Number(isHairpin));
        if (isIsolated !== undefined) writer.attributeU8(IFLA_BRPORT.ISOLATED, Number(isIsolated));
      });
    });
  }
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
  if (link.kind !== 'veth') {
    writeDetails(writer, link);
    return;
  }
  writer.nested(VETH_INFO_PEER, () => {
    writeHeader(writer, 0, undefined);
    writeCommon(writer, link.peer);
  });
}

const table = new AttributeTable(IFLA.MAX);
const infoTable = new AttributeTable(IFLA_INFO.MAX);
const portTable = new AttributeTable(IFLA_BRPORT.MAX);
const dataTable = new AttributeTable(IFLA_VXLAN.MAX);

/** Reads an `RTM_NEWLINK` or `RTM_DELLINK` message. */
export function readLink(reader: MessageReader): LinkInfo {
  const flags = reader.u32(8);
  const attributes = table.parse(reader, reader.start + HEADER, reader.end);
  const info = attributes.nested(IFLA.LINKINFO, infoTable);
  const kind = info.text(IFLA_INFO.KIND) ?? '';
  const isBridgePort = info.text(IFLA_INFO.SLAVE_KIND) === 'bridge';
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
    isIsolated: isBridgePort && info.nested(IFLA_INFO.SLAVE_DATA, portTable).u8(IFLA_BRPORT.ISOLATED) === 1,
    isHairpin: isBridgePort && info.nested(IFLA_INFO.SLAVE_DATA, portTable).u8(IFLA_BRPORT.MODE) === 1,
    lowerIndex: attributes.u32(IFLA.LINK) ?? 0,
    details: readDetails(kind, info.nested(IFLA_INFO.DATA, dataTable)),
  };
}
