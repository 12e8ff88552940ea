import { Prefix } from '../../../ip/prefix.js';
import { isDockerBridge } from '../../../docker/docker-bridge.js';
import { SYSCTL } from '../../../netlink/sysctl-paths.js';
import type { Check, DoctorFacts, Found } from '../facts.js';
import { someOf } from '../text.js';

/** Rules for containers that are reached from elsewhere: ours, and those that Docker has or has not. */
export const CONTAINER_RULE_CHECKS: readonly Check[] = [
  { id: 'container-rules', title: 'the rules of routed container networks are there, and stay', run: rulesInPlace },
  {
    id: 'docker-ipv6',
    title: "containers of Docker's own networks are not open to everybody over IPv6",
    run: openOverIpv6,
  },
];

/** Repairs after which somebody is at work, and not a single accident. */
const QUARREL_REPAIRS = 3;

function rulesInPlace({ daemon }: DoctorFacts): readonly Found[] {
  const firewall = daemon?.containerNetworks?.firewall;
  if (firewall === undefined) return [];
  const { isInPlace, lastError, repaired, table } = firewall;
  if (!isInPlace) {
    return [
      {
        severity: 'error',
        message:
          'routed container networks are not kept apart, and their ports not published: their rules are not there',
        evidence: lastError ?? `nft list table ${table}`,
        command: 'journalctl -u tsflanneld # apt install nftables, if nft is missing; it is tried again by itself',
      },
    ];
  }
  const repairs = Object.values(repaired).reduce((sum, count) => sum + count, 0);
  if (repairs < QUARREL_REPAIRS) return [];
  return [
    {
      severity: 'warning',
      message: 'somebody keeps changing the rules of routed container networks; the daemon puts them right',
      evidence: `${repairs} repairs of ${table} or of the jump from FORWARD since the daemon started`,
      command: 'nft monitor # shows who changes what; a firewall manager that restores an old copy, mostly',
    },
  ];
}

/** Global addresses, unlike unique local ones, are routed from anywhere (RFC 4291 2.5.4). */
const GLOBAL = Prefix.parse('2000::/3');

/**
 * Docker before release 27 writes no rules for IPv6 unless told to: whoever has a route reaches every port of a container,
 * published or not.
 */
function openOverIpv6({ addresses, links, ip6tables, sysctls }: DoctorFacts): readonly Found[] {
  if (sysctls.get(SYSCTL.ipv6Forwarding) === '0') return [];
  const hasRules = ip6tables?.rules.get('filter')?.has('DOCKER') === true;
  const isDropped = (ip6tables?.policies.get('filter/FORWARD') ?? 'ACCEPT') !== 'ACCEPT';
  if (hasRules || isDropped) return [];
  const open = links.filter(
    ({ kind, name, index }) =>
      kind === 'bridge' &&
      isDockerBridge(name) &&
      addresses.some((each) => each.index === index && GLOBAL.contains(each.address)),
  );
  if (open.length === 0) return [];
  return [
    {
      severity: 'warning',
      message: `every port of containers on ${someOf(open.map(({ name }) => name))} is open to everybody over IPv6, published or not`,
      evidence: 'ip6tables has no chain DOCKER, and FORWARD accepts what no rule names',
      command:
        'ip6tables -P FORWARD DROP # or "ip6tables": true (before Docker 27 also "experimental": true) in /etc/docker/daemon.json',
    },
  ];
}
