import type { Offload, OffloadState, TunnelCounters } from '../dataplane/tunnel.js';
import type { SkipCause } from '../backend/backend.js';
import type { CommandsStatus } from '../extension/status.js';
import type { FirewallStatus } from '../firewall/firewall.js';
import type { QuarantineReason } from '../lease/admission.js';
import type { KeeperCounters, KeeperState } from '../lease/keeper.js';
import type { PeerCounters } from '../lease/peers.js';
import type { Family } from '../ip/address.js';
import type { StoreCounters } from '../lease/store.js';
import type { LogLevel } from '../log.js';
import type { Steps } from '../pace.js';
import type { ObjectKind } from '../reconcile/desired.js';
import type { OperationVerb } from '../reconcile/operation.js';
import type { ContainerNetworksStatus } from './container-status.js';
import type { Refusals } from './refusals.js';
import type { ReachState } from '../reach/path-health.js';
import type { ProbeTotals } from '../reach/peer-prober.js';
import type { ProbeLayer } from '../reach/targets.js';
import type { KernelPathStatus, PeerCarrier } from './kernel-path-status.js';
import type { NdpProxyStatus } from './ndp-status.js';
import type { ContainerReachStatus } from './container-reach-status.js';
import type { WireguardPathStatus, WireguardStatus } from './wireguard-status.js';

/**
 * Version of {@link DaemonStatus} as JSON. It grows when a field goes or changes its meaning, not when one is added.
 */
export const STATUS_VERSION = 1;

/**
 * Everything the daemon tells about itself, at one instant; `GET /status` answers with it as JSON.
 *
 * @remarks Plain data: addresses and prefixes are text, instants are ISO 8601 in UTC, what is absent is `null`. Metrics
 * and the status page are derived from it, so whatever one of them shows is in here.
 */
export interface DaemonStatus {
  readonly statusVersion: typeof STATUS_VERSION;
  /** Of the program, such as `v0.1.0`. */
  readonly version: string;
  readonly hostName: string;
  readonly pid: number;
  readonly startedAt: string;
  readonly uptimeSeconds: number;
  /** Lease held, kernel as desired, data plane up. */
  readonly isReady: boolean;
  /** What readiness waits for, one sentence each; empty when ready. */
  readonly notReadyBecause: readonly string[];
  readonly network: NetworkStatus | null;
  readonly lease: LeaseStatus | null;
  readonly underlay: UnderlayStatus | null;
  /** Bytes of the largest packet of a container, as in the subnet file. */
  readonly mtu: number | null;
  /** Backends with devices on this host, the configured one first. */
  readonly backends: readonly string[];
  /** The other hosts in order of their subnets. */
  readonly peers: readonly PeerStatus[];
  readonly peerSet: PeerSetStatus;
  /** What probing the peers gave; null where it is switched off. */
  readonly reachability: ReachabilityStatus | null;
  /** Devices of the overlay with the kernel's counters. */
  readonly devices: readonly DeviceStatus[];
  /** The open userspace tunnels; none unless some host uses the udp backend. */
  readonly tunnels: readonly TunnelStatus[];
  /** Null where no host uses the wireguard backend. */
  readonly wireguard: WireguardStatus | null;
  readonly reconcile: ReconcileStatus;
  readonly firewall: FirewallSummary | null;
  readonly store: StoreStatus;
  readonly subnetFile: SubnetFileStatus;
  /** What the host works with because etcd has not answered since the start; null once it has. */
  readonly savedState: SavedStateStatus | null;
  /** What Docker needs to follow a change of subnet or MTU, as one sentence; null when nothing. */
  readonly dockerHint: string | null;
  /** The latest warnings and errors of the log, oldest first. */
  readonly problems: readonly Problem[];
  readonly requests: RequestStatus;
  /** Containers of routed networks on other hosts; null where networks of containers are not switched on. */
  readonly containerReach: ContainerReachStatus | null;
  /** Networks of containers with addresses of their own; null where they are not switched on. */
  readonly containerNetworks: ContainerNetworksStatus | null;
  /** What is answered for on the uplink; null where `--ndp-proxy` is not given. */
  readonly ndpProxy: NdpProxyStatus | null;
  /** What the commands of backend extension do on this host; null where no such backend is in use. */
  readonly commands: CommandsStatus | null;
}

/** The cluster's configuration in use. */
export interface NetworkStatus {
  readonly ipv4: string | null;
  readonly ipv6: string | null;
  /** Bits of each host's subnet. */
  readonly subnetLen: number | null;
  readonly ipv6SubnetLen: number | null;
  /** `Backend.Type` in lower case. */
  readonly backend: string;
  /** Why the configuration that lies in the store now is not the one in use. */
  readonly rejected: string | null;
}

