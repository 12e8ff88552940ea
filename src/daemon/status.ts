import type { OverlayResult } from '../backend/overlay-state.js';
import type { Clock } from '../clock.js';
import type { NetworkConfig } from '../config/network-config.js';
import { versionText } from '../config/version.js';
import type { Offload, Tunnel, TunnelPeerCounters } from '../dataplane/tunnel.js';
import { describeError } from '../errors.js';
import type { CommandsStatus } from '../extension/status.js';
import type { RuleKeeper } from '../firewall/firewall.js';
import type { HostNames } from '../lease/host-names.js';
import type { LeaseKeeper } from '../lease/keeper.js';
import { type Lease, backendOf } from '../lease/lease.js';
import { QUARANTINE_REASONS, type QuarantineReason, type Quarantined } from '../lease/admission.js';
import type { PeerCounters, PeerSet } from '../lease/peers.js';
import type { WorldStore } from '../lease/store.js';
import type { DeviceCounters } from '../netlink/device-counters.js';
import type { ContainerNetworksStatus } from '../observe/container-status.js';
import type { HistorySource } from '../observe/history.js';
import type { Refusals } from '../observe/refusals.js';
import {
  type DaemonStatus,
  type DeviceStatus,
  type LeaseStatus,
  type NetworkStatus,
  type PeerStatus,
  type ReconcileStatus,
  STATUS_VERSION,
  type SavedStateStatus,
  type StoreStatus,
  type SubnetFileStatus,
  type TunnelStatus,
  type UnderlayStatus,
} from '../observe/status.js';
import type { Steps } from '../pace.js';
import { describeAspect } from '../reconcile/aspects.js';
import type { Reconciler } from '../reconcile/reconciler.js';
import type { HostNetlink } from '../underlay/host-network.js';
import type { Underlay } from '../underlay/underlay.js';
import type { PeerProber } from '../reach/peer-prober.js';
import { describeKernelPath, peerCarriers } from './kernel-path-status.js';
import type { LoggedProblem } from './problem-log.js';
import { describePaths, describeReachability } from './reachability-status.js';
import type { NdpProxyStatus } from '../observe/ndp-status.js';
import type { ContainerReachState } from './container-reach.js';
import { describeContainerReach } from './container-reach-status.js';
import type { WireguardSamples } from './wireguard-samples.js';

/** The parts of the daemon that the status is read from; undefined is what does not exist yet. */
export interface StatusParts {
  readonly clock: Clock;
  readonly pid: number;
  readonly hostName: string;
  readonly startedAtMs: number;
  readonly notReadyBecause: readonly string[];
  readonly network: NetworkConfig | undefined;
  readonly rejectedConfig: string | undefined;
  readonly keeper: LeaseKeeper | undefined;
  readonly underlay: Underlay | undefined;
  readonly mtu: number | undefined;
  readonly overlay: OverlayResult | undefined;
  readonly peers: readonly Lease[];
  readonly peerSet: PeerSet | undefined;
  /** Undefined where probes are switched off. */
  readonly prober: PeerProber | undefined;
  readonly netlink: HostNetlink;
  readonly deviceCounters: () => ReadonlyMap<string, DeviceCounters>;
  readonly reconciler: Reconciler;
  readonly disabledOffloads: readonly Offload[];
  readonly firewall: RuleKeeper;
  readonly store: WorldStore;
  readonly subnetFile: SubnetFileStatus;
  readonly savedState: SavedStateStatus | null;
  readonly dockerHint: string | undefined;
  readonly problems: readonly LoggedProblem[];
  readonly hostNames: Pick<HostNames, 'nameOf'>;
  readonly wireguard: Pick<WireguardSamples, 'status' | 'pathsTo'>;
  readonly refused: Refusals;
  /** Undefined where networks of containers are not switched on. */
  readonly containerReach: ContainerReachState | undefined;
  /** Likewise. */
  readonly containers: ContainerNetworksStatus | undefined;
  /** Undefined where it is not switched on. */
  readonly ndpProxy: NdpProxyStatus | undefined;
  readonly commands: CommandsStatus | null;
}

