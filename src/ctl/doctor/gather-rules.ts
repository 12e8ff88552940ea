import { type SavedTables, parseSave } from '../../firewall/iptables-plan.js';
import { iptablesRuleset } from '../../firewall/trace/iptables-ruleset.js';
import { nftRuleset } from '../../firewall/trace/nft-ruleset.js';
import type { TracedTable } from '../../firewall/trace/ruleset.js';
import { runCommand } from '../../sys/command.js';
import type { DoctorFacts } from './facts.js';

/** The name under which the variant of iptables is installed that is not the standard one. */
const OTHER_VARIANT = { nf_tables: 'iptables-legacy', legacy: 'iptables-nft' } as const;

/**
 * Every rule that sees IPv4 packets: of the standard iptables, of the other variant where its programs are installed,
 * and of nftables; and the rules of the standard ip6tables.
 */
export async function readRules(): Promise<Pick<DoctorFacts, 'iptables' | 'ip6tables' | 'rulesets'>> {
  const iptables = await readSave('iptables');
  const version = await runCommand('iptables', ['--version']);
  const variant = version?.stdout.includes('(nf_tables)') === true ? 'nf_tables' : 'legacy';
  const other = OTHER_VARIANT[variant];
  const others = await readSave(other);
  const saved = [
    ...(iptables === undefined ? [] : iptablesRuleset(iptables, 'iptables')),
    ...(others === undefined ? [] : iptablesRuleset(others, other)),
  ];
  const ip6tables = await readSave('ip6tables');
  return { iptables, ip6tables, rulesets: [...saved, ...(await readNftables(saved, variant))] };
}

async function readSave(
  program: 'ip6tables' | 'iptables' | 'iptables-legacy' | 'iptables-nft',
): Promise<SavedTables | undefined> {
  const result = await runCommand(`${program}-save`, []);
  return result?.exitCode === 0 ? parseSave(result.stdout) : undefined;
}

/** The tables that iptables-nft did not show; its own show more in its own words. */
async function readNftables(
  saved: readonly TracedTable[],
  variant: keyof typeof OTHER_VARIANT,
): Promise<readonly TracedTable[]> {
  const result = await runCommand('nft', ['-j', 'list', 'ruleset']);
  if (result?.exitCode !== 0) return [];
  const tool = variant === 'nf_tables' ? 'iptables' : 'iptables-nft';
  const shown = new Set(saved.filter((table) => table.tool === tool).map(({ name }) => `ip ${name}`));
  return nftRuleset(result.stdout).filter(({ name }) => !shown.has(name));
}
