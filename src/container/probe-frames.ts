import { type Family, IpAddress } from '../ip/address.js';
import { icmpv6Checksum } from '../ip/checksum.js';
import { type MacAddress, isUnicastMac, macFromBytes, macToBytes } from '../ip/mac.js';
import type { BpfInstruction } from '../sys/libc.js';

/** How a family asks an Ethernet whether somebody has an address, in whole frames. Pure. */
export interface ProbeFrames {
  readonly etherType: number;
  /** Groups to which answers, and questions of others for the same address, are sent. */
  groups(address: IpAddress): readonly MacAddress[];
  /** The question; it tells nobody that the sender has the address, so no cache on the network changes. */
  encode(address: IpAddress, sender: MacAddress): Uint8Array;
  /** Who has the address, or asks for it in the same way at the same time; undefined if the frame does not say. */
  read(address: IpAddress, frame: Uint8Array): MacAddress | undefined;
  /** Lets hardly anything but frames about the address through. */
  filter(address: IpAddress): readonly BpfInstruction[];
}

const BROADCAST = macFromBytes(new Uint8Array(6).fill(0xff));

/** Destination, source and type (IEEE 802.3). */
export const ETHERNET_BYTES = 14;

/** Instructions of classic BPF (`linux/filter.h`) that load from an absolute offset, compare and return. */
export const BPF = { loadByte: 0x30, loadWord: 0x20, and: 0x54, jumpIfEqual: 0x15, return: 0x06 } as const;
const { loadByte: LD_B, loadWord: LD_W, jumpIfEqual: JEQ } = BPF;
export const ACCEPT: BpfInstruction = [BPF.return, 0, 0, 0xffff_ffff];
export const DROP: BpfInstruction = [BPF.return, 0, 0, 0];

/** Offsets in an ARP message of Ethernet and IPv4 (RFC 826). */
const ARP = { bytes: 28, senderMac: 8, senderIp: 14, targetIp: 24 } as const;

/** Hardware type Ethernet, protocol type IPv4, their lengths; the operation follows. */
const ARP_HEADER = Uint8Array.of(0, 1, 0x08, 0x00, 6, 4);

/** RFC 5227 2.1.1: an ARP request with 0.0.0.0 as its sender. */
const ipv4: ProbeFrames = {
  etherType: 0x0806,
  groups: () => [],
  encode(address, sender) {
    const message = new Uint8Array(ARP.bytes);
    message.set([...ARP_HEADER, 0, 1]); // request
    message.set(macToBytes(sender), ARP.senderMac);
    message.set(address.toBytes(), ARP.targetIp);
    return ethernet(BROADCAST, sender, this.etherType, message);
  },
  read(address, frame) {
    const message = payloadOf(frame, this.etherType);
    if (message === undefined || message.length < ARP.bytes) return undefined;
    const operation = message[7] ?? 0;
    if (!ARP_HEADER.every((byte, index) => byte === message[index]) || operation < 1 || operation > 2) return undefined;
    const at = (offset: number): IpAddress => IpAddress.fromBytes(message.subarray(offset, offset + 4));
    const isProbe = operation === 1 && at(ARP.senderIp).isUnspecified && address.equals(at(ARP.targetIp));
    if (!isProbe && !address.equals(at(ARP.senderIp))) return undefined;
    return unicast(message.subarray(ARP.senderMac, ARP.senderMac + 6));
  },
  filter: (address) => [
    [LD_W, 0, 0, ETHERNET_BYTES + ARP.senderIp],
    [JEQ, 2, 0, Number(address.value)],
    [LD_W, 0, 0, ETHERNET_BYTES + ARP.targetIp],
    [JEQ, 0, 1, Number(address.value)],
    ACCEPT,
    DROP,
  ],
};

/** IPv6 header, then type, code, checksum, reserved and target (RFC 8200 3, RFC 4861 4.3). */
export const ND = { bytes: 40 + 24, message: 40, target: 48, nextHeader: 6, hopLimit: 7, source: 8 } as const;
export const ICMPV6 = 58;
export const SOLICITATION = 135;
const ADVERTISEMENT = 136;