/** Puts the daemon's account of itself together, peer by peer; cheap enough for every scrape. */
export function* describeDaemon(parts: StatusParts): Steps<DaemonStatus> {
  const { clock, network, overlay, peerSet, firewall } = parts;
  const firewallStatus = firewall.status();
  const peers = yield* describePeers(parts);
  return {
    statusVersion: STATUS_VERSION,
    version: versionText(),
    hostName: parts.hostName,
    pid: parts.pid,
    startedAt: new Date(parts.startedAtMs).toISOString(),
    uptimeSeconds: (clock.wallMs() - parts.startedAtMs) / 1000,
    isReady: parts.notReadyBecause.length === 0,
    notReadyBecause: parts.notReadyBecause,
    network: network === undefined ? null : describeNetwork(network, parts.rejectedConfig),
    lease: describeLease(parts.keeper, clock),
    underlay: parts.underlay === undefined ? null : describeUnderlay(parts.underlay),
    mtu: parts.mtu ?? null,
    backends: overlay?.backends ?? [],
    peers,
    peerSet: {
      isSynced: peerSet?.isSynced ?? false,
      badKeys: (peerSet?.badEntries ?? []).slice(0, MAX_LISTED).map(({ key }) => key),
      badKeyCount: peerSet?.badEntries.length ?? 0,
      quarantined: (peerSet?.quarantined ?? []).slice(0, MAX_LISTED).map(({ key, lease, reason, detail }) => {
        return { key, publicIp: lease.attributes.publicIp.toString(), reason, detail };
      }),
      quarantinedCounts: countReasons(peerSet?.quarantined ?? []),
      keptCount: peerSet?.kept.length ?? 0,
      counters: peerSet?.counters ?? NO_PEER_COUNTERS,
    },
    reachability: describeReachability(parts.prober),
    ...describeTraffic(parts),
    wireguard: parts.wireguard.status ?? null,
    reconcile: describeReconciler(parts.reconciler),
    firewall:
      firewallStatus.mode === undefined
        ? null
        : { ...firewallStatus, mode: firewallStatus.mode, lastError: firewallStatus.lastError ?? null },
    subnetFile: parts.subnetFile,
    savedState: parts.savedState,
    dockerHint: parts.dockerHint ?? null,
    problems: parts.problems,
    requests: { refused: parts.refused },
    containerReach: parts.containerReach === undefined ? null : describeContainerReach(parts.containerReach),
    containerNetworks: parts.containers ?? null,
    ndpProxy: parts.ndpProxy ?? null,
    commands: parts.commands,
  };
}

/** The part of {@link describeDaemon} that {@link History} is made of. */
export function describeTraffic(
  parts: Pick<StatusParts, 'overlay' | 'netlink' | 'deviceCounters' | 'reconciler' | 'disabledOffloads' | 'store'>,
): HistorySource {
  return {
    devices: describeDevices(parts),
    tunnels: parts.reconciler.tunnels.map((tunnel) => describeTunnel(tunnel, parts.disabledOffloads)),
    store: describeStore(parts.store),
  };
}

function describeStore(store: WorldStore): StoreStatus {
  const { health } = store;
  return {
    isConnected: health.isConnected,
    endpoint: health.endpoint ?? null,
    error: health.error === undefined ? null : describeError(health.error),
    counters: store.counters(),
  };
}

function describeNetwork(network: NetworkConfig, rejected: string | undefined): NetworkStatus {
  return {
    ipv4: network.ipv4?.network.toString() ?? null,
    ipv6: network.ipv6?.network.toString() ?? null,
    subnetLen: network.ipv4?.subnetLen ?? null,
    ipv6SubnetLen: network.ipv6?.subnetLen ?? null,
    backend: network.backendType,
    rejected: rejected ?? null,
  };
}

function describeLease(keeper: LeaseKeeper | undefined, clock: Clock): LeaseStatus | null {
  const lease = keeper?.lease;
  if (keeper === undefined || lease === undefined) return null;
  const now = clock.monotonicMs();
  const { heldSinceMs, expiresAtMs, state, counters } = keeper;
  return {
    state,
    ...describeSubnets(lease),
    revision: lease.revision,
    isPublished: keeper.isPublished,
    overwrittenAt: keeper.overwrittenAtMs === undefined ? null : new Date(keeper.overwrittenAtMs).toISOString(),
    rivals: keeper.rivals.slice(0, MAX_LISTED),
    ageSeconds: heldSinceMs === undefined ? 0 : (now - heldSinceMs) / 1000,
    expiresInSeconds: expiresAtMs === undefined ? null : (expiresAtMs - now) / 1000,
    counters,
  };
}

