import type { Family, IpAddress } from '../../ip/address.js';
import { Prefix } from '../../ip/prefix.js';
import type { NftChain, NftRule, NftSet, NftTable } from './nft-script.js';

/** A routed network of containers as its rules see it. */
export interface FilteredNetwork {
  /** Device of this host that its containers are behind. */
  readonly bridge: string;
  /** Of the whole cluster, of any family. */
  readonly subnets: readonly Prefix[];
  /** Nothing leads in or out. */
  readonly isInternal: boolean;
  /** Whether its containers reach each other other than by published ports. */
  readonly isIccAllowed: boolean;
  /** Whether everybody reaches its containers over IPv6. */
  readonly ipv6Firewall: 'closed' | 'open';
}

/** Protocols whose ports are published. */
export type PortProtocol = 'tcp' | 'udp' | 'sctp';

/** A port of this host that leads to a container. */
export interface PublishedPort {
  readonly protocol: PortProtocol;
  /** Undefined: every address of this host, of the container's family. */
  readonly hostAddress: IpAddress | undefined;
  readonly hostPort: number;
  /** Of the container, of the same family. */
  readonly address: IpAddress;
  readonly port: number;
}

/** What the rules are computed from. */
export interface ContainerRuleInput {
  readonly networks: readonly FilteredNetwork[];
  readonly ports: readonly PublishedPort[];
  /** Where the cluster has containers besides these networks: those of the daemon itself. */
  readonly overlay: readonly Prefix[];
  /** Likewise: routed networks, of which this host may have no container. */
  readonly routed: readonly Prefix[];
  /** Addresses of the other hosts of the cluster, under which they call containers. */
  readonly hosts: readonly IpAddress[];
  /** Docker's own bridges on this host. */
  readonly dockerBridges: readonly string[];
}

interface FamilyTerms {
  readonly family: Family;
  /** Protocol in a match of nft, and its type of addresses. */
  readonly protocol: 'ip' | 'ip6';
  readonly type: string;
  readonly multicast: string;
}

/** RFC 5771; RFC 4291 2.7. */
const FAMILIES: readonly FamilyTerms[] = [
  { family: 4, protocol: 'ip', type: 'ipv4_addr', multicast: '224.0.0.0/4' },
  { family: 6, protocol: 'ip6', type: 'ipv6_addr', multicast: 'ff00::/8' },
];

/** RFC 4193. */
const UNIQUE_LOCAL = Prefix.parse('fc00::/7');

/**
 * ICMPv6 that a firewall has to let through to hosts behind it whether it belongs to a connection or not (RFC 4890
 * 4.3.1).
 */
const ICMPV6_TRANSIT =
  'destination-unreachable, packet-too-big, time-exceeded, parameter-problem, echo-request, echo-reply';

/** Without which there is no neighbour on a link (RFC 4861). */
const NEIGHBOUR_DISCOVERY =
  'nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, mld-listener-report, mld2-listener-report';

const MASQUERADE = 'masquerade fully-random';

/** Whether there is anything to filter: containers of routed networks, or some that could call those of other hosts. */
export function needsRules({ dockerBridges, networks, routed }: ContainerRuleInput): boolean {
  return networks.length > 0 || (dockerBridges.length > 0 && routed.length > 0);
}

/**
 * The table of one daemon for its routed networks of containers.
 *
 * ```
 *  prerouting ─ raw: nobody reaches 127.0.0.0/8 of the host through a bridge
 *             └ nat: published ports, for everybody
 *  output     ─ nat: published ports, for this host, also under 127.0.0.1
 *  input      ─ internal networks do not reach the host
 *  forward    ─ from-BRIDGE: only with addresses of the network; within the network, unless icc=false
 *             ├ to-BRIDGE: likewise, from other hosts
 *             ├ published ports
 *             ├ leaving: to the outside and to the hosts, not to other containers
 *             └ arriving: from the hosts; the rest is closed
 *  postrouting─ nat: masquerade to the outside; callers that the container could not answer directly
 * ```
 *
 * A host that is in none of the cluster's networks has of that what keeps containers of Docker's own networks from them.
 *
 * @remarks A `drop` here is final, an `accept` is not: what other tables drop stays dropped. Needs kernel 5.2 for NAT in
 * `inet` (commit d164385ec572) and nft 0.9.4 for maps to address and port.
 */
