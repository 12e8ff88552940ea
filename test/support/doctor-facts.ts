import assert from 'node:assert/strict';
import type { KernelPathReason } from '../../src/dataplane/kernel-path.js';
import type { KernelPathStatus } from '../../src/observe/kernel-path-status.js';
import { CHECKS } from '../../src/ctl/doctor/diagnose.js';
import type { DoctorFacts, Found, PeerProbe, PeerWay } from '../../src/ctl/doctor/facts.js';
import type { LeaseRow } from '../../src/ctl/lease-rows.js';
import { parseSave } from '../../src/firewall/iptables-plan.js';
import { iptablesRuleset } from '../../src/firewall/trace/iptables-ruleset.js';
import type { AddressInfo } from '../../src/netlink/address.js';
import type { LinkInfo } from '../../src/netlink/link.js';
import type { RouteInfo } from '../../src/netlink/route.js';
import type { DaemonStatus, TunnelStatus } from '../../src/observe/status.js';
import { ip, net, network } from './builders.js';

/** The lease of host `n`: 10.5.n.0/24 at 192.0.2.n. */
export function row(n: number, changes: Partial<LeaseRow> = {}): LeaseRow {
  return {
    key: `10.5.${n}.0-24`,
    subnet: `10.5.${n}.0/24`,
    ipv6Subnet: null,
    publicIp: `192.0.2.${n}`,
    publicIpv6: null,
    backend: 'vxlan',
    backendData: null,
    backendV6Data: null,
    isReservation: false,
    expiresInSeconds: 86_000,
    hostName: null,
    ageSeconds: null,
    revision: String(n),
    ...changes,
  };
}

/** A peer where everything gets through. */
export function probe(changes: Partial<PeerProbe> = {}): PeerProbe {
  const good = { underlay: true, underlayFull: true, pathMtu: undefined, overlay: true, tcp: true, udp: true };
  return { lease: row(2), ...good, bridge: true, forward: 'absent', ...changes };
}

/** A device that is up. */
export function link(index: number, name: string, changes: Partial<LinkInfo> = {}): LinkInfo {
  return {
    index,
    name,
    kind: '',
    isUp: true,
    isRunning: true,
    isLoopback: false,
    mtu: 1500,
    mac: undefined,
    txQueueLength: 1000,
    alias: '',
    masterIndex: 0,
    isIsolated: false,
    isHairpin: false,
    lowerIndex: 0,
    details: undefined,
    ...changes,
  };
}

/** A permanent address of the device with that index. */
export function address(index: number, text: string, length: number): AddressInfo {
  const flags = { isPermanent: true, isTentative: false, isDeprecated: false, isSecondary: false };
  return { index, address: ip(text), length, peer: undefined, scope: 0, ...flags };
}

/** A route of the main table by way of 192.0.2.254, as an administrator makes it. */
export function route(destination: string, changes: Partial<RouteInfo> = {}): RouteInfo {
  return {
    destination: net(destination),
    type: 'unicast',
    table: 254,
    protocol: 3,
    scope: 'global',
    tos: 0,
    metric: 0,
    prefsrc: undefined,
    index: 2,
    gateway: ip('192.0.2.254'),
    isOnlink: false,
    nexthopId: 0,
    multipath: [],
    ...changes,
  };
}

/** What `iptables-save` prints, as facts. */
export function rules(...lines: readonly string[]): Pick<DoctorFacts, 'iptables' | 'rulesets'> {
  const iptables = parseSave([...lines, 'COMMIT', ''].join('\n'));
  return { iptables, rulesets: iptablesRuleset(iptables, 'iptables') };
}

/** A peer's packets go where the daemon's route says. */
export function way(changes: Partial<PeerWay> = {}): PeerWay {
  const expected = route('10.5.2.0/24', { protocol: 173, index: 4, gateway: undefined });
  return { subnet: net('10.5.2.0/24'), isOfContainer: false, expected, taken: expected, ...changes };
}

/** A daemon with nothing wrong, as far as the checks look. */
export const daemon = {
  isReady: true,
  notReadyBecause: [],
  startedAt: '2026-01-03T05:00:00.000Z',
  uptimeSeconds: 600,
  mtu: 1450,
  lease: { subnet: '10.5.1.0/24', publicIp: '192.0.2.1', isPublished: true, overwrittenAt: null, rivals: [] },
  underlay: { device: 'eth0', address: '192.0.2.1' },
  peerSet: { quarantined: [], quarantinedCounts: {}, badKeys: [], badKeyCount: 0 },
  reconcile: { drift: { link: 0, route: 0 }, conflicts: [], failures: [] },
  firewall: { mode: 'iptables', repaired: { 'chain-changed': 0 } },
} as unknown as DaemonStatus;

