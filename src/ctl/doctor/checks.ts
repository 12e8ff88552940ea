import { FORWARD_CHAIN, parseRule } from '../../firewall/iptables-plan.js';
import { blockedForwarding, ownMasqueradeFirst } from '../../firewall/findings.js';
import { Prefix } from '../../ip/prefix.js';
import { RTPROT, RT_TABLE_MAIN } from '../../netlink/constants.js';
import type { RouteInfo } from '../../netlink/route.js';
import { ROUTE_PROTOCOL } from '../../reconcile/desired.js';
import { ALIAS_PREFIX, hopIndexes } from '../../reconcile/ownership.js';
import { formatDuration } from '../text-table.js';
import { type Check, type DoctorFacts, type Finding, overlayNetwork } from './facts.js';
import { savedStateCheck } from './saved-state.js';

type Found = Omit<Finding, 'check'>;

/** flannel renews an hour before the end; less than that is left only where nobody renews. */
const NEAR_EXPIRY_SECONDS = 3600;

/** Certificates and logs suffer from more; NTP keeps a clock within milliseconds. */
const CLOCK_TOLERANCE_SECONDS = 30;

/** A device or two altered by hand is nothing; a program that does not stop comes to this within a minute. */
const DRIFT_TOLERANCE = 10;

/** More than one datagram in a thousand lost before it was read: TCP feels that, and bursts alone do not do it. */
const OVERFLOW_TOLERANCE = 0.001;

const RESTART_DOCKER = 'tsflannelctl docker-opts -d /run/docker_opts.env && systemctl restart docker';

/** Everything the doctor looks for, in the order of the report: what others depend on comes first. */
export const CHECKS: readonly Check[] = [
  {
    id: 'etcd',
    title: 'etcd answers',
    run: ({ storeError, etcdEndpoints }) =>
      storeError === undefined
        ? []
        : [
            {
              severity: 'error',
              message: 'etcd does not answer; leases cannot be renewed, and what else depends on it was not looked at',
              evidence: storeError,
              command: `etcdctl --endpoints=${etcdEndpoints.join(',')} endpoint health`,
            },
          ],
  },
  {
    id: 'config',
    title: 'the network configuration is there and valid',
    run: ({ configError }) =>
      configError === undefined
        ? []
        : [
            {
              severity: 'error',
              message: 'there is no network configuration that a daemon could use',
              evidence: configError,
              command: 'tsflannelctl config set FILE',
            },
          ],
  },
  {
    id: 'daemon',
    title: 'the daemon runs and is ready',
    run: ({ daemon, daemonError, statusSocket }) => {
      if (daemon === undefined) {
        const evidence = daemonError ?? `nobody listens on ${statusSocket}`;
        const command = 'systemctl start tsflanneld';
        return [{ severity: 'error', message: 'no daemon runs on this host', evidence, command }];
      }
      if (daemon.isReady) return [];
      return [
        {
          severity: 'error',
          message: 'the daemon is not ready',
          evidence: daemon.notReadyBecause.join('; '),
          command: 'journalctl -u tsflanneld -p warning -e',
        },
      ];
    },
  },
  savedStateCheck,
  {
    id: 'own-lease',
    title: 'this host holds a lease and renews it',
    run: ({ own, storeError, network }) => {
      if (storeError !== undefined || network === undefined) return [];
      if (own === undefined) {
        const message = 'this host holds no lease';
        return [
          {
            severity: 'error',
            message,
            evidence: 'no lease has its subnet or public address',
            command: 'systemctl restart tsflanneld',
          },
        ];
      }
      const seconds = own.expiresInSeconds;
      if (seconds === null || seconds >= NEAR_EXPIRY_SECONDS) return [];
      return [
        {
          severity: 'warning',
          message: `the lease of this host, ${own.subnet}, is not being renewed`,
          evidence: `it ends in ${formatDuration(seconds)}`,
          command: 'systemctl restart tsflanneld',
        },
      ];
    },
  },
  { id: 'leases-believed', title: 'every key among the leases is a lease that can be believed', run: doubtfulLeases },
  { id: 'docker-bridge', title: "Docker's bridge lies in the leased subnet", run: dockerBridge },
  { id: 'ip-forward', title: 'the kernel forwards packets', run: forwarding },
  { id: 'forward-rules', title: 'the FORWARD chain lets containers through', run: forwardRules },
  { id: 'masquerade', title: 'nobody else masquerades packets into the overlay', run: foreignMasquerade },
  { id: 'foreign-route', title: 'no route of others takes packets of the overlay', run: foreignRoutes },
  { id: 'altered', title: 'no other program alters the devices and rules of the overlay', run: alteredObjects },
  { id: 'duplicate-public-ip', title: 'each public address holds one lease', run: duplicateAddresses },
  { id: 'vtep-mac', title: 'each VXLAN device has a MAC address of its own', run: sharedVtepMacs },
  { id: 'clock', title: "this host's clock agrees with etcd's", run: clockTrouble },
  { id: 'rp-filter', title: 'the reverse path filter bears mixed backends', run: reversePath },
  { id: 'peers', title: 'every lease has a living host', run: deadPeers },
  { id: 'path-mtu', title: 'the path to each peer carries full packets', run: pathMtu },
  { id: 'overlay-blocked', title: 'packets of the overlay reach each peer', run: blockedOverlay },
  { id: 'receive-overflow', title: 'the tunnel reads all datagrams that arrive', run: receiveOverflow },
  { id: 'checksum', title: 'TCP and UDP arrive intact through vxlan', run: checksumHole },
  {
    id: 'bridge-netfilter',
    title: 'packets on a bridge pass iptables',
    run: ({ bridgeNetfilter }) => {
      if (bridgeNetfilter === undefined) return [];
      const { message, hint } = bridgeNetfilter;
      const command = hint.includes('modprobe')
        ? 'modprobe br_netfilter'
        : 'sysctl -w net.bridge.bridge-nf-call-iptables=1';
      return [{ severity: 'note', message, evidence: 'only matters where services of Kubernetes are used', command }];
    },
  },
];

