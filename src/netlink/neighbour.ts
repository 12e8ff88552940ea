import type { Family, IpAddress } from '../ip/address.js';
import type { MacAddress } from '../ip/mac.js';
import { AF, NDA, NTF_PROXY, NTF_SELF, NTF_USE, NUD } from './constants.js';
import { AttributeTable, type MessageReader, type MessageWriter } from './message.js';

/** An ARP or ND entry as the kernel describes it. */
export interface NeighInfo {
  readonly index: number;
  readonly address: IpAddress;
  /** Undefined while it is being resolved. */
  readonly mac: MacAddress | undefined;
  /** Made by somebody and never checked, as opposed to learned. */
  readonly isPermanent: boolean;
  /** Nobody has answered for it. */
  readonly isFailed: boolean;
}

/** A permanent ARP or ND entry to make or delete. */
export interface NewNeigh {
  readonly index: number;
  readonly address: IpAddress;
  /** Not needed for deletion. */
  readonly mac?: MacAddress | undefined;
}

/** A proxy entry: this host answers neighbour solicitations for the address on the device as if it had it. */
export interface ProxyNeigh {
  readonly index: number;
  /** IPv6. */
  readonly address: IpAddress;
  /** Who has made it, as the `protocol` of a route; 0 if nobody says, as before 5.0. */
  readonly protocol: number;
}

/** A forwarding entry of a device itself, as the kernel describes it. One MAC can have several destinations. */
export interface FdbInfo {
  readonly index: number;
  readonly mac: MacAddress;
  /** VTEP; undefined on devices that are not VXLAN. */
  readonly destination: IpAddress | undefined;
  /** UDP port, VNI or underlay device other than the device's own, undefined if the same. */
  readonly port: number | undefined;
  readonly vni: number | undefined;
  readonly viaIndex: number | undefined;
  readonly isPermanent: boolean;
  /** The port belongs to this bridge, and the entry was listed because of that. */
  readonly masterIndex: number;
  /** The entry is in the device's own table (`self`), not in its bridge's. */
  readonly isSelf: boolean;
}

/** A permanent forwarding entry to make or delete. */
export interface NewFdb {
  readonly index: number;
  readonly mac: MacAddress;
  /** Without it deletion takes all destinations of the MAC. */
  readonly destination?: IpAddress | undefined;
  /** UDP port, VNI and underlay device, where they differ from the device's own. */
  readonly port?: number | undefined;
  readonly vni?: number | undefined;
  readonly viaIndex?: number | undefined;
}

/** `sizeof(struct ndmsg)`: family, padding (3), index, state u16, flags u8, type u8. */
const HEADER = 12;

function writeHeader(
  writer: MessageWriter,
  family: number,
  index: number,
  state: number,
  flags: number,
): MessageWriter {
  return writer.u8(family).u8(0).u16(0).u32(index).u16(state).u8(flags).u8(0);
}

function netlinkFamily(family: Family): number {
  return family === 4 ? AF.INET : AF.INET6;
}

/** Body of an `RTM_GETNEIGH` dump of ARP or ND entries; an index of 0 lists every device's. */
export function writeNeighList(writer: MessageWriter, family: Family, index: number): void {
  writeHeader(writer, netlinkFamily(family), 0, 0, 0);
  if (index !== 0) writer.attributeU32(NDA.IFINDEX, index);
}

/** Body of an `RTM_GETNEIGH` dump of forwarding entries; an index of 0 lists every device's. */
export function writeFdbList(writer: MessageWriter, index: number): void {
  writeHeader(writer, AF.BRIDGE, index, 0, 0);
}

/** Body of an `RTM_NEWNEIGH` or `RTM_DELNEIGH` request for an ARP or ND entry. */
export function writeNeigh(writer: MessageWriter, { index, address, mac }: NewNeigh): void {
  writeHeader(writer, netlinkFamily(address.family), index, NUD.PERMANENT, 0);
  writer.attributeAddress(NDA.DST, address);
  if (mac !== undefined) writer.attributeMac(NDA.LLADDR, mac);
}

/**
 * Body of an `RTM_NEWNEIGH` request that has the kernel ask who has an address: where its MAC address is known, whether it
 * still has it.
 */
