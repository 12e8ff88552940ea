import type { IpAddress } from '../ip/address.js';
import type { Prefix } from '../ip/prefix.js';

/** How strictly the sender of a datagram is checked (`Backend.VerifySource`). */
export type VerifySource = 'off' | 'outer' | 'strict';

/** Where datagrams for a subnet go. */
export interface TunnelPeer {
  readonly subnet: Prefix;
  /** Outer IPv4 destination. */
  readonly publicIp: IpAddress;
  /** Its kernel takes datagrams apart, and it is on the link of the uplink: this host's kernel may send to it. Default false. */
  readonly isKernelPeer?: boolean;
}

/** The device that carries a tunnel's datagrams. */
export interface TunnelUplink {
  readonly device: string;
  readonly index: number;
}

/** A userspace tunnel: TUN device, UDP socket and forwarding table. Identity: `device`. */
export interface TunnelSpec {
  readonly device: string;
  /** Address the UDP socket is bound to; outer source of everything sent. */
  readonly bindAddress: IpAddress;
  /** 1…65535, the same at every peer. */
  readonly port: number;
  /** Bytes of the largest inner packet. */
  readonly mtu: number;
  readonly verifySource: VerifySource;
  /** Source address of the ICMP errors the tunnel sends. */
  readonly icmpSource: IpAddress;
  /** Inner sources that only this host uses: what claims to come from them came from somebody else. */
  readonly ownPrefixes: readonly Prefix[];
  readonly peers: readonly TunnelPeer[];
  /** Only where the kernel is to carry what it can; absent where the tunnel carries everything. */
  readonly uplink?: TunnelUplink;
}
