import { type Family, IpAddress } from '../ip/address.js';
import { Prefix } from '../ip/prefix.js';
import {
  WIREGUARD_KEY_BYTES,
  type WireguardPublicKey,
  WireguardSecret,
  publicKeyFromBytes,
  publicKeyToBytes,
} from '../ip/wireguard-key.js';
import { AF, WGALLOWEDIP_A, WGDEVICE_A, WGPEER_A, WGPEER_F } from './constants.js';
import { AttributeTable, type MessageReader, type MessageWriter, eachAttribute } from './message.js';

/** Where datagrams for a peer are sent. */
export interface WireguardEndpoint {
  readonly address: IpAddress;
  readonly port: number;
}

/** A peer of a WireGuard device as the kernel describes it. */
export interface WireguardPeerInfo {
  readonly index: number;
  readonly publicKey: WireguardPublicKey;
  readonly presharedKey: WireguardSecret | undefined;
  /** Where the last authentic packet came from, or else what was set; undefined if nothing was. */
  readonly endpoint: WireguardEndpoint | undefined;
  /** 0: none are sent. */
  readonly keepaliveSeconds: number;
  /** Destinations that are sent to it, and sources that are believed of it. */
  readonly allowedIps: readonly Prefix[];
  /** Wall clock in milliseconds since 1970; undefined before the first handshake. */
  readonly lastHandshakeMs: number | undefined;
  /** Of datagrams, handshakes and keep-alives included; since the peer was made. */
  readonly rxBytes: number;
  readonly txBytes: number;
}

/** What makes a network device one of WireGuard. */
export interface WireguardInfo {
  readonly index: number;
  /** Undefined before the device has a private key. */
  readonly publicKey: WireguardPublicKey | undefined;
  readonly listenPort: number;
  readonly peers: readonly WireguardPeerInfo[];
}

/** The device's own side, as it is set. */
export interface WireguardSettings {
  readonly index: number;
  readonly privateKey: WireguardSecret;
  readonly listenPort: number;
}

/** A peer, as it is set; whatever it was before is forgotten except for its session and, without one here, its endpoint. */
export interface NewWireguardPeer {
  readonly index: number;
  readonly publicKey: WireguardPublicKey;
  readonly presharedKey: WireguardSecret | undefined;
  /** Undefined leaves it as it is. */
  readonly endpoint: WireguardEndpoint | undefined;
  readonly keepaliveSeconds: number;
  readonly allowedIps: readonly Prefix[];
}

/** The kernel removes a preshared key that is set to this. */
const NO_SECRET = new Uint8Array(WIREGUARD_KEY_BYTES);

/** Body of a `WG_CMD_GET_DEVICE` dump, after the generic header. */
export function writeWireguardQuery(writer: MessageWriter, index: number): void {
  writer.attributeU32(WGDEVICE_A.IFINDEX, index);
}

/** Body of a `WG_CMD_SET_DEVICE` request for the device's own side. */
export function writeWireguardSettings(
  writer: MessageWriter,
  { index, privateKey, listenPort }: WireguardSettings,
): void {
  writer.attributeU32(WGDEVICE_A.IFINDEX, index);
  writer.attributeBytes(WGDEVICE_A.PRIVATE_KEY, clamped(privateKey.bytes));
  writer.attributeU16(WGDEVICE_A.LISTEN_PORT, listenPort);
}

/**
 * The private key as the kernel keeps it (RFC 7748 5): given in any other form, it would be taken for a new one, and every
 * session would end (`wg_set_device()` in drivers/net/wireguard/netlink.c).
 */
function clamped(privateKey: Uint8Array): Uint8Array {
  const bytes = Uint8Array.from(privateKey);
  bytes[0] = (bytes[0] ?? 0) & 0xf8;
  bytes[31] = ((bytes[31] ?? 0) & 0x7f) | 0x40;
  return bytes;
}