export function containerRules(table: string, input: ContainerRuleInput): NftTable {
  const networks = [...input.networks].sort(({ bridge: a }, { bridge: b }) => (a < b ? -1 : 1));
  const chain = (name: string, hook: string, rules: readonly NftRule[]): NftChain => ({
    name,
    hook: `type ${hook}`,
    rules,
  });
  const forward = 'filter hook forward priority 0';
  if (networks.length === 0) {
    const rules = [rule('ct state established,related accept', 'answers'), ...dockerRules()];
    const isNamed = (set: NftSet): boolean => rules.some(({ text }) => text.includes(`@${set.name} `));
    return {
      name: table,
      sets: [...deviceSets(networks, input), ...addressSets(input)].filter(isNamed),
      chains: [chain('filter-forward', forward, rules)],
    };
  }
  return {
    name: table,
    sets: [...deviceSets(networks, input), ...addressSets(input), ...portMaps(input)],
    chains: [
      ...networks.map(fromChain),
      ...networks.filter(({ isIccAllowed }) => isIccAllowed).map(toChain),
      { name: 'leaving', rules: leavingRules() },
      { name: 'arriving', rules: arrivingRules() },
      chain('raw-prerouting', 'filter hook prerouting priority -300', [
        rule('iifname @bridges ip daddr 127.0.0.0/8 drop', 'loopback of the host, open through route_localnet'),
        rule('iifname @bridges ip saddr 127.0.0.0/8 drop', 'loopback of the host, forged'),
      ]),
      chain('nat-prerouting', 'nat hook prerouting priority -100', [
        // Translated before it is routed, what claims to be for a loopback would not be found out.
        rule('ip daddr 127.0.0.0/8 return', 'loopback is for the host alone'),
        ...publishRules(),
      ]),
      chain('nat-output', 'nat hook output priority -100', [
        rule('ip6 daddr ::1 return', 'nothing leads out of the IPv6 loopback'),
        ...publishRules(),
      ]),
      chain('filter-input', 'filter hook input priority 0', inputRules()),
      chain('filter-forward', forward, forwardRules(networks)),
      chain('nat-postrouting', 'nat hook postrouting priority 100', postroutingRules(networks)),
    ],
  };
}

function deviceSets(networks: readonly FilteredNetwork[], { dockerBridges }: ContainerRuleInput): readonly NftSet[] {
  const set = (name: string, devices: readonly string[]): NftSet => ({
    kind: 'set',
    name,
    type: 'ifname',
    elements: [...devices].sort().map(quoted),
  });
  const bridges = (which: (network: FilteredNetwork) => boolean): readonly string[] =>
    networks.filter(which).map(({ bridge }) => bridge);
  return [
    set(
      'bridges',
      bridges(() => true),
    ),
    set(
      'internal',
      bridges(({ isInternal }) => isInternal),
    ),
    set(
      'open',
      bridges(({ ipv6Firewall }) => ipv6Firewall === 'open'),
    ),
    set('docker', dockerBridges),
  ];
}

function addressSets({ overlay, routed, hosts, networks }: ContainerRuleInput): readonly NftSet[] {
  const allRouted = [...routed, ...networks.flatMap(({ subnets }) => subnets)];
  const prefixes = (name: string, { family, protocol, type }: FamilyTerms, all: readonly Prefix[]): NftSet => ({
    kind: 'set',
    name: `${name}-${protocol}`,
    type,
    hasPrefixes: true,
    elements: texts(all.filter((each) => each.family === family)),
  });
  return FAMILIES.flatMap((terms): readonly NftSet[] => {
    const { family, protocol, type } = terms;
    return [
      prefixes('routed', terms, allRouted),
      prefixes('cluster', terms, [...overlay, ...allRouted]),
      { kind: 'set', name: `hosts-${protocol}`, type, elements: texts(hosts.filter((each) => each.family === family)) },
    ];
  });
}