/** Runs every check. */
export function diagnose(facts: DoctorFacts): readonly Finding[] {
  return CHECKS.flatMap((check) => check.run(facts).map((finding) => ({ check: check.id, ...finding })));
}

function ownSubnet({ own, env }: DoctorFacts): Prefix | undefined {
  return own === undefined ? env?.subnet : Prefix.parse(own.subnet);
}

function dockerBridge(facts: DoctorFacts): readonly Found[] {
  const network = overlayNetwork(facts);
  const subnet = ownSubnet(facts);
  if (network === undefined || subnet === undefined) return [];
  const bridges = facts.links.filter(({ kind }) => kind === 'bridge');
  const placed = bridges.flatMap((bridge) =>
    facts.addresses
      .filter(({ index, address }) => index === bridge.index && address.family === 4)
      .map(({ address, length }) => ({
        bridge,
        address,
        text: `${bridge.name} has ${address.toString()}/${length}`,
        length,
      })),
  );
  const wrong = placed.filter(({ address }) => network.contains(address) && !subnet.contains(address));
  const isServed = placed.some(({ address }) => subnet.contains(address));
  const idle = isServed
    ? []
    : placed.filter(({ bridge, address }) => bridge.name === 'docker0' && !network.contains(address));
  const cut = placed.filter(({ address, length }) => subnet.contains(address) && length < subnet.length);
  return [
    ...wrong.map(({ bridge, text }): Found => ({
      severity: 'error',
      message: `${bridge.name} has an address in the subnet of another host; its containers are not reachable`,
      evidence: `${text}, the lease of this host is ${subnet.toString()}`,
      command: RESTART_DOCKER,
    })),
    ...idle.map(({ text }): Found => ({
      severity: 'warning',
      message: 'Docker does not use the leased subnet; its containers are not part of the overlay',
      evidence: `${text}, the lease of this host is ${subnet.toString()}`,
      command: RESTART_DOCKER,
    })),
    ...cut.map(({ bridge, text }): Found => ({
      severity: 'error',
      message: `${bridge.name} takes more than the leased subnet; other hosts are not reachable from its containers`,
      evidence: `${text}, the lease of this host is ${subnet.toString()}`,
      command: RESTART_DOCKER,
    })),
  ];
}

