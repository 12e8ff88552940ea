import type { IpAddress } from '../ip/address.js';
import { AF, IFA, IFA_F, SCOPES } from './constants.js';
import { AttributeTable, type MessageReader, type MessageWriter } from './message.js';

/** An address on a device, as the kernel describes it. */
export interface AddressInfo {
  readonly index: number;
  /** The device's own address. */
  readonly address: IpAddress;
  readonly length: number;
  /** The other end of a point-to-point device, if it was given one. */
  readonly peer: IpAddress | undefined;
  /** `rt_scope`: 0 global, 200 site, 253 link, 254 host. */
  readonly scope: number;
  /** Not made with a life time, as addresses from router advertisements are. */
  readonly isPermanent: boolean;
  /** Duplicate address detection has not finished, or has failed: the address cannot be used (IPv6). */
  readonly isTentative: boolean;
  /** Its preferred life time is over: not meant for new connections. */
  readonly isDeprecated: boolean;
  /** An IPv6 privacy address (RFC 8981), or an IPv4 address beside an earlier one of the same network. */
  readonly isSecondary: boolean;
}

/** An address to put on a device or take off it. */
export interface NewAddress {
  readonly index: number;
  readonly address: IpAddress;
  readonly length: number;
  /** The other end; default the same address. */
  readonly peer?: IpAddress | undefined;
  /** Use it at once, without duplicate address detection (IPv6). */
  readonly noDad?: boolean | undefined;
  /** No route to its prefix comes with it. */
  readonly noPrefixRoute?: boolean | undefined;
}

/** `sizeof(struct ifaddrmsg)`: family, prefix length, flags, scope, index. */
const HEADER = 8;

/** Body of an `RTM_GETADDR` dump; 0 lists every device's. */
export function writeAddressList(writer: MessageWriter, index: number): void {
  writer.u8(AF.UNSPEC).u8(0).u8(0).u8(0).u32(index);
}

/** Body of an `RTM_NEWADDR` or `RTM_DELADDR` request. */
export function writeAddress(writer: MessageWriter, target: NewAddress): void {
  const { index, address, length, peer, noDad, noPrefixRoute } = target;
  const flags = (noDad === true ? IFA_F.NODAD : 0) | (noPrefixRoute === true ? IFA_F.NOPREFIXROUTE : 0);
  writer
    .u8(address.family === 4 ? AF.INET : AF.INET6)
    .u8(length)
    .u8(flags & 0xff)
    // An address of the link alone (RFC 3927 1.9) is no source for what is sent elsewhere; for IPv6 the kernel sees to it.
    .u8(address.family === 4 && address.isLinkLocal ? SCOPES.link : SCOPES.global)
    .u32(index)
    .attributeAddress(IFA.LOCAL, address)
    .attributeAddress(IFA.ADDRESS, peer ?? address);
  // The field above has eight bits (3.14).
  if (flags > 0xff) writer.attributeU32(IFA.FLAGS, flags);
}

const table = new AttributeTable(IFA.MAX);

/**
 * Reads an `RTM_NEWADDR` or `RTM_DELADDR` message.
 *
 * @returns undefined for other families, such as addresses of the MCTP protocol.
 */
export function readAddress(reader: MessageReader): AddressInfo | undefined {
  const family = reader.u8(0);
  if (family !== AF.INET && family !== AF.INET6) return undefined;
  const attributes = table.parse(reader, reader.start + HEADER, reader.end);
  // IFA_ADDRESS is the peer's where both are present and differ, else the same; IPv6 sends LOCAL only with a peer.
  const outer = attributes.address(IFA.ADDRESS);
  const address = attributes.address(IFA.LOCAL) ?? outer;
  if (address === undefined) return undefined;
  const flags = attributes.u32(IFA.FLAGS) ?? reader.u8(2);
  return {
    index: reader.u32(4),
    address,
    length: reader.u8(1),
    peer: address.equals(outer) ? undefined : outer,
    scope: reader.u8(3),
    isPermanent: (flags & IFA_F.PERMANENT) !== 0,
    isTentative: (flags & (IFA_F.TENTATIVE | IFA_F.DADFAILED)) !== 0,
    isDeprecated: (flags & IFA_F.DEPRECATED) !== 0,
    isSecondary: (flags & IFA_F.SECONDARY) !== 0,
  };
}