/** One lookup for each new connection, however many ports there are. */
function portMaps({ ports }: ContainerRuleInput): readonly NftSet[] {
  return FAMILIES.flatMap(({ family, protocol, type }): readonly NftSet[] => {
    const own = ports.filter(({ address }) => address.family === family);
    const target = ({ address, port }: Pick<PublishedPort, 'address' | 'port'>): string =>
      `${address.toString()} . ${port}`;
    return [
      {
        kind: 'map',
        name: `published-${protocol}`,
        type: `inet_proto . inet_service : ${type} . inet_service`,
        elements: own
          .filter(({ hostAddress }) => hostAddress === undefined)
          .map((each) => `${each.protocol} . ${each.hostPort} : ${target(each)}`)
          .sort(),
      },
      {
        kind: 'map',
        name: `published-at-${protocol}`,
        type: `${type} . inet_proto . inet_service : ${type} . inet_service`,
        elements: own
          .flatMap(({ hostAddress, ...each }) =>
            hostAddress === undefined
              ? []
              : [`${hostAddress.toString()} . ${each.protocol} . ${each.hostPort} : ${target(each)}`],
          )
          .sort(),
      },
    ];
  });
}

function publishRules(): readonly NftRule[] {
  return FAMILIES.flatMap(({ protocol }) => [
    rule(
      `dnat ${protocol} to ${protocol} daddr . meta l4proto . th dport map @published-at-${protocol}`,
      'ports published under one address of the host',
    ),
    rule(
      `fib daddr type local dnat ${protocol} to meta l4proto . th dport map @published-${protocol}`,
      'ports published under every address of the host',
    ),
  ]);
}

function inputRules(): readonly NftRule[] {
  return [
    rule('iifname @internal ct state established,related accept', 'answers to the host'),
    rule(`iifname @internal icmpv6 type { ${NEIGHBOUR_DISCOVERY} } accept`, 'neighbours on the link'),
    rule('iifname @internal drop', 'internal networks do not reach the host'),
  ];
}

function forwardRules(networks: readonly FilteredNetwork[]): readonly NftRule[] {
  const jumps = (chains: readonly NftChain[], prefix: string): string =>
    chains.map(({ name }) => `${quoted(name.slice(prefix.length))} : jump ${name}`).join(', ');
  const from = networks.map(fromChain);
  const to = networks.filter(({ isIccAllowed }) => isIccAllowed).map(toChain);
  return [
    rule('ct state established,related accept', 'answers'),
    ...(from.length === 0 ? [] : [rule(`iifname vmap { ${jumps(from, FROM)} }`, 'from containers')]),
    rule('iifname @internal drop', 'nothing leads out of internal networks'),
    ...(to.length === 0 ? [] : [rule(`oifname vmap { ${jumps(to, TO)} }`, 'to containers')]),
    rule('oifname @internal drop', 'nothing leads into internal networks'),
    rule('oifname @bridges ct status dnat accept', 'published ports'),
    ...dockerRules(),
    rule('iifname @bridges jump leaving', 'where containers may go'),
    rule('oifname @bridges jump arriving', 'who reaches containers'),
  ];
}

/** On their way out they would take the address of this host, which other hosts let in. */
function dockerRules(): readonly NftRule[] {
  return FAMILIES.map(({ protocol }) =>
    rule(
      `iifname @docker oifname != @bridges ${protocol} daddr @routed-${protocol} drop`,
      'from networks of Docker itself to other hosts',
    ),
  );
}

const FROM = 'from-';
const TO = 'to-';

function fromChain(network: FilteredNetwork): NftChain {
  const genuine = FAMILIES.map((terms) => {
    const subnets = subnetsOf(network, terms);
    if (subnets === undefined) return rule(`meta nfproto ipv${terms.family} drop`, 'no such addresses here');
    return rule(`${terms.protocol} saddr != ${subnets} drop`, 'forged source');
  });
  return {
    name: FROM + network.bridge,
    rules: network.isIccAllowed ? [...genuine, ...acceptWithin(network, 'daddr')] : genuine,
  };
}