function forwarding({ sysctls, network }: DoctorFacts): readonly Found[] {
  const wanted = ['net/ipv4/ip_forward', ...(network?.ipv6 === undefined ? [] : ['net/ipv6/conf/all/forwarding'])];
  return wanted
    .filter((path) => sysctls.get(path) === '0')
    .map((path) => {
      const name = path.replaceAll('/', '.');
      return {
        severity: 'error',
        message: 'the kernel does not forward packets between containers and the overlay',
        evidence: `${name} is 0`,
        command: `sysctl -w ${name}=1`,
      };
    });
}

function forwardRules(facts: DoctorFacts): readonly Found[] {
  const network = overlayNetwork(facts);
  const { iptables } = facts;
  if (network === undefined || iptables === undefined) return [];
  const accept = `iptables -I FORWARD -s ${network.toString()} -j ACCEPT && iptables -I FORWARD -d ${network.toString()} -j ACCEPT`;
  const rules = iptables.rules.get('filter')?.get(FORWARD_CHAIN.parent) ?? [];
  const accepts = rules.map(parseRule).filter(({ target, hasOther }) => target === 'ACCEPT' && !hasOther);
  const isJumping = rules.some((words) => parseRule(words).target === FORWARD_CHAIN.chain);
  const covers = (side: 'source' | 'destination'): boolean =>
    accepts.some((rule) => {
      const match = rule[side];
      const other = side === 'source' ? rule.destination : rule.source;
      return other === undefined && (match === undefined || (!match.isNegated && match.prefix.covers(network)));
    });
  const isAccepted = covers('source') && covers('destination');
  const found: Found[] = [];
  if (iptables.policies.get(`filter/${FORWARD_CHAIN.parent}`) === 'DROP' && !isJumping && !isAccepted) {
    found.push({
      severity: 'error',
      message: 'the FORWARD chain drops packets of containers',
      evidence: 'its policy is DROP, and neither FLANNEL-FWD nor another rule accepts them',
      command: accept,
    });
  }
  // Without our jump there is no order to judge; the policy has been looked at.
  const mode = isJumping ? 'iptables' : 'nftables';
  const blocked = isAccepted
    ? []
    : blockedForwarding(iptables, network, mode).filter(({ message }) => message.startsWith('a rule'));
  return [
    ...found,
    ...blocked.map(({ message }): Found => ({
      severity: 'error',
      message: 'a rule of others stops packets of containers',
      evidence: message,
      command: accept,
    })),
  ];
}

function foreignMasquerade(facts: DoctorFacts): readonly Found[] {
  const subnet = ownSubnet(facts);
  const { iptables, daemon } = facts;
  if (subnet === undefined || iptables === undefined) return [];
  return ownMasqueradeFirst(iptables, subnet, daemon?.firewall?.mode ?? 'nftables').map(({ message }) => ({
    severity: 'warning',
    message: 'containers reach other hosts under the address of this host',
    evidence: message,
    command: `${RESTART_DOCKER} # with --ip-masq=false, as docker-opts says where the daemon runs with --ip-masq`,
  }));
}

const AUTOMATIC: ReadonlySet<number> = new Set([RTPROT.REDIRECT, RTPROT.KERNEL, RTPROT.RA]);

function foreignRoutes(facts: DoctorFacts): readonly Found[] {
  const network = overlayNetwork(facts);
  if (network === undefined) return [];
  const subnet = ownSubnet(facts);
  const nameOf = new Map(facts.links.map(({ index, name }) => [index, name]));
  const ours = new Set(
    facts.links
      .filter(({ alias, name }) => alias.startsWith(ALIAS_PREFIX) || /^flannel/.test(name))
      .map(({ index }) => index),
  );
  const isForeign = (route: RouteInfo): boolean =>
    route.table === RT_TABLE_MAIN &&
    network.covers(route.destination) &&
    route.protocol !== ROUTE_PROTOCOL &&
    !AUTOMATIC.has(route.protocol) &&
    !hopIndexes(route).some((index) => ours.has(index)) &&
    subnet?.covers(route.destination) !== true;
  return facts.routes.filter(isForeign).map((route) => {
    const device = nameOf.get(route.index);
    const words = [
      route.destination.toString(),
      ...(route.gateway === undefined ? [] : ['via', route.gateway.toString()]),
      ...(device === undefined ? [] : ['dev', device]),
    ];
    return {
      severity: 'error',
      message: `a route that somebody else made takes the packets for ${route.destination.toString()}`,
      evidence: `${words.join(' ')} (protocol ${route.protocol})`,
      command: `ip route del ${words.join(' ')}`,
    };
  });
}