/** A lease that an earlier process has saved. */
export const SAVED: NonNullable<DaemonStatus['savedState']> = {
  subnet: '10.5.1.0/24',
  savedAt: '2026-03-01T10:00:00.000Z',
  leaseEndsAt: '2026-03-02T09:00:00.000Z',
  isolatedBecause: null,
};

/** The lease of {@link daemon}. */
export const ownLease = daemon.lease as NonNullable<DaemonStatus['lease']>;

/** A tunnel that has read some datagrams, and lost others before it could. */
export function tunnel(counts: {
  readonly rxPackets: number;
  readonly lost: number;
  readonly unknown?: number;
  readonly kind?: 'native' | 'portable';
}): TunnelStatus {
  const { kind = 'native', rxPackets, lost, unknown = 0 } = counts;
  const drops = { 'receive-overflow': lost, 'source-unknown': unknown, 'source-spoofed': 0, 'length-mismatch': 0 };
  return { kind, device: 'flannel0', workers: 1, counters: { rxPackets, drops } } as unknown as TunnelStatus;
}

/** A kernel path that is not there, for that reason. */
export function refusedKernelPath(reason: KernelPathReason, isDemanded = true): KernelPathStatus {
  const refused = { isDemanded, reason, detail: 'attach XDP program: EBUSY', hint: 'do something' };
  return { isActive: false, receiver: null, refused, counters: null };
}

/** The underlay device, Docker's bridge and the device of the overlay. */
export const LINKS = [
  link(2, 'eth0'),
  link(3, 'docker0', { kind: 'bridge' }),
  link(4, 'flannel.1', { kind: 'vxlan', alias: 'tsflannel:coreos.com/network' }),
];

/** Those on {@link LINKS}. */
export const ADDRESSES = [address(2, '192.0.2.1', 24), address(3, '10.5.1.1', 24), address(4, '10.5.1.0', 32)];

const OWN = row(1);

const OUR_RULES = ['-A FLANNEL-FWD -s 10.5.0.0/16 -j ACCEPT', '-A FLANNEL-FWD -d 10.5.0.0/16 -j ACCEPT'];

/** A host with nothing wrong: lease 1, Docker in it, one peer that answers. */
export function facts(changes: Partial<DoctorFacts> = {}): DoctorFacts {
  return {
    etcdPrefix: '/coreos.com/network',
    etcdEndpoints: ['http://192.0.2.250:2379'],
    storeError: undefined,
    network: network('vxlan'),
    configError: undefined,
    lastValidConfig: undefined,
    leases: [OWN, row(2)],
    clockAheadSeconds: 0,
    nowMs: Date.parse('2026-01-01T00:00:00Z'),
    daemon,
    daemonError: undefined,
    statusSocket: '/run/flannel/tsflanneld.sock',
    subnetFile: '/run/flannel/subnet.env',
    env: undefined,
    links: LINKS,
    addresses: ADDRESSES,
    routes: [
      route('0.0.0.0/0'),
      route('10.5.1.0/24', { protocol: 2, index: 3, gateway: undefined }),
      route('10.5.2.0/24', { protocol: 173, index: 4 }),
    ],
    sysctls: new Map([
      ['net/ipv4/ip_forward', '1'],
      ['net/ipv4/conf/all/rp_filter', '0'],
      ['net/ipv4/conf/eth0/rp_filter', '1'],
    ]),
    ways: [way(), way({ isOfContainer: true })],
    policyRules: [],
    policyRoutes: [],
    ...rules('*filter', ':FORWARD DROP [0:0]', ':FLANNEL-FWD -', '-A FORWARD -j FLANNEL-FWD', ...OUR_RULES),
    docker: undefined,
    containers: undefined,
    proxied: { proxied: [], stale: [], missing: [] },
    macLimit: undefined,
    hasSystemd: true,
    bridgeNetfilter: undefined,
    ip6tables: undefined,
    underlay: { device: 'eth0', mtu: 1500 },
    publicIpNeighbour: undefined,
    own: changes.leases?.[0] ?? OWN,
    probes: [probe()],
    probeNote: undefined,
    ...changes,
  };
}

/** What one check finds by itself. */
export function found(check: string, changes: Partial<DoctorFacts>): readonly Found[] {
  const { run } = CHECKS.find(({ id }) => id === check) ?? assert.fail(check);
  return run(facts(changes));
}

/** What one check finds where it finds one thing. */
export function only(check: string, changes: Partial<DoctorFacts>): Found {
  const [finding, ...more] = found(check, changes);
  assert.ok(finding, `${check} finds nothing`);
  assert.deepEqual(more, []);
  return finding;
}

/** What one check has the operator type, finding by finding. */
export function commands(check: string, changes: Partial<DoctorFacts>): string[] {
  return found(check, changes).map(({ command }) => command);
}
