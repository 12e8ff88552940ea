import type { IpAddress } from '../ip/address.js';
import type { MacAddress } from '../ip/mac.js';
import type { Lease, LeaseAttributes } from '../lease/lease.js';
import type { NetworkConfig } from '../config/network-config.js';
import type { DesiredState } from '../reconcile/desired.js';
import type { Underlay } from '../underlay/underlay.js';

/** What a backend may know of the host besides leases; everything that would otherwise be I/O. */
export interface HostFacts {
  readonly underlay: Underlay;
  /** Name for the TUN device, such as `flannel0`. */
  readonly tunDevice: string;
  /** MAC of the VXLAN device with that name: the existing device's, else derived from the host's identity. */
  readonly vtepMac: (device: string) => MacAddress;
  /** Whether the kernel reaches the address without a gateway, over the underlay device. */
  readonly isOnLink: (address: IpAddress) => boolean;
}

/** Input of {@link Backend.desired}. */
export interface BackendContext {
  readonly network: NetworkConfig;
  readonly host: HostFacts;
  readonly own: Lease;
  /** Leases of the other hosts that name this backend. */
  readonly peers: readonly Lease[];
  /** Whether the network configuration names this backend; if not, only some peers are reached by it. */
  readonly isOwn: boolean;
}

/** A peer that cannot be reached, and why, for one log line and one gauge. */
export interface SkippedPeer {
  readonly lease: Lease;
  /** What is wrong, as *what: why*. */
  readonly reason: string;
  readonly hint: string;
}

/** What {@link Backend.desired} returns. */
export interface BackendState {
  readonly state: DesiredState;
  readonly skipped: readonly SkippedPeer[];
}

/** A strategy that carries packets between hosts. Pure: no I/O, no clock, no chance. */
export interface Backend {
  /** `Backend.Type` in lower case. */
  readonly type: string;
  /**
   * Checks the keys inside `Backend` that this backend reads.
   *
   * @throws {@link OverlayError} `ERR_BACKEND_OPTION`
   */
  checkOptions(network: NetworkConfig): void;
  /** MTU for containers, as written to subnet.env. */
  mtu(network: NetworkConfig, underlay: Underlay): number;
  /** What the own lease says about this backend. */
  leaseData(
    network: NetworkConfig,
    host: HostFacts,
  ): Pick<LeaseAttributes, 'backendType' | 'backendData' | 'backendV6Data'>;
  /** What the kernel must look like for these peers. */
  desired(context: BackendContext): BackendState;
}