function alteredObjects({ daemon, links }: DoctorFacts): readonly Found[] {
  if (daemon === undefined) return [];
  const repaired = [...Object.entries(daemon.reconcile.drift), ...Object.entries(daemon.firewall?.repaired ?? {})];
  const total = repaired.reduce((sum, [, count]) => sum + count, 0);
  const names = links.filter(({ alias }) => alias.startsWith(ALIAS_PREFIX)).map(({ name }) => name);
  const watched = `ip -timestamp monitor link address route & nft monitor`;
  const conflicts = daemon.reconcile.conflicts.map((conflict): Found => ({
    severity: 'error',
    message: 'an object of somebody else is in the way of the overlay',
    evidence: conflict,
    command: 'ip -details address show && ip route show',
  }));
  if (total < DRIFT_TOLERANCE) return conflicts;
  const evidence = repaired.filter(([, count]) => count > 0).map(([kind, count]) => `${kind} ${count}`);
  return [
    ...conflicts,
    {
      severity: 'warning',
      message: `another program keeps altering ${names.join(', ') || 'objects of the overlay'}, such as a network manager or a second daemon`,
      evidence: `repaired in ${formatDuration(daemon.uptimeSeconds)}: ${evidence.join(', ')}`,
      command:
        names[0] === undefined ? watched : `nmcli device set ${names[0]} managed no # or watch who it is: ${watched}`,
    },
  ];
}

/** The daemon's own judgement: it does not route to these, so that they harm nobody but their hosts. */
function doubtfulLeases({ daemon }: DoctorFacts): readonly Found[] {
  if (daemon === undefined) return [];
  const { quarantined, quarantinedCounts, badKeys, badKeyCount } = daemon.peerSet;
  const total = Object.values(quarantinedCounts).reduce((sum, count) => sum + count, 0);
  const found: Found[] = [];
  const [firstQuarantined] = quarantined;
  if (firstQuarantined !== undefined) {
    found.push({
      severity: 'warning',
      message: `${total === 1 ? 'a lease is' : `${total} leases are`} not believed and not routed to`,
      evidence: someOf(quarantined.map(({ key, detail }) => `${key}: ${detail}`)),
      command: `tsflannelctl leases release ${shellWord(firstQuarantined.key)}`,
    });
  }
  const [firstBad] = badKeys;
  if (firstBad !== undefined) {
    found.push({
      severity: 'warning',
      message: `${badKeyCount === 1 ? 'a key' : `${badKeyCount} keys`} among the leases cannot be read`,
      evidence: someOf(badKeys),
      command: `tsflannelctl leases release ${shellWord(firstBad)}`,
    });
  }
  const [rival] = daemon.lease?.rivals ?? [];
  if (rival !== undefined) {
    found.push({
      severity: 'error',
      message: `another key names addresses of the own subnet ${daemon.lease?.subnet ?? ''}`,
      evidence: someOf(daemon.lease?.rivals ?? []),
      command: `tsflannelctl leases release ${shellWord(rival)}`,
    });
  }
  return found;
}

const MAX_EVIDENCE = 3;

function someOf(texts: readonly string[]): string {
  const more = texts.length - MAX_EVIDENCE;
  return texts.slice(0, MAX_EVIDENCE).join('; ') + (more > 0 ? `; and ${more} more` : '');
}