/** The own lease, held or last held. */
export interface LeaseStatus {
  readonly state: KeeperState;
  readonly subnet: string;
  readonly ipv6Subnet: string | null;
  readonly publicIp: string;
  readonly publicIpv6: string | null;
  readonly backend: string;
  /** Store revision that wrote it. */
  readonly revision: string;
  readonly isReservation: boolean;
  /** Whether etcd tells peers what this host wants to tell. */
  readonly isPublished: boolean;
  /** When another host last wrote over it or renewed it, ISO 8601; null if none ever did. */
  readonly overwrittenAt: string | null;
  /** Keys of others that name addresses of it and are younger; the first hundred of them. */
  readonly rivals: readonly string[];
  /** Since this process holds it. */
  readonly ageSeconds: number;
  /** Until it ends unless it is renewed; null for a reservation. Negative when that time is over. */
  readonly expiresInSeconds: number | null;
  readonly counters: KeeperCounters;
}

/** The real network under the overlay. */
export interface UnderlayStatus {
  readonly device: string;
  readonly ifindex: number;
  readonly mtu: number;
  readonly address: string | null;
  readonly addressV6: string | null;
  readonly publicIp: string | null;
  readonly publicIpv6: string | null;
}

/** Another host seen from here. */
export interface PeerStatus {
  /** As the host announces it; null if it does not. */
  readonly hostName: string | null;
  readonly subnet: string;
  readonly ipv6Subnet: string | null;
  readonly publicIp: string;
  readonly publicIpv6: string | null;
  readonly backend: string;
  readonly isReservation: boolean;
  /** Packets and bytes to and from it; null where the kernel carries them and does not count by peer. */
  readonly traffic: TrafficStatus | null;
  /** Which way packets for it leave, and why; null unless this host is to use the kernel path. */
  readonly carrier: PeerCarrier | null;
  /** What WireGuard knows of it, one entry for each device; none where another backend carries its packets. */
  readonly wireguard: readonly WireguardPathStatus[];
  /** Why it is not reached, and what fixes it. */
  readonly skipped: { readonly cause: SkipCause; readonly reason: string; readonly hint: string } | null;
  /** Whether it answers, one entry for each address family; none for a peer that is not probed. */
  readonly reachability: readonly PathStatus[];
}

/** The way to a peer through the overlay in one address family, as the daemon's probes find it. */
export interface PathStatus {
  readonly family: Family;
  readonly state: ReachState;
  /** When the first of the probes was sent that led to the state; null while it is not known. */
  readonly since: string | null;
  /** Smoothed over some ten answers, with the time that this host's event loop took; null before the first. */
  readonly roundTripSeconds: number | null;
  /** Share of the last 16 probes without an answer, 0 … 1; null before the first. */
  readonly loss: number | null;
  /** What answered the last probe; null if nothing did. */
  readonly answeredBy: ProbeLayer | null;
  /** The address that answered, or else the first that is asked. */
  readonly address: string | null;
  /** Why this host's kernel did not send the last probe, or one echo of it, as an errno's name such as `ENETUNREACH`. */
  readonly errno: string | null;
}

/** All probes of all peers; see {@link ProbeTotals}. */
export interface ReachabilityStatus extends Omit<ProbeTotals, 'error' | 'intervalMs'> {
  /** Why nobody can be probed. */
  readonly error: string | null;
  /** Between two probes of the same peer; longer than configured where there are very many. */
  readonly intervalSeconds: number;
}

/** Inner packets and bytes since the counting device or tunnel exists. `tx` is towards peers. */
export interface TrafficStatus {
  readonly txPackets: number;
  readonly txBytes: number;
  readonly rxPackets: number;
  readonly rxBytes: number;
}

/** A lease that is not believed. */
export interface QuarantinedStatus {
  readonly key: string;
  readonly publicIp: string;
  readonly reason: QuarantineReason;
  readonly detail: string;
}

/** What the peer set is like as a whole. */
export interface PeerSetStatus {
  /** False as long as the peers are those of an earlier run. */
  readonly isSynced: boolean;
  /** Keys among the leases that cannot be read; the first hundred of them. */
  readonly badKeys: readonly string[];
  readonly badKeyCount: number;
  /** Leases that are not believed and not routed; the first hundred of them. */
  readonly quarantined: readonly QuarantinedStatus[];
  readonly quarantinedCounts: Readonly<Record<QuarantineReason, number>>;
  /** Peers that etcd has forgotten, in a wipe or a restore, and that are kept for some minutes. */
  readonly keptCount: number;
  readonly counters: PeerCounters;
}

