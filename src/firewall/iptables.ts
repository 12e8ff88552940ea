import type { Family } from '../ip/address.js';
import type { Prefix } from '../ip/prefix.js';
import { type Logger } from '../log.js';
import type { RunCommand } from '../sys/command.js';
import {
  CHAINS,
  DOCKER_CHAIN,
  DOCKER_USER_CHAIN,
  type Deviation,
  FORWARD_CHAIN,
  type FlannelChain,
  KEEP_EVERYTHING,
  type RemovalScope,
  type RestorePlan,
  type RuleWords,
  type SavedTables,
  chainWords,
  dropsForeignPackets,
  jumpWords,
  parseSave,
  planChain,
  planRestore,
  restoreLine,
} from './iptables-plan.js';
import type { FamilyRules } from './rules.js';
import { type CommandRequest, checkResult, runChecked } from './run.js';

/** Through which interface of the kernel a set of iptables programs works; a host can have rules in both. */
export type IptablesVariant = 'legacy' | 'nf_tables';

/** What the installed programs can do. */
export interface IptablesFeatures {
  readonly variant: IptablesVariant;
  /** `MASQUERADE --random-fully` and `iptables-restore --wait`, both of iptables 1.6.2. */
  readonly isModern: boolean;
}

const PROGRAMS: Readonly<Record<Family, string>> = { 4: 'iptables', 6: 'ip6tables' };

/** What distributions add to the names of programs of one variant (`iptables-legacy-save`). */
const VARIANT_SUFFIX: Readonly<Record<IptablesVariant, string>> = { legacy: '-legacy', nf_tables: '-nft' };

const noRules = (family: Family): FamilyRules => ({ family, masquerade: [], forward: [] });

/**
 * flannel's chains in the tables of iptables.
 *
 * API: {@link put}, {@link check} and {@link remove} read the saved rules, compare and write what differs.
 * Limits: the chain names are flannel's fixed ones, so two daemons on one host overwrite each other's rules, as two
 * flanneld do. One call at a time.
 * Errors: `ERR_FIREWALL`, `ERR_PROGRAM`; a program that is missing says which package to install.
 */
export class Iptables {
  constructor(
    private readonly run: RunCommand,
    private readonly log: Logger,
  ) {}

  /**
   * What the programs of a family can do.
   *
   * @returns undefined if they are not installed.
   */
  async features(family: Family): Promise<IptablesFeatures | undefined> {
    const result = await this.run(PROGRAMS[family], ['--version']);
    return result === undefined ? undefined : parseVersion(result.stdout);
  }

  /**
   * Makes the rules of one family what they should be, then takes away what is ours and no longer wanted.
   *
   * @param rules - at least one chain must be wanted.
   * @param directRulesOf - networks whose rules of flannel before 0.20 are removed.
   * @returns what was not as it should be.
   */
  async put(rules: FamilyRules, directRulesOf: readonly Prefix[]): Promise<readonly Deviation[]> {
    const program = PROGRAMS[rules.family];
    const plan = planRestore(await this.save(program), rules, {
      ...KEEP_EVERYTHING,
      unwantedChains: true,
      directRulesOf,
    });
    await this.restore(program, plan);
    return plan.deviations;
  }

  /**
   * Compares chains and jumps with what they should be, order included, and repairs them.
   *
   * @returns what had to be repaired.
   */
  async check(rules: FamilyRules): Promise<readonly Deviation[]> {
    if (await this.isInPlace(rules)) return [];
    const program = PROGRAMS[rules.family];
    const plan = planRestore(await this.save(program), rules, KEEP_EVERYTHING);
    await this.restore(program, plan);
    return plan.deviations;
  }

  /**
   * Takes away everything of ours in one family, in the tables of both variants.
   *
   * @param options.direct - which rules of flannel before 0.20 are removed.
   * @param options.keep - the variant whose wanted rules stay.
   * @returns what was removed, for people. Programs that are not installed are passed over.
   */
  async remove(
    family: Family,
    options: { readonly direct: Omit<RemovalScope, 'unwantedChains'>; readonly keep?: IptablesVariant | undefined },
  ): Promise<readonly string[]> {
    const { direct, keep } = options;
    return this.removeByPlan(family, keep, (saved) =>
      planRestore(saved, noRules(family), { unwantedChains: true, ...direct }),
    );
  }

  /**
   * Makes one chain, and the jump to it, what they should be.
   *
   * @param wanted - its rules, at least one.
   * @returns what was not as it should be.
   */
  async putChain(family: Family, spec: FlannelChain, wanted: readonly RuleWords[]): Promise<readonly Deviation[]> {
    const program = PROGRAMS[family];
    if (await this.isChainInPlace(program, spec, wanted)) return [];
    const plan = planChain(await this.save(program), spec, wanted);
    await this.restore(program, plan);
    return plan.deviations;
  }

  /**
   * Takes away one chain, and the jumps to it, in the tables of both variants.
   *
   * @returns what was removed, for people. Programs that are not installed are passed over.
   */
  removeChain(family: Family, spec: FlannelChain): Promise<readonly string[]> {
    return this.removeByPlan(family, undefined, (saved) => planChain(saved, spec, []));
  }