/** Body of a `WG_CMD_SET_DEVICE` request that makes or changes one peer. */
export function writeWireguardPeer(writer: MessageWriter, peer: NewWireguardPeer): void {
  writeOnePeer(writer, peer, WGPEER_F.REPLACE_ALLOWEDIPS, () => {
    writer.attributeBytes(WGPEER_A.PRESHARED_KEY, peer.presharedKey?.bytes ?? NO_SECRET);
    if (peer.endpoint !== undefined) writer.attributeBytes(WGPEER_A.ENDPOINT, toSockaddr(peer.endpoint));
    writer.attributeU16(WGPEER_A.PERSISTENT_KEEPALIVE_INTERVAL, peer.keepaliveSeconds);
    writer.nested(WGPEER_A.ALLOWEDIPS, () => {
      for (const prefix of peer.allowedIps) writer.nested(0, () => writeAllowedIp(writer, prefix));
    });
  });
}

/** Body of a `WG_CMD_SET_DEVICE` request that removes one peer; the kernel does not say whether it was there. */
export function writeWireguardPeerRemoval(
  writer: MessageWriter,
  peer: Pick<NewWireguardPeer, 'index' | 'publicKey'>,
): void {
  writeOnePeer(writer, peer, WGPEER_F.REMOVE_ME, () => {});
}

function writeOnePeer(
  writer: MessageWriter,
  { index, publicKey }: Pick<NewWireguardPeer, 'index' | 'publicKey'>,
  flags: number,
  fill: () => void,
): void {
  writer.attributeU32(WGDEVICE_A.IFINDEX, index);
  writer.nested(WGDEVICE_A.PEERS, () => {
    writer.nested(0, () => {
      writer.attributeBytes(WGPEER_A.PUBLIC_KEY, publicKeyToBytes(publicKey));
      writer.attributeU32(WGPEER_A.FLAGS, flags);
      fill();
    });
  });
}

function writeAllowedIp(writer: MessageWriter, { address, family, length }: Prefix): void {
  writer.attributeU16(WGALLOWEDIP_A.FAMILY, family === 4 ? AF.INET : AF.INET6);
  writer.attributeAddress(WGALLOWEDIP_A.IPADDR, address);
  writer.attributeU8(WGALLOWEDIP_A.CIDR_MASK, length);
}

/** `struct sockaddr_in` (family, port, address, 8 zeros) or `sockaddr_in6` (family, port, flow, address, scope). */
function toSockaddr({ address, port }: WireguardEndpoint): Uint8Array {
  const bytes = new Uint8Array(address.family === 4 ? 16 : 28);
  new Uint16Array(bytes.buffer)[0] = address.family === 4 ? AF.INET : AF.INET6;
  new DataView(bytes.buffer).setUint16(2, port);
  bytes.set(address.toBytes(), address.family === 4 ? 4 : 8);
  return bytes;
}

const deviceTable = new AttributeTable(WGDEVICE_A.MAX);
const peerTable = new AttributeTable(WGPEER_A.MAX);
const allowedIpTable = new AttributeTable(WGALLOWEDIP_A.MAX);

/** A peer while its parts come in. */
type GrowingPeer = WireguardPeerInfo & { readonly allowedIps: Prefix[] };

/**
 * One device out of the messages of a `WG_CMD_GET_DEVICE` dump.
 *
 * @remarks The device's own side is in the first message only. Peers that find no room follow in further messages, and a
 * peer whose allowed IPs find none is named again there, with the rest of them and nothing else (`wireguard.h`).
 */
export class WireguardAssembly {
  private publicKey: WireguardPublicKey | undefined;
  private listenPort = 0;
  private readonly peers: GrowingPeer[] = [];

  constructor(private readonly index: number) {}

  /**
   * @param headerBytes - of the generic header, before the attributes.
   * @throws {@link OverlayError} `ERR_NETLINK` if a length contradicts the bytes.
   */
  add(reader: MessageReader, headerBytes: number): void {
    const attributes = deviceTable.parse(reader, reader.start + headerBytes, reader.end);
    this.publicKey ??= keyAt(reader, attributes, WGDEVICE_A.PUBLIC_KEY);
    this.listenPort = attributes.u16(WGDEVICE_A.LISTEN_PORT) ?? this.listenPort;
    eachAttribute(reader, attributes.range(WGDEVICE_A.PEERS), (_, offset, length) => {
      this.addPeer(reader, peerTable.parse(reader, offset, offset + length));
    });
  }

