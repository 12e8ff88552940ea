import { SKIP_CAUSES } from '../backend/backend.js';
import { KERNEL_PATH_REASONS } from '../dataplane/kernel-path.js';
import { BATCH_BUCKETS } from '../dataplane/tunnel.js';
import type { KernelPathStatus } from './kernel-path-status.js';
import { ROUND_TRIP_BOUNDS_SECONDS } from '../lease/round-trips.js';
import { PROBE_BOUNDS_SECONDS } from '../reach/peer-prober.js';
import type { AddressPoolStatus, PluginCallStatus } from './container-status.js';
import type { DaemonStatus, DeviceStatus, TunnelStatus } from './status.js';
import { type WireguardPathStatus, isSilent } from './wireguard-status.js';

/** One number with its labels. */
export interface Sample {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** Counts of a histogram by bucket, not accumulated. */
export interface BucketSample {
  readonly labels: Readonly<Record<string, string>>;
  /** One more than there are bounds: the last one counts what is above them. */
  readonly buckets: readonly number[];
  /** Of everything observed; absent where nobody added it up. */
  readonly sum?: number;
}

/** A metric: what it is called, what it means and how it is read from a status. */
export type MetricFamily = {
  readonly name: string;
  /** Meaning, with the unit where the name does not end in it. */
  readonly help: string;
  readonly labels: readonly string[];
} & (
  | { readonly type: 'counter' | 'gauge'; readonly read: (status: DaemonStatus) => readonly Sample[] }
  | {
      readonly type: 'histogram';
      readonly bounds: readonly number[];
      readonly read: (status: DaemonStatus) => readonly BucketSample[];
    }
);

/** Upper bounds of the batch histograms: 1, 2, 4 … 128. */
const BATCH_BOUNDS = Array.from({ length: BATCH_BUCKETS - 1 }, (_, index) => 2 ** index);

const KEEPER_STATES = ['acquiring', 'held', 'renewing', 'lost', 'closed'] as const;

/** Everything under `/metrics` that is about the overlay, in the order it is shown. */
export const METRIC_FAMILIES: readonly MetricFamily[] = [
  family('gauge', 'tsflannel_build_info', 'Always 1; the labels name the versions.', ['version', 'node'], (status) => [
    { labels: { version: status.version, node: process.version }, value: 1 },
  ]),
  gauge('tsflannel_ready', 'Whether lease, kernel state and data plane are as they should be (1) or not (0).', (s) =>
    Number(s.isReady),
  ),
  gauge('tsflannel_mtu_bytes', 'Largest packet of a container.', (s) => s.mtu),
  family(
    'gauge',
    'tsflannel_underlay_mtu_bytes',
    'Largest packet of the underlay device.',
    ['device'],
    ({ underlay }) => (underlay === null ? [] : [{ labels: { device: underlay.device }, value: underlay.mtu }]),
  ),
  gauge(
    'tsflannel_network_config_rejected',
    'Whether the configuration in the store is invalid, so that an older one is in use (1), or not (0).',
    (s) => (s.network === null ? null : Number(s.network.rejected !== null)),
  ),
  gauge(
    'tsflannel_subnet_file_current',
    'Whether the file for Docker and CNI has been written and says what holds (1) or not (0).',
    (s) => Number(s.subnetFile.writtenAt !== null && s.subnetFile.error === null),
  ),
  gauge(
    'tsflannel_saved_state_in_use',
    'Whether the host works with the state of an earlier process, since etcd has not answered yet (1), or not (0).',
    (s) => Number(s.savedState !== null),
  ),
  gauge(
    'tsflannel_docker_restart_needed',
    'Whether containers still run with another subnet or MTU than the file for Docker and CNI says (1) or not (0).',
    (s) => Number(s.dockerHint !== null),
  ),
  family(
    'counter',
    'tsflannel_http_requests_refused_total',
    'Requests to the status server that were not answered, by reason.',
    ['reason'],
    (s) => byKey('reason', s.requests.refused),
  ),

  family(
    'gauge',
    'tsflannel_lease_info',
    'Always 1; the labels name the own lease.',
    ['subnet', 'ipv6_subnet', 'public_ip', 'backend'],
    ({ lease }) =>
      lease === null
        ? []
        : [
            {
              labels: {
                subnet: lease.subnet,
                ipv6_subnet: lease.ipv6Subnet ?? '',
                public_ip: lease.publicIp,
                backend: lease.backend,
              },
              value: 1,
            },
          ],
  ),
  family(
    'gauge',
    'tsflannel_lease_state',
    '1 for the state the own lease is in, 0 for the others.',
    ['state'],
    ({ lease }) =>
      KEEPER_STATES.map((state) => ({ labels: { state }, value: Number(state === (lease?.state ?? 'acquiring')) })),
  ),
  gauge(
    'tsflannel_lease_reserved',
    'Whether the own lease is a reservation, which never expires (1), or not (0).',
    (s) => (s.lease === null ? null : Number(s.lease.isReservation)),
  ),
  gauge('tsflannel_lease_age_seconds', 'Time for which this process has held the lease.', (s) => s.lease?.ageSeconds),
  gauge(
    'tsflannel_lease_remaining_seconds',
    'Time until the lease ends unless it is renewed; absent for a reservation.',
    (s) => s.lease?.expiresInSeconds,
  ),
  counter('tsflannel_lease_renewals_total', 'Renewals of the lease.', (s) => s.lease?.counters.renewals),
  counter(
    'tsflannel_lease_renewal_failures_total',
    'Attempts to renew the lease that failed.',
    (s) => s.lease?.counters.failedRenewals,
  ),
  counter('tsflannel_lease_losses_total', 'Times the lease was lost.', (s) => s.lease?.counters.losses),
  counter(
    'tsflannel_lease_overwrites_total',
    'Times somebody else wrote the key of the lease.',
    (s) => s.lease?.counters.overwrites,
  ),
  counter(
    'tsflannel_lease_lost_races_total',
    'Subnets that another host got first.',
    (s) => s.lease?.counters.lostRaces,
  ),

  gauge('tsflannel_store_connected', 'Whether etcd answers (1) or not (0).', (s) => Number(s.store.isConnected)),
  counter(
    'tsflannel_store_round_trips_total',
    'Requests that etcd answered, and watches it established.',
    (s) => s.store.counters.roundTrips,
  ),
  {
    type: 'histogram',
    name: 'tsflannel_store_round_trip_seconds',
    help: 'Time that etcd took to answer.',
    labels: [],
    bounds: ROUND_TRIP_BOUNDS_SECONDS,
    read: ({ store }) => {
      const { buckets, sumSeconds: sum } = store.counters.roundTripTimes;
      return [{ labels: {}, buckets, sum }];
    },
  },
  family('counter', 'tsflannel_store_errors_total', 'Failed attempts to ask etcd, by error code.', ['code'], (s) =>
    byKey('code', s.store.counters.errors),
  ),
  counter(
    'tsflannel_store_watch_restarts_total',
    'Streams of changes that broke and were opened again.',
    (s) => s.store.counters.watchRestarts,
  ),
  counter(
    'tsflannel_store_compactions_total',
    'Times that etcd had compacted what happened in between, so that everything was listed again.',
    (s) => s.store.counters.compactions,
  ),

  family('gauge', 'tsflannel_peers', 'Other hosts, by the backend their lease names.', ['backend'], peersByBackend),
  family(
    'gauge',
    'tsflannel_peers_skipped',
    'Other hosts that cannot be reached, by what is wrong; /status has the reasons.',
    ['cause'],
    ({ peers }) =>
      SKIP_CAUSES.map((cause) => ({
        labels: { cause },
        value: peers.filter(({ skipped }) => skipped?.cause === cause).length,
      })),
  ),
  family(
    'counter',
    'tsflannel_extension_commands_total',
    'Commands of backend extension that have ended, by command and result.',
    ['command', 'result'],
    ({ commands }) =>
      Object.entries(commands?.runs ?? {}).flatMap(([command, { succeeded, failed }]) => [
        { labels: { command, result: 'success' }, value: succeeded },
        { labels: { command, result: 'failure' }, value: failed },
      ]),
  ),
  gauge(
    'tsflannel_extension_commands_failing',
    'Commands of backend extension that have failed and are tried again: those of this host, and one for each peer.',
    (s) => s.commands?.failingCount,
  ),
  gauge('tsflannel_peers_synced', 'Whether the peers come from etcd (1) or still from an earlier run (0).', (s) =>
    Number(s.peerSet.isSynced),
  ),
  gauge(
    'tsflannel_peer_entries_unreadable',
    'Keys among the leases that cannot be read now.',
    (s) => s.peerSet.badKeyCount,
  ),
  counter(
    'tsflannel_peer_entries_rejected_total',
    'Keys and values among the leases that could not be read.',
    (s) => s.peerSet.counters.badEntries,
  ),
  family(
    'counter',
    'tsflannel_peer_changes_total',
    'Peers that joined, changed or left.',
    ['change'],
    ({ peerSet: { counters } }) =>
      (['joined', 'changed', 'left'] as const).map((change) => ({ labels: { change }, value: counters[change] })),
  ),
  counter(
    'tsflannel_store_epochs_total',
    'Histories of etcd that were seen: 1 at first, one more after each wipe, restore or gap.',
    (s) => s.peerSet.counters.epochs,
  ),
  family(
    'gauge',
    'tsflannel_leases_quarantined',
    'Leases of others that are not believed and not routed; /status has the details.',
    ['reason'],
    ({ peerSet: { quarantinedCounts } }) =>
      Object.entries(quarantinedCounts).map(([reason, value]) => ({ labels: { reason }, value })),
  ),
  counter(
    'tsflannel_leases_quarantined_total',
    'Times that a lease became one that is not believed.',
    (s) => s.peerSet.counters.quarantined,
  ),
  gauge(
    'tsflannel_peers_kept',
    'Peers that etcd has forgotten and that are kept for some minutes.',
    (s) => s.peerSet.keptCount,
  ),
  gauge(
    'tsflannel_peers_unreachable',
    'Peers that do not answer through the overlay; /status names them. Absent where probes are switched off.',
    (s) => s.reachability?.peers.unreachable,
  ),
  gauge(
    'tsflannel_peers_unprobed',
    'Peers that have not been probed often enough to tell whether they answer.',
    (s) => s.reachability?.peers.unknown,
  ),
  {
    type: 'histogram',
    name: 'tsflannel_peer_round_trip_seconds',
    help: 'Time that peers took to answer through the overlay.',
    labels: [],
    bounds: PROBE_BOUNDS_SECONDS,
    read: ({ reachability }) => {
      if (reachability === null) return [];
      const { buckets, sumSeconds: sum } = reachability.roundTrips;
      return [{ labels: {}, buckets, sum }];
    },
  },
  family(
    'counter',
    'tsflannel_peer_probes_total',
    'Probes of peers, by how they ended: answered, lost, or failed because this host could not send them.',
    ['result'],
    (s) => (s.reachability === null ? [] : byKey('result', s.reachability.probes)),
  ),
  gauge(
    'tsflannel_peer_probe_interval_seconds',
    'Time between two probes of the same peer; longer than configured where there are very many.',
    (s) => s.reachability?.intervalSeconds,
  ),
  gauge(
    'tsflannel_peer_probes_possible',
    'Whether the kernel gives a socket to probe peers with (1) or not (0).',
    (s) => (s.reachability === null ? null : Number(s.reachability.error === null)),
  ),

  pools(
    'tsflannel_container_addresses_free',
    'Addresses that containers of this host can be given without asking etcd.',
    ({ free }) => free,
  ),
  pools(
    'tsflannel_container_addresses_used',
    'Addresses that containers of this host have.',
    ({ uses }) => uses.length,
  ),
  pools(
    'tsflannel_container_addresses_lost',
    'Addresses of containers of this host that another host has been given by now.',
    ({ uses }) => uses.filter(({ state }) => state === 'lost').length,
  ),
  pools(
    'tsflannel_container_addresses_abandoned',
    'Addresses that were given to containers of which there are none.',
    ({ uses }) => uses.filter(({ abandonedSince }) => abandonedSince !== null).length,
  ),
  pools(
    'tsflannel_container_addresses_seen',
    'Addresses that are passed over, as a machine on the network has them.',
    ({ seen }) => seen.length,
  ),
  gauge(
    'tsflannel_container_addresses_confirmed',
    'Whether etcd has confirmed which addresses this host may give (1), or not since their time ran out (0).',
    (s) => (s.containerNetworks === null ? null : Number(s.containerNetworks.isConfirmed)),
  ),
  family(
    'counter',
    'tsflannel_container_address_events_total',
    'What happened to addresses of containers on this host, by kind.',
    ['event'],
    (s) => (s.containerNetworks === null ? [] : byKey('event', { ...s.containerNetworks.addresses })),
  ),
  gauge(
    'tsflannel_container_ports_published',
    'Ports of this host that lead to containers of routed networks.',
    ({ containerNetworks }) =>
      containerNetworks === null
        ? null
        : containerNetworks.networks.flatMap(({ endpoints }) => endpoints.flatMap(({ ports }) => ports)).length,
  ),
  gauge(
    'tsflannel_container_firewall_in_place',
    'Whether the rules of routed container networks were in place when last looked at (1) or not (0).',
    ({ containerNetworks }) => (containerNetworks === null ? null : Number(containerNetworks.firewall.isInPlace)),
  ),
  family(
    'counter',
    'tsflannel_container_firewall_repairs_total',
    'Repairs of the rules of routed container networks, by what was wrong.',
    ['deviation'],
    ({ containerNetworks }) =>
      containerNetworks === null ? [] : byKey('deviation', containerNetworks.firewall.repaired),
  ),
  family(
    'gauge',
    'tsflannel_container_prefixes_routed',
    'Prefixes of containers on other hosts that packets are sent to, by way.',
    ['way'],
    ({ containerReach }) => (containerReach === null ? [] : byKey('way', { ...containerReach.routed })),
  ),
  family(
    'gauge',
    'tsflannel_container_prefixes_skipped',
    'Prefixes of containers on other hosts that cannot be reached, by cause.',
    ['cause'],
    ({ containerReach }) => (containerReach === null ? [] : byKey('cause', containerReach.skippedByCause)),
  ),
  gauge(
    'tsflannel_container_prefixes_unplaced',
    'Prefixes of containers on hosts of which nobody knows where they are.',
    ({ containerReach }) => containerReach?.unplacedPrefixes ?? null,
  ),
  family(
    'gauge',
    'tsflannel_container_prefixes_refused',
    'What hosts tell of their containers and is not believed, by reason.',
    ['reason'],
    ({ containerReach }) => (containerReach === null ? [] : byKey('reason', containerReach.refusedByReason)),
  ),
  pluginCalls('tsflannel_plugin_calls_total', 'What Docker asked of its plugin.', ({ calls }) => calls),
  pluginCalls('tsflannel_plugin_errors_total', 'What Docker asked of its plugin in vain.', ({ errors }) => errors),
  pluginCalls(
    'tsflannel_plugin_call_seconds_total',
    'Time that answers to Docker took, of all calls together.',
    ({ totalSeconds }) => totalSeconds,
  ),

  gauge('tsflannel_reconcile_converged', 'Whether the kernel is as desired (1) or not (0).', (s) =>
    Number(s.reconcile.isConverged),
  ),
  counter('tsflannel_reconcile_runs_total', 'Comparisons of desired and actual state.', (s) => s.reconcile.runs),
  counter(
    'tsflannel_reconcile_dumps_total',
    'Comparisons that listed everything in the kernel.',
    (s) => s.reconcile.dumps,
  ),
  family(
    'counter',
    'tsflannel_reconcile_changes_total',
    'Changes made to the kernel, reverted drift included.',
    ['kind', 'verb'],
    (s) =>
      Object.entries(s.reconcile.changes).flatMap(([kind, verbs]) =>
        Object.entries(verbs).map(([verb, value]) => ({ labels: { kind, verb }, value })),
      ),
  ),
  family(
    'counter',
    'tsflannel_reconcile_drift_total',
    'Changes made by somebody else that were reverted.',
    ['kind'],
    (s) => byKey('kind', s.reconcile.drift),
  ),
  family(
    'counter',
    'tsflannel_reconcile_failures_total',
    'Changes that the kernel refused, retries included.',
    ['kind'],
    (s) => byKey('kind', s.reconcile.failed),
  ),
  gauge(
    'tsflannel_reconcile_failing_objects',
    'Objects that could not be made and are tried again.',
    (s) => s.reconcile.failures.length,
  ),
  gauge(
    'tsflannel_reconcile_conflicts',
    "Objects that somebody else's are in the way of.",
    (s) => s.reconcile.conflicts.length,
  ),
  gauge('tsflannel_reconcile_blocked_objects', 'Objects that wait for a device.', (s) => s.reconcile.blocked),
  counter(
    'tsflannel_reconcile_lost_events_total',
    'Times the kernel dropped notifications, so that everything was listed again.',
    (s) => s.reconcile.lostEvents,
  ),
  gauge(
    'tsflannel_reconcile_last_run_seconds',
    'Duration of the last comparison.',
    (s) => s.reconcile.lastRunMs / 1000,
  ),

  family(
    'gauge',
    'tsflannel_firewall_in_place',
    "Whether the packet filter's rules were in place when last looked at (1) or not (0).",
    ['mode'],
    ({ firewall }) =>
      firewall?.mode == null ? [] : [{ labels: { mode: firewall.mode }, value: Number(firewall.isInPlace) }],
  ),
  family(
    'counter',
    'tsflannel_firewall_repairs_total',
    "Repairs of the packet filter's rules, by what was wrong.",
    ['deviation'],
    ({ firewall }) => (firewall === null ? [] : byKey('deviation', firewall.repaired)),
  ),

  device('gauge', 'tsflannel_device_up', 'Whether the device is up (1) or down (0).', (d) => Number(d.isUp)),
  device(
    'counter',
    'tsflannel_device_transmit_packets_total',
    'Packets that the kernel sent into the device, towards peers.',
    (d) => d.txPackets,
  ),
  device(
    'counter',
    'tsflannel_device_transmit_bytes_total',
    'Bytes that the kernel sent into the device, towards peers.',
    (d) => d.txBytes,
  ),
  device(
    'counter',
    'tsflannel_device_transmit_drops_total',
    'Packets that the device dropped on the way out.',
    (d) => d.txDropped,
  ),
  device('counter', 'tsflannel_device_transmit_errors_total', 'Packets that failed on the way out.', (d) => d.txErrors),
  device(
    'counter',
    'tsflannel_device_receive_packets_total',
    'Packets from peers that the kernel took from the device.',
    (d) => d.rxPackets,
  ),
  device(
    'counter',
    'tsflannel_device_receive_bytes_total',
    'Bytes from peers that the kernel took from the device.',
    (d) => d.rxBytes,
  ),
  device(
    'counter',
    'tsflannel_device_receive_drops_total',
    'Packets that the device dropped on the way in.',
    (d) => d.rxDropped,
  ),
  device('counter', 'tsflannel_device_receive_errors_total', 'Packets that failed on the way in.', (d) => d.rxErrors),

  family(
    'gauge',
    'tsflannel_ndp_proxied_addresses',
    'Addresses of containers on bridges that this host answers neighbour solicitations for.',
    [],
    ({ ndpProxy }) => (ndpProxy === null ? [] : [{ labels: {}, value: ndpProxy.addresses }]),
  ),
  family(
    'counter',
    'tsflannel_ndp_questions_total',
    'Neighbour solicitations for addresses behind bridges that nobody was known to have.',
    [],
    ({ ndpProxy }) => (ndpProxy === null ? [] : [{ labels: {}, value: ndpProxy.questions }]),
  ),
  family(
    'counter',
    'tsflannel_ndp_questions_dropped_total',
    'Those of them that were not passed on to the bridge, as there were too many.',
    [],
    ({ ndpProxy }) => (ndpProxy === null ? [] : [{ labels: {}, value: ndpProxy.droppedQuestions }]),
  ),
  family(
    'counter',
    'tsflannel_ndp_addresses_refused_total',
    'Addresses behind bridges that are not answered for, as there are too many.',
    [],
    ({ ndpProxy }) => (ndpProxy === null ? [] : [{ labels: {}, value: ndpProxy.refusedAddresses }]),
  ),

  family('gauge', 'tsflannel_wireguard_peers', 'Peers that the WireGuard device knows.', ['device'], ({ wireguard }) =>
    (wireguard?.devices ?? []).map(({ name, peers }) => ({ labels: { device: name }, value: peers })),
  ),
  family(
    'gauge',
    'tsflannel_wireguard_peers_silent',
    'Peers that packets were sent to and that no handshake has come to pass with.',
    ['device'],
    ({ peers, wireguard }) =>
      (wireguard?.devices ?? []).map(({ name }) => ({
        labels: { device: name },
        value: peers.flatMap((peer) => peer.wireguard).filter((path) => path.device === name && isSilent(path)).length,
      })),
  ),
  wireguardPath(
    'gauge',
    'tsflannel_wireguard_handshake_age_seconds',
    'Time since the last handshake with the peer; absent before the first. While packets flow it stays below 180.',
    ({ lastHandshakeAt }, nowMs) =>
      lastHandshakeAt === null ? null : Math.max(0, (nowMs - Date.parse(lastHandshakeAt)) / 1000),
  ),
  wireguardPath(
    'counter',
    'tsflannel_wireguard_transmit_bytes_total',
    'Bytes of datagrams sent to the peer, with handshakes and keep-alives.',
    ({ txBytes }) => txBytes,
  ),
  wireguardPath(
    'counter',
    'tsflannel_wireguard_receive_bytes_total',
    'Bytes of datagrams received from the peer, with handshakes and keep-alives.',
    ({ rxBytes }) => rxBytes,
  ),

  tunnel(
    'gauge',
    'tsflannel_tunnel_info',
    'Always 1; native is the packet path in C++, portable the one in plain Node.',
    ['kind'],
    (t) => [{ labels: { kind: t.kind }, value: 1 }],
  ),
  tunnel('gauge', 'tsflannel_tunnel_workers', 'Worker threads.', [], (t) => one(t.workers)),
  tunnel(
    'gauge',
    'tsflannel_tunnel_table_generation',
    'Generation of the forwarding table that all workers have.',
    [],
    (t) => one(t.generation),
  ),
  tunnel(
    'gauge',
    'tsflannel_tunnel_offload_active',
    'Whether the offload is in use (1) or not (0).',
    ['offload'],
    (t) => Object.entries(t.offloads).map(([offload, isActive]) => ({ labels: { offload }, value: Number(isActive) })),
  ),
  tunnel(
    'counter',
    'tsflannel_tunnel_offload_downgrades_total',
    'Times an offload was switched off because the kernel refused it.',
    ['offload'],
    (t) => byKey('offload', t.counters.downgrades),
  ),
  tunnel(
    'counter',
    'tsflannel_tunnel_offload_trials_total',
    'Times an offload that was switched off was tried again.',
    ['offload'],
    (t) => byKey('offload', t.counters.trials),
  ),
  tunnel('counter', 'tsflannel_tunnel_transmit_packets_total', 'Inner packets sent to peers.', [], (t) =>
    one(t.counters.txPackets),
  ),
  tunnel('counter', 'tsflannel_tunnel_transmit_bytes_total', 'Bytes of inner packets sent to peers.', [], (t) =>
    one(t.counters.txBytes),
  ),
  tunnel(
    'counter',
    'tsflannel_tunnel_receive_packets_total',
    'Inner packets from peers that were written to the device.',
    [],
    (t) => one(t.counters.rxPackets),
  ),
  tunnel(
    'counter',
    'tsflannel_tunnel_receive_bytes_total',
    'Bytes of inner packets from peers that were written to the device.',
    [],
    (t) => one(t.counters.rxBytes),
  ),
  tunnel(
    'counter',
    'tsflannel_tunnel_drops_total',
    'Inner packets that were not forwarded, by reason.',
    ['reason'],
    (t) => byKey('reason', t.counters.drops),
  ),
  tunnel(
    'counter',
    'tsflannel_tunnel_icmp_sent_total',
    'ICMP errors sent to containers, by type and code.',
    ['error'],
    (t) => byKey('error', t.counters.icmpSent),
  ),
  tunnel('counter', 'tsflannel_tunnel_icmp_limited_total', 'ICMP errors that the rate limit held back.', [], (t) =>
    one(t.counters.icmpLimited),
  ),
  tunnel('counter', 'tsflannel_tunnel_icmp_failed_total', 'ICMP errors that the kernel did not take.', [], (t) =>
    one(t.counters.icmpFailed),
  ),
  tunnel(
    'counter',
    'tsflannel_tunnel_system_calls_total',
    'System calls of the packet path, by what they do.',
    ['call'],
    ({ counters }) =>
      byKey('call', {
        'tun-read': counters.tunReads,
        'tun-write': counters.tunWrites,
        'socket-send': counters.socketSends,
        'socket-receive': counters.socketReceives,
      }),
  ),
  batch(
    'tsflannel_tunnel_packets_per_read',
    'Inner packets that one read of the device brought.',
    (t) => t.counters.packetsPerRead,
  ),
  batch(
    'tsflannel_tunnel_packets_per_send',
    'Inner packets that one send on the socket carried.',
    (t) => t.counters.packetsPerSend,
  ),
  batch(
    'tsflannel_tunnel_packets_per_write',
    'Inner packets that one write to the device carried.',
    (t) => t.counters.packetsPerWrite,
  ),
  tunnel('counter', 'tsflannel_tunnel_worker_cpu_seconds_total', 'CPU time of the worker thread.', ['worker'], (t) =>
    t.counters.workerCpuSeconds.map((value, worker) => ({ labels: { worker: String(worker) }, value })),
  ),

  tunnel(
    'gauge',
    'tsflannel_kernel_path_active',
    'Whether the kernel carries what it can (1) or nothing (0); absent with another --datapath than auto or kernel.',
    [],
    ({ kernelPath }) => one(kernelPath && Number(kernelPath.isActive)),
  ),
  tunnel(
    'gauge',
    'tsflannel_kernel_path_refused',
    'Whether that is why the kernel carries nothing (1) or not (0).',
    ['reason'],
    ({ kernelPath }) =>
      kernelPath === null
        ? []
        : KERNEL_PATH_REASONS.map((reason) => ({
            labels: { reason },
            value: Number(kernelPath.refused?.reason === reason),
          })),
  ),
  tunnel(
    'counter',
    'tsflannel_kernel_path_packets_total',
    'Inner packets that the programs in the kernel looked at, by what became of them.',
    ['result'],
    ({ kernelPath }) => kernelTraffic(kernelPath, 'packets'),
  ),
  tunnel('counter', 'tsflannel_kernel_path_bytes_total', 'Bytes of those packets.', ['result'], ({ kernelPath }) =>
    kernelTraffic(kernelPath, 'bytes'),
  ),
  family(
    'gauge',
    'tsflannel_peers_by_carrier',
    'Other hosts with backend udp, by the way in which packets for them leave; absent with another --datapath than auto or kernel.',
    ['carrier'],
    ({ peers, tunnels }) =>
      tunnels.every(({ kernelPath }) => kernelPath === null)
        ? []
        : ['kernel', 'tunnel'].map((name) => ({
            labels: { carrier: name },
            value: peers.filter(({ carrier }) => carrier?.carrier === name).length,
          })),
  ),
];

function kernelTraffic(path: KernelPathStatus | null, what: 'packets' | 'bytes'): readonly Sample[] {
  return Object.entries(path?.counters ?? {}).map(([result, traffic]) => ({
    labels: { result },
    value: traffic[what],
  }));
}

function family(
  type: 'counter' | 'gauge',
  name: string,
  help: string,
  labels: readonly string[],
  read: (status: DaemonStatus) => readonly Sample[],
): MetricFamily {
  return { type, name, help, labels, read };
}

type ReadOne = (status: DaemonStatus) => number | null | undefined;

/** A gauge without labels; it is absent while there is no value. */
function gauge(name: string, help: string, read: ReadOne): MetricFamily {
  return family('gauge', name, help, [], (status) => one(read(status)));
}

function counter(name: string, help: string, read: ReadOne): MetricFamily {
  return family('counter', name, help, [], (status) => one(read(status)));
}

/** Of each peer on each WireGuard device, by its subnet. */
function wireguardPath(
  type: 'counter' | 'gauge',
  name: string,
  help: string,
  read: (path: WireguardPathStatus, nowMs: number) => number | null,
): MetricFamily {
  return family(type, name, help, ['device', 'subnet'], ({ peers, startedAt, uptimeSeconds }) => {
    const nowMs = Date.parse(startedAt) + uptimeSeconds * 1000;
    return peers.flatMap(({ subnet, wireguard }) =>
      wireguard.flatMap((path) => {
        const value = read(path, nowMs);
        return value === null ? [] : [{ labels: { device: path.device, subnet }, value }];
      }),
    );
  });
}

function device(
  type: 'counter' | 'gauge',
  name: string,
  help: string,
  read: (device: DeviceStatus) => number,
): MetricFamily {
  return family(type, name, help, ['device'], ({ devices }) =>
    devices.map((status) => ({ labels: { device: status.name }, value: read(status) })),
  );
}

function tunnel(
  type: 'counter' | 'gauge',
  name: string,
  help: string,
  labels: readonly string[],
  read: (tunnel: TunnelStatus) => readonly Sample[],
): MetricFamily {
  return family(type, name, help, ['device', ...labels], ({ tunnels }) =>
    tunnels.flatMap((status) =>
      read(status).map(({ labels: own, value }) => ({ labels: { device: status.device, ...own }, value })),
    ),
  );
}

function pools(name: string, help: string, read: (pool: AddressPoolStatus) => number): MetricFamily {
  return family('gauge', name, help, ['network', 'subnet'], ({ containerNetworks }) =>
    (containerNetworks?.pools ?? []).map((pool) => ({
      labels: { network: pool.network, subnet: pool.subnet },
      value: read(pool),
    })),
  );
}

function pluginCalls(name: string, help: string, read: (method: PluginCallStatus) => number): MetricFamily {
  return family('counter', name, help, ['method'], ({ containerNetworks }) =>
    Object.entries(containerNetworks?.calls ?? {}).map(([method, calls]) => ({
      labels: { method },
      value: read(calls),
    })),
  );
}

function batch(name: string, help: string, read: (tunnel: TunnelStatus) => readonly number[]): MetricFamily {
  return {
    type: 'histogram',
    name,
    help,
    labels: ['device'],
    bounds: BATCH_BOUNDS,
    read: ({ tunnels }) => tunnels.map((status) => ({ labels: { device: status.device }, buckets: read(status) })),
  };
}

function one(value: number | null | undefined): readonly Sample[] {
  return value === null || value === undefined ? [] : [{ labels: {}, value }];
}

function byKey(label: string, values: Readonly<Record<string, number>>): readonly Sample[] {
  return Object.entries(values).map(([key, value]) => ({ labels: { [label]: key }, value }));
}

/** Backends in use show with 0 before their first peer, so that a graph has a beginning. */
function peersByBackend({ backends, peers }: DaemonStatus): readonly Sample[] {
  const counts: Record<string, number> = Object.fromEntries(backends.map((backend) => [backend, 0]));
  for (const { backend } of peers) counts[backend] = (counts[backend] ?? 0) + 1;
  return byKey('backend', counts);
}
