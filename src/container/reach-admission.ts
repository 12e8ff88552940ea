import type { IpAddress } from '../ip/address.js';
import { Prefix } from '../ip/prefix.js';
import type { GuardedAddress } from '../lease/admission.js';
import { isAfter } from '../lease/record.js';
import type { HostPlace } from './host-place.js';
import type { AddressFact, BlockFact, Fact, NetworkFact, RoutedBy } from './network-facts.js';
import { PoolLayout, maskOf } from './pool-layout.js';

/** What decides whether packets are sent to where a key says; the same object as long as nothing in it has changed. */
export interface ReachContext {
  /** Stands for this host in etcd. */
  readonly host: string;
  /** Networks of the overlay, which no network of containers may overlap. */
  readonly overlay: readonly Prefix[];
  /** Networks that the underlay's device is in. */
  readonly onLink: readonly Prefix[];
  /** What none may cover: etcd, and this host on the underlay. */
  readonly guarded: readonly GuardedAddress[];
  /** Addresses of this host that only a network that it is in may cover. */
  readonly local: readonly IpAddress[];
}

/** Why something that hosts tell of their containers is not routed, for metrics. */
export const REFUSAL_REASONS = [
  'unreadable',
  'reserved',
  'overlaps-network',
  'outside-network',
  'contradiction',
  'too-many',
] as const;

/** One of {@link REFUSAL_REASONS}. */
export type RefusalReason = (typeof REFUSAL_REASONS)[number];

/** Something that is not routed. */
export interface RefusedFact {
  readonly reason: RefusalReason;
  /** The network, or the addresses, or the path. */
  readonly what: string;
  /** What is wrong, for a person. */
  readonly detail: string;
}

/** Prefixes that a host has, in their order; none of them in another one of the same host and way. */
export type HostPrefixes = Readonly<Record<RoutedBy, readonly Prefix[]>>;

/** Result of {@link admitFacts}. */
export interface AdmittedFacts {
  /** Of which anything is routed. */
  readonly networks: readonly Prefix[];
  /** Whose containers are behind rules of their hosts; also such on the link that this host is not in. */
  readonly filtered: readonly Prefix[];
  /** Those of them whose hosts answer for them on the link of the underlay, so that they are reached there in any case. */
  readonly proxied: readonly Prefix[];
  /** What other hosts have, by host; hosts without any are left out. */
  readonly others: ReadonlyMap<string, HostPrefixes>;
  readonly places: ReadonlyMap<string, HostPlace>;
  /** What this host alone has: its addresses without those that other hosts have of its blocks. In order. */
  readonly own: readonly Prefix[];
  /** Where packets to addresses that no container has shall end on this host. In order. */
  readonly ends: readonly Prefix[];
  readonly refused: readonly RefusedFact[];
}

/** Networks, prefixes of one host, and prefixes in all: more than any cluster has, and no more than a host can bear. */
export const MAX_NETWORKS = 1024;
export const MAX_PER_HOST = 4096;
export const MAX_PREFIXES = 65_536;

/** Where nothing can be sent to, or only on a link (RFC 1122 3.2.1.3, RFC 3927, RFC 4291 2.5 to 2.7). */
const UNROUTABLE = ['0.0.0.0/8', '127.0.0.0/8', '169.254.0.0/16', '224.0.0.0/3', '::/127', 'fe80::/10', 'ff00::/8'].map(
  (text) => Prefix.parse(text),
);

/** A network that is believed, with what hosts have of it. */
interface Pool {
  readonly network: NetworkFact;
  readonly layout: PoolLayout;
  readonly blocks: Map<string, BlockFact>;
}

/**
 * Decides where packets to containers go. Pure; the one place where what other hosts wrote of it is believed or not.
 *
 * @param facts - by path, in any order.
 * @param fading - paths that etcd does not have any more: they yield to what it has.
 * @remarks
 * A network is not routed if it covers what this host needs: etcd, the underlay, the overlay. One whose hosts answer for
 * it within an on-link prefix is routed by those that are in it; others find it on the link. Of networks that overlap the
 * older one counts. A block has to be one of those that the network is cut into. A single address counts against
 * the block that it lies in, unless that one's host may give it out: hosts never write both, see `records.ts`.
 */