/** A network device of the overlay; the counters are the kernel's. */
export interface DeviceStatus extends TrafficStatus {
  readonly name: string;
  readonly isUp: boolean;
  readonly mtu: number;
  readonly txDropped: number;
  readonly rxDropped: number;
  readonly txErrors: number;
  readonly rxErrors: number;
}

/** A userspace tunnel. */
export interface TunnelStatus {
  readonly kind: 'native' | 'portable';
  readonly device: string;
  readonly workers: number;
  /** In use now. */
  readonly offloads: OffloadState;
  /** Switched off by the operator, not by the kernel. */
  readonly disabledOffloads: readonly Offload[];
  /** Of the forwarding table that all workers have. */
  readonly generation: number;
  /** With what the kernel path has carried. */
  readonly counters: TunnelCounters;
  /** Null unless this host is to use it. */
  readonly kernelPath: KernelPathStatus | null;
}

/** Whether the kernel is as desired, and what it took. */
export interface ReconcileStatus {
  readonly isConverged: boolean;
  /** What somebody else's objects are in the way of, as sentences with a hint. */
  readonly conflicts: readonly string[];
  readonly failures: readonly { readonly object: string; readonly error: string; readonly attempt: number }[];
  /** Objects that wait for a device. */
  readonly blocked: number;
  readonly runs: number;
  /** Runs that listed everything. */
  readonly dumps: number;
  /** Times the kernel dropped notifications. */
  readonly lostEvents: number;
  readonly changes: Readonly<Record<ObjectKind, Readonly<Record<OperationVerb, number>>>>;
  /** Changes of others that were reverted. */
  readonly drift: Readonly<Record<ObjectKind, number>>;
  /** Attempts that failed, retries included. */
  readonly failed: Readonly<Record<ObjectKind, number>>;
  readonly lastRunMs: number;
}

/** The packet filter's rules; see {@link FirewallStatus}. */
export interface FirewallSummary extends Omit<FirewallStatus, 'mode' | 'lastError'> {
  readonly mode: NonNullable<FirewallStatus['mode']> | null;
  readonly lastError: string | null;
}

/** How the store is doing. */
export interface StoreStatus {
  readonly isConnected: boolean;
  /** Which endpoint answered last. */
  readonly endpoint: string | null;
  readonly error: string | null;
  readonly counters: StoreCounters;
}

/** The file that Docker and the CNI plugin read. */
export interface SubnetFileStatus {
  readonly path: string;
  /** When it was written by this process; null before. */
  readonly writtenAt: string | null;
  readonly error: string | null;
}

/** The state of an earlier process, in use until etcd confirms the lease. */
export interface SavedStateStatus {
  readonly subnet: string;
  /** Null where an earlier version saved it, which did not write when. */
  readonly savedAt: string | null;
  /** Null for a reservation, and where that is not known. */
  readonly leaseEndsAt: string | null;
  /** Why nothing is sent to other hosts; null if it is. */
  readonly isolatedBecause: string | null;
}

/** Requests to the server that answers with this. */
export interface RequestStatus {
  readonly refused: Refusals;
}

/** A line of the log that asks for attention. */
export interface Problem {
  readonly at: string;
  readonly level: Extract<LogLevel, 'error' | 'warn'>;
  readonly message: string;
  /** The line's other fields as text, such as `dev=flannel.1`. */
  readonly detail: string;
  readonly hint: string | null;
  /** When a later line said that it is over; null as long as none did. */
  readonly resolvedAt: string | null;
}

/** What happened in one step of the traffic history, as rates: packets and bits per second, `tx` towards peers. */
export interface HistoryEntry {
  /** End of the step in milliseconds since the epoch. */
  readonly at: number;
  readonly txPps: number;
  readonly rxPps: number;
  readonly txBps: number;
  readonly rxBps: number;
  /** Packets per second by reason; those that are 0 are left out. */
  readonly drops: Readonly<Record<string, number>>;
  /** Mean time in which etcd answered; null if it was not asked. */
  readonly etcdMs: number | null;
}

/** Where the status comes from; asked once per request, so it has to be cheap. */
export interface StatusSource {
  /** With rests: of thousands of peers, what comes later may be younger. */
  status(): Steps<DaemonStatus>;
  /** Traffic of the last hour, oldest first; absent where nobody keeps it. */
  history?(): readonly HistoryEntry[];
  /** A person looks: brings up to date, for the next look, what only people need. */
  noteLook?(): void;
}
