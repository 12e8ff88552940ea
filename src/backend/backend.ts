import type { NetworkConfig } from '../config/network-config.js';
import type { IpAddress } from '../ip/address.js';
import type { MacAddress } from '../ip/mac.js';
import type { JsonValue } from '../json.js';
import type { Lease, LeaseAttributes } from '../lease/lease.js';
import type { DesiredState } from '../reconcile/desired.js';
import type { Underlay } from '../underlay/underlay.js';

/** The keys of `Backend` in lower case; empty for a backend that only some peers use. */
export type BackendOptions = Readonly<Record<string, JsonValue>>;

/** What a backend may know of the host besides leases; everything that would otherwise be I/O. */
export interface HostFacts {
  readonly underlay: Underlay;
  /** Name for the TUN device, such as `flannel0`. */
  readonly tunDevice: string;
  /** MAC of the VXLAN device with that name: the existing or last published one, else derived from the host's identity. */
  readonly vtepMac: (device: string) => MacAddress;
  /** Whether the kernel reaches the address without a gateway, over the underlay device. */
  readonly isOnLink: (address: IpAddress) => boolean;
}

/** Input of {@link Backend.base} and {@link Backend.peer}. */
export interface BackendContext {
  readonly network: NetworkConfig;
  readonly options: BackendOptions;
  readonly host: HostFacts;
  readonly own: Lease;
  /** Leases of all other hosts, whatever backend they name. */
  readonly peers: readonly Lease[];
  /** Whether the network configuration names this backend; if not, it only serves the peers that still (or already) do. */
  readonly isOwn: boolean;
}

/**
 * Why a peer is not reached: its public address is missing or unusable, it is behind a router, its backend data is not
 * valid, another host has its VTEP MAC, or this daemon lacks its backend.
 */
export const SKIP_CAUSES = ['address', 'off-link', 'data', 'vtep-mac', 'backend'] as const;

/** One of {@link SKIP_CAUSES}; the `cause` label of metrics. */
export type SkipCause = (typeof SKIP_CAUSES)[number];

/** A peer that cannot be reached, and why, for one log line and one gauge. */
export interface SkippedPeer {
  readonly lease: Lease;
  readonly cause: SkipCause;
  /** What is wrong, as *what: why*. */
  readonly reason: string;
  readonly hint: string;
}

/** Something that the kernel can give to one peer only. */
export interface Claim {
  /** Equal for those who claim the same: `VtepMAC 02:… (flannel.1)`. */
  readonly what: string;
  /** For those who do not get it. */
  readonly cause: SkipCause;
  readonly hint: string;
}

/** What one peer adds to the state of the host. */
export interface PeerState {
  readonly state: Partial<DesiredState>;
  /** What it must have alone: where several claim the same, one of them is reached. */
  readonly claims?: readonly Claim[];
  readonly skipped?: SkippedPeer;
  /** Device of this host whose MAC address the peer published before this host did. */
  readonly contestedDevice?: string;
}

/** What the own lease says about the backend in use. */
export type LeaseData = Pick<LeaseAttributes, 'backendType' | 'backendData' | 'backendV6Data'>;

/**
 * A strategy that carries packets between hosts.
 *
 * @remarks Pure: no I/O, no clock, no chance. The host's state is `base` plus `peer` for each lease that names this
 * backend; the two are apart so that one changed peer among thousands costs one call.
 */
export interface Backend {
  /** `Backend.Type` in lower case. */
  readonly type: string;
  /**
   * Checks the keys inside `Backend` that this backend reads, and that the host can run it.
   *
   * @throws {@link OverlayError} `ERR_BACKEND_OPTION`, `ERR_BACKEND_HOST`
   */
  check(network: NetworkConfig, options: BackendOptions, underlay: Underlay): void;
  /** MTU for containers, as written to subnet.env. */
  mtu(network: NetworkConfig, options: BackendOptions, underlay: Underlay): number;
  /** Whether {@link HostFacts.isOnLink} decides how, or whether, a peer is reached. */
  asksOnLink(options: BackendOptions): boolean;
  leaseData(network: NetworkConfig, options: BackendOptions, host: HostFacts): LeaseData;
  /** Devices and whatever else does not belong to one peer. */
  base(context: BackendContext): Partial<DesiredState>;
  /** Routes, neighbours and forwarding entries towards one peer whose lease names this backend. */
  peer(context: BackendContext, lease: Lease): PeerState;
}

/** Lease data of the backends that publish nothing, as flannel's udp backend writes it. */
export const NO_LEASE_DATA: LeaseData = { backendType: '', backendData: undefined, backendV6Data: undefined };
