import type { IpAddress } from '../ip/address.js';
import type { Prefix } from '../ip/prefix.js';
import { OverlayError } from '../errors.js';
import type { DropReason } from './tunnel.js';
import type { TunnelPeer, VerifySource } from './tunnel-spec.js';

/**
 * Who gets what, and who may send what: an immutable table made from one set of peers.
 *
 * Addresses are unsigned numbers or, for hosts, text as `dgram` has it.
 */
export class ForwardingTable {
  /** One map per prefix length in use, longest first: network address → public IP of the host. */
  private readonly levels: readonly { readonly mask: number; readonly hosts: ReadonlyMap<number, string> }[];
  private readonly senders: ReadonlySet<string>;
  private readonly own: readonly { readonly network: number; readonly mask: number }[];

  /**
   * @param ownPrefixes - inner sources that only this host uses.
   * @throws {@link OverlayError} `ERR_TUNNEL` if a peer is not IPv4: the wire format has room for nothing else.
   */
  constructor(peers: readonly TunnelPeer[], ownPrefixes: readonly Prefix[]) {
    const levels = new Map<number, Map<number, string>>();
    for (const { subnet, publicIp } of peers) {
      const hosts = levels.get(subnet.length) ?? new Map<number, string>();
      levels.set(subnet.length, hosts.set(networkOf(subnet), hostOf(publicIp)));
    }
    this.levels = [...levels].sort(([a], [b]) => b - a).map(([length, hosts]) => ({ mask: maskOf(length), hosts }));
    this.own = ownPrefixes.map((prefix) => ({ network: networkOf(prefix), mask: maskOf(prefix.length) }));
    this.senders = new Set(peers.map(({ publicIp }) => publicIp.toString()));
  }

  /** Public IP of the host with the longest prefix that covers the address. */
  lookup(address: number): string | undefined {
    for (const { mask, hosts } of this.levels) {
      const host = hosts.get((address & mask) >>> 0);
      if (host !== undefined) return host;
    }
    return undefined;
  }

  /** Whether that host holds a lease. */
  isSender(host: string): boolean {
    return this.senders.has(host);
  }

  /** Whether datagrams from that outer source are taken at all. */
  checkSender(mode: VerifySource, host: string): DropReason | undefined {
    return mode === 'off' || this.senders.has(host) ? undefined : 'source-unknown';
  }

  /** Whether that host may send packets with that source address. */
  checkInnerSource(mode: VerifySource, host: string, innerSource: number): DropReason | undefined {
    if (mode === 'off') return undefined;
    const isOwn = this.own.some(({ network, mask }) => (innerSource & mask) >>> 0 === network);
    return isOwn || (mode === 'strict' && this.lookup(innerSource) !== host) ? 'source-spoofed' : undefined;
  }
}

function maskOf(length: number): number {
  return length === 0 ? 0 : (-1 << (32 - length)) >>> 0;
}

function networkOf(subnet: Prefix): number {
  if (subnet.family !== 4) throw notIpv4(subnet.toString());
  return Number(subnet.address.value);
}

function hostOf(publicIp: IpAddress): string {
  if (publicIp.family !== 4) throw notIpv4(publicIp.toString());
  return publicIp.toString();
}

function notIpv4(what: string): OverlayError {
  return new OverlayError('ERR_TUNNEL', `cannot forward to ${what}: the udp backend carries IPv4 only`);
}
