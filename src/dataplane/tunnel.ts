import type { KernelPath, KernelPathDescriptors, KernelPathState } from './kernel-path.js';
import type { TunnelSpec } from './tunnel-spec.js';

/** Kernel features that make the tunnel fast; each is probed at start and can be forced off. */
export const OFFLOADS = ['vnetHdr', 'tso', 'uso', 'udpSegment', 'udpGro', 'tcpMerge', 'udpMerge', 'batch'] as const;

/**
 * - `vnetHdr`: reads and writes of the TUN carry a `virtio_net_hdr` (checksums may be left to the other side)
 * - `tso`, `uso`: the TUN hands over TCP / UDP super-packets (`TUNSETOFFLOAD`; USO needs 6.2)
 * - `udpSegment`: one send carries many datagrams of equal size (`UDP_SEGMENT`, 4.18)
 * - `udpGro`: one receive brings many datagrams (`UDP_GRO`, 5.0)
 * - `tcpMerge`, `udpMerge`: consecutive segments of a flow are written to the TUN as one packet
 * - `batch`: `recvmmsg` / `sendmmsg` instead of one call per datagram
 */
export type Offload = (typeof OFFLOADS)[number];

/** Which offloads are in use. */
export type OffloadState = Readonly<Record<Offload, boolean>>;

/**
 * Why a packet was not forwarded. The names are the `reason` label of the drop counter, which counts inner packets: a
 * super-packet from the TUN as the packets it would have become, unless it is too broken to tell, and a datagram as one.
 */
export const DROP_REASONS = [
  'short', // fewer bytes than an IPv4 header
  'not-ipv4', // version nibble is not 4
  'bad-header', // IHL or total length contradict the packet
  'length-mismatch', // datagram and inner total length differ
  'oversize', // longer than the MTU, or than the path to the peer
  'ttl-expired',
  'no-route', // no lease covers the destination
  'source-unknown', // outer source holds no lease (VerifySource outer, strict)
  'source-spoofed', // inner source of this host (VerifySource outer, strict), or outside the sender's subnet (strict)
  'receive-overflow', // discarded by the kernel at the socket: its queue was full, or the outer checksum wrong
  'send-error', // the socket refused it for good
  'send-blocked', // the socket stayed full
  'tun-error', // the device refused it for good
  'tun-blocked', // the device's queue stayed full
] as const;

/** One of {@link DROP_REASONS}. */
export type DropReason = (typeof DROP_REASONS)[number];

/** ICMP errors that the tunnel answers containers with: RFC 792, type 3 code 0, type 11 code 0, type 3 code 4. */
export const ICMP_ERRORS = ['unreachable-net', 'time-exceeded', 'frag-needed'] as const;

/** One of {@link ICMP_ERRORS}. */
export type IcmpErrorName = (typeof ICMP_ERRORS)[number];

/** Number of buckets in the histograms of {@link TunnelCounters}: 1, 2, 3–4, 5–8, … up to 65–128 and more. */
export const BATCH_BUCKETS = 9;

/** Running totals since the tunnel was opened, summed over workers. Directions as seen from this host's overlay. */
export interface TunnelCounters {
  /** Inner packets and their bytes sent to peers. */
  readonly txPackets: number;
  readonly txBytes: number;
  /** Inner packets and their bytes written to the TUN. */
  readonly rxPackets: number;
  readonly rxBytes: number;
  /** System calls by kind. */
  readonly tunReads: number;
  readonly tunWrites: number;
  readonly socketSends: number;
  readonly socketReceives: number;
  /** ICMP errors sent to containers. */
  readonly icmpSent: Readonly<Record<IcmpErrorName, number>>;
  /** ICMP errors that the rate limit held back. */
  readonly icmpLimited: number;
  /** ICMP errors that the kernel did not take, such as one to a source that it has no route to. */
  readonly icmpFailed: number;
  readonly drops: Readonly<Record<DropReason, number>>;
  /** Times an offload was switched off at run time because the kernel refused it. */
  readonly downgrades: Readonly<Record<Offload, number>>;
  /** Times an offload was switched on again to see whether the kernel takes it now. */
  readonly trials: Readonly<Record<Offload, number>>;
  /** Histograms with {@link BATCH_BUCKETS} buckets: inner packets per TUN read, per socket send, per TUN write. */
  readonly packetsPerRead: readonly number[];
  readonly packetsPerSend: readonly number[];
  readonly packetsPerWrite: readonly number[];
  /** CPU time of each worker thread in seconds. */
  readonly workerCpuSeconds: readonly number[];
}

