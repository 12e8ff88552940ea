import { findBackend } from '../../../backend/registry.js';
import { describeCarrier, iptablesMatch } from '../../../firewall/carrier.js';
import { ALIAS_PREFIX } from '../../../reconcile/ownership.js';
import type { LeaseRow } from '../../lease-rows.js';
import { formatDuration } from '../../text-table.js';
import { type Check, type DoctorFacts, type Found, type PeerProbe, overlayCarrier } from '../facts.js';
import { someOf } from '../text.js';
import { NEAR_EXPIRY_SECONDS, releaseCommand } from './leases.js';

/** What keeps every packet of the overlay from a peer, and explains each silence further on. */
export const UNDERLYING: readonly string[] = [
  'daemon',
  'diverted',
  'foreign-route',
  'overlay-rules',
  'duplicate-public-ip',
  'vtep-mac',
  'wireguard-module',
];

/** The ways to other hosts, as probed from here. */
export const PEER_CHECKS: readonly Check[] = [
  { id: 'peers', title: 'every lease has a living host', run: deadPeers },
  { id: 'path-mtu', title: 'the path to each peer carries full packets', run: pathMtu },
  {
    id: 'overlay-blocked',
    title: 'packets of the overlay reach each peer',
    follows: [...UNDERLYING, 'wireguard'],
    run: blockedOverlay,
  },
  { id: 'checksum', title: 'TCP and UDP arrive intact through vxlan', follows: UNDERLYING, run: checksumHole },
];

/** Probes that have something in common, in the order of the first ones. */
function groupsOf(
  probes: readonly PeerProbe[],
  keyOf: (probe: PeerProbe) => string,
): readonly (readonly PeerProbe[])[] {
  const groups = new Map<string, PeerProbe[]>();
  for (const probe of probes) groups.set(keyOf(probe), [...(groups.get(keyOf(probe)) ?? []), probe]);
  return [...groups.values()];
}

/** One host by its address, several by their number. */
export function hostsText(probes: readonly PeerProbe[]): string {
  const [first] = probes;
  return probes.length === 1 && first !== undefined ? first.lease.publicIp : `${probes.length} hosts`;
}

/** The subnets of these probes, for {@link Found.subnets}. */
export function subnetsOf(probes: readonly PeerProbe[]): readonly string[] {
  return probes.map(({ lease }) => lease.subnet);
}

function deadPeers({ probes }: DoctorFacts): readonly Found[] {
  const silent = probes.filter(({ underlay, overlay, lease }) => !underlay && overlay !== true && !lease.isReservation);
  const isEnding = ({ lease: { expiresInSeconds } }: PeerProbe): boolean =>
    expiresInSeconds !== null && expiresInSeconds < NEAR_EXPIRY_SECONDS;
  return groupsOf(silent, (probe) => String(isEnding(probe))).map((group): Found => {
    const [first] = group as readonly [PeerProbe];
    const isOne = group.length === 1;
    const who = isOne ? `the host with ${first.lease.subnet}` : `${group.length} hosts`;
    return {
      severity: 'warning',
      message: isEnding(first)
        ? `${who} ${isOne ? 'seems' : 'seem'} to be gone: ${isOne ? 'it neither answers nor renews its lease' : 'they neither answer nor renew their leases'}`
        : `${who} ${isOne ? 'does' : 'do'} not answer, or something on the way drops ICMP`,
      evidence: `no echo from ${someOf(group.map(({ lease }) => `${lease.publicIp} (${lease.subnet}, ${leftText(lease.expiresInSeconds)})`))}`,
      command: isEnding(first)
        ? releaseCommand(group.map(({ lease }) => lease.subnet))
        : `ping -c 3 ${first.lease.publicIp}`,
      subnets: subnetsOf(group),
    };
  });
}

function leftText(seconds: number | null): string {
  return seconds === null ? 'its lease never ends' : `its lease ends in ${formatDuration(seconds)}`;
}

function pathMtu({ probes, underlay, network }: DoctorFacts): readonly Found[] {
  if (underlay === undefined) return [];
  const cut = probes.filter((probe) => probe.underlay && !probe.underlayFull);
  return groupsOf(cut, ({ pathMtu: found }) => String(found)).map((group): Found => {
    const [first] = group as readonly [PeerProbe];
    const mtu = first.pathMtu ?? 1280;
    const canSet = findBackend(network?.backendType ?? '')?.optionKeys.includes('MTU') === true;
    return {
      severity: 'error',
      message: `the path to ${hostsText(group)} carries less than the MTU of ${underlay.device}; large packets to ${someOf(subnetsOf(group))} are lost`,
      evidence: `an echo of ${underlay.mtu} bytes does not arrive, ${first.pathMtu === undefined ? 'a small one does' : `one of ${first.pathMtu} does`}`,
      command: `ip link set dev ${underlay.device} mtu ${mtu}${canSet ? ` # or "MTU": ${mtu} inside Backend: tsflannelctl config set` : ''}`,
      subnets: subnetsOf(group),
    };
  });
}

function blockedOverlay(facts: DoctorFacts): readonly Found[] {
  const silent = facts.probes.filter(({ underlay, overlay }) => underlay && overlay === false);
  return groupsOf(silent, ({ lease }) => lease.backend).flatMap((group): readonly Found[] => {
    const [first] = group as readonly [PeerProbe];
    const carrier = overlayCarrier(facts, first.lease.backend);
    if (carrier === undefined) return [];
    const found: Found = {
      severity: 'error',
      message: `${hostsText(group)} ${group.length === 1 ? 'answers' : 'answer'} on the underlay but not through the overlay: ${describeCarrier(carrier)} is blocked there or on the way, or no daemon runs there`,
      evidence: `no echo from ${someOf(group.map(({ lease }) => `${lease.subnet.replace(/\/.*/, '')} (${lease.backend}, ${lease.publicIp})`))}; this host sends it the right way and drops nothing`,
      command: `iptables -I INPUT ${iptablesMatch(carrier)} -j ACCEPT # on ${first.lease.publicIp}, where tsflannelctl doctor names the rule, and in what filters between the hosts`,
      subnets: subnetsOf(group),
    };
    return [found];
  });
}

function checksumHole({ probes, links }: DoctorFacts): readonly Found[] {
  const device =
    links.find(({ kind, alias }) => kind === 'vxlan' && alias.startsWith(ALIAS_PREFIX))?.name ?? 'flannel.1';
  const isVxlan = ({ backend }: LeaseRow): boolean => findBackend(backend)?.deviceKind === 'vxlan';
  const spoilt = probes.filter(
    ({ lease, overlay, tcp, udp }) => isVxlan(lease) && overlay === true && tcp === false && udp === false,
  );
  if (spoilt.length === 0) return [];
  return [
    {
      severity: 'error',
      message: `ICMP passes to ${hostsText(spoilt)}, TCP and UDP do not: their checksums are lost in the NIC, or a firewall there drops them`,
      evidence: `${someOf(spoilt.map(({ lease }) => lease.subnet.replace(/\/.*/, '')))}: an answer to echoes, but neither a refused TCP connection nor a refused UDP datagram`,
      command: `ethtool -K ${device} tx-checksum-ip-generic off # on both hosts`,
      subnets: subnetsOf(spoilt),
    },
  ];
}
