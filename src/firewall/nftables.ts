import { type Family } from '../ip/address.js';
import { type Logger } from '../log.js';
import type { RunCommand } from '../sys/command.js';
import type { Deviation } from './iptables-plan.js';
import { type AddressMatch, type FamilyRules, type Rule, hasRules } from './rules.js';
import { NFT_PACKAGE, listTable, removeTables } from './nft-listing.js';
import { checkResult } from './run.js';

/** The table of a family, as `ip flannel-ipv4`. @see flannel `pkg/trafficmngr/nftables/nftables.go` */
export const NFT_TABLES: Readonly<Record<Family, string>> = { 4: 'ip flannel-ipv4', 6: 'ip6 flannel-ipv6' };

/**
 * flannel's tables in nftables, one for each family, replaced whole in one transaction.
 *
 * API: {@link put} writes, {@link check} compares with what was written and repairs, {@link remove} deletes.
 * Limits: an `accept` here ends only this table's chain; a `drop` in a table of others still drops. Table and chain
 * names are flannel's fixed ones. One call at a time.
 * Errors: `ERR_FIREWALL`, `ERR_PROGRAM`; a missing `nft` says which package to install.
 */
export class Nftables {
  /** What was listed right after the last write; a family without rules has no table. */
  private readonly written = new Map<Family, string>();

  constructor(
    private readonly run: RunCommand,
    private readonly log: Logger,
  ) {}

  /**
   * Replaces the tables of the families that have rules. A kernel or `nft` without `fully-random` gets plain
   * masquerading.
   */
  async put(rules: readonly FamilyRules[]): Promise<void> {
    this.written.clear();
    const script = rules.filter(hasRules).map(tableScript).join('');
    const plainScript = script.replaceAll(FULLY_RANDOM, PLAIN);
    const request = { program: 'nft', args: ['-f', '-'], task: 'write the rules of nft', packageName: NFT_PACKAGE };
    const result = await this.run(request.program, request.args, script);
    if (result === undefined || result.exitCode === 0 || plainScript === script) {
      checkResult(result, request);
    } else {
      const plain = await this.run(request.program, request.args, plainScript);
      // With the same fate both ways, the first message is about what was really wanted.
      checkResult(plain?.exitCode === 0 ? plain : result, request);
      this.log.info('source ports of masqueraded connections are not random', {
        detail: 'nft or the kernel does not know fully-random',
      });
    }
    for (const family of rules.filter(hasRules)) {
      const listing = await listTable(this.run, NFT_TABLES[family.family]);
      // Somebody who changed the table between writing and listing must not become what later checks compare with.
      const expected = tableRules(family).map(([chain, rule]) => `${chain} ${rule.purpose}`);
      if (listing?.comments.join('\n') === expected.join('\n')) this.written.set(family.family, listing.fingerprint);
    }
  }

  /**
   * Compares the tables with what was written, and writes them again if anything at all changed.
   *
   * @returns what was not as it should be.
   */
  async check(rules: readonly FamilyRules[]): Promise<readonly Deviation[]> {
    const deviations: Deviation[] = [];
    for (const { family } of rules.filter(hasRules)) {
      const listing = await listTable(this.run, NFT_TABLES[family]);
      const object = NFT_TABLES[family];
      if (listing === undefined) deviations.push({ kind: 'table-missing', object });
      else if (listing.fingerprint !== this.written.get(family)) deviations.push({ kind: 'table-changed', object });
    }
    if (deviations.length > 0) await this.put(rules);
    return deviations;
  }

  /**
   * Deletes the tables of these families, if they are there.
   *
   * @returns what was removed, for people. Nothing if `nft` is not installed.
   */
  async remove(families: readonly Family[]): Promise<readonly string[]> {
    for (const family of families) this.written.delete(family);
    return removeTables(
      this.run,
      this.log,
      families.map((family) => NFT_TABLES[family]),
    );
  }
}

const FULLY_RANDOM = 'masquerade fully-random';
const PLAIN = 'masquerade';

const VERDICTS: Readonly<Record<Rule['verdict'], string>> = {
  return: 'return',
  accept: 'accept',
  masquerade: PLAIN,
  'masquerade-fully-random': FULLY_RANDOM,
};

/**
 * The transaction that replaces the table of one family.
 *
 * @internal Exported for tests.
 */
export function tableScript(rules: FamilyRules): string {
  const table = NFT_TABLES[rules.family];
  // Deleting needs the table to exist; adding one that exists changes nothing.
  const lines = [`add table ${table}`, `delete table ${table}`, `add table ${table}`];
  if (rules.forward.length > 0) {
    lines.push(`add chain ${table} forward { type filter hook forward priority 0; }`);
  }
  if (rules.masquerade.length > 0) {
    lines.push(`add chain ${table} postrtg { type nat hook postrouting priority 100; }`);
  }
  for (const [chain, rule] of tableRules(rules)) {
    lines.push(`add rule ${table} ${chain} ${ruleText(rules.family, rule)}`);
  }
  return lines.join('\n') + '\n';
}

function tableRules(rules: FamilyRules): readonly (readonly [chain: string, rule: Rule])[] {
  return [
    ...rules.forward.map((rule) => ['forward', rule] as const),
    ...rules.masquerade.map((rule) => ['postrtg', rule] as const),
  ];
}

function ruleText(family: Family, rule: Rule): string {
  const protocol = family === 4 ? 'ip' : 'ip6';
  const address = (field: string, { prefix, isNegated }: AddressMatch): string =>
    `${protocol} ${field} ${isNegated ? '!= ' : ''}${prefix.toString()}`;
  const parts: string[] = [];
  if (rule.markBits !== undefined) {
    const bits = `0x${rule.markBits.toString(16)}`;
    parts.push(`meta mark & ${bits} == ${bits}`);
  }
  if (rule.source !== undefined) parts.push(address('saddr', rule.source));
  if (rule.destination !== undefined) parts.push(address('daddr', rule.destination));
  return [...parts, VERDICTS[rule.verdict], `comment "${rule.purpose}"`].join(' ');
}
