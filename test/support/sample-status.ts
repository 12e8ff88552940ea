import { KERNEL_COUNTERS, type KernelCounters } from '../../src/dataplane/kernel-path.js';
import { DROP_REASONS, OFFLOADS, type TunnelCounters } from '../../src/dataplane/tunnel.js';
import type { CommandsStatus } from '../../src/extension/status.js';
import type { ContainerNetworksStatus } from '../../src/observe/container-status.js';
import { STATUS_VERSION, type DaemonStatus, type PathStatus, type PeerStatus } from '../../src/observe/status.js';
import type { PeerCarrier } from '../../src/observe/kernel-path-status.js';
import type { ContainerReachStatus } from '../../src/observe/container-reach-status.js';
import type { WireguardPathStatus } from '../../src/observe/wireguard-status.js';
import { zeroChanges, zeroPerKind } from '../../src/reconcile/report.js';

/** A peer with the subnet `10.<100 + index / 256>.<index % 256>.0/24`; every seventh uses vxlan, index 3 is not reached. */
export function samplePeer(index: number, packets = 1000): PeerStatus {
  const isKernel = index % 7 === 6;
  return {
    hostName: index % 5 === 4 ? null : `node-${index + 2}.example.net`,
    subnet: `10.${100 + Math.floor(index / 256)}.${index % 256}.0/24`,
    ipv6Subnet: index % 2 === 0 ? `2001:db8:${index.toString(16)}::/64` : null,
    publicIp: `198.51.100.${(index % 250) + 1}`,
    publicIpv6: null,
    backend: isKernel ? 'vxlan' : 'udp',
    isReservation: index === 1,
    traffic: isKernel
      ? null
      : { txPackets: packets, txBytes: packets * 900, rxPackets: packets * 2, rxBytes: packets * 2400 },
    carrier: sampleCarrier(index, isKernel),
    wireguard: index === 5 ? [sampleWireguardPath(index)] : [],
    skipped:
      index === 3 ? { cause: 'backend', reason: 'wireguard: this host lacks it', hint: 'load the module' } : null,
    reachability: index === 3 ? [] : [samplePath(index)],
  };
}

/** Of those with backend udp, the kernel sends to every third; the others have one reason or another. */
function sampleCarrier(index: number, isKernel: boolean): PeerCarrier | null {
  if (isKernel) return null;
  if (index % 3 === 0) return { carrier: 'kernel' };
  return { carrier: 'tunnel', because: index % 3 === 1 ? 'not-announced' : 'off-link' };
}

function sampleWireguardPath(index: number): WireguardPathStatus {
  return {
    device: 'flannel-wg',
    publicKey: 'hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=',
    endpoint: `198.51.100.${(index % 250) + 1}:51820`,
    lastHandshakeAt: '2026-01-03T05:05:00.500Z',
    rxBytes: 4096,
    txBytes: 2048,
  };
}

/** Every fifth peer but the first has not answered for an hour. */
function samplePath(index: number): PathStatus {
  const isLost = index % 5 === 4;
  return {
    family: 4,
    state: isLost ? 'unreachable' : 'reachable',
    since: isLost ? '2026-01-03T04:05:06.000Z' : '2026-01-02T03:04:35.000Z',
    roundTripSeconds: 0.0004 * (index + 1),
    loss: isLost ? 1 : 0,
    answeredBy: isLost ? null : 'overlay',
    address: `10.${100 + Math.floor(index / 256)}.${index % 256}.0`,
    errno: null,
  };
}

