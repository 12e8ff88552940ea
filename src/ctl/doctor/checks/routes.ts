import type { Prefix } from '../../../ip/prefix.js';
import { AUTOMATIC_PROTOCOLS, RT_TABLE_MAIN } from '../../../netlink/constants.js';
import type { RouteInfo } from '../../../netlink/route.js';
import { ROUTE_PROTOCOL } from '../../../reconcile/desired.js';
import { ALIAS_PREFIX, hopIndexes } from '../../../reconcile/ownership.js';
import { type Check, type DoctorFacts, type Found, type PolicyRule, overlayNetwork, ownSubnet } from '../facts.js';
import { someOf } from '../text.js';

/** Where the kernel sends packets of the overlay. */
export const ROUTE_CHECKS: readonly Check[] = [
  { id: 'foreign-route', title: 'no route of others takes packets of the overlay', run: foreignRoutes },
  {
    id: 'diverted',
    title: 'the kernel sends packets for each peer into the overlay',
    follows: ['duplicate-public-ip', 'daemon', 'foreign-route'],
    run: divertedPeers,
  },
];

function foreignRoutes(facts: DoctorFacts): readonly Found[] {
  const network = overlayNetwork(facts);
  if (network === undefined) return [];
  const subnet = ownSubnet(facts);
  const ours = overlayDevices(facts);
  const isForeign = (route: RouteInfo): boolean =>
    route.table === RT_TABLE_MAIN &&
    network.covers(route.destination) &&
    route.protocol !== ROUTE_PROTOCOL &&
    !AUTOMATIC_PROTOCOLS.has(route.protocol) &&
    !hopIndexes(route).some((index) => ours.has(index)) &&
    subnet?.covers(route.destination) !== true;
  return facts.routes.filter(isForeign).map((route) => {
    const text = routeText(facts, route);
    const subnets = facts.leases
      .map((lease) => lease.subnet)
      .filter((each) =>
        facts.ways.some((way) => way.subnet.toString() === each && way.subnet.overlaps(route.destination)),
      );
    if (isVital(facts, route)) {
      return {
        severity: 'error',
        message: `the network of the overlay, ${network.toString()}, contains a network that this host itself is in`,
        evidence: `${text} (protocol ${route.protocol})`,
        command: 'tsflannelctl config set FILE # with a Network that no host is in',
      };
    }
    return {
      severity: 'error',
      message: `a route that somebody else made takes the packets for ${route.destination.toString()}`,
      evidence: `${text} (protocol ${route.protocol})`,
      command: `ip route del ${text}`,
      ...(subnets.length === 0 ? {} : { subnets }),
    };
  });
}

function overlayDevices({ links }: DoctorFacts): ReadonlySet<number> {
  const ours = links.filter(({ alias, name }) => alias.startsWith(ALIAS_PREFIX) || /^flannel/.test(name));
  return new Set(ours.map(({ index }) => index));
}

/** Default routes, and those of a network that an address of this host is in: nobody may be told to remove them. */
function isVital(
  { addresses, underlay, links }: DoctorFacts,
  { destination, index, gateway, type }: RouteInfo,
): boolean {
  if (destination.length === 0) return true;
  const isUnderlay = links.some((link) => link.index === index && link.name === underlay?.device);
  const isOwn = addresses.some(
    (own) => own.index === index && destination.contains(own.address) && own.length <= destination.length,
  );
  return (
    type === 'unicast' &&
    gateway === undefined &&
    (isOwn || (isUnderlay && addresses.some((own) => destination.contains(own.address))))
  );
}

function routeText({ links }: DoctorFacts, route: RouteInfo): string {
  const device = links.find(({ index }) => index === route.index)?.name;
  return [
    ...(route.type === 'unicast' ? [] : [route.type]),
    route.destination.toString(),
    ...(route.gateway === undefined ? [] : ['via', route.gateway.toString()]),
    ...(device === undefined || route.type !== 'unicast' ? [] : ['dev', device]),
    ...(route.metric === 0 ? [] : ['metric', String(route.metric)]),
  ].join(' ');
}

function divertedPeers(facts: DoctorFacts): readonly Found[] {
  const network = overlayNetwork(facts);
  if (network === undefined) return [];
  const diverted = facts.ways.filter(({ expected, taken }) => {
    if (expected === undefined) return false; // the daemon has no route, and says why
    return taken === undefined || !hopIndexes(expected).some((index) => hopIndexes(taken).includes(index));
  });
  const [first] = diverted;
  if (first === undefined) return [];
  const rule = divertingRule(facts, network);
  const common = {
    severity: 'error',
    message: `the kernel does not send packets for ${diverted.length === 1 ? first.subnet.toString() : `${diverted.length} peers`} into the overlay, although its routes are there`,
    subnets: diverted.map(({ subnet }) => subnet.toString()),
  } as const;
  const way = `packets ${first.isOfContainer ? 'of containers ' : ''}for ${first.subnet.toString()} ${first.taken === undefined ? 'go nowhere' : `take ${routeText(facts, first.taken)}`}`;
  if (rule === undefined) {
    const found = someOf(facts.policyRules.map(ruleText));
    return [{ ...common, evidence: `${way}; rules: ${found}`, command: 'ip rule show' }];
  }
  return [
    {
      ...common,
      evidence: `${way}; rule ${ruleText(rule)}`,
      command: `ip rule add pref ${Math.max(0, rule.priority - 1)} to ${network.toString()} lookup main # or delete that rule`,
    },
  ];
}

/** The main table's own rule; what stands behind it decides nothing about peers, to which there are routes. */
const MAIN_RULE_PRIORITY = 32766;

/** The first rule ahead of the main table that may speak about the overlay and has an answer. */
function divertingRule({ policyRules, policyRoutes }: DoctorFacts, network: Prefix): PolicyRule | undefined {
  return policyRules
    .filter(
      ({ priority, table, action }) =>
        priority < MAIN_RULE_PRIORITY && !(action === 'lookup' && ['local', 'main'].includes(table)),
    )
    .sort((a, b) => a.priority - b.priority)
    .find(({ destination, table, action }) => {
      if (destination?.overlaps(network) === false) return false;
      if (action !== 'lookup') return true;
      return policyRoutes.some((route) => route.table === table && (route.destination?.overlaps(network) ?? true));
    });
}

function ruleText({ priority, text }: PolicyRule): string {
  return `${priority}: ${text}`;
}
