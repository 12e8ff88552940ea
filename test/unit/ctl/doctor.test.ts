import assert from 'node:assert/strict';
import { CHECKS, diagnose } from '../../../src/ctl/doctor/diagnose.js';
import type { ContainerFacts, ParentFacts } from '../../../src/ctl/doctor/container-facts.js';
import type { DoctorFacts, Finding } from '../../../src/ctl/doctor/facts.js';
import { findPathMtu } from '../../../src/ctl/doctor/probe.js';
import { parseSave } from '../../../src/firewall/iptables-plan.js';
import type { ClusterNetwork, LeasedBlock } from '../../../src/container/cluster-networks.js';
import { parseMac } from '../../../src/ip/mac.js';
import type { ValueEntry } from '../../../src/lease/store.js';
import type { DaemonStatus, PeerStatus } from '../../../src/observe/status.js';
import type { WireguardPathStatus } from '../../../src/observe/wireguard-status.js';
import { ip, net, network } from '../../support/builders.js';
import type { AddressUseStatus, ContainerNetworksStatus } from '../../../src/observe/container-status.js';
import {
  ADDRESSES,
  LINKS,
  SAVED,
  address,
  daemon,
  facts,
  link,
  ownLease,
  probe,
  route,
  row,
  rules,
  tunnel,
  way,
  refusedKernelPath,
} from '../../support/doctor-facts.js';
import {
  sampleCommands,
  sampleContainerNetworks,
  sampleContainerReach,
  samplePeer,
  sampleStatus,
} from '../../support/sample-status.js';

const wireguard = sampleStatus().wireguard as NonNullable<DaemonStatus['wireguard']>;

/** A peer on flannel-wg whose last handshake was so long ago. */
function wireguardPeer(changes: Partial<WireguardPathStatus> = {}, ageSeconds = 60, isLost = false): PeerStatus {
  const peer = samplePeer(5);
  const lastHandshakeAt = new Date(Date.parse(daemon.startedAt) + (600 - ageSeconds) * 1000).toISOString();
  return {
    ...peer,
    wireguard: peer.wireguard.map((path) => ({ ...path, lastHandshakeAt, ...changes })),
    reachability: peer.reachability.map((path) => ({ ...path, state: isLost ? 'unreachable' : 'reachable' })),
  };
}

const sample = sampleContainerNetworks();
const use: AddressUseStatus = {
  address: '192.0.2.65',
  mac: '02:42:c0:00:02:41',
  owner: 'web',
  since: '2026-01-02T03:05:00.000Z',
  state: 'confirmed',
  abandonedSince: null,
};

/** Pools in which nothing is wrong. */
function calmPools(uses: readonly AddressUseStatus[]): ContainerNetworksStatus['pools'] {
  return sample.pools.map((pool) => ({ ...pool, uses, seen: [] }));
}

/** A daemon that serves networks of containers. */
function containers(
  changes: Partial<ContainerNetworksStatus> = {},
  uses: readonly AddressUseStatus[] = [use],
): Pick<DoctorFacts, 'daemon'> {
  return { daemon: { ...daemon, containerNetworks: { ...sample, pools: calmPools(uses), ...changes } } };
}

/** A bridge of Docker whose containers have global addresses, and nothing that protects them. */
const BRIDGE = link(77, 'br-0123456789ab', { kind: 'bridge' });
const OPEN_OVER_IPV6: Partial<DoctorFacts> = {
  links: [...LINKS, BRIDGE],
  addresses: [...ADDRESSES, address(BRIDGE.index, '2001:db8:17::1', 64)],
};

const foreign = { address: '192.0.2.254', mac: parseMac('02:42:c0:00:02:41'), isAnswered: true };

/** An interface on which nothing is wrong. */
const parent: ParentFacts = {
  name: 'eth0',
  macs: [parseMac('02:00:00:00:00:01'), foreign.mac],
  isWireless: false,
  foreign,
};

/** A daemon that serves networks of containers, and what is around it. */
function around(changes: Partial<ContainerFacts>): Partial<DoctorFacts> {
  const calm = { parents: [parent], cluster: undefined, silentHosts: [], stranded: [], machine: '' };
  return { ...containers(), containers: { ...calm, ...changes } };
}

/** The network of the sample, in which this host has one block, and another one those that are given. */
function cluster(others: readonly string[]): ClusterNetwork {
  const entry = { path: '', text: '', revision: 1n, etcdLeaseId: undefined } as unknown as ValueEntry;
  const block = (text: string, host: string): LeasedBlock => ({ block: net(text), host, own: 0n, used: [], entry });
  const blocks = [block('192.0.2.64/30', 'host-1'), ...others.map((text) => block(text, 'host-2'))];
  const [subnet, hosts] = [net('192.0.2.0/24'), ['host-1', 'host-2']];
  return { name: 'lan', subnet, record: undefined, hosts, blocks, addresses: [] };
}

/** All blocks of the sample's range but its first and its last. */
const CROWDED = Array.from({ length: 14 }, (_, index) => `192.0.2.${68 + 4 * index}/30`);

interface Case {
  readonly when: string;
  readonly facts: Partial<DoctorFacts>;
  readonly check: string;
  readonly severity?: Finding['severity'];
  readonly command: RegExp;
  readonly evidence?: RegExp;
}