function toChain(network: FilteredNetwork): NftChain {
  return { name: TO + network.bridge, rules: acceptWithin(network, 'saddr') };
}

function acceptWithin(network: FilteredNetwork, field: 'saddr' | 'daddr'): readonly NftRule[] {
  return FAMILIES.flatMap((terms) => {
    const subnets = subnetsOf(network, terms);
    return subnets === undefined ? [] : [rule(`${terms.protocol} ${field} ${subnets} accept`, 'within the network')];
  });
}

function leavingRules(): readonly NftRule[] {
  return [
    rule('ct status dnat return', 'ports that others have published'),
    ...FAMILIES.flatMap(({ protocol }) => [
      rule(`${protocol} daddr @hosts-${protocol} return`, 'hosts of the cluster'),
      rule(`${protocol} daddr @cluster-${protocol} drop`, 'containers of other networks'),
    ]),
    rule('oifname @docker drop', 'containers of networks of Docker itself'),
  ];
}

function arrivingRules(): readonly NftRule[] {
  return [
    ...FAMILIES.map(({ protocol }) => rule(`${protocol} saddr @hosts-${protocol} accept`, 'hosts of the cluster')),
    rule('ip6 saddr @cluster-ip6 drop', 'containers of other networks'),
    rule('iifname @docker drop', 'containers of networks of Docker itself'),
    rule('oifname @open meta nfproto ipv6 accept', 'open over IPv6 (ipv6-firewall=open)'),
    rule(`icmpv6 type { ${ICMPV6_TRANSIT} } accept`, 'must not be dropped (RFC 4890 4.3.1)'),
    rule('drop', 'not published'),
  ];
}

/**
 * A container answers the address that it sees: where that would lead past this host, and with it past the translation
 * of the call, the host puts its own.
 */
function postroutingRules(networks: readonly FilteredNetwork[]): readonly NftRule[] {
  const outward = networks.filter(({ isInternal }) => !isInternal);
  const perNetwork = FAMILIES.flatMap((terms) => {
    const { protocol, multicast } = terms;
    return outward.flatMap((network): readonly NftRule[] => {
      const subnets = subnetsOf(network, terms);
      if (subnets === undefined) return [];
      const within = `oifname ${quoted(network.bridge)} ${protocol} saddr ${subnets}`;
      const hidden = hiddenSubnets(network, terms);
      const outside = `${protocol} daddr != ${subnets} ${protocol} daddr != ${multicast}`;
      return [
        rule(`${within} ct status dnat ${MASQUERADE}`, 'to published ports of its own network'),
        ...(hidden === undefined
          ? []
          : [rule(`oifname != @bridges ${protocol} saddr ${hidden} ${outside} ${MASQUERADE}`, 'to the outside')]),
      ];
    });
  });
  return [rule(`oifname @bridges ip saddr 127.0.0.0/8 ${MASQUERADE}`, 'this host to published ports'), ...perNetwork];
}

/** Subnets whose addresses nobody outside has a route to; global IPv6 addresses are seen as they are. */
function hiddenSubnets({ subnets }: FilteredNetwork, { family }: FamilyTerms): string | undefined {
  return setOf(texts(subnets.filter((each) => each.family === family && (family === 4 || UNIQUE_LOCAL.covers(each)))));
}

function subnetsOf({ subnets }: FilteredNetwork, { family }: FamilyTerms): string | undefined {
  return setOf(texts(subnets.filter((each) => each.family === family)));
}

function setOf(elements: readonly string[]): string | undefined {
  return elements.length === 0 ? undefined : `{ ${elements.join(', ')} }`;
}

const texts = (values: readonly (Prefix | IpAddress)[]): readonly string[] =>
  [...new Set(values.map((each) => each.toString()))].sort();

const quoted = (device: string): string => `"${device}"`;

const rule = (text: string, purpose: string): NftRule => ({ text, purpose });
