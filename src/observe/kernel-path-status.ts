import type { KernelCounters, KernelPathReason, KernelReceiver } from '../dataplane/kernel-path.js';

/** Whether the kernel carries packets beside a tunnel. */
export interface KernelPathStatus {
  readonly isActive: boolean;
  /** What takes datagrams off the uplink; null while nothing does. */
  readonly receiver: KernelReceiver | null;
  /** Why the kernel carries nothing, and whether `--datapath=kernel` asked it to; null where it does, and before it is known. */
  readonly refused: {
    readonly isDemanded: boolean;
    readonly reason: KernelPathReason;
    readonly detail: string;
    readonly hint: string;
  } | null;
  /** What became of packets at the programs; null while they are not attached. */
  readonly counters: KernelCounters | null;
}

/**
 * Why packets for a peer leave through the tunnel:
 *
 * - `refused`: the kernel of this host carries nothing, or not yet; its tunnel's status says why
 * - `not-announced`: the peer does not say that its kernel takes datagrams apart
 * - `off-link`: it is not on the link of the uplink: behind a router, or another device; or its route has a smaller MTU
 */
export type TunnelledBecause = 'refused' | 'not-announced' | 'off-link';

/** Which way packets for a peer leave. */
export type PeerCarrier =
  { readonly carrier: 'kernel' } | { readonly carrier: 'tunnel'; readonly because: TunnelledBecause };
