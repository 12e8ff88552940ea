import type { IpAddress } from '../ip/address.js';
import { Prefix } from '../ip/prefix.js';
import type { ValueEntry } from '../lease/store.js';
import { type Fact, readFact } from './network-facts.js';
import { admitFacts } from './reach-admission.js';

/** A route that a router needs to reach containers whose packets the real network carries as they are. */
export interface UpstreamRoute {
  readonly destination: Prefix;
  /** The host that has them. */
  readonly via: IpAddress;
}

/** What etcd tells of {@link UpstreamRoute}s. */
export interface UpstreamRoutes {
  /** In order of their destinations. */
  readonly routes: readonly UpstreamRoute[];
  /** Hosts of which nobody knows the address that is needed. */
  readonly unplaced: readonly string[];
  /** Keys that cannot be read, and networks and addresses that are not believed. */
  readonly refused: readonly string[];
}

/** How routers are told routes. */
export const ROUTE_FORMATS = ['linux', 'cisco', 'juniper'] as const;

/** One of {@link ROUTE_FORMATS}. */
export type RouteFormat = (typeof ROUTE_FORMATS)[number];

/** The routes that follow from what lies in etcd, as few as say the same. */
export function upstreamRoutes(entries: readonly ValueEntry[]): UpstreamRoutes {
  const facts = new Map<string, Fact>();
  const refused: string[] = [];
  for (const entry of entries) {
    const fact = readFact(entry);
    if (fact === 'bad') refused.push(entry.path);
    else if (fact !== 'none') facts.set(entry.path, fact);
  }
  const admitted = admitFacts(facts, { host: '', overlay: [], onLink: [], guarded: [], local: [] });
  const unplaced = new Set<string>();
  const routes: UpstreamRoute[] = [];
  for (const [host, { direct }] of admitted.others) {
    for (const destination of aggregate(direct)) {
      const via = admitted.places.get(host)?.addresses[destination.family];
      if (via === undefined) unplaced.add(host);
      else routes.push({ destination, via });
    }
  }
  routes.sort((a, b) => a.destination.compare(b.destination));
  return {
    routes,
    unplaced: [...unplaced].sort(),
    refused: [...refused, ...admitted.refused.map(({ what, detail }) => `${what}: ${detail}`)],
  };
}

/**
 * The fewest prefixes with the same addresses.
 *
 * @param prefixes - in order; none of them in another one.
 */
export function aggregate(prefixes: readonly Prefix[]): readonly Prefix[] {
  const merged: Prefix[] = [];
  for (const prefix of prefixes) {
    let last = prefix;
    for (let before = merged.at(-1); before !== undefined && isLowerHalf(before, last); before = merged.at(-1)) {
      merged.pop();
      last = Prefix.of(before.address, before.length - 1);
    }
    merged.push(last);
  }
  return merged;
}

function isLowerHalf(lower: Prefix, upper: Prefix): boolean {
  if (lower.length === 0 || lower.family !== upper.family || lower.length !== upper.length) return false;
  const both = Prefix.of(lower.address, lower.length - 1);
  return !lower.equals(upper) && both.address.equals(lower.address) && both.contains(upper.address);
}

/** A route as an operator gives it to a router. */
export function formatRoute({ destination, via }: UpstreamRoute, format: RouteFormat): string {
  const [to, gateway] = [destination.toString(), via.toString()];
  const isV4 = destination.family === 4;
  switch (format) {
    case 'linux':
      return `ip ${isV4 ? '' : '-6 '}route replace ${to} via ${gateway}`;
    case 'cisco':
      return isV4
        ? `ip route ${destination.address.toString()} ${netmask(destination)} ${gateway}`
        : `ipv6 route ${to} ${gateway}`;
    case 'juniper':
      return `set routing-options ${isV4 ? '' : 'rib inet6.0 '}static route ${to} next-hop ${gateway}`;
  }
}

function netmask({ length }: Prefix): string {
  const bits = length === 0 ? 0 : (-1 << (32 - length)) >>> 0;
  return [24, 16, 8, 0].map((shift) => (bits >>> shift) & 255).join('.');
}
