import { ALIAS_PREFIX } from '../../../reconcile/ownership.js';
import type { Check, DoctorFacts, Found, ProxiedNeighbour } from '../facts.js';
import { networkRemoval, someOf } from '../text.js';

/** Switches with tables for as few are sold; what exceeds them is lost, or flooded. */
const MANY_GROUPS = 512;

/** Neighbours that this host answers for on its link, see docs/ipv6.md. */
export const PROXIED_CHECKS: readonly Check[] = [
  { id: 'ndp-stale', title: 'this host answers for no IPv6 address that nobody behind it has', run: stale },
  { id: 'ndp-missing', title: 'this host answers for its containers within an on-link prefix', run: missing },
  { id: 'mld-groups', title: 'switches that snoop MLD have room for the groups of containers', run: groups },
];

function stale({ proxied }: DoctorFacts): readonly Found[] {
  const { stale: found } = proxied;
  if (found.length === 0) return [];
  return [
    {
      severity: 'warning',
      message: 'this host answers for addresses that nobody behind it has, and draws their packets to itself',
      evidence: `ip -6 neigh show proxy: ${someOf(found.map(describe))}`,
      command: found
        .map(({ address, device }) => `ip -6 neigh del proxy ${address.toString()} dev ${device}`)
        .join('; '),
    },
  ];
}

function missing({ daemon, links, proxied }: DoctorFacts): readonly Found[] {
  if (daemon === undefined) return []; // another check's
  const bridges = [...new Set(proxied.missing.map(({ bridge }) => bridge))];
  return bridges.map((bridge): Found => {
    const found = proxied.missing.filter((each) => each.bridge === bridge);
    const isOurs = links.some(({ alias, name }) => name === bridge && alias.startsWith(ALIAS_PREFIX));
    const ids = (daemon.containerNetworks?.networks ?? []).filter(({ parent }) => parent === bridge);
    const restart = 'systemctl restart tsflanneld';
    return {
      severity: 'warning',
      message: `a router that takes containers behind ${bridge} to be on its link finds nobody: this host does not answer for them`,
      evidence: `no proxy entry for ${someOf(found.map(describe))}`,
      command: isOurs
        ? `${ids.map(({ id }) => networkRemoval(id)).join('; ')} # then create it again with -o ndp-proxy=true`
        : daemon.ndpProxy === null
          ? `echo FLANNELD_NDP_PROXY=true >> /etc/default/tsflanneld && ${restart} # unless the router has a route to them`
          : restart,
    };
  });
}

function groups({ proxied }: DoctorFacts): readonly Found[] {
  const devices = [...new Set(proxied.proxied.map(({ device }) => device))];
  return devices.flatMap((device): Found[] => {
    // A group stands for the last 24 bits of an address (RFC 4291 2.7.1).
    const lows = proxied.proxied
      .filter((each) => each.device === device)
      .map(({ address }) => address.value & 0xffffffn);
    const { size } = new Set(lows);
    if (size < MANY_GROUPS) return [];
    return [
      {
        severity: 'note',
        message: `${device} is in ${size} multicast groups for containers; a switch that snoops MLD and has no room for them loses or floods what routers ask`,
        evidence: `${lows.length} proxy entries; addresses whose last 24 bits are the same share a group`,
        command: `ip -6 maddr show dev ${device} # compare with the switch's table; where subnet and --ip-range are /88 or wider, a network that is created again gives addresses that share a group, elsewhere --ip6 chooses such ones`,
      },
    ];
  });
}

const describe = ({ address, device }: ProxiedNeighbour): string => `${address.toString()} dev ${device}`;
