import { IpAddress } from '../../ip/address.js';
import type { Prefix } from '../../ip/prefix.js';
import { type Carrier, iptablesMatch, nftMatch } from '../carrier.js';
import type { Hook, TracedPacket, TracedTable } from './ruleset.js';
import { type Obstacle, traceHook } from './trace.js';

/** What the packets of the overlay look like on this host. */
export interface OverlayPaths {
  /** All containers of the cluster. */
  readonly network: Prefix;
  /** The containers of this host. */
  readonly subnet: Prefix;
  /** Containers of some other host. */
  readonly peerSubnet: Prefix;
  /** Device that the containers of this host hang on, undefined if there is none yet. */
  readonly bridge: string | undefined;
  /** Device that leads to the containers of others. */
  readonly overlayDevice: string | undefined;
  readonly underlayDevice: string | undefined;
  /** What the backend puts packets into, and between which addresses; undefined where they travel as they are. */
  readonly carrier: (Carrier & { readonly own: IpAddress; readonly peer: IpAddress }) | undefined;
}

/** Which of the overlay's packets something stops. */
export type BlockedFlow = 'containers-out' | 'containers-in' | 'carrier-out' | 'carrier-in';

/** Something that stops packets of the overlay on this host, and what makes it let them through. */
export interface BlockedOverlay extends Obstacle {
  readonly flow: BlockedFlow;
  /** Commands for a shell: exceptions right before what stops the packets; nothing is taken away. */
  readonly remedy: string;
}

interface Leg {
  readonly flow: BlockedFlow;
  readonly hook: Hook;
  readonly packet: TracedPacket;
}

/** What programs use; ICMP alone is often dropped on purpose. */
const INNER_PROTOCOLS = ['tcp', 'udp'] as const;

/**
 * Leads the packets of the overlay past all rules of this host: those of containers in both directions, and those of
 * the backend that carry them.
 *
 * @returns each obstacle once, with the first flow that it stops.
 */
export function traceOverlay(tables: readonly TracedTable[], paths: OverlayPaths): readonly BlockedOverlay[] {
  const found: BlockedOverlay[] = [];
  for (const { flow, hook, packet } of legs(paths, namedContainers(tables, paths.subnet))) {
    const obstacle = traceHook(tables, packet, hook);
    if (obstacle === undefined) continue;
    const isKnown = found.some(({ chain, rule }) => chain === obstacle.chain && rule === obstacle.rule);
    if (!isKnown) found.push({ ...obstacle, flow, remedy: remedyFor(obstacle, flow, paths) });
  }
  return found;
}

/** A host has some hundred containers, and what stops one of them stops the next in the same way. */
const MAX_CONTAINERS = 64;

/** Containers of this host that rules name by their addresses, and the first one's, as Docker and CNI give it. */
function namedContainers(tables: readonly TracedTable[], subnet: Prefix): readonly IpAddress[] {
  const texts = tables.flatMap(({ chains }) =>
    [...chains.values()].flatMap(({ rules }) => rules.map(({ text }) => text)),
  );
  const named = texts.flatMap((text) => text.match(/\b\d+\.\d+\.\d+\.\d+\b(?!\/(?!32))/g) ?? []);
  const addresses = [...new Set(named)]
    .map((text) => IpAddress.tryParse(text))
    .filter((address) => address !== undefined);
  return [subnet.address.add(2n), ...addresses.filter((address) => subnet.contains(address)).slice(0, MAX_CONTAINERS)];
}

function legs(paths: OverlayPaths, containers: readonly IpAddress[]): readonly Leg[] {
  return [...containers.flatMap((container) => containerLegs(paths, container)), ...carrierLegs(paths)];
}

function containerLegs(paths: OverlayPaths, here: IpAddress): readonly Leg[] {
  const { peerSubnet, bridge, overlayDevice } = paths;
  const there = peerSubnet.address.add(2n);
  return INNER_PROTOCOLS.flatMap((protocol): Leg[] => {
    const common = { protocol, destinationPort: undefined, isForHost: false };
    const out = { ...common, source: here, destination: there, inDevice: bridge, outDevice: overlayDevice };
    const back = { ...common, source: there, destination: here, inDevice: overlayDevice, outDevice: bridge };
    return [...forwarded('containers-out', out), ...forwarded('containers-in', back)];
  });
}

function carrierLegs({ carrier, underlayDevice }: OverlayPaths): readonly Leg[] {
  if (carrier === undefined) return [];
  const { protocol, own, peer } = carrier;
  const datagram = { protocol, destinationPort: protocol === 'udp' ? carrier.port : undefined };
  const sent = {
    ...datagram,
    source: own,
    destination: peer,
    inDevice: null,
    outDevice: underlayDevice,
    isForHost: false,
  };
  const received = {
    ...datagram,
    source: peer,
    destination: own,
    inDevice: underlayDevice,
    outDevice: null,
    isForHost: true,
  };
  return [
    ...(['output', 'postrouting'] as const).map((hook): Leg => ({ flow: 'carrier-out', hook, packet: sent })),
    ...(['ingress', 'prerouting', 'input'] as const).map((hook): Leg => ({
      flow: 'carrier-in',
      hook,
      packet: received,
    })),
  ];
}

function forwarded(flow: BlockedFlow, packet: TracedPacket): readonly Leg[] {
  const unrouted = { ...packet, outDevice: null };
  return [
    { flow, hook: 'ingress', packet: unrouted },
    { flow, hook: 'prerouting', packet: unrouted },
    { flow, hook: 'forward', packet },
    { flow, hook: 'postrouting', packet },
  ];
}

function remedyFor(obstacle: Obstacle, flow: BlockedFlow, { network, carrier }: OverlayPaths): string {
  const { table, chain, rule } = obstacle;
  const carried = flow === 'carrier-in' || flow === 'carrier-out' ? carrier : undefined;
  if (table.tool === 'nft') {
    const place = `${table.name} ${chain.name}`;
    const command = rule === undefined ? `nft add rule ${place}` : `nft insert rule ${place} handle ${rule.number}`;
    return (
      carried !== undefined ? [nftMatch(carried)] : [`ip saddr ${network.toString()}`, `ip daddr ${network.toString()}`]
    )
      .map((match) => `${command} ${match} accept`)
      .join(' && ');
  }
  const program = `${table.tool}${table.name === 'filter' ? '' : ` -t ${table.name}`}`;
  const command = rule === undefined ? `${program} -A ${chain.name}` : `${program} -I ${chain.name} ${rule.number}`;
  return (carried !== undefined ? [iptablesMatch(carried)] : [`-s ${network.toString()}`, `-d ${network.toString()}`])
    .map((match) => `${command} ${match} -j ACCEPT`)
    .join(' && ');
}

/** Where an obstacle stands, for people: table, chain, and the rule with its number. */
export function describeObstacle({ table, chain, rule, hook }: Obstacle): string {
  const place = `table ${table.name} (${table.tool}), chain ${chain.name}`;
  if (rule === undefined) return `${place}: its policy for what no rule accepts is to drop`;
  const number = table.tool === 'nft' ? `handle ${rule.number}` : `rule ${rule.number}`;
  const base = chain.base === undefined ? `, jumped to from ${hook}` : '';
  return `${place}${base}, ${number}: ${rule.text}`;
}
