import type { IpAddress } from '../../ip/address.js';
import { icmpv6Checksum } from '../../ip/checksum.js';
import { type MacAddress, macToBytes } from '../../ip/mac.js';
import type { LinkInfo } from '../../netlink/link.js';
import type { ProxyNeighSpec } from '../../reconcile/desired.js';

const BROADCAST = Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0xff, 0xff);

/** ff02::1, and the MAC address that goes with it (RFC 2464 7). */
const ALL_NODES = Uint8Array.of(0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC = Uint8Array.of(0x33, 0x33, 0, 0, 0, 1);

const ARP_REQUEST = 1;
const ARP_REPLY = 2;

/** IPv6 next header. */
const ICMPV6 = 58;

/**
 * Ethernet frames that tell everybody on the network which MAC address an IP address has now.
 *
 * @remarks IPv4: an ARP announcement (RFC 5227 2.3) and the same as a reply (RFC 5944 4.6), since some routers heed only
 * one of the two.
 * IPv6: an unsolicited neighbour advertisement with the override flag (RFC 4861 7.2.6).
 */
export function announcementFrames(address: IpAddress, mac: MacAddress): readonly Uint8Array[] {
  const own = macToBytes(mac);
  if (address.family === 4) return [arp(ARP_REQUEST, address, own), arp(ARP_REPLY, address, own)];
  return [neighbourAdvertisement(address, own)];
}

/**
 * Frames that tell of addresses a host answers for as a proxy, by the device that each is announced on.
 *
 * @remarks Those of a device belong in one call: to close a packet socket takes the kernel up to 20 ms on a busy machine
 * (`synchronize_net()` in `packet_release()`), in which this process does nothing else.
 */
export function proxyAnnouncements(
  proxies: readonly ProxyNeighSpec[],
  links: Iterable<LinkInfo>,
): ReadonlyMap<LinkInfo, readonly Uint8Array[]> {
  const found = new Map<LinkInfo, readonly Uint8Array[]>();
  for (const link of links) {
    const { mac, name } = link;
    const own = proxies.filter(({ device }) => device === name);
    if (mac === undefined || own.length === 0) continue;
    found.set(
      link,
      own.flatMap(({ address }) => announcementFrames(address, mac)),
    );
  }
  return found;
}

function arp(operation: number, address: IpAddress, mac: Uint8Array): Uint8Array {
  const ip = address.toBytes();
  return concat(
    BROADCAST,
    mac,
    Uint8Array.of(0x08, 0x06),
    Uint8Array.of(0, 1, 0x08, 0, 6, 4, 0, operation), // Ethernet, IPv4, lengths of their addresses
    mac,
    ip,
    operation === ARP_REQUEST ? new Uint8Array(6) : mac,
    ip,
  );
}

function neighbourAdvertisement(address: IpAddress, mac: Uint8Array): Uint8Array {
  const source = address.toBytes();
  // type 136, code 0, checksum, flags (override), target, option 2: target link-layer address of 8 bytes
  const message = concat(Uint8Array.of(136, 0, 0, 0, 0x20, 0, 0, 0), source, Uint8Array.of(2, 1), mac);
  const hopLimit = 255; // anything else is ignored: it may have been forwarded
  const header = Uint8Array.of(0x60, 0, 0, 0, 0, message.length, ICMPV6, hopLimit);
  const packet = concat(header, source, ALL_NODES, message);
  new DataView(packet.buffer).setUint16(packet.length - message.length + 2, icmpv6Checksum(packet));
  return concat(ALL_NODES_MAC, mac, Uint8Array.of(0x86, 0xdd), packet);
}

function concat(...parts: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}