/** Counters of a tunnel in which every kind of thing happened at least once. */
export function sampleTunnelCounters(scale = 1): TunnelCounters {
  const numbered = <T extends string>(names: readonly T[]): Record<T, number> =>
    Object.fromEntries(names.map((name, index) => [name, (index + 1) * scale])) as Record<T, number>;
  return {
    txPackets: 40_000 * scale,
    txBytes: 50_000_000 * scale,
    rxPackets: 60_000 * scale,
    rxBytes: 80_000_000 * scale,
    tunReads: 1000 * scale,
    tunWrites: 3000 * scale,
    socketSends: 1200 * scale,
    socketReceives: 1800 * scale,
    icmpSent: { 'unreachable-net': 4, 'time-exceeded': 2, 'frag-needed': 1 },
    icmpLimited: 3,
    icmpFailed: 1,
    drops: numbered(DROP_REASONS),
    downgrades: { ...numbered(OFFLOADS), udpSegment: 1 },
    trials: numbered(OFFLOADS),
    packetsPerRead: [1, 2, 3, 4, 5, 6, 7, 8, 9],
    packetsPerSend: [9, 8, 7, 6, 5, 4, 3, 2, 1],
    packetsPerWrite: [5, 0, 0, 0, 0, 0, 0, 0, 5],
    workerCpuSeconds: [1.5, 2.25],
  };
}

/** What the programs of the kernel path count, each something of its own. */
export function sampleKernelCounters(): KernelCounters {
  return Object.fromEntries(
    KERNEL_COUNTERS.map((name, index) => [name, { packets: index + 1, bytes: 100 * (index + 1) }]),
  ) as KernelCounters;
}

/** Containers of other hosts: some reached, some not, and something that is not believed. */
export function sampleContainerReach(): ContainerReachStatus {
  return {
    routed: { direct: 12, overlay: 34 },
    skipped: [
      {
        peer: '10.5.4.0/24',
        publicIp: '192.0.2.4',
        prefixes: ['10.98.0.16/28'],
        cause: 'off-link',
        reason: '192.0.2.4 is not on the link of eth0',
        hint: 'give the router between them the routes that tsflannelctl docker-networks routes prints',
      },
    ],
    skippedByCause: { address: 0, 'off-link': 1, data: 0, 'vtep-mac': 0, 'public-key': 0, backend: 0 },
    unplaced: [{ host: 'host9', prefixes: 2, detail: 'it does not tell where it is' }],
    unplacedPrefixes: 2,
    refused: [{ what: 'lan/192.0.2.0-24', reason: 'reserved', detail: 'it overlaps 192.0.2.0/24' }],
    refusedByReason: {
      unreadable: 0,
      reserved: 1,
      'overlaps-network': 0,
      'outside-network': 0,
      contradiction: 0,
      'too-many': 0,
    },
  };
}

/** A network of containers with one container, a second one whose address is lost, and one that only etcd tells of. */
export function sampleContainerNetworks(): ContainerNetworksStatus {
  return {
    host: 'host-1',
    socket: '/run/docker/plugins/tsflannel.sock (of systemd)',
    networks: [
      {
        id: '5f2b0c7d9e1a5f2b0c7d9e1a5f2b0c7d9e1a5f2b0c7d9e1a5f2b0c7d9e1a5f2b',
        type: 'macvlan',
        mode: 'bridge',
        parent: 'eth0',
        vlan: null,
        subnets: ['192.0.2.0/24'],
        pools: ['lan/192.0.2.0-24/192.0.2.64-26'],
        gateways: ['192.0.2.1'],
        routes: [],
        isInternal: false,
        hasHostAccess: true,
        endpoints: [
          {
            id: 'e1',
            mac: '02:42:c0:00:02:41',
            addresses: ['192.0.2.65/24'],
            isJoined: true,
            ports: ['80/tcp -> 0.0.0.0:8080'],
          },
        ],
      },
    ],
    pools: [
      {
        id: 'lan/192.0.2.0-24/192.0.2.64-26',
        network: 'lan',
        subnet: '192.0.2.0/24',
        range: '192.0.2.64/26',
        blocks: ['192.0.2.64/30'],
        free: 1,
        uses: [
          {
            address: '192.0.2.65',
            mac: '02:42:c0:00:02:41',
            owner: 'web',
            since: '2026-01-02T03:05:00.000Z',
            state: 'confirmed',
            abandonedSince: null,
          },
          {
            address: '192.0.2.66',
            mac: null,
            owner: null,
            since: '2026-01-02T03:06:00.000Z',
            state: 'lost',
            abandonedSince: '2026-01-02T03:50:00.000Z',
          },
        ],
        shared: ['192.0.2.1'],
        seen: [{ address: '192.0.2.67', mac: '02:00:00:00:00:67', seenAt: '2026-01-02T03:07:00.000Z' }],
      },
    ],
    isConfirmed: true,
    expiresAt: '2026-01-03T03:04:05.000Z',
    calls: { 'IpamDriver.RequestAddress': { calls: 3, errors: 1, totalSeconds: 1.5, maxSeconds: 0.7 } },
    addresses: {
      given: 3,
      released: 1,
      refused: 1,
      blocksLeased: 1,
      blocksReturned: 0,
      asked: 1,
      yielded: 0,
      probes: 4,
      seen: 1,
      lost: 1,
      orphaned: 0,
    },
    announcements: { announced: 2, failed: 0 },
    firewall: { table: 'inet tsflannel-1a2b3c4d', isInPlace: true, repaired: { 'table-missing': 1 }, lastError: null },
    problems: ['cannot set the MTU of eth0-host: EINVAL'],
  };
}