/** Per-peer totals, keyed by public IP. */
export interface TunnelPeerCounters {
  readonly txPackets: number;
  readonly txBytes: number;
  readonly rxPackets: number;
  readonly rxBytes: number;
}

/** Something the tunnel tells about itself, at most once per change. */
export type TunnelEvent =
  | { readonly type: 'downgrade'; readonly offload: Offload; readonly errno: string }
  /** An offload that was switched off is in use again, until the kernel refuses it again. */
  | { readonly type: 'trial'; readonly offload: Offload }
  /** The kernel begins, or has ceased, to carry packets beside the tunnel, or does not for another reason than before. */
  | { readonly type: 'kernel-path'; readonly state: KernelPathState }
  /** The TUN or the socket is dead (device deleted, descriptor invalid); the tunnel must be replaced. */
  | { readonly type: 'failed'; readonly operation: string; readonly errno: string };

/** What is fixed for the life of a tunnel. */
export interface TunnelOptions {
  readonly spec: TunnelSpec;
  /** 0 chooses: one below 4 CPUs, else up to 4. */
  readonly workers: number;
  /** Offloads that must not be used even where the kernel has them. */
  readonly disabledOffloads: readonly Offload[];
  readonly onEvent: (event: TunnelEvent) => void;
  /** Descriptors kept by the service manager over a restart; used instead of opening new ones when they still fit. */
  readonly inherited?: InheritedTunnel;
}

/** Descriptors by what they are; those of the kernel path only where it was in use. */
export interface InheritedTunnel {
  readonly tun: readonly number[];
  readonly socket: readonly number[];
  readonly kernelPath?: KernelPathDescriptors;
}

/**
 * Carries packets between a TUN device and a UDP socket.
 *
 * Control: whole tables go in ({@link Tunnel.update}), a generation comes back; packets never pass through here.
 * Errors: opening throws {@link OverlayError}; later trouble arrives as {@link TunnelEvent}.
 */
export interface Tunnel {
  readonly kind: 'native' | 'portable';
  /** Name of the device the kernel gave. */
  readonly device: string;
  readonly offloads: OffloadState;
  readonly workers: number;
  /**
   * Takes over peers, MTU, source check, own addresses and ICMP source of the new state; the workers adopt them between two batches.
   *
   * @returns false if address, port or device differ: then the tunnel has to be opened anew.
   */
  update(spec: TunnelSpec): boolean;
  /** Generation of the forwarding table that every worker has adopted. */
  readonly generation: number;
  counters(): TunnelCounters;
  peerCounters(): ReadonlyMap<string, TunnelPeerCounters>;
  /** Descriptors for the service manager's store. */
  descriptors(): { readonly tun: readonly number[]; readonly socket: readonly number[] };
  /** Absent where the kernel is not to carry anything. */
  readonly kernelPath?: KernelPath;
  /**
   * Stops the workers and closes the descriptors, which removes the device. Idempotent.
   *
   * @param isProcessEnding - what the service manager keeps for the next process goes on. Default false.
   */
  close(isProcessEnding?: boolean): Promise<void>;
}

/** Opens a tunnel; the device exists, without address and down, when it resolves. */
export type OpenTunnel = (options: TunnelOptions) => Promise<Tunnel>;
