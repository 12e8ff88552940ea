import { ownMasqueradeFirst } from '../../../firewall/findings.js';
import { type BlockedOverlay, describeObstacle, traceOverlay } from '../../../firewall/trace/overlay-trace.js';
import { IpAddress } from '../../../ip/address.js';
import { Prefix } from '../../../ip/prefix.js';
import {
  type Check,
  type DoctorFacts,
  type Found,
  bridgeOf,
  overlayCarrier,
  overlayDevice,
  overlayNetwork,
  ownSubnet,
} from '../facts.js';
import { dockerRestart } from './docker.js';

/** Rules of this host that stop the overlay's packets or give them another address. */
export const FIREWALL_CHECKS: readonly Check[] = [
  {
    id: 'overlay-rules',
    title: 'no rule drops what hosts send each other through the overlay',
    run: (facts) =>
      blocked(facts)
        .filter(({ hook }) => hook !== 'forward')
        .map(blockedFinding),
  },
  {
    id: 'forward-rules',
    title: 'no rule drops what is forwarded between containers here and elsewhere',
    run: (facts) =>
      blocked(facts)
        .filter(({ hook }) => hook === 'forward')
        .map(blockedFinding),
  },
  { id: 'masquerade', title: 'nobody else masquerades packets into the overlay', run: foreignMasquerade },
];

function blocked(facts: DoctorFacts): readonly BlockedOverlay[] {
  const network = overlayNetwork(facts);
  const subnet = ownSubnet(facts);
  if (network === undefined || subnet === undefined) return [];
  const { leases, own, links, underlay } = facts;
  const peer = leases.find((lease) => lease !== own);
  const carried = peer === undefined ? undefined : overlayCarrier(facts, peer.backend);
  const [ownIp, peerIp] = [own, peer].map((lease) => IpAddress.tryParse(lease?.publicIp ?? ''));
  return traceOverlay(facts.rulesets, {
    network,
    subnet,
    // Without a peer, any other part of the network will do.
    peerSubnet: peer === undefined ? Prefix.of(network.last, subnet.length) : Prefix.parse(peer.subnet),
    bridge: bridgeOf(facts, subnet)?.name,
    overlayDevice: overlayDevice(links, peer?.backend)?.name ?? underlay?.device,
    underlayDevice: underlay?.device,
    carrier:
      carried === undefined || ownIp === undefined || peerIp === undefined
        ? undefined
        : { ...carried, own: ownIp, peer: peerIp },
  });
}

const FLOWS: Readonly<Record<BlockedOverlay['flow'], string>> = {
  'containers-out': 'packets from containers here to others',
  'containers-in': 'packets from others to containers here',
  'carrier-out': "the overlay's own packets to other hosts",
  'carrier-in': "the overlay's own packets from other hosts",
};

function blockedFinding(found: BlockedOverlay): Found {
  return {
    severity: 'error',
    message: `a firewall rule of this host drops ${FLOWS[found.flow]}`,
    evidence: describeObstacle(found),
    command: `${found.remedy} # until the rules are loaded anew; ${lastingRemedy(found)}`,
  };
}

/** Where whoever made the rule wants to be told, so that the exception stays. */
function lastingRemedy({ table, chain, hook }: BlockedOverlay): string {
  if (table.name.includes('firewalld')) return 'for good in a zone of firewalld';
  if (chain.name.startsWith('ufw')) return 'for good in /etc/ufw/before.rules';
  if (table.name === 'raw' && hook === 'prerouting')
    return 'with Docker 28.2 and later for good by --allow-direct-routing';
  return 'for good where they are kept';
}

function foreignMasquerade(facts: DoctorFacts): readonly Found[] {
  const subnet = ownSubnet(facts);
  const { iptables, daemon } = facts;
  if (subnet === undefined || iptables === undefined) return [];
  return ownMasqueradeFirst(iptables, subnet, daemon?.firewall?.mode ?? 'nftables').map(({ message }) => ({
    severity: 'warning',
    message: 'containers reach other hosts under the address of this host',
    evidence: message,
    command: `${dockerRestart(facts)} # with --ip-masq=false, as docker-opts says where the daemon runs with --ip-masq`,
  }));
}
