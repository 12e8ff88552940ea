/** A table of nftables as data: what {@link tableScript} writes. */
export interface NftTable {
  /** Family and name, as `inet filter`. */
  readonly name: string;
  readonly sets: readonly NftSet[];
  readonly chains: readonly NftChain[];
}

/** A named set, or with pairs of key and value as elements a map. */
export interface NftSet {
  readonly kind: 'set' | 'map';
  readonly name: string;
  /** Such as `ifname`, or for a map `inet_proto . inet_service : ipv4_addr . inet_service`. */
  readonly type: string;
  /** Whether elements are prefixes, of which one may contain another. */
  readonly hasPrefixes?: boolean;
  readonly elements: readonly string[];
}

/** A chain; without a hook, rules of others jump to it. */
export interface NftChain {
  readonly name: string;
  /** Such as `type filter hook forward priority 0`. */
  readonly hook?: string;
  readonly rules: readonly NftRule[];
}

/** One rule. */
export interface NftRule {
  /** Matches and verdict. */
  readonly text: string;
  /** For people who list the rules; plain ASCII without quotes, at most 100 characters. */
  readonly purpose: string;
}

/** The transaction that replaces a table. Chains stand ahead of those that jump to them. */
export function tableScript({ name, sets, chains }: NftTable): string {
  // Deleting needs the table to exist; adding one that exists changes nothing.
  const lines = [`add table ${name}`, `delete table ${name}`, `add table ${name}`];
  for (const set of sets) {
    const flags = set.hasPrefixes === true ? ' flags interval; auto-merge;' : '';
    lines.push(`add ${set.kind} ${name} ${set.name} { type ${set.type};${flags} }`);
    if (set.elements.length > 0) lines.push(`add element ${name} ${set.name} { ${set.elements.join(', ')} }`);
  }
  for (const { name: chain, hook } of chains) {
    lines.push(`add chain ${name} ${chain}${hook === undefined ? '' : ` { ${hook}; }`}`);
  }
  for (const { name: chain, rules } of chains) {
    for (const { text, purpose } of rules) lines.push(`add rule ${name} ${chain} ${text} comment "${purpose}"`);
  }
  return `${lines.join('\n')}\n`;
}

/** What the rules of a table are for, chain by chain: what a listing of it has to show. */
export function tableComments({ chains }: NftTable): readonly string[] {
  return chains.flatMap(({ name, rules }) => rules.map(({ purpose }) => `${name} ${purpose}`));
}
