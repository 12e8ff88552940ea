import type { Netns } from './netns.js';

/**
 * What a namespace's network looks like, without anything that differs between two equal ones: no interface numbers,
 * counters, timers or handles, and lists in a fixed order. Two of them can be compared with `assert.deepEqual`.
 */
export interface NetState {
  readonly links: readonly object[];
  readonly addresses: readonly string[];
  /** All tables except the kernel's own entries in `local`. */
  readonly routes: readonly string[];
  readonly rules: readonly string[];
  /** Entries that somebody made, not those the kernel learnt. */
  readonly neighbours: readonly string[];
  readonly fdb: readonly string[];
  readonly iptables: readonly string[];
  readonly ip6tables: readonly string[];
  readonly nftables: readonly object[];
}

const QUERIES = {
  links: 'ip -j -d link show',
  addresses: 'ip -j addr show',
  routes4: 'ip -4 route show table all',
  routes6: 'ip -6 route show table all',
  rules4: 'ip -4 rule',
  rules6: 'ip -6 rule',
  neighbours: 'ip neigh show nud permanent',
  fdb: 'bridge fdb show',
  iptables: 'iptables-save',
  ip6tables: 'ip6tables-save',
  nftables: 'nft -j -a list ruleset',
} as const;

const END_OF_ANSWER = '-- end of answer --\n';

/** All in one go: entering a namespace, with a mount namespace of its own, costs more than the answer. */
const SCRIPT = Object.values(QUERIES).join(`\nprintf '%s' '${END_OF_ANSWER}'\n`);

/** Reads the state of a namespace. */
export async function netState(netns: Netns): Promise<NetState> {
  const { stdout } = await netns.run(['sh', '-ec', SCRIPT]);
  const answers = stdout.split(END_OF_ANSWER);
  const answer = (query: keyof typeof QUERIES): string => answers[Object.keys(QUERIES).indexOf(query)] ?? '';
  const json = (query: 'links' | 'addresses'): Record<string, unknown>[] =>
    JSON.parse(answer(query).trim() || '[]') as Record<string, unknown>[];
  const lines = (query: keyof typeof QUERIES): string[] =>
    answer(query)
      .split('\n')
      .map((line) => line.trim())
      .filter((line) => line !== '');
  const isMade = (route: string): boolean => !/ table local /.test(`${route} `);
  return {
    links: sortBy(json('links').map(describeLink), (link) => String(link.name)),
    addresses: json('addresses')
      .flatMap((link) =>
        (link.addr_info as { local: string; prefixlen: number; scope: string; label?: string; peer?: string }[]).map(
          ({ local, prefixlen, scope }) => `${String(link.ifname)} ${local}/${prefixlen} ${scope}`,
        ),
      )
      .sort(),
    routes: [...lines('routes4'), ...lines('routes6')].filter(isMade).map(withoutTimers).sort(),
    rules: [...lines('rules4'), ...lines('rules6')],
    neighbours: lines('neighbours').map(withoutTimers).sort(),
    fdb: lines('fdb')
      .filter((entry) => entry.includes('permanent'))
      .sort(),
    iptables: lines('iptables')
      .map(normaliseSavedRule)
      .filter((line) => line !== ''),
    ip6tables: lines('ip6tables')
      .map(normaliseSavedRule)
      .filter((line) => line !== ''),
    nftables: normaliseNft(JSON.parse(answer('nftables')) as { nftables: object[] }),
  };
}

function describeLink(link: Record<string, unknown>): Record<string, unknown> {
  const info = (link.linkinfo ?? {}) as { info_kind?: string; info_data?: object; info_slave_kind?: string };
  return {
    name: link.ifname,
    kind: info.info_kind ?? link.link_type,
    flags: (link.flags as string[]).filter((flag) => ['UP', 'NOARP', 'POINTOPOINT', 'BROADCAST'].includes(flag)).sort(),
    mtu: link.mtu,
    txqueuelen: link.txqlen,
    mac: link.address,
    master: link.master,
    data: info.info_kind === 'bridge' ? undefined : info.info_data,
  };
}

/** `expires 123sec`, `used 1/2/3` and the like. */
function withoutTimers(line: string): string {
  return line.replace(/ (expires \S+|used \S+|probes \S+|error \S+)/g, '').trim();
}

/** A line of iptables-save without comments and without `[packets:bytes]`. */
function normaliseSavedRule(line: string): string {
  return line.startsWith('#') ? '' : line.replace(/\s*\[\d+:\d+\]\s*/, ' ').trim();
}

/** The rule set without handles, counters and nft's own version entry. */
function normaliseNft(ruleset: { nftables: object[] }): object[] {
  const dropped = new Set(['handle', 'packets', 'bytes']);
  const strip = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(strip);
    if (typeof value !== 'object' || value === null) return value;
    return Object.fromEntries(
      Object.entries(value)
        .filter(([key]) => !dropped.has(key))
        .map(([key, item]) => [key, strip(item)]),
    );
  };
  return ruleset.nftables.filter((entry) => !('metainfo' in entry)).map((entry) => strip(entry) as object);
}

function sortBy<T>(items: readonly T[], key: (item: T) => string): T[] {
  return [...items].sort((a, b) => (key(a) < key(b) ? -1 : 1));
}