export function admitFacts(
  facts: ReadonlyMap<string, Fact>,
  context: ReachContext,
  fading: ReadonlySet<string> = new Set(),
): AdmittedFacts {
  const refused: RefusedFact[] = [];
  const byKind = sortFacts(facts, fading);
  const elsewhere: Prefix[] = [];
  const pools = admitNetworks(byKind.networks, byKind.memberships, context, refused, elsewhere);
  const others = new Map<string, { direct: Prefix[]; overlay: Prefix[] }>();
  const own: Prefix[] = [];
  const ends: Prefix[] = [];
  let count = 0;
  const give = (host: string, routedBy: RoutedBy, prefix: Prefix): void => {
    const mine = others.get(host) ?? { direct: [], overlay: [] };
    if (count >= MAX_PREFIXES || mine.direct.length + mine.overlay.length >= MAX_PER_HOST) {
      const detail = `host ${host} has more than ${MAX_PER_HOST} prefixes, or all together more than ${MAX_PREFIXES}`;
      refused.push({ reason: 'too-many', what: prefix.toString(), detail });
      return;
    }
    others.set(host, mine);
    mine[routedBy].push(prefix);
    count++;
  };
  for (const fact of byKind.blocks) {
    const pool = pools.get(fact.pool);
    if (pool === undefined) continue;
    const what = fact.block.toString();
    if (!pool.layout.isBlock(fact.block) || fact.own >> BigInt(pool.layout.blockSize) !== 0n) {
      const detail = `it is no block of ${pool.network.subnet.toString()} with the range ${pool.network.range.toString()}`;
      refused.push({ reason: 'outside-network', what, detail });
      continue;
    }
    pool.blocks.set(what, fact);
    if (fact.host !== context.host) give(fact.host, pool.network.routedBy, fact.block);
    else if (!pool.network.isConnected) ends.push(fact.block);
  }
  const holes = new Map<string, IpAddress[]>();
  for (const fact of byKind.addresses) {
    const pool = pools.get(fact.pool);
    if (pool === undefined) continue;
    const { address, host } = fact;
    const block = pool.layout.blockAround(address);
    const around = block && pool.blocks.get(block.toString());
    const why = whyNotSingle(fact, pool, around);
    if (why !== undefined) refused.push({ ...why, what: address.toString() });
    else if (around?.host === host)
      continue; // goes there anyway
    else if (host === context.host) {
      own.push(Prefix.host(address));
      if (!pool.network.isConnected) ends.push(Prefix.host(address));
    } else {
      if (around?.host === context.host) push(holes, around.block.toString(), address);
      give(host, pool.network.routedBy, Prefix.host(address));
    }
  }
  for (const { blocks } of pools.values()) {
    for (const [text, { block, host }] of blocks) {
      if (host === context.host) own.push(...without(block, holes.get(text) ?? []));
    }
  }
  const inOrder = (a: Prefix, b: Prefix): number => a.compare(b);
  for (const { direct, overlay } of others.values()) for (const list of [direct, overlay]) list.sort(inOrder);
  const believed = [...pools.values()].map(({ network }) => network);
  return {
    networks: believed.map(({ subnet }) => subnet),
    filtered: [...believed.filter(({ isFiltered }) => isFiltered).map(({ subnet }) => subnet), ...elsewhere],
    proxied: believed.filter((network) => isProxied(network, context)).map(({ subnet }) => subnet),
    others,
    places: byKind.places,
    own: own.sort(inOrder),
    ends: ends.sort(inOrder),
    refused,
  };
}

interface SortedFacts {
  readonly networks: readonly NetworkFact[];
  /** Pools that hosts are in, as `pool host`. */
  readonly memberships: ReadonlySet<string>;
  readonly blocks: readonly BlockFact[];
  readonly addresses: readonly AddressFact[];
  readonly places: ReadonlyMap<string, HostPlace>;
}

function sortFacts(facts: ReadonlyMap<string, Fact>, fading: ReadonlySet<string>): SortedFacts {
  const networks: { readonly fact: NetworkFact; readonly isFading: boolean }[] = [];
  const memberships = new Set<string>();
  const blocks: BlockFact[] = [];
  const addresses: AddressFact[] = [];
  const places = new Map<string, HostPlace>();
  for (const [path, fact] of facts) {
    if (fact.kind === 'network') networks.push({ fact, isFading: fading.has(path) });
    else if (fact.kind === 'member') memberships.add(`${fact.pool} ${fact.host}`);
    else if (fact.kind === 'block') blocks.push(fact);
    else if (fact.kind === 'address') addresses.push(fact);
    else places.set(fact.host, fact.place);
  }
  networks.sort((a, b) => Number(a.isFading) - Number(b.isFading) || byAge(a.fact, b.fact));
  return { networks: networks.map(({ fact }) => fact), memberships, blocks, addresses, places };
}