  /** As far as it came in. */
  get device(): WireguardInfo {
    const { index, publicKey, listenPort, peers } = this;
    return { index, publicKey, listenPort, peers };
  }

  private addPeer(reader: MessageReader, attributes: AttributeTable): void {
    const publicKey = keyAt(reader, attributes, WGPEER_A.PUBLIC_KEY);
    if (publicKey === undefined) return; // nobody could tell whose it is
    const allowedIps = readAllowedIps(reader, attributes.range(WGPEER_A.ALLOWEDIPS));
    const last = this.peers.at(-1);
    if (last?.publicKey === publicKey) {
      last.allowedIps.push(...allowedIps);
      return;
    }
    this.peers.push({
      index: this.index,
      publicKey,
      presharedKey: WireguardSecret.fromBytes(bytesAt(reader, attributes, WGPEER_A.PRESHARED_KEY)),
      endpoint: readEndpoint(reader, attributes.range(WGPEER_A.ENDPOINT)),
      keepaliveSeconds: attributes.u16(WGPEER_A.PERSISTENT_KEEPALIVE_INTERVAL) ?? 0,
      allowedIps,
      lastHandshakeMs: readTime(reader, attributes.range(WGPEER_A.LAST_HANDSHAKE_TIME)),
      rxBytes: attributes.u64(WGPEER_A.RX_BYTES) ?? 0,
      txBytes: attributes.u64(WGPEER_A.TX_BYTES) ?? 0,
    });
  }
}

interface Range {
  readonly offset: number;
  readonly length: number;
}

/** Lent: valid until the next receive. */
function bytesIn({ bytes }: MessageReader, { offset, length }: Range): Uint8Array {
  return bytes.subarray(offset, offset + length);
}

function bytesAt(reader: MessageReader, attributes: AttributeTable, type: number): Uint8Array {
  return bytesIn(reader, attributes.range(type));
}

function keyAt(reader: MessageReader, attributes: AttributeTable, type: number): WireguardPublicKey | undefined {
  return publicKeyFromBytes(bytesAt(reader, attributes, type));
}

/** Those that make sense. */
function readAllowedIps(reader: MessageReader, range: Range): Prefix[] {
  const prefixes: Prefix[] = [];
  eachAttribute(reader, range, (_, offset, length) => {
    const attributes = allowedIpTable.parse(reader, offset, offset + length);
    const address = attributes.address(WGALLOWEDIP_A.IPADDR);
    const bits = attributes.u8(WGALLOWEDIP_A.CIDR_MASK);
    if (address === undefined || bits === undefined || bits > (address.family === 4 ? 32 : 128)) return;
    prefixes.push(Prefix.of(address, bits));
  });
  return prefixes;
}

function readEndpoint(reader: MessageReader, { offset, length }: Range): WireguardEndpoint | undefined {
  const family = length < 16 ? undefined : familyOf(bytesIn(reader, { offset, length: 2 }));
  if (family === undefined || (family === 6 && length < 28)) return undefined;
  const at = offset + (family === 4 ? 4 : 8);
  const address = IpAddress.fromBytes(reader.bytes.slice(at, at + (family === 4 ? 4 : 16)));
  return { address, port: reader.view.getUint16(offset + 2) };
}

/** Of a `sa_family_t`, in the byte order of the machine. */
function familyOf(bytes: Uint8Array): Family | undefined {
  const number = new Uint16Array(Uint8Array.from(bytes).buffer)[0];
  return number === AF.INET ? 4 : number === AF.INET6 ? 6 : undefined;
}

/** `struct __kernel_timespec`: seconds and nanoseconds in 64 bits each; zeros before the first handshake. */
function readTime(reader: MessageReader, range: Range): number | undefined {
  if (range.length < 16) return undefined;
  const [seconds = 0n, nanoseconds = 0n] = new BigInt64Array(
    Uint8Array.from(bytesIn(reader, { ...range, length: 16 })).buffer,
  );
  return seconds === 0n && nanoseconds === 0n ? undefined : Number(seconds) * 1000 + Number(nanoseconds) / 1e6;
}
