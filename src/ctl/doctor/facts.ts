import type { NetworkConfig } from '../../config/network-config.js';
import type { PreviousSubnetEnv } from '../../docker/subnet-env.js';
import type { SavedTables } from '../../firewall/iptables-plan.js';
import type { FirewallFinding } from '../../firewall/findings.js';
import type { Prefix } from '../../ip/prefix.js';
import type { AddressInfo } from '../../netlink/address.js';
import type { LinkInfo } from '../../netlink/link.js';
import type { RouteInfo } from '../../netlink/route.js';
import type { DaemonStatus } from '../../observe/status.js';
import type { LeaseRow } from '../lease-rows.js';

/**
 * What came back from a peer's side:
 *
 * - `underlay`: an echo with few bytes to the public address
 * - `underlayFull`: one that fills the underlay's MTU and must not be fragmented
 * - `overlay`: an echo to the peer's own address in the overlay, carried by the backend
 * - `tcp`, `udp`: whether the peer's kernel refuses a connection there, which shows that it gets such packets intact
 */
export interface PeerProbe {
  readonly lease: LeaseRow;
  readonly underlay: boolean;
  readonly underlayFull: boolean;
  /** Largest packet that reaches the public address whole, where the full one does not. */
  readonly pathMtu: number | undefined;
  /** Undefined where the backend gives the peer no address that answers. */
  readonly overlay: boolean | undefined;
  readonly tcp: boolean | undefined;
  readonly udp: boolean | undefined;
}

/** Everything the checks look at; gathered once, so that they are pure. */
export interface DoctorFacts {
  readonly etcdPrefix: string;
  readonly etcdEndpoints: readonly string[];
  /** Why etcd could not be asked. */
  readonly storeError: string | undefined;
  /** Undefined if there is none or it is not valid; `configError` tells which. */
  readonly network: NetworkConfig | undefined;
  readonly configError: string | undefined;
  readonly leases: readonly LeaseRow[];
  /** Seconds that this host's clock is ahead of etcd's. */
  readonly clockAheadSeconds: number | undefined;
  readonly daemon: DaemonStatus | undefined;
  readonly daemonError: string | undefined;
  readonly statusSocket: string;
  readonly subnetFile: string;
  readonly env: PreviousSubnetEnv | undefined;
  readonly links: readonly LinkInfo[];
  readonly addresses: readonly AddressInfo[];
  /** Of the main table. */
  readonly routes: readonly RouteInfo[];
  /** By path below `/proc/sys`. */
  readonly sysctls: ReadonlyMap<string, string>;
  /** IPv4; undefined where iptables is not installed. */
  readonly iptables: SavedTables | undefined;
  readonly bridgeNetfilter: FirewallFinding | undefined;
  /** Device, index and MTU that packets to peers leave through. */
  readonly underlay: { readonly device: string; readonly mtu: number } | undefined;
  /** The own lease, by the subnet file or the public address. */
  readonly own: LeaseRow | undefined;
  readonly probes: readonly PeerProbe[];
  /** Why no peer was probed, or not all of them. */
  readonly probeNote: string | undefined;
}

/** How bad a finding is: `error` something does not work, `warning` it will not for long or not for all, `note` good to know. */
export type Severity = 'error' | 'warning' | 'note';

/** Something wrong on this host, with what shows it and what mends it. */
export interface Finding {
  readonly check: string;
  readonly severity: Severity;
  readonly message: string;
  /** What was seen. */
  readonly evidence: string;
  /** The command that mends it. */
  readonly command: string;
}

/** One thing to look for. */
export interface Check {
  readonly id: string;
  /** What it looks for, for the manual. */
  readonly title: string;
  run(facts: DoctorFacts): readonly Omit<Finding, 'check'>[];
}

/** The overlay's IPv4 network, from etcd or else from the subnet file. */
export function overlayNetwork({ network, env }: DoctorFacts): Prefix | undefined {
  return network?.ipv4?.network ?? env?.network;
}