const CASES: readonly Case[] = [
  {
    when: 'etcd does not answer',
    facts: { storeError: 'no answer', network: undefined, leases: [], own: undefined, probes: [] },
    check: 'etcd',
    command: /^etcdctl --endpoints=http:\/\/192\.0\.2\.250:2379 endpoint health$/,
  },
  {
    when: 'there is no configuration',
    facts: { network: undefined, configError: 'it is empty' },
    check: 'config',
    command: /^tsflannelctl config set/,
  },
  {
    when: 'a lease is not believed',
    severity: 'warning',
    facts: {
      daemon: {
        ...daemon,
        peerSet: {
          ...daemon.peerSet,
          quarantined: [
            { key: '192.0.2.0-24', publicIp: '192.0.2.9', reason: 'outside-network', detail: 'it is outside' },
          ],
          quarantinedCounts: { ...daemon.peerSet.quarantinedCounts, 'outside-network': 1 },
        },
      },
    },
    check: 'leases-believed',
    command: /^tsflannelctl leases release 192\.0\.2\.0-24$/,
  },
  {
    when: 'a key among the leases is none',
    severity: 'warning',
    facts: { daemon: { ...daemon, peerSet: { ...daemon.peerSet, badKeys: ["it's; rm"], badKeyCount: 1 } } },
    check: 'leases-believed',
    command: /^tsflannelctl leases release 'it'\\''s; rm'$/,
  },
  {
    when: 'another key names addresses of the own subnet',
    facts: { daemon: { ...daemon, lease: { ...ownLease, rivals: ['10.5.0.0-16'] } } },
    check: 'lease-overlap',
    command: /^tsflannelctl leases release 10\.5\.0\.0-16$/,
  },
  { when: 'no daemon runs', facts: { daemon: undefined }, check: 'daemon', command: /^systemctl start tsflanneld$/ },
  {
    when: 'the daemon is not ready',
    facts: { daemon: { ...daemon, isReady: false, notReadyBecause: ['no lease'] } },
    check: 'daemon',
    command: /^journalctl/,
    evidence: /no lease/,
  },
  {
    when: 'the daemon works with its saved state',
    facts: { daemon: { ...daemon, savedState: SAVED } },
    check: 'saved-state',
    severity: 'warning',
    command: /^etcdctl --endpoints=http:\/\/192\.0\.2\.250:2379 endpoint health/,
    evidence: /saved at 2026-03-01T10:00:00\.000Z, which ends at 2026-03-02T/,
  },
  {
    when: 'the lease of the saved state may be over',
    facts: { daemon: { ...daemon, savedState: { ...SAVED, isolatedBecause: 'its lease ended' } } },
    check: 'saved-state',
    command: /bring etcd back/,
    evidence: /its lease ended$/,
  },
  {
    when: 'the own lease runs out',
    facts: { own: row(1, { expiresInSeconds: 600 }) },
    check: 'own-lease',
    severity: 'warning',
    command: /restart tsflanneld/,
    evidence: /10m/,
  },
  {
    when: "Docker's bridge has an address of another host",
    facts: { addresses: [address(3, '10.5.9.1', 24)] },
    check: 'docker-bridge',
    command: /^tsflannelctl docker enable && systemctl restart docker$/,
    evidence: /docker0 has 10\.5\.9\.1\/24, the lease of this host is 10\.5\.1\.0\/24/,
  },
  {
    when: 'Docker does not use the overlay at all',
    facts: { addresses: [address(3, '172.17.0.1', 16)] },
    check: 'docker-bridge',
    severity: 'warning',
    command: /restart docker/,
  },
  {
    when: 'a bridge claims the whole overlay',
    facts: { addresses: [address(3, '10.5.1.1', 16)] },
    check: 'docker-bridge',
    command: /restart docker/,
  },
  {
    when: 'the kernel does not forward',
    facts: { sysctls: new Map([['net/ipv4/ip_forward', '0']]) },
    check: 'ip-forward',
    command: /^sysctl -w net\.ipv4\.ip_forward=1$/,
  },
  {
    when: 'the host forwards IPv6 and ignores its router',
    severity: 'warning',
    facts: {
      daemon: { ...daemon, ndpProxy: sampleStatus().ndpProxy },
      sysctls: new Map([
        ['net/ipv6/conf/all/forwarding', '1'],
        ['net/ipv6/conf/eth0/accept_ra', '1'],
      ]),
    },
    check: 'accept-ra',
    command: /^sysctl -w net\.ipv6\.conf\.eth0\.accept_ra=2$/,
  },
  {
    when: 'the FORWARD policy drops and nobody accepts',
    facts: rules('*filter', ':FORWARD DROP [0:0]'),
    check: 'forward-rules',
    command: /^iptables -A FORWARD -s 10\.5\.0\.0\/16 -j ACCEPT && iptables -A FORWARD -d/,
  },
  {
    when: 'an earlier rule drops containers',
    facts: rules('*filter', ':FORWARD ACCEPT [0:0]', '-A FORWARD -s 10.5.0.0/16 -j DROP', '-A FORWARD -j FLANNEL-FWD'),
    check: 'forward-rules',
    command: /^iptables -I FORWARD 1 -s/,
    evidence: /-s 10\.5\.0\.0\/16 -j DROP/,
  },
  {
    when: 'Docker masquerades before we do',
    facts: rules(
      '*nat',
      ':POSTROUTING ACCEPT [0:0]',
      '-A POSTROUTING -s 10.5.1.0/24 ! -o docker0 -j MASQUERADE',
      '-A POSTROUTING -j FLANNEL-POSTRTG',
    ),
    check: 'masquerade',
    severity: 'warning',
    command: /restart docker/,
  },
  {
    when: 'a foreign route takes a peer',
    facts: { routes: [route('10.5.2.0/24')] },
    check: 'foreign-route',
    command: /^ip route del 10\.5\.2\.0\/24 via 192\.0\.2\.254 dev eth0$/,
  },
  {
    when: 'somebody keeps altering our objects',
    facts: {
      daemon: { ...daemon, reconcile: { ...daemon.reconcile, drift: { ...daemon.reconcile.drift, route: 40 } } },
    },
    check: 'altered',
    severity: 'warning',
    command: /nmcli device set flannel\.1 managed no/,
    evidence: /route 40/,
  },
  {
    when: 'somebody keeps rewriting our firewall rules',
    facts: {
      daemon: {
        ...daemon,
        firewall: { mode: 'iptables', repaired: { 'jump-missing': 40 } } as unknown as DaemonStatus['firewall'],
      },
    },
    check: 'rewritten-rules',
    severity: 'warning',
    command: /^nft monitor/,
    evidence: /jump-missing 40/,
  },
  {
    when: 'a lease of others lies inside the own subnet',
    facts: { leases: [row(1), row(2), row(9, { subnet: '10.5.1.128/25', key: '10.5.1.128-25' })] },
    check: 'lease-overlap',
    command: /^tsflannelctl leases release 10\.5\.1\.128-25$/,
  },
  {
    when: 'another host keeps writing our lease',
    facts: {
      daemon: {
        ...daemon,
        lease: {
          ...ownLease,
          overwrittenAt: '2025-12-31T23:59:50Z',
          counters: { overwrites: 3 } as unknown as NonNullable<DaemonStatus['lease']>['counters'],
        },
      },
    },
    check: 'duplicate-public-ip',
    command: /^tsflannelctl doctor # on the host that has the other FLANNELD_PUBLIC_IP=192\.0\.2\.1$/,
    evidence: /3 times, last 10s ago/,
  },
  {
    when: 'the public address is that of a neighbour',
    facts: { daemon: { ...daemon, lease: { ...ownLease, publicIp: '192.0.2.9' } }, publicIpNeighbour: 'eth0' },
    check: 'duplicate-public-ip',
    command: /^echo FLANNELD_PUBLIC_IP=192\.0\.2\.1 >>\/etc\/default\/tsflanneld && systemctl restart tsflanneld$/,
    evidence: /192\.0\.2\.9 answers behind eth0/,
  },
  {
    when: 'the configuration became invalid',
    facts: {
      configError: 'no backend of that type',
      lastValidConfig: { text: '{\n "Network": "10.5.0.0/16", "x": "it\'s" }', revision: '7' },
    },
    check: 'config',
    command:
      /^printf %s '\{"Network":"10\.5\.0\.0\/16","x":"it'\\''s"\}' \| tsflannelctl config set --yes - # as it was at revision 7$/,
    evidence: /no backend/,
  },
  {
    when: 'a rule diverts the overlay',
    facts: {
      ways: [way({ taken: route('0.0.0.0/0') })],
      policyRules: [
        { priority: 0, destination: undefined, action: 'lookup', table: 'local', text: 'from all lookup local' },
        { priority: 90, destination: net('172.16.0.0/12'), action: 'lookup', table: 'vpn', text: 'to 172.16.0.0/12' },
        { priority: 100, destination: undefined, action: 'lookup', table: 'vpn', text: 'from all lookup vpn' },
      ],
      policyRoutes: [{ table: 'vpn', destination: undefined }],
    },
    check: 'diverted',
    command: /^ip rule add pref 99 to 10\.5\.0\.0\/16 lookup main #/,
    evidence: /take 0\.0\.0\.0\/0 via 192\.0\.2\.254 dev eth0; rule 100: from all lookup vpn$/,
  },
  {
    when: "the backend's datagrams are dropped here",
    facts: rules('*filter', ':INPUT ACCEPT [0:0]', '-A INPUT -p udp -m udp --dport 8472 -j DROP'),
    check: 'overlay-rules',
    command: /^iptables -I INPUT 1 -p udp --dport 8472 -j ACCEPT/,
    evidence: /chain INPUT, rule 1: -p udp -m udp --dport 8472 -j DROP/,
  },
  {
    when: 'Docker was started with a larger MTU',
    facts: { docker: { pid: 9, settings: 'subnet-env', bip: '10.5.1.1/24', mtu: 1500 } },
    check: 'container-mtu',
    command: /^systemctl restart docker #/,
    evidence: /dockerd runs with --mtu=1500/,
  },
  {
    when: 'a container has a larger MTU',
    facts: { links: [...LINKS, link(9, 'veth1', { masterIndex: 3, mtu: 1500 })] },
    check: 'container-mtu',
    command: /^tsflannelctl docker enable && systemctl restart docker #/,
    evidence: /veth1 1500/,
  },
  {
    when: 'containers are in a network of their own',
    facts: {
      links: [
        ...LINKS,
        link(8, 'br-0123456789ab', { kind: 'bridge' }),
        link(9, 'veth1', { masterIndex: 8, mtu: 1500 }),
      ],
      addresses: [...ADDRESSES, address(8, '172.18.0.1', 16)],
    },
    check: 'docker-network',
    severity: 'note',
    command: /--filter network=0123456789ab/,
    evidence: /br-0123456789ab has 172\.18\.0\.0\/16/,
  },
  {
    when: 'behind a peer there are no containers',
    facts: { probes: [probe({ bridge: false, forward: undefined })] },
    check: 'far-bridge',
    severity: 'warning',
    command: /^tsflannelctl doctor # on 192\.0\.2\.2$/,
  },
  {
    when: 'a peer lets nothing through to its containers',
    facts: { probes: [probe({ forward: 'silence' })] },
    check: 'far-forward',
    command: /^tsflannelctl doctor # on 192\.0\.2\.2$/,
  },
  {
    when: 'an object of somebody else is in the way',
    facts: { daemon: { ...daemon, reconcile: { ...daemon.reconcile, conflicts: ['cannot add route'] } } },
    check: 'altered',
    command: /^ip /,
    evidence: /cannot add route/,
  },
  {
    when: 'the threads of the tunnel take less than what arrives',
    facts: { daemon: { ...daemon, tunnels: [tunnel({ rxPackets: 9000, lost: 1000 })] } },
    check: 'receive-overflow',
    severity: 'warning',
    command: /^tcpdump .*; if it is wanted, start the daemon with --udp-workers=2$/,
    evidence: /discarded 1000 of 10000/,
  },
  {
    when: 'the portable tunnel takes less than what arrives, and most of that is from nobody',
    facts: { daemon: { ...daemon, tunnels: [tunnel({ rxPackets: 0, lost: 1000, unknown: 4000, kind: 'portable' })] } },
    check: 'receive-overflow',
    severity: 'warning',
    command: /--datapath=native$/,
    evidence: /discarded 1000 of 5000/,
  },
  {
    when: 'another program has the place of the kernel path',
    facts: {
      underlay: { device: 'eth7', mtu: 1500 },
      daemon: {
        ...daemon,
        tunnels: [{ ...tunnel({ rxPackets: 0, lost: 0 }), kernelPath: refusedKernelPath('foreign-program') }],
      },
    },
    check: 'kernel-path',
    severity: 'warning',
    command: /^ip -details link show dev eth7 /,
    evidence: /^foreign-program: attach XDP program: EBUSY$/,
  },
  {
    when: 'two leases have one public address',
    facts: { leases: [row(1), row(2), row(3, { publicIp: '192.0.2.2', revision: '10' })] },
    check: 'duplicate-public-ip',
    // Revisions are numbers, not texts: 2 is older than 10.
    command: /^tsflannelctl leases release 10\.5\.2\.0\/24$/,
  },
  {
    when: 'a peer has the VTEP MAC of another host',
    facts: {
      daemon: {
        ...daemon,
        devices: ['flannel.1', 'flannel-v6.1', 'flannel0'].map((name) => ({
          name,
        })) as unknown as DaemonStatus['devices'],
        peers: [
          { ...samplePeer(0), skipped: null },
          { ...samplePeer(1), skipped: { cause: 'vtep-mac', reason: 'its VtepMAC is that of …', hint: '' } },
        ],
      },
    },
    check: 'vtep-mac',
    command:
      /^ip link del flannel\.1 && ip link del flannel-v6\.1 && systemctl restart tsflanneld # on 198\.51\.100\.2,/,
    evidence: /that of …/,
  },
  {
    when: 'the kernel lacks WireGuard',
    facts: {
      daemon: {
        ...daemon,
        reconcile: {
          ...daemon.reconcile,
          failures: [
            { object: 'link flannel-wg', error: 'cannot make wireguard device flannel-wg: EOPNOTSUPP', attempt: 3 },
          ],
        },
      },
    },
    check: 'wireguard-module',
    command: /^modprobe wireguard /,
    evidence: /EOPNOTSUPP/,
  },
  {
    when: 'others can read the private key',
    facts: { daemon: { ...daemon, wireguard: { ...wireguard, isKeyFileOpen: true }, peers: [] } },
    check: 'wireguard-key',
    command: /^chmod 600 \/run\/flannel\/wgkey /,
  },
  {
    when: 'a peer of WireGuard never answered',
    facts: { daemon: { ...daemon, wireguard, peers: [wireguardPeer({ lastHandshakeAt: null, rxBytes: 0 })] } },
    check: 'wireguard',
    command: /^tcpdump -ni any udp port 51820 # here and on 198\.51\.100\.6:.* 3p7bfXt9/,
    evidence: /flannel-wg to 198\.51\.100\.6:51820: no handshake, 2048 bytes sent, 0 received/,
  },
  {
    when: 'a peer of WireGuard answers no longer',
    facts: { daemon: { ...daemon, wireguard, peers: [wireguardPeer({}, 301, true)] } },
    check: 'wireguard',
    command: /^tcpdump/,
    evidence: /last handshake 20/,
  },
  {
    when: 'the clock is wrong',
    facts: { clockAheadSeconds: -90 },
    check: 'clock',
    severity: 'warning',
    command: /^timedatectl/,
    evidence: /1m 30s behind/,
  },
  {
    when: 'the clock is fast',
    facts: { clockAheadSeconds: 90 },
    check: 'clock',
    severity: 'warning',
    command: /^timedatectl/,
    evidence: /1m 30s ahead/,
  },
  {
    when: 'the reverse path filter is strict and backends are mixed',
    facts: { leases: [row(1), row(2, { backend: 'udp' })] },
    check: 'rp-filter',
    severity: 'warning',
    command: /^sysctl -w net\.ipv4\.conf\.eth0\.rp_filter=2$/,
  },
  {
    when: 'the reverse path filter of all devices is strict, and that of the device is off',
    facts: {
      leases: [row(1), row(2, { backend: 'udp' })],
      sysctls: new Map([
        ['net/ipv4/ip_forward', '1'],
        ['net/ipv4/conf/all/rp_filter', '1'],
      ]),
    },
    check: 'rp-filter',
    severity: 'warning',
    command: /^sysctl -w net\.ipv4\.conf\.eth0\.rp_filter=2$/,
    evidence: /backends: vxlan, udp$/,
  },
  {
    when: 'a host is gone and its lease runs out',
    facts: {
      probes: [
        probe({
          underlay: false,
          underlayFull: false,
          overlay: false,
          bridge: undefined,
          forward: undefined,
          lease: row(2, { expiresInSeconds: 900 }),
        }),
      ],
    },
    check: 'peers',
    severity: 'warning',
    command: /^tsflannelctl leases release 10\.5\.2\.0\/24$/,
  },
  {
    when: 'a host does not answer but renews',
    facts: {
      probes: [probe({ underlay: false, underlayFull: false, overlay: false, bridge: undefined, forward: undefined })],
    },
    check: 'peers',
    severity: 'warning',
    command: /^ping -c 3 192\.0\.2\.2$/,
  },
  {
    when: 'the path carries less than the MTU',
    facts: { probes: [probe({ underlayFull: false, pathMtu: 1400 })] },
    check: 'path-mtu',
    command: /^ip link set dev eth0 mtu 1400 # or "MTU": 1400 inside Backend/,
    evidence: /1500 bytes does not arrive, one of 1400 does/,
  },
  {
    when: 'the path carries less than the MTU, which the backend has no option for',
    facts: { network: network('udp'), probes: [probe({ underlayFull: false, pathMtu: 1400 })] },
    check: 'path-mtu',
    command: /^ip link set dev eth0 mtu 1400$/,
  },
  {
    when: 'the overlay does not get through',
    facts: {
      probes: [probe({ overlay: false, bridge: undefined, forward: undefined, tcp: undefined, udp: undefined })],
    },
    check: 'overlay-blocked',
    command: /^iptables -I INPUT -p udp --dport 8472 -j ACCEPT/,
  },
  ...(['9000', '8285'] as const).map((port): Case => ({
    when: `the overlay does not get through to a peer with udp, where the port is ${port}`,
    facts: {
      network: port === '8285' ? network('vxlan', { port: 4789 }) : network('udp', { port: 9000 }),
      probes: [
        probe({
          lease: { ...row(2), backend: 'udp' },
          ...{ overlay: false, bridge: undefined, forward: undefined, tcp: undefined, udp: undefined },
        }),
      ],
    },
    check: 'overlay-blocked',
    command: new RegExp(`^iptables -I INPUT -p udp --dport ${port} -j ACCEPT`),
  })),
  {
    when: 'only ICMP survives vxlan',
    facts: { probes: [probe({ tcp: false, udp: false })] },
    check: 'checksum',
    command: /^ethtool -K flannel\.1 tx-checksum-ip-generic off/,
  },
  {
    when: 'bridged packets bypass iptables',
    facts: {
      bridgeNetfilter: { message: 'bypass', hint: 'if services of Kubernetes are used, run modprobe br_netfilter' },
    },
    check: 'bridge-netfilter',
    severity: 'note',
    command: /^modprobe br_netfilter$/,
  },
  {
    when: 'commands of backend extension fail for a peer',
    facts: { daemon: { ...daemon, commands: sampleCommands() } },
    check: 'extension-commands',
    severity: 'warning',
    command: /^tsflannelctl config get # and run that command by hand/,
    evidence: /^10\.100\.2\.0\/24: SubnetAddCommand: exit status 2: RTNETLINK answers: File exists$/,
  },
  {
    when: 'a command of backend extension fails for this host',
    facts: {
      daemon: {
        ...daemon,
        commands: {
          ...sampleCommands(),
          failing: [{ command: 'PostStartupCommand', peer: null, failure: 'exit status 1', lastLine: '', attempts: 3 }],
        },
      },
    },
    check: 'extension-commands',
    command: /^tsflannelctl config get/,
    evidence: /^exit status 1$/,
  },
  {
    when: 'the interface of a container network is down',
    facts: { links: LINKS.map((each) => (each.name === 'eth0' ? { ...each, isUp: false } : each)), ...containers() },
    check: 'network-parent',
    command: /^ip link set dev eth0 up$/,
  },
  {
    when: 'the interface of a container network does not exist',
    facts: containers({ networks: sample.networks.map((each) => ({ ...each, parent: 'eth9' })) }),
    check: 'network-parent',
    command: /^for c in .*network=5f2b0c7d9e1a.*; docker network rm 5f2b0c7d9e1a #/,
  },
  {
    when: 'another host was given the address of a container',
    facts: containers({}, [{ ...use, state: 'lost' }]),
    check: 'address-lost',
    command: /^docker restart web$/,
  },
  {
    when: 'another host was given the address of a namespace',
    facts: containers({}, [{ ...use, owner: 'netns /run/netns/web eth0', state: 'lost' }]),
    check: 'address-lost',
    command: /^tsflannelctl detach --netns \/run\/netns\/web --ifname eth0$/,
  },
  {
    when: 'a container network has no address left',
    facts: containers({ pools: calmPools([use]).map((pool) => ({ ...pool, free: 0 })) }),
    check: 'address-range',
    severity: 'warning',
    command: /^tsflannelctl docker-networks #/,
    evidence: /^1 in use, no block of 192\.0\.2\.64\/26 is free besides 192\.0\.2\.64\/30$/,
  },
  {
    when: 'a machine on the network has an address of containers',
    facts: containers({ pools: calmPools([use]).map((pool) => ({ ...pool, seen: sample.pools[0]?.seen ?? [] })) }),
    check: 'address-seen',
    severity: 'note',
    command: /^ip neigh show #/,
    evidence: /^192\.0\.2\.67 at 02:00:00:00:00:67$/,
  },
  {
    when: 'a container network is nearly full',
    facts: around({ cluster: [cluster(CROWDED)] }),
    check: 'address-range',
    severity: 'warning',
    command: /^tsflannelctl docker-networks #/,
    evidence: /^of the 64 addresses of 192\.0\.2\.64\/26, 59 are in use or leased by host-1; host-2$/,
  },
  {
    when: 'a container network is nearly full, and a host that is gone has a part of it',
    facts: around({ cluster: [cluster(CROWDED)], silentHosts: ['host-2', 'host-9'] }),
    check: 'address-range',
    severity: 'warning',
    command: /^tsflannelctl docker-networks release host-2 #/,
  },
  {
    when: 'Docker could not start containers again',
    facts: around({ stranded: [{ name: 'web', error: 'plugin "tsflannel" not found' }] }),
    check: 'container-start',
    command: /^docker start web$/,
    evidence: /^web: plugin "tsflannel" not found$/,
  },
  ...(
    [
      ['', /^bridge link set dev PORT learning on flood on locked off #/],
      ['VMware, Inc. VMware7,1', /^esxcli .* --allow-promiscuous=true --allow-forged-transmits=true #/],
      ['innotek GmbH VirtualBox', /^VBoxManage controlvm NAME nicpromisc1 allow-all #/],
      ['Microsoft Corporation Virtual Machine', /^Set-VMNetworkAdapter -VMName NAME -MacAddressSpoofing On #/],
      ['Amazon EC2 c5.large', /; docker network rm 5f2b0c7d9e1a # this cloud/],
    ] as const
  ).map(([machine, command]): Case => ({
    when: `the network drops frames of containers, on a machine "${machine}"`,
    facts: around({ machine, parents: [{ ...parent, foreign: { ...foreign, isAnswered: false } }] }),
    check: 'foreign-mac',
    command,
    evidence: /^192\.0\.2\.254 answers 02:00:00:00:00:01, and not 02:42:c0:00:02:41 on the same interface$/,
  })),
  {
    when: 'the network is a Wi-Fi, which drops frames of containers',
    facts: around({ parents: [{ ...parent, isWireless: true, foreign: { ...foreign, isAnswered: false } }] }),
    check: 'foreign-mac',
    command: /; docker network rm 5f2b0c7d9e1a # Wi-Fi/,
  },
  {
    when: 'a switch port gets more MAC addresses than it takes',
    facts: { ...around({}), macLimit: 1 },
    check: 'mac-limit',
    command: /^tsflannelctl docker-networks # .* end 2 here/,
    evidence: /^2 MAC addresses, the interface's own included, and the limit is 1$/,
  },
  {
    when: 'a switch port takes no further container',
    facts: { ...around({}), macLimit: 2 },
    check: 'mac-limit',
    severity: 'warning',
    command: /^tsflannelctl docker-networks # .* end 1 here/,
  },
  {
    when: 'the rules of container networks could not be written',
    facts: containers({ firewall: { ...sample.firewall, isInPlace: false, lastError: 'there is no program nft' } }),
    check: 'container-rules',
    command: /^journalctl -u tsflanneld # apt install nftables/,
    evidence: /^there is no program nft$/,
  },
  {
    when: 'somebody keeps changing the rules of container networks',
    facts: containers({ firewall: { ...sample.firewall, repaired: { 'table-missing': 2, 'jump-missing': 1 } } }),
    check: 'container-rules',
    severity: 'warning',
    command: /^nft monitor/,
    evidence: /^3 repairs of inet tsflannel-1a2b3c4d /,
  },
  {
    when: 'containers of Docker have global addresses and no rules',
    facts: OPEN_OVER_IPV6,
    check: 'docker-ipv6',
    severity: 'warning',
    command: /^ip6tables -P FORWARD DROP # or "ip6tables": true/,
  },
  {
    when: 'the daemon has made the socket of the plugin, and systemd could',
    facts: containers({ socket: '/run/docker/plugins/tsflannel.sock' }),
    check: 'plugin-socket',
    severity: 'warning',
    command: /^systemctl stop tsflanneld && systemctl enable --now tsflannel-docker-plugin\.socket && systemctl start/,
  },
  {
    when: 'an entry is left that nobody is behind',
    facts: { proxied: { proxied: [], stale: [{ address: ip('2001:db8::2'), device: 'eth0' }], missing: [] } },
    check: 'ndp-stale',
    severity: 'warning',
    command: /^ip -6 neigh del proxy 2001:db8::2 dev eth0$/,
  },
  {
    when: "a container of Docker's bridge is not answered for",
    facts: {
      daemon: { ...daemon, ndpProxy: null },
      proxied: {
        proxied: [],
        stale: [],
        missing: [{ address: ip('2001:db8::2'), device: 'eth0', bridge: 'docker0' }],
      },
    },
    check: 'ndp-missing',
    severity: 'warning',
    command: /^echo FLANNELD_NDP_PROXY=true >> \/etc\/default\/tsflanneld && systemctl restart tsflanneld #/,
  },
  {
    when: 'containers have many multicast groups',
    facts: {
      proxied: {
        proxied: Array.from({ length: 600 }, (_, n) => ({ address: ip('2001:db8::').add(BigInt(n)), device: 'eth0' })),
        stale: [],
        missing: [],
      },
    },
    check: 'mld-groups',
    severity: 'note',
    command: /^ip -6 maddr show dev eth0/,
  },
  {
    when: 'containers of hosts behind a router are left to it',
    facts: { daemon: { ...daemon, containerReach: { ...sampleContainerReach(), unplaced: [], refused: [] } } },
    check: 'container-reach',
    severity: 'note',
    command: /^tsflannelctl docker-networks routes/,
  },
  {
    when: 'a host tells what is not believed',
    facts: { daemon: { ...daemon, containerReach: { ...sampleContainerReach(), unplaced: [], skipped: [] } } },
    check: 'container-facts',
    severity: 'warning',
    command: /^tsflannelctl docker-networks #/,
  },
];

describe('diagnose', () => {
  it('leaves Docker alone where its containers are closed over IPv6, or have no global addresses', () => {
    const closed = (...lines: readonly string[]): Partial<DoctorFacts> => {
      return { ...OPEN_OVER_IPV6, ip6tables: parseSave(['*filter', ...lines, 'COMMIT', ''].join('\n')) };
    };
    for (const changes of [
      closed(':FORWARD DROP [0:0]'),
      closed(':FORWARD ACCEPT [0:0]', ':DOCKER - [0:0]'),
      { ...OPEN_OVER_IPV6, addresses: [...ADDRESSES, address(BRIDGE.index, 'fd00:17::1', 64)] },
      { ...OPEN_OVER_IPV6, addresses: [...ADDRESSES, address(2, '2001:db8:17::1', 64)] },
      { ...OPEN_OVER_IPV6, links: [...LINKS, { ...BRIDGE, name: 'br-lan' }] },
      { ...OPEN_OVER_IPV6, links: [...LINKS, { ...BRIDGE, kind: 'bond' }] },
      { ...OPEN_OVER_IPV6, sysctls: new Map([...facts().sysctls, ['net/ipv6/conf/all/forwarding', '0']]) },
    ]) {
      assert.deepEqual(
        diagnose(facts(changes)).filter(({ check }) => check === 'docker-ipv6'),
        [],
      );
    }
  });

  it('finds nothing on a host with nothing wrong', () => {
    assert.deepEqual(diagnose(facts()), []);
    assert.deepEqual(diagnose(facts(containers())), []);
    // A session ends when nothing is sent.
    const idle = { daemon: { ...daemon, wireguard, peers: [wireguardPeer({}, 3600)] } };
    assert.deepEqual(diagnose(facts(idle)), []);
  });

  it('finds nothing where containers have room, answers, and fewer MAC addresses than the switch takes', () => {
    const room = CROWDED.slice(0, 13);
    assert.deepEqual(diagnose(facts({ ...around({ cluster: [cluster(room)] }), macLimit: 3 })), []);
    assert.deepEqual(diagnose(facts(around({ parents: [{ ...parent, foreign: undefined }] }))), []);
  });

  it('asks for no socket of systemd where it does not run, and for no addresses that etcd has not confirmed', () => {
    const own = containers({ socket: '/run/docker/plugins/tsflannel.sock' });
    assert.deepEqual(diagnose(facts({ ...own, hasSystemd: false })), []);
    const pools = calmPools([use]).map((pool) => ({ ...pool, free: 0 }));
    assert.deepEqual(diagnose(facts(containers({ pools, isConfirmed: false }))), []);
  });

  for (const { when, facts: changes, check, severity = 'error', command, evidence } of CASES) {
    it(`names the repairing command when ${when}`, () => {
      const findings = diagnose(facts(changes)).filter((finding) => finding.check === check);
      assert.equal(findings.length, 1, JSON.stringify(diagnose(facts(changes))));
      const [finding] = findings;
      assert.equal(finding?.severity, severity);
      assert.match(finding.command, command);
      assert.match(finding.evidence, evidence ?? /./);
    });
  }

  it('blames one cause for one fault', () => {
    const single = CASES.filter(({ check }) => !['config', 'etcd'].includes(check));
    for (const { when, facts: changes, check } of single) {
      assert.deepEqual([...new Set(diagnose(facts(changes)).map((finding) => finding.check))], [check], when);
    }
  });

  it('counts many dead hosts as one finding with a list that ends', () => {
    const silent = { underlay: false, underlayFull: false, overlay: false, bridge: undefined, forward: undefined };
    const probes = Array.from({ length: 64 }, (_, n) => probe({ ...silent, lease: row(n + 2) }));
    const findings = diagnose(facts({ probes }));
    assert.equal(findings.length, 1);
    assert.match(findings[0]?.message ?? '', /^64 hosts do not answer/);
    assert.match(findings[0]?.evidence ?? '', /192\.0\.2\.9 .*; and 56 more$/);
    assert.ok((findings[0]?.evidence.length ?? 0) < 800);
  });

  it('folds what a cause explains below it, and only for the peers that it concerns', () => {
    const silent = { overlay: false, bridge: undefined, forward: undefined };
    const [cut, other] = [probe(silent), probe({ ...silent, lease: row(3) })];
    const ways = [way({ taken: undefined })];
    const [only, ...more] = diagnose(facts({ ways, probes: [cut] }));
    assert.deepEqual(
      [only?.check, only?.consequences.map(({ check }) => check), more],
      ['diverted', ['overlay-blocked'], []],
    );
    const both = diagnose(facts({ ways, probes: [cut, other] })).map(({ check }) => check);
    assert.deepEqual(both, ['diverted', 'overlay-blocked'], 'the rule does not explain the other peer');
    const down = diagnose(facts({ daemon: undefined, own: undefined, probes: [cut] }));
    assert.deepEqual(
      down.map(({ check, consequences }) => [check, consequences.length]),
      [['daemon', 2]],
    );
  });

  it('has one finding for a host whose kernel lacks WireGuard, which is not ready and reaches nobody', () => {
    const failure = { object: 'link flannel-wg', error: 'cannot make flannel-wg: EOPNOTSUPP', attempt: 3 };
    const unready = {
      ...daemon,
      isReady: false,
      notReadyBecause: ['1 object is not as desired'],
      reconcile: { ...daemon.reconcile, failures: [failure] },
    };
    const silent = probe({ overlay: false, bridge: undefined, forward: undefined });
    const [only, ...more] = diagnose(facts({ daemon: unready, own: undefined, probes: [silent] }));
    assert.deepEqual(
      [only?.check, only?.consequences.map(({ check }) => check), more],
      ['wireguard-module', ['daemon', 'own-lease', 'overlay-blocked'], []],
    );
  });

  it('has one finding for a host whose lease another host with its address overwrites', () => {
    const unready = {
      ...daemon,
      isReady: false,
      notReadyBecause: ['lease not yet written as it should be'],
      lease: { ...ownLease, publicIp: '192.0.2.9' },
    };
    const found = facts({ daemon: unready, publicIpNeighbour: 'eth0', probes: [probe({ bridge: false })] });
    const [only, ...more] = diagnose(found);
    assert.deepEqual(
      [only?.check, only?.consequences.map(({ check }) => check), more],
      ['duplicate-public-ip', ['daemon', 'far-bridge'], []],
    );
  });

  it('never tells to remove a default route, nor one of a network that the host is in', () => {
    const all = {
      ...network('vxlan'),
      ipv4: { ...network('vxlan').ipv4, network: net('0.0.0.0/0') },
    } as DoctorFacts['network'];
    const routes = [
      route('0.0.0.0/0'),
      route('192.0.2.0/24', { protocol: 4, gateway: undefined }),
      route('192.0.2.0/25', { protocol: 16, gateway: undefined }),
    ];
    const findings = diagnose(facts({ network: all, routes, ways: [] })).filter(
      ({ check }) => check === 'foreign-route',
    );
    assert.equal(findings.length, 3);
    for (const { command } of findings) assert.doesNotMatch(command, /ip route/);
  });

  it('fits the remedy to the way in which Docker is told', () => {
    const addresses = [address(3, '172.17.0.1', 16)];
    const told = (settings: 'subnet-env' | 'docker-opts' | 'none'): string | undefined =>
      diagnose(facts({ addresses, docker: { pid: 9, settings, bip: undefined, mtu: undefined } }))[0]?.command;
    assert.equal(told('none'), 'tsflannelctl docker enable && systemctl restart docker');
    assert.equal(told('subnet-env'), 'systemctl restart docker');
    assert.equal(told('docker-opts'), 'tsflannelctl docker-opts -d /run/docker_opts.env && systemctl restart docker');
  });

  it('has a case for every check', () => {
    assert.deepEqual([...new Set(CASES.map(({ check }) => check))].sort(), CHECKS.map(({ id }) => id).sort());
  });

  it('says nothing of a tunnel that lost a few datagrams of many in a burst', () => {
    const tunnels = [tunnel({ rxPackets: 1_000_000, lost: 900 })];
    assert.deepEqual(diagnose(facts({ daemon: { ...daemon, tunnels } })), []);
  });

  it('says nothing of reservations whose host is off', () => {
    const off = probe({
      underlay: false,
      underlayFull: false,
      overlay: false,
      bridge: undefined,
      forward: undefined,
      lease: row(2, { isReservation: true }),
    });
    assert.deepEqual(diagnose(facts({ probes: [off] })), []);
  });

  it('takes routes of the kernel, of daemons and of the own subnet for what they are', () => {
    const routes = [
      route('10.5.1.0/25'),
      route('10.5.3.0/24', { protocol: 2 }),
      route('10.5.4.0/24', { index: 4 }),
      route('10.0.0.0/8'),
    ];
    assert.deepEqual(diagnose(facts({ routes })), []);
  });
});

describe('findPathMtu', () => {
  for (const limit of [1280, 1281, 1400, 1498, 1499]) {
    it(`finds ${limit}`, async () => {
      let asked = 0;
      const passes = (bytes: number): Promise<boolean> => Promise.resolve(++asked > 0 && bytes <= limit);
      assert.equal(await findPathMtu(passes, 1500), limit);
      assert.ok(asked <= 9, `${asked} questions`);
    });
  }

  it('gives up where hardly anything passes', async () => {
    assert.equal(await findPathMtu((bytes) => Promise.resolve(bytes <= 576), 1500), undefined);
  });
});