/** Commands of which that of one peer fails. */
export function sampleCommands(): CommandsStatus {
  return {
    state: 'running',
    peersDone: 3,
    peersWaiting: 1,
    failing: [
      {
        command: 'SubnetAddCommand',
        peer: '10.100.2.0/24',
        failure: 'exit status 2',
        lastLine: 'RTNETLINK answers: File exists',
        attempts: 4,
      },
    ],
    failingCount: 1,
    runs: {
      PreStartupCommand: { succeeded: 1, failed: 0 },
      PostStartupCommand: { succeeded: 1, failed: 1 },
      SubnetAddCommand: { succeeded: 3, failed: 4 },
      SubnetRemoveCommand: { succeeded: 0, failed: 4 },
      ShutdownCommand: { succeeded: 0, failed: 0 },
    },
  };
}

/** A status in which nothing is empty and no metric is absent, with the given fields replaced. */
export function sampleStatus(changes: Partial<DaemonStatus> = {}): DaemonStatus {
  const kinds = { ...zeroPerKind(), route: 3, fdb: 2 };
  return {
    statusVersion: STATUS_VERSION,
    version: 'v0.1.0',
    hostName: 'node-1.example.net',
    pid: 4711,
    startedAt: '2026-01-02T03:04:05.000Z',
    uptimeSeconds: 93_784.5,
    isReady: true,
    notReadyBecause: [],
    network: {
      ipv4: '10.96.0.0/11',
      ipv6: '2001:db8::/48',
      subnetLen: 24,
      ipv6SubnetLen: 64,
      backend: 'udp',
      rejected: null,
    },
    lease: {
      state: 'held',
      subnet: '10.99.7.0/24',
      ipv6Subnet: '2001:db8:0:7::/64',
      publicIp: '192.0.2.1',
      publicIpv6: null,
      backend: 'udp',
      revision: '1234',
      isReservation: false,
      isPublished: true,
      overwrittenAt: null,
      rivals: ['old 10.99.7.0-24'],
      ageSeconds: 5400,
      expiresInSeconds: 86_100,
      counters: { renewals: 18, failedRenewals: 2, losses: 1, overwrites: 0, lostRaces: 1 },
    },
    underlay: {
      device: 'eth0',
      ifindex: 2,
      mtu: 1500,
      address: '192.0.2.1',
      addressV6: null,
      publicIp: '192.0.2.1',
      publicIpv6: null,
    },
    mtu: 1472,
    backends: ['udp', 'vxlan'],
    peers: Array.from({ length: 12 }, (_, index) => samplePeer(index)),
    peerSet: {
      isSynced: true,
      badKeys: ['10.96.0.300-24'],
      badKeyCount: 1,
      quarantined: [
        {
          key: '10.99.8.0-24',
          publicIp: '127.0.0.1',
          reason: 'bad-public-ip',
          detail: 'its public address 127.0.0.1 is a loopback address',
        },
      ],
      quarantinedCounts: {
        'outside-network': 0,
        'overlaps-own': 0,
        'covers-guarded': 0,
        'bad-public-ip': 1,
        'overlaps-peer': 0,
      },
      keptCount: 2,
      counters: { joined: 14, changed: 3, left: 2, epochs: 1, badEntries: 1, quarantined: 1 },
    },
    reachability: {
      error: null,
      intervalSeconds: 30,
      peers: { reachable: 9, unreachable: 2, unknown: 0 },
      probes: { answered: 900, lost: 30, failed: 1 },
      roundTrips: { buckets: [0, 100, 400, 300, 100, 0, 0, 0, 0, 0, 0, 0, 0, 0], sumSeconds: 0.9 },
    },
    devices: [
      {
        name: 'flannel0',
        isUp: true,
        mtu: 1472,
        txPackets: 40_100,
        txBytes: 50_000_400,
        rxPackets: 60_000,
        rxBytes: 80_000_000,
        txDropped: 3,
        rxDropped: 0,
        txErrors: 1,
        rxErrors: 0,
      },
    ],
    tunnels: [
      {
        kind: 'native',
        device: 'flannel0',
        workers: 2,
        offloads: {
          vnetHdr: true,
          tso: true,
          uso: false,
          udpSegment: false,
          udpGro: true,
          tcpMerge: true,
          udpMerge: true,
          batch: true,
        },
        disabledOffloads: ['uso'],
        generation: 17,
        counters: sampleTunnelCounters(),
        kernelPath: {
          isActive: true,
          receiver: 'xdp',
          refused: null,
          counters: sampleKernelCounters(),
        },
      },
    ],
    wireguard: {
      keyFile: '/run/flannel/wgkey',
      isKeyFileOpen: false,
      publicKey: '3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=',
      devices: [{ name: 'flannel-wg', listenPort: 51820, peers: 1 }],
    },
    ndpProxy: {
      uplinks: [{ device: 'eth0', subnets: ['2001:db8:0:1:8000::/80'] }],
      addresses: 12,
      questions: 40,
      droppedQuestions: 3,
      refusedAddresses: 0,
      problem: null,
    },
    reconcile: {
      isConverged: true,
      conflicts: ['cannot route 10.100.9.0/24: eth1 has that route; remove it'],
      failures: [{ object: 'fdb flannel.1 02:00:00:00:00:01', error: 'ENOSPC', attempt: 2 }],
      blocked: 1,
      runs: 310,
      dumps: 300,
      lostEvents: 1,
      changes: { ...zeroChanges(), route: { add: 20, replace: 1, set: 0, del: 4 } },
      drift: kinds,
      failed: kinds,
      lastRunMs: 1.75,
    },
    firewall: {
      mode: 'iptables',
      isInPlace: true,
      repaired: {
        'chain-missing': 1,
        'chain-changed': 0,
        'jump-missing': 2,
        'jump-duplicate': 0,
        'table-missing': 0,
        'table-changed': 0,
      },
      lastError: null,
    },
    store: {
      isConnected: true,
      endpoint: '192.0.2.10:2379',
      error: null,
      counters: {
        roundTrips: 4000,
        roundTripTimes: { buckets: [0, 3000, 990, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10], sumSeconds: 70.5 },
        errors: { ERR_ETCD_UNAVAILABLE: 7 },
        watchRestarts: 2,
        compactions: 1,
      },
    },
    subnetFile: { path: '/run/flannel/subnet.env', writtenAt: '2026-01-02T03:04:06.000Z', error: null },
    containerReach: sampleContainerReach(),
    containerNetworks: sampleContainerNetworks(),
    commands: sampleCommands(),
    savedState: null,
    dockerHint: null,
    problems: [
      {
        at: '2026-01-02T04:00:00.000Z',
        level: 'warn',
        message: 'reverted a change made by somebody else',
        detail: 'kind=route count=1',
        hint: null,
        resolvedAt: '2026-01-02T04:00:00.000Z',
      },
      {
        at: '2026-01-02T04:10:00.000Z',
        level: 'error',
        message: 'lease lost',
        detail: 'subnet=10.99.7.0/24',
        hint: 'see which host took it',
        resolvedAt: null,
      },
    ],
    requests: { refused: { host: 3, method: 2, malformed: 1, timeout: 4, connections: 5 } },
    ...changes,
  };
}