export function writeNeighQuestion(writer: MessageWriter, { index, address, mac }: NewNeigh): void {
  const family = netlinkFamily(address.family);
  if (mac === undefined) writeHeader(writer, family, index, 0, NTF_USE);
  else writeHeader(writer, family, index, NUD.PROBE, 0);
  writer.attributeAddress(NDA.DST, address);
  if (mac !== undefined) writer.attributeMac(NDA.LLADDR, mac);
}

/** Body of an `RTM_GETNEIGH` dump of the proxy entries of IPv6 on all devices. */
export function writeProxyList(writer: MessageWriter): void {
  writeHeader(writer, AF.INET6, 0, 0, NTF_PROXY);
}

/**
 * Body of an `RTM_NEWNEIGH` or `RTM_DELNEIGH` request for a proxy entry.
 *
 * @remarks Permanent, as `ip neigh add proxy` makes it: others go with the carrier of the device.
 */
export function writeProxy(writer: MessageWriter, { index, address, protocol }: ProxyNeigh): void {
  writeHeader(writer, AF.INET6, index, NUD.PERMANENT, NTF_PROXY);
  writer.attributeAddress(NDA.DST, address).attributeU8(NDA.PROTOCOL, protocol);
}

/** Body of an `RTM_NEWNEIGH` or `RTM_DELNEIGH` request for a forwarding entry. */
export function writeFdb(writer: MessageWriter, { index, mac, destination, port, vni, viaIndex }: NewFdb): void {
  writeHeader(writer, AF.BRIDGE, index, NUD.PERMANENT, NTF_SELF);
  writer.attributeMac(NDA.LLADDR, mac);
  if (destination !== undefined) writer.attributeAddress(NDA.DST, destination);
  if (port !== undefined) writer.attributeU16be(NDA.PORT, port);
  if (vni !== undefined) writer.attributeU32(NDA.VNI, vni);
  if (viaIndex !== undefined) writer.attributeU32(NDA.IFINDEX, viaIndex);
}

const table = new AttributeTable(NDA.MAX);

/** Whether a neighbour message is about a forwarding entry. */
export function isFdb(reader: MessageReader): boolean {
  return reader.u8(0) === AF.BRIDGE;
}

/**
 * Reads an `RTM_NEWNEIGH` or `RTM_DELNEIGH` message about an ARP or ND entry.
 *
 * @returns undefined for other families.
 */
export function readNeigh(reader: MessageReader): NeighInfo | undefined {
  const family = reader.u8(0);
  if (family !== AF.INET && family !== AF.INET6) return undefined;
  const attributes = table.parse(reader, reader.start + HEADER, reader.end);
  const address = attributes.address(NDA.DST);
  if (address === undefined) return undefined;
  const state = reader.u16(8);
  return {
    index: reader.u32(4),
    address,
    mac: attributes.mac(NDA.LLADDR),
    isPermanent: (state & NUD.PERMANENT) !== 0,
    isFailed: (state & NUD.FAILED) !== 0,
  };
}

/**
 * Reads an `RTM_NEWNEIGH` message of a list of proxy entries.
 *
 * @returns undefined for one that is on all devices, which the kernel has for IPv4 alone.
 */
export function readProxy(reader: MessageReader): ProxyNeigh | undefined {
  const attributes = table.parse(reader, reader.start + HEADER, reader.end);
  const address = attributes.address(NDA.DST);
  const index = reader.u32(4);
  if (address === undefined || index === 0) return undefined;
  return { index, address, protocol: attributes.u8(NDA.PROTOCOL) ?? 0 };
}

/**
 * Reads an `RTM_NEWNEIGH` or `RTM_DELNEIGH` message about a forwarding entry.
 *
 * @returns undefined if it has no MAC.
 */
export function readFdb(reader: MessageReader): FdbInfo | undefined {
  const attributes = table.parse(reader, reader.start + HEADER, reader.end);
  const mac = attributes.mac(NDA.LLADDR);
  if (mac === undefined) return undefined;
  return {
    index: reader.u32(4),
    mac,
    destination: attributes.address(NDA.DST),
    port: attributes.u16be(NDA.PORT),
    vni: attributes.u32(NDA.VNI),
    viaIndex: attributes.u32(NDA.IFINDEX),
    isPermanent: (reader.u16(8) & NUD.PERMANENT) !== 0,
    masterIndex: attributes.u32(NDA.MASTER) ?? 0,
    isSelf: (reader.u8(10) & NTF_SELF) !== 0,
  };
}