/** All hosts see the same order. */
function byAge(a: NetworkFact, b: NetworkFact): number {
  if (a.createdAt !== b.createdAt) return isAfter(a.createdAt, b.createdAt) ? 1 : -1;
  return a.pool < b.pool ? -1 : 1;
}

function admitNetworks(
  networks: readonly NetworkFact[],
  memberships: ReadonlySet<string>,
  context: ReachContext,
  refused: RefusedFact[],
  elsewhere: Prefix[],
): ReadonlyMap<string, Pool> {
  const pools = new Map<string, Pool>();
  const admitted: NetworkFact[] = [];
  for (const network of networks) {
    const { pool, subnet } = network;
    const isMember = memberships.has(`${pool} ${context.host}`);
    const reserved = whyReserved(network, context, isMember);
    if (isProxied(network, context) && !isMember) {
      const isBelieved = reserved === undefined && elsewhere.length < MAX_NETWORKS;
      if (isBelieved && network.isFiltered) elsewhere.push(subnet);
      continue;
    }
    const older = admitted.find((each) => each.subnet.overlaps(subnet));
    if (reserved !== undefined) refused.push({ reason: 'reserved', what: pool, detail: reserved });
    else if (older !== undefined) {
      const detail = `it overlaps the network ${older.pool}, which is older`;
      refused.push({ reason: 'overlaps-network', what: pool, detail });
    } else if (pools.size >= MAX_NETWORKS) {
      refused.push({ reason: 'too-many', what: pool, detail: `there are more than ${MAX_NETWORKS} networks` });
    } else {
      admitted.push(network);
      pools.set(pool, { network, layout: new PoolLayout(network, network.isSpread), blocks: new Map() });
    }
  }
  return pools;
}

/** Whether a network is a part of an on-link prefix, in which its hosts answer for its containers. */
function isProxied({ hasNdpProxy, subnet }: NetworkFact, { onLink }: ReachContext): boolean {
  return hasNdpProxy && onLink.some((prefix) => prefix.family === 6 && prefix.covers(subnet) && !prefix.equals(subnet));
}

/** Why a network must not be routed here; undefined if it may. */
function whyReserved(network: NetworkFact, context: ReachContext, isMember: boolean): string | undefined {
  const { subnet } = network;
  const { guarded, local, onLink, overlay } = context;
  const unroutable = UNROUTABLE.find((prefix) => prefix.overlaps(subnet));
  if (unroutable !== undefined) return `it overlaps ${unroutable.toString()}, to which nothing is routed`;
  const taken = overlay.find((prefix) => prefix.overlaps(subnet));
  if (taken !== undefined) return `it overlaps ${taken.toString()}, which the overlay uses`;
  const link = isProxied(network, context) ? undefined : onLink.find((prefix) => prefix.overlaps(subnet));
  if (link !== undefined) {
    const isPart = subnet.family === 6 && link.covers(subnet) && !link.equals(subnet);
    return `it overlaps ${link.toString()}, which the underlay uses${isPart ? ', and has no -o ndp-proxy=true' : ''}`;
  }
  const covered = guarded.find(({ address }) => subnet.contains(address));
  if (covered !== undefined) return `it covers ${covered.address.toString()}, an address of ${covered.owner}`;
  const address = isMember ? undefined : local.find((each) => subnet.contains(each));
  return address && `it covers ${address.toString()}, an address of this host, which is not in that network`;
}

function whyNotSingle(
  { address, host }: AddressFact,
  { layout, network }: Pool,
  around: BlockFact | undefined,
): Pick<RefusedFact, 'reason' | 'detail'> | undefined {
  if (!layout.isUsable(address)) {
    return { reason: 'outside-network', detail: `no host can have it in ${network.subnet.toString()}` };
  }
  if (around === undefined || (around.own & maskOf(around.block, address)) === 0n) return undefined;
  const detail = `host ${host} says to have it, and host ${around.host} may give it out`;
  return { reason: 'contradiction', detail };
}

/** A prefix without some of its addresses, as few prefixes as that takes. */
export function without(prefix: Prefix, holes: readonly IpAddress[]): readonly Prefix[] {
  const inside = holes.filter((address) => prefix.contains(address));
  if (inside.length === 0) return [prefix];
  if (prefix.size === 1n) return [];
  const length = prefix.length + 1;
  const halves = [Prefix.of(prefix.address, length), Prefix.of(prefix.last, length)];
  return halves.flatMap((half) => without(half, inside));
}

function push<K, V>(lists: Map<K, V[]>, key: K, value: V): void {
  const list = lists.get(key);
  if (list === undefined) lists.set(key, [value]);
  else list.push(value);
}