  private async removeByPlan(
    family: Family,
    keep: IptablesVariant | undefined,
    planOf: (saved: SavedTables) => RestorePlan,
  ): Promise<readonly string[]> {
    const removed: string[] = [];
    const standard = await this.features(family);
    const programs = (['legacy', 'nf_tables'] as const)
      .filter((variant) => variant !== keep)
      .map((variant) =>
        variant === standard?.variant ? PROGRAMS[family] : PROGRAMS[family] + VARIANT_SUFFIX[variant],
      );
    for (const program of programs) {
      const saved = await this.saveIfInstalled(program);
      if (saved === undefined) {
        this.log.debug('nothing to remove with a program that is not installed', { detail: program });
        continue;
      }
      const plan = planOf(saved);
      await this.restore(program, plan);
      removed.push(...plan.removals.map((object) => `${program} ${object}`));
    }
    return removed;
  }

  /**
   * Whether everything of one family is as written. Reads our chains and the two that jump to them, since a list of
   * everything takes most of a second where others have tens of thousands of rules; what differs in any way, or cannot
   * be read, is for the comparison of everything.
   */
  private async isInPlace(rules: FamilyRules): Promise<boolean> {
    for (const spec of CHAINS) {
      const wanted = chainWords(rules, spec);
      if (wanted.length > 0 && !(await this.isChainInPlace(PROGRAMS[rules.family], spec, wanted))) return false;
    }
    return true;
  }

  private async isChainInPlace(program: string, spec: FlannelChain, wanted: readonly RuleWords[]): Promise<boolean> {
    const { table, chain, parent } = spec;
    const own = await this.run(program, ['-t', table, '-S', chain]);
    const lines = [`-N ${chain}`, ...wanted.map((words) => restoreLine('-A', chain, words)), ''];
    if (own?.exitCode !== 0 || own.stdout !== lines.join('\n')) return false;
    const calling = await this.run(program, ['-t', table, '-S', parent]);
    const jump = `\n${restoreLine('-A', parent, jumpWords(spec))}\n`;
    // A text with one line between line feeds that is searched for comes apart in two pieces.
    const isCalled = calling?.exitCode === 0 && `\n${calling.stdout}`.replaceAll('\n', '\n\n').split(jump).length === 2;
    return isCalled && (spec !== FORWARD_CHAIN || (await this.isAheadOfDocker(program)));
  }

  /** Whether Docker's chain for others leads to our rules, or there is no need for it. */
  private async isAheadOfDocker(program: string): Promise<boolean> {
    const user = await this.run(program, ['-t', FORWARD_CHAIN.table, '-S', DOCKER_USER_CHAIN]);
    if (user?.exitCode !== 0) return true; // no Docker
    if (user.stdout.includes(`\n${restoreLine('-A', DOCKER_USER_CHAIN, jumpWords(FORWARD_CHAIN))}\n`)) return true;
    const docker = await this.run(program, ['-t', FORWARD_CHAIN.table, '-S', DOCKER_CHAIN]);
    const saved = parseSave(`*${FORWARD_CHAIN.table}\n:${DOCKER_CHAIN} -\n${docker?.stdout ?? ''}`);
    return !dropsForeignPackets(saved.rules.get(FORWARD_CHAIN.table)?.get(DOCKER_CHAIN) ?? []);
  }

  private async restore(program: string, plan: RestorePlan): Promise<void> {
    for (const object of plan.stillReferenced) {
      this.log.warn('a chain of ours stays because rules of others jump to it', {
        detail: `${program} ${object}`,
        hint: 'remove those rules, then run tsflannelctl cleanup',
      });
    }
    if (plan.script === '') return;
    const version = await this.run(program, ['--version']);
    const canWait = version !== undefined && parseVersion(version.stdout).isModern;
    await runChecked(this.run, {
      program: `${program}-restore`,
      args: ['--noflush', ...(canWait ? ['--wait'] : [])],
      stdin: plan.script,
      task: `write the rules of ${program}`,
      packageName: PACKAGE,
    });
  }

  private async save(program: string): Promise<SavedTables> {
    return parseSave((await runChecked(this.run, saveRequest(program))).stdout);
  }

  private async saveIfInstalled(program: string): Promise<SavedTables | undefined> {
    const request = saveRequest(program);
    const result = await this.run(request.program, request.args);
    if (result === undefined) return undefined;
    return parseSave(checkResult(result, request).stdout);
  }
}

const PACKAGE = 'iptables';

function saveRequest(program: string): CommandRequest {
  return { program: `${program}-save`, args: [], task: `list the rules of ${program}`, packageName: PACKAGE };
}

/** @internal Exported for tests. */
export function parseVersion(text: string): IptablesFeatures {
  const [, major = 0, minor = 0, patch = 0] = (/v(\d+)\.(\d+)(?:\.(\d+))?/.exec(text) ?? []).map(Number);
  return {
    variant: text.includes('(nf_tables)') ? 'nf_tables' : 'legacy',
    isModern: major > 1 || (major === 1 && (minor > 6 || (minor === 6 && patch >= 2))),
  };
}
