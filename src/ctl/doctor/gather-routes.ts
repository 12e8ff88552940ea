import { Prefix } from '../../ip/prefix.js';
import type { AddressInfo } from '../../netlink/address.js';
import type { LinkInfo } from '../../netlink/link.js';
import type { Netlink } from '../../netlink/netlink.js';
import type { RouteInfo } from '../../netlink/route.js';
import { ROUTE_PROTOCOL } from '../../reconcile/desired.js';
import { runCommand } from '../../sys/command.js';
import type { LeaseRow } from '../lease-rows.js';
import { type DoctorFacts, type PeerWay, type PolicyRoute, type PolicyRule, bridgeOf } from './facts.js';

/** What {@link readWays} looks at. */
export interface WayOptions {
  readonly peers: readonly LeaseRow[];
  readonly own: LeaseRow | undefined;
  readonly links: readonly LinkInfo[];
  readonly addresses: readonly AddressInfo[];
  readonly routes: readonly RouteInfo[];
}

/** Asks the kernel where it sends packets for each peer: those of this host, and those of its containers. */
export function readWays(netlink: Pick<Netlink, 'routes'>, options: WayOptions): readonly PeerWay[] {
  const { peers, own, links, addresses, routes } = options;
  const ownSubnet = own === undefined ? undefined : Prefix.parse(own.subnet);
  const bridge = ownSubnet === undefined ? undefined : bridgeOf({ links, addresses }, ownSubnet);
  return peers.flatMap((peer): readonly PeerWay[] => {
    const subnet = Prefix.parse(peer.subnet);
    const expected = routes.find(
      ({ destination, protocol }) =>
        protocol === ROUTE_PROTOCOL && destination.covers(subnet) && destination.length > 0,
    );
    const target = subnet.address.add(1n);
    const sent = { subnet, isOfContainer: false, expected, taken: netlink.routes.lookup(target) };
    if (bridge === undefined || ownSubnet === undefined) return [sent];
    const forwarded = { source: ownSubnet.address.add(2n), inputIndex: bridge.index };
    return [sent, { subnet, isOfContainer: true, expected, taken: netlink.routes.lookup(target, forwarded) }];
  });
}

/** Tables that every host has; the first two have no routes to peers but ours. */
const USUAL_TABLES: ReadonlySet<string> = new Set(['local', 'main', 'default']);

/** A host with more has a program that makes them, and one of the first will do as an example. */
const MAX_TABLES = 32;

/** The IPv4 rules of policy routing, as `ip` lists them; none where there is no `ip`. */
export async function readPolicy(): Promise<Pick<DoctorFacts, 'policyRules' | 'policyRoutes'>> {
  const policyRules = (await listJson(['-4', 'rule', 'show'])).map(readRule);
  const tables = [...new Set(policyRules.map(({ table }) => table))].filter((table) => !USUAL_TABLES.has(table));
  const policyRoutes: PolicyRoute[] = [];
  for (const table of tables.filter((name) => name !== '').slice(0, MAX_TABLES)) {
    const routes = await listJson(['-4', 'route', 'show', 'table', table]);
    policyRoutes.push(...routes.map((route) => ({ table, destination: prefixOf(textOf(route['dst'])) })));
  }
  return { policyRules, policyRoutes };
}

async function listJson(args: readonly string[]): Promise<readonly Readonly<Record<string, unknown>>[]> {
  const result = await runCommand('ip', ['-j', ...args]);
  if (result?.exitCode !== 0 || result.stdout.trim() === '') return []; // no such table, or no ip
  const listed: unknown = JSON.parse(result.stdout);
  return Array.isArray(listed) ? (listed as readonly Readonly<Record<string, unknown>>[]) : [];
}

function readRule(rule: Readonly<Record<string, unknown>>): PolicyRule {
  const side = (name: 'src' | 'dst'): string => {
    const length = rule[`${name}len`];
    return textOf(rule[name]) + (typeof length === 'number' ? `/${length}` : '');
  };
  const destination = side('dst');
  const table = textOf(rule['table']);
  const action = textOf(rule['action']) || 'lookup';
  const words = [
    ...('not' in rule ? ['not'] : []),
    `from ${side('src') || 'all'}`,
    ...(destination === '' || destination === 'all' ? [] : [`to ${destination}`]),
    ...['iif', 'oif', 'fwmark', 'tos', 'ipproto'].flatMap((name) =>
      name in rule ? [`${name} ${textOf(rule[name])}`] : [],
    ),
    action === 'lookup' ? `lookup ${table}` : action,
  ];
  return {
    priority: Number(rule['priority']),
    destination: prefixOf(destination),
    action,
    table,
    text: words.join(' '),
  };
}

function prefixOf(text: string): Prefix | undefined {
  return Prefix.tryParse(text.includes('/') ? text : `${text}/32`); // `default` and `all` are none
}

function textOf(value: unknown): string {
  return typeof value === 'string' || typeof value === 'number' ? String(value) : '';
}