/** A text as one word of a shell. */
function shellWord(text: string): string {
  return /^[\w.:/&-]+$/.test(text) && !text.includes('&') ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

function duplicateAddresses({ leases, network }: DoctorFacts): readonly Found[] {
  // What an earlier network left behind goes by itself.
  const isCurrent = ({ subnet }: { readonly subnet: string }): boolean =>
    network?.ipv4 === undefined || network.ipv4.network.covers(Prefix.parse(subnet));
  const held = leases.filter((lease) => !lease.isReservation && isCurrent(lease));
  return [...new Set(held.map(({ publicIp }) => publicIp))].flatMap((publicIp): Found[] => {
    const group = held.filter((lease) => lease.publicIp === publicIp);
    const [oldest] = [...group].sort((a, b) => (BigInt(a.revision) < BigInt(b.revision) ? -1 : 1));
    if (group.length < 2 || oldest === undefined) return [];
    return [
      {
        severity: 'error',
        message: `${publicIp} holds ${group.length} leases: two hosts have the same public address, or one has lost a lease`,
        evidence: group.map(({ subnet, revision }) => `${subnet} (revision ${revision})`).join(', '),
        command: `tsflannelctl leases release ${oldest.subnet}`,
      },
    ];
  });
}

function sharedVtepMacs({ daemon }: DoctorFacts): readonly Found[] {
  const devices = (daemon?.devices ?? []).map(({ name }) => name).filter((name) => /^flannel(-v6)?\.\d+$/.test(name));
  const deletion = devices.map((name) => `ip link del ${name} && `).join('');
  return (daemon?.peers ?? []).flatMap(({ subnet, publicIp, skipped }): Found[] => {
    if (skipped?.cause !== 'vtep-mac') return [];
    return [
      {
        severity: 'error',
        message: `no packets go to ${subnet}: another host has the same VTEP MAC`,
        evidence: skipped.reason,
        command: `${deletion}systemctl restart tsflanneld # on ${publicIp}, or flanneld where that runs; on a copy of another host first: rm /etc/machine-id && systemd-machine-id-setup`,
      },
    ];
  });
}

function clockTrouble({ clockAheadSeconds }: DoctorFacts): readonly Found[] {
  if (clockAheadSeconds === undefined || Math.abs(clockAheadSeconds) <= CLOCK_TOLERANCE_SECONDS) return [];
  const direction = clockAheadSeconds > 0 ? 'ahead of' : 'behind';
  return [
    {
      severity: 'warning',
      message: "this host's clock is wrong, or etcd's is; certificates fail and logs mislead",
      evidence: `it is ${formatDuration(Math.abs(clockAheadSeconds))} ${direction} etcd's`,
      command: 'timedatectl set-ntp true',
    },
  ];
}

function reversePath({ sysctls, underlay, leases }: DoctorFacts): readonly Found[] {
  const backends = new Set(leases.map(({ backend }) => backend));
  if (underlay === undefined || backends.size < 2) return [];
  const all = Number(sysctls.get('net/ipv4/conf/all/rp_filter') ?? 0);
  const device = Number(sysctls.get(`net/ipv4/conf/${underlay.device}/rp_filter`) ?? 0);
  // The kernel uses the larger of the two (ip-sysctl.rst).
  if (Math.max(all, device) !== 1) return [];
  return [
    {
      severity: 'warning',
      message: `hosts use different backends, and the reverse path filter on ${underlay.device} drops what comes back another way`,
      evidence: `net.ipv4.conf.${underlay.device}.rp_filter is 1 (strict); backends: ${[...backends].join(', ')}`,
      command: `sysctl -w net.ipv4.conf.${underlay.device}.rp_filter=2`,
    },
  ];
}

function deadPeers({ probes }: DoctorFacts): readonly Found[] {
  return probes
    .filter(({ underlay, overlay, lease }) => !underlay && overlay !== true && !lease.isReservation)
    .map(({ lease }) => {
      const { expiresInSeconds, subnet, publicIp } = lease;
      const isEnding = expiresInSeconds !== null && expiresInSeconds < NEAR_EXPIRY_SECONDS;
      const left = expiresInSeconds === null ? 'never ends' : `ends in ${formatDuration(expiresInSeconds)}`;
      return {
        severity: 'warning',
        message: isEnding
          ? `the host with ${subnet} seems to be gone: it neither answers nor renews its lease`
          : `the host with ${subnet} does not answer, or something on the way drops ICMP`,
        evidence: `no echo from ${publicIp}; its lease ${left}`,
        command: isEnding ? `tsflannelctl leases release ${subnet}` : `ping -c 3 ${publicIp}`,
      };
    });
}

function pathMtu({ probes, underlay, network }: DoctorFacts): readonly Found[] {
  if (underlay === undefined) return [];
  return probes
    .filter((probe) => probe.underlay && !probe.underlayFull)
    .map(({ lease, pathMtu: found }) => {
      const mtu = found ?? 1280;
      const canSet = network?.backendType === 'vxlan';
      return {
        severity: 'error',
        message: `the path to ${lease.publicIp} carries less than the MTU of ${underlay.device}; large packets to ${lease.subnet} are lost`,
        evidence: `an echo of ${underlay.mtu} bytes does not arrive, ${found === undefined ? 'a small one does' : `one of ${found} does`}`,
        command: `ip link set dev ${underlay.device} mtu ${mtu}${canSet ? ` # or "MTU": ${mtu} inside Backend: tsflannelctl config set` : ''}`,
      };
    });
}

const BACKEND_PORTS: Readonly<Record<string, number>> = { udp: 8285, vxlan: 8472 };

function blockedOverlay({ probes, network }: DoctorFacts): readonly Found[] {
  return probes
    .filter(({ underlay, overlay }) => underlay && overlay === false)
    .map(({ lease }) => {
      const isConfigured = network?.backendType === lease.backend;
      const configured = isConfigured ? network.backendOptions['port'] : undefined;
      const port = typeof configured === 'number' && configured > 0 ? configured : (BACKEND_PORTS[lease.backend] ?? 0);
      return {
        severity: 'error',
        message: `${lease.publicIp} answers on the underlay but not through the overlay: UDP port ${port} is blocked, or no daemon runs there`,
        evidence: `no echo from ${lease.subnet.replace(/\/.*/, '')} (${lease.backend})`,
        command: `iptables -I INPUT -p udp --dport ${port} -j ACCEPT # on both hosts, and in what filters between them`,
      };
    });
}

function receiveOverflow({ daemon, underlay }: DoctorFacts): readonly Found[] {
  return (daemon?.tunnels ?? []).flatMap(({ device, kind, workers, counters }) => {
    const { drops } = counters;
    const lost = drops['receive-overflow'];
    const read = ['source-unknown', 'source-spoofed', 'length-mismatch'] as const;
    const all = read.reduce((sum, reason) => sum + drops[reason], counters.rxPackets + lost);
    if (!(lost > all * OVERFLOW_TOLERANCE)) return [];
    const look = `tcpdump -n -c 1000 -i ${underlay?.device ?? 'any'} udp # who sends so much`;
    const remedy = kind === 'native' ? `--udp-workers=${workers + 1}` : '--datapath=native';
    return [
      {
        severity: 'warning',
        message: `datagrams for ${device} are lost before the daemon reads them: more arrive than ${kind === 'native' ? 'its threads take' : 'the portable tunnel takes'}`,
        evidence: `the kernel discarded ${lost} of ${all}, since the queue of the socket was full`,
        command: `${look}; if it is wanted, start the daemon with ${remedy}`,
      },
    ];
  });
}

function checksumHole({ probes, links }: DoctorFacts): readonly Found[] {
  const device =
    links.find(({ kind, alias }) => kind === 'vxlan' && alias.startsWith(ALIAS_PREFIX))?.name ?? 'flannel.1';
  return probes
    .filter(
      ({ lease, overlay, tcp, udp }) => lease.backend === 'vxlan' && overlay === true && tcp === false && udp === false,
    )
    .map(({ lease }) => ({
      severity: 'error',
      message: `ICMP passes to ${lease.subnet}, TCP and UDP do not: their checksums are lost in the NIC, or a firewall on ${lease.publicIp} drops them`,
      evidence: `${lease.subnet.replace(/\/.*/, '')} answers echoes, but neither refuses a TCP connection nor a UDP datagram`,
      command: `ethtool -K ${device} tx-checksum-ip-generic off # on both hosts`,
    }));
}