function describeSubnets(
  lease: Lease,
): Pick<PeerStatus, 'subnet' | 'ipv6Subnet' | 'publicIp' | 'publicIpv6' | 'backend' | 'isReservation'> {
  return {
    subnet: lease.subnet.toString(),
    ipv6Subnet: lease.ipv6Subnet?.toString() ?? null,
    publicIp: lease.attributes.publicIp.toString(),
    publicIpv6: lease.attributes.publicIpv6?.toString() ?? null,
    backend: backendOf(lease.attributes),
    isReservation: lease.isReservation,
  };
}

function describeUnderlay(underlay: Underlay): UnderlayStatus {
  const { device, ifindex, mtu, address, addressV6, publicIp, publicIpv6 } = underlay;
  return {
    device,
    ifindex,
    mtu,
    address: address?.toString() ?? null,
    addressV6: addressV6?.toString() ?? null,
    publicIp: publicIp?.toString() ?? null,
    publicIpv6: publicIpv6?.toString() ?? null,
  };
}

/** Peers that share a public address share its counters. */
function* describePeers(parts: StatusParts): Steps<readonly PeerStatus[]> {
  const { peers, overlay, reconciler, prober, clock, hostNames, wireguard } = parts;
  const traffic = new Map<string, TunnelPeerCounters>();
  for (const tunnel of reconciler.tunnels) {
    for (const [key, value] of tunnel.peerCounters()) traffic.set(key, value);
    yield;
  }
  const carrierOf = peerCarriers(reconciler.tunnels, overlay);
  const skipped = new Map(overlay?.skipped.map(({ lease, ...why }) => [lease, why]));
  const described: PeerStatus[] = [];
  for (const peer of peers.toSorted((a, b) => a.subnet.compare(b.subnet))) {
    yield;
    described.push({
      hostName: hostNames.nameOf(peer.attributes.publicIp.toString()) ?? null,
      ...describeSubnets(peer),
      traffic: traffic.get(peer.attributes.publicIp.toString()) ?? null,
      carrier: carrierOf(peer),
      wireguard: wireguard.pathsTo(peer),
      skipped: skipped.get(peer) ?? null,
      reachability: describePaths(prober, peer, clock),
    });
  }
  return described;
}

/** Entries of a list that anybody may make as long as they like. */
const MAX_LISTED = 100;

const NO_PEER_COUNTERS: PeerCounters = { joined: 0, changed: 0, left: 0, epochs: 0, badEntries: 0, quarantined: 0 };

function countReasons(quarantined: readonly Quarantined[]): Record<QuarantineReason, number> {
  const counts = Object.fromEntries(QUARANTINE_REASONS.map((reason) => [reason, 0]));
  for (const { reason } of quarantined) counts[reason] = (counts[reason] ?? 0) + 1;
  return counts as Record<QuarantineReason, number>;
}

const NO_COUNTERS: DeviceCounters = {
  rxBytes: 0,
  rxPackets: 0,
  rxErrors: 0,
  rxDropped: 0,
  txBytes: 0,
  txPackets: 0,
  txErrors: 0,
  txDropped: 0,
};

function describeDevices({
  overlay,
  netlink,
  deviceCounters,
}: Pick<StatusParts, 'overlay' | 'netlink' | 'deviceCounters'>): DeviceStatus[] {
  const counters = deviceCounters();
  return (overlay?.base.links ?? []).flatMap(({ name }) => {
    const link = netlink.links.get(name);
    if (link === undefined) return [];
    return [{ name, isUp: link.isUp, mtu: link.mtu, ...(counters.get(name) ?? NO_COUNTERS) }];
  });
}

function describeTunnel(tunnel: Tunnel, disabledOffloads: readonly Offload[]): TunnelStatus {
  const { kind, device, workers, offloads, generation } = tunnel;
  const kernelPath = describeKernelPath(tunnel.kernelPath);
  return { kind, device, workers, offloads, disabledOffloads, generation, counters: tunnel.counters(), kernelPath };
}

function describeReconciler(reconciler: Reconciler): ReconcileStatus {
  const { conflicts, failures, ...rest } = reconciler.statistics;
  return {
    ...rest,
    conflicts: conflicts.map(describeError),
    failures: failures.map(({ key, aspect, error, attempt }) => ({
      object: describeAspect(key, aspect),
      error: describeError(error),
      attempt,
    })),
  };
}