/** RFC 4862 5.4.2: a neighbour solicitation from the unspecified address to the solicited-node group. */
const ipv6: ProbeFrames = {
  etherType: 0x86dd,
  groups: (address) => [groupMac(solicitedNode(address)), groupMac(IpAddress.parse('ff02::1'))],
  encode(address, sender) {
    const packet = new Uint8Array(ND.bytes);
    packet.set([0x60, 0, 0, 0, 0, ND.bytes - ND.message, ICMPV6, 255]);
    packet.set(solicitedNode(address).toBytes(), 24);
    packet[ND.message] = SOLICITATION;
    packet.set(address.toBytes(), ND.target);
    new DataView(packet.buffer).setUint16(ND.message + 2, icmpv6Checksum(packet));
    return ethernet(groupMac(solicitedNode(address)), sender, this.etherType, packet);
  },
  read(address, frame) {
    const rest = payloadOf(frame, this.etherType);
    if (rest === undefined || rest.length < ND.bytes) return undefined;
    const length = ND.message + (((rest[4] ?? 0) << 8) | (rest[5] ?? 0));
    const packet = rest.subarray(0, length);
    // RFC 4861 7.1: a hop limit that no router has touched, code 0, a right checksum.
    if (packet.length < Math.max(ND.bytes, length) || packet[ND.nextHeader] !== ICMPV6 || packet[ND.hopLimit] !== 255)
      return undefined;
    if (packet[ND.message + 1] !== 0 || icmpv6Checksum(packet) !== 0) return undefined;
    if (!address.equals(IpAddress.fromBytes(packet.subarray(ND.target, ND.target + 16)))) return undefined;
    const type = packet[ND.message];
    const isFromNobody = IpAddress.fromBytes(packet.subarray(ND.source, ND.source + 16)).isUnspecified;
    if (type !== ADVERTISEMENT && !(type === SOLICITATION && isFromNobody)) return undefined;
    return unicast(frame.subarray(6, 12));
  },
  filter: (address) => [
    [LD_B, 0, 0, ETHERNET_BYTES + ND.nextHeader],
    [JEQ, 0, 3, ICMPV6],
    [LD_W, 0, 0, ETHERNET_BYTES + ND.target + 12],
    [JEQ, 0, 1, Number(address.value & 0xffff_ffffn)],
    ACCEPT,
    DROP,
  ],
};

/** By family. */
export const PROBE_FRAMES: Readonly<Record<Family, ProbeFrames>> = { 4: ipv4, 6: ipv6 };

function ethernet(to: MacAddress, from: MacAddress, etherType: number, payload: Uint8Array): Uint8Array {
  return Uint8Array.of(...macToBytes(to), ...macToBytes(from), etherType >> 8, etherType & 0xff, ...payload);
}

function payloadOf(frame: Uint8Array, etherType: number): Uint8Array | undefined {
  const isOfType = (((frame[12] ?? 0) << 8) | (frame[13] ?? 0)) === etherType;
  return isOfType ? frame.subarray(ETHERNET_BYTES) : undefined;
}

function unicast(bytes: Uint8Array): MacAddress | undefined {
  const mac = macFromBytes(bytes);
  return isUnicastMac(mac) ? mac : undefined;
}

/** RFC 4291 2.7.1: ff02::1:ff00:0/104 with the last three bytes of the address. */
function solicitedNode(address: IpAddress): IpAddress {
  return IpAddress.fromValue(6, IpAddress.parse('ff02::1:ff00:0').value | (address.value & 0xff_ffffn));
}

/** RFC 2464 7: 33:33 and the last four bytes of the group. */
function groupMac(group: IpAddress): MacAddress {
  return macFromBytes(Uint8Array.of(0x33, 0x33, ...group.toBytes().subarray(12)));
}
