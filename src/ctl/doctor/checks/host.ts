import { isRouted } from '../../../docker/plugin/network.js';
import { SYSCTL, sysctlName } from '../../../netlink/sysctl-paths.js';
import { formatDuration } from '../../text-table.js';
import type { Check, DoctorFacts, Found } from '../facts.js';

/** Certificates and logs suffer from more; NTP keeps a clock within milliseconds. */
const CLOCK_TOLERANCE_SECONDS = 30;

/** Clock and kernel settings of this host. */
export const HOST_CHECKS: readonly Check[] = [
  { id: 'ip-forward', title: 'the kernel forwards packets', run: forwarding },
  { id: 'accept-ra', title: 'the host keeps its IPv6 default route', run: routerAdvertisements },
  { id: 'clock', title: "this host's clock agrees with etcd's", run: clockTrouble },
  { id: 'rp-filter', title: 'the reverse path filter allows mixed backends', run: reversePath },
  {
    id: 'bridge-netfilter',
    title: 'packets on a bridge pass iptables',
    run: ({ bridgeNetfilter }) => {
      if (bridgeNetfilter === undefined) return [];
      const { message, hint } = bridgeNetfilter;
      const command = hint.includes('modprobe')
        ? 'modprobe br_netfilter'
        : `sysctl -w ${sysctlName(SYSCTL.bridgeNetfilter)}=1`;
      return [{ severity: 'note', message, evidence: 'only matters where services of Kubernetes are used', command }];
    },
  },
];

function forwarding(facts: DoctorFacts): readonly Found[] {
  const { sysctls } = facts;
  const wanted = [SYSCTL.ipv4Forwarding, ...(forwardsIpv6(facts) ? [SYSCTL.ipv6Forwarding] : [])];
  return wanted
    .filter((path) => sysctls.get(path) === '0')
    .map((path) => {
      const name = sysctlName(path);
      return {
        severity: 'error',
        message: 'the kernel does not forward packets between containers and the overlay',
        evidence: `${name} is 0`,
        command: `sysctl -w ${name}=1`,
      };
    });
}

/** Whether containers have IPv6 of the daemon, which then sees to it that the host can be their router. */
function forwardsIpv6({ network, daemon }: Pick<DoctorFacts, 'network' | 'daemon'>): boolean {
  const routed = (daemon?.containerNetworks?.networks ?? []).filter(isRouted);
  return (
    network?.ipv6 !== undefined ||
    (daemon?.ndpProxy ?? null) !== null ||
    routed.some(({ routes }) => routes.some(({ destination }) => destination.includes(':')))
  );
}

function routerAdvertisements(facts: DoctorFacts): readonly Found[] {
  const { sysctls, underlay } = facts;
  if (underlay === undefined || !forwardsIpv6(facts) || sysctls.get(SYSCTL.ipv6Forwarding) !== '1') return [];
  const path = SYSCTL.acceptRouterAdvertisements(underlay.device);
  if (sysctls.get(path) !== '1') return [];
  const name = sysctlName(path);
  return [
    {
      severity: 'warning',
      message: 'this host forwards IPv6 and so ignores what routers tell it: a default route from there ends',
      evidence: `${name} is 1, and ${sysctlName(SYSCTL.ipv6Forwarding)} is 1`,
      command: `sysctl -w ${name}=2`,
    },
  ];
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
  const path = SYSCTL.reversePathFilter(underlay.device);
  const all = Number(sysctls.get(SYSCTL.reversePathFilter('all')) ?? 0);
  const device = Number(sysctls.get(path) ?? 0);
  // The kernel uses the larger of the two (ip-sysctl.rst).
  if (Math.max(all, device) !== 1) return [];
  return [
    {
      severity: 'warning',
      message: `hosts use different backends, and the reverse path filter on ${underlay.device} drops what comes back another way`,
      evidence: `${sysctlName(path)} is 1 (strict); backends: ${[...backends].join(', ')}`,
      command: `sysctl -w ${sysctlName(path)}=2`,
    },
  ];
}
