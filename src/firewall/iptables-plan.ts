import { IpAddress } from '../ip/address.js';
import { Prefix } from '../ip/prefix.js';
import type { AddressMatch, FamilyRules, Rule } from './rules.js';

/** A rule as the words that follow the chain's name in a saved rule set; a comment is one word. */
export type RuleWords = readonly string[];

/** What `iptables-save` prints. */
export interface SavedTables {
  /** Table → chain → rules in order. */
  readonly rules: ReadonlyMap<string, ReadonlyMap<string, readonly RuleWords[]>>;
  /** `table/chain` → what happens to packets at the end of a built-in chain. */
  readonly policies: ReadonlyMap<string, string>;
}

/** A chain of ours, the built-in chain that jumps to it, and the comment that marks rules as flannel's. */
export interface FlannelChain {
  readonly table: 'nat' | 'filter';
  readonly chain: string;
  readonly parent: string;
  readonly comment: string;
}

/** @see flannel `pkg/trafficmngr/iptables/iptables.go` */
export const MASQUERADE_CHAIN: FlannelChain = {
  table: 'nat',
  chain: 'FLANNEL-POSTRTG',
  parent: 'POSTROUTING',
  comment: 'flanneld masq',
};

/** @see flannel `pkg/trafficmngr/iptables/iptables.go` */
export const FORWARD_CHAIN: FlannelChain = {
  table: 'filter',
  chain: 'FLANNEL-FWD',
  parent: 'FORWARD',
  comment: 'flanneld forward',
};

/**
 * Docker's chain for rules of others, which it meets before its own and never alters.
 *
 * @remarks From release 28 on, Docker drops what comes for a container from elsewhere than its bridge, in a chain that
 * it puts ahead of every jump of ours in FORWARD at each start.
 */
export const DOCKER_USER_CHAIN = 'DOCKER-USER';

/** Docker's chain with the rules of its networks. */
export const DOCKER_CHAIN = 'DOCKER';

/** All chains of ours. */
export const CHAINS: readonly FlannelChain[] = [MASQUERADE_CHAIN, FORWARD_CHAIN];

/** How the rules in the kernel can differ from what they should be. */
export const DEVIATION_KINDS = [
  'chain-missing',
  'chain-changed',
  'jump-missing',
  'jump-duplicate',
  'table-missing',
  'table-changed',
] as const;

/** One of {@link DEVIATION_KINDS}. */
export type DeviationKind = (typeof DEVIATION_KINDS)[number];

/** One thing that was not as it should be. */
export interface Deviation {
  readonly kind: DeviationKind;
  /** The chain or table concerned, as in `nat/FLANNEL-POSTRTG`. */
  readonly object: string;
}

/** What to hand to `iptables-restore --noflush`, and why. */
export interface RestorePlan {
  /** Empty if there is nothing to do. */
  readonly script: string;
  readonly deviations: readonly Deviation[];
  /** What the script takes away, for people. */
  readonly removals: readonly string[];
  /** Chains that stay, emptied, because rules of others jump to them. */
  readonly stillReferenced: readonly string[];
}

/** What a plan takes away besides putting the wanted rules in place. */
export interface RemovalScope {
  /** Whether chains of ours that are not wanted are removed. */
  readonly unwantedChains: boolean;
  /** Networks whose rules in the form of flannel before 0.20, directly in POSTROUTING and FORWARD, are removed. */
  readonly directRulesOf: readonly Prefix[];
  /** Whether such rules of any network are removed if they carry flannel's comment. */
  readonly allCommentedDirectRules: boolean;
}

/** A check takes nothing away: only what is wanted is compared. */
export const KEEP_EVERYTHING: RemovalScope = {
  unwantedChains: false,
  directRulesOf: [],
  allCommentedDirectRules: false,
};

/** Reads the output of `iptables-save` or `ip6tables-save`. Lines that are neither table, chain nor rule are skipped. */
export function parseSave(text: string): SavedTables {
  const tables = new Map<string, Map<string, RuleWords[]>>();
  const policies = new Map<string, string>();
  let table = '';
  let chains = new Map<string, RuleWords[]>();
  for (const line of text.split('\n')) {
    if (line.startsWith('*')) {
      table = line.slice(1).trim();
      chains = new Map();
      tables.set(table, chains);
    } else if (line.startsWith(':')) {
      const [chain = '', policy = '-'] = line.slice(1).split(' ');
      chains.set(chain, []);
      if (policy !== '-') policies.set(`${table}/${chain}`, policy);
    } else if (line.startsWith('-A ')) {
      const [, chain = '', ...words] = splitWords(line);
      chains.get(chain)?.push(words);
    }
  }
  return { rules: tables, policies };
}

/** The rules of a chain in the words that `iptables-save` uses for them. */
export function chainWords(rules: FamilyRules, { chain, comment }: FlannelChain): readonly RuleWords[] {
  const wanted = chain === MASQUERADE_CHAIN.chain ? rules.masquerade : rules.forward;
  return wanted.map((rule) => [
    ...markWords(rule),
    ...addressWords('-s', rule.source),
    ...addressWords('-d', rule.destination),
    ...commentWords(comment),
    ...VERDICT_WORDS[rule.verdict],
  ]);
}

/**
 * The shortest transaction that makes saved rules what they should be.
 *
 * @remarks Within a table everything takes effect at one instant, so a chain is emptied and refilled without a moment
 * in which packets miss it. A jump that is there stays where it is, also where somebody moved it on purpose; a new one
 * goes to the end, as flannel's does.
 */
export function planRestore(saved: SavedTables, rules: FamilyRules, scope: RemovalScope): RestorePlan {
  const deviations: Deviation[] = [];
  const removals: string[] = [];
  const stillReferenced: string[] = [];
  let script = '';
  for (const table of ['nat', 'filter'] as const) {
    const chains = saved.rules.get(table) ?? new Map<string, readonly RuleWords[]>();
    const head: string[] = [];
    const lines: string[] = [];
    for (const spec of CHAINS) {
      const wanted = spec.table === table ? chainWords(rules, spec) : [];
      if (wanted.length > 0) {
        const steps = ensureChain(chains, spec, wanted);
        head.push(...steps.head);
        lines.push(...steps.lines);
        deviations.push(...steps.deviations);
      } else if (scope.unwantedChains && chains.has(spec.chain)) {
        const steps = removeChain(chains, spec);
        lines.push(...steps.lines);
        (steps.isStillReferenced ? stillReferenced : removals).push(`${table}/${spec.chain}`);
      }
    }
    for (const { chain, words } of directRules(saved, table, scope)) {
      lines.push(restoreLine('-D', chain, words));
      removals.push(`${table}/${chain} ${formatWords(words)}`);
    }
    if (head.length + lines.length > 0) script += [`*${table}`, ...head, ...lines, 'COMMIT', ''].join('\n');
  }
  return { script, deviations, removals, stillReferenced };
}

/** The same for one chain with any rules; without rules the chain goes. */
export function planChain(saved: SavedTables, spec: FlannelChain, wanted: readonly RuleWords[]): RestorePlan {
  const chains = saved.rules.get(spec.table) ?? new Map<string, readonly RuleWords[]>();
  const object = `${spec.table}/${spec.chain}`;
  const script = (lines: readonly string[]): string =>
    lines.length === 0 ? '' : [`*${spec.table}`, ...lines, 'COMMIT', ''].join('\n');
  if (wanted.length > 0) {
    const { head, lines, deviations } = ensureChain(chains, spec, wanted);
    return { script: script([...head, ...lines]), deviations, removals: [], stillReferenced: [] };
  }
  if (!chains.has(spec.chain)) return { script: '', deviations: [], removals: [], stillReferenced: [] };
  const { lines, isStillReferenced } = removeChain(chains, spec);
  const [removals, stillReferenced] = isStillReferenced ? [[], [object]] : [[object], []];
  return { script: script(lines), deviations: [], removals, stillReferenced };
}

function ensureChain(
  chains: ReadonlyMap<string, readonly RuleWords[]>,
  spec: FlannelChain,
  wanted: readonly RuleWords[],
): { head: string[]; lines: string[]; deviations: Deviation[] } {
  const head: string[] = [];
  const lines: string[] = [];
  const deviations: Deviation[] = [];
  const object = `${spec.table}/${spec.chain}`;
  const actual = chains.get(spec.chain);
  if (actual === undefined || !sameRules(actual, wanted)) {
    // Declaring a chain of one's own in a restore also empties it.
    head.push(`:${spec.chain} - [0:0]`);
    lines.push(...wanted.map((words) => restoreLine('-A', spec.chain, words)));
    deviations.push({ kind: actual === undefined ? 'chain-missing' : 'chain-changed', object });
  }
  const jump = jumpWords(spec);
  const jumps = (chains.get(spec.parent) ?? []).filter((words) => sameWords(words, jump)).length;
  if (jumps === 0) {
    lines.push(restoreLine('-A', spec.parent, jump));
    deviations.push({ kind: 'jump-missing', object });
  }
  // By content and never by number: rules that others add meanwhile move the numbers.
  for (let extra = 1; extra < jumps; extra++) {
    lines.push(restoreLine('-D', spec.parent, jump));
    if (extra === 1) deviations.push({ kind: 'jump-duplicate', object });
  }
  const user = spec === FORWARD_CHAIN ? chains.get(DOCKER_USER_CHAIN) : undefined;
  if (user !== undefined && dropsForeignPackets(chains.get(DOCKER_CHAIN) ?? [])) {
    if (!user.some((words) => sameWords(words, jump))) {
      lines.push(`-I ${DOCKER_USER_CHAIN} ${endOf(user)} ${formatWords(jump)}`);
      deviations.push({ kind: 'jump-missing', object: `${spec.table}/${DOCKER_USER_CHAIN}` });
    }
  }
  return { head, lines, deviations };
}

/** Whether Docker's own rules drop packets for its containers, as they do from release 28 on. */
export function dropsForeignPackets(dockerRules: readonly RuleWords[]): boolean {
  return dockerRules.some((words) => parseRule(words).target === 'DROP');
}

/**
 * The position behind everything that an operator wrote into Docker's user chain, whose restrictions go first, and
 * ahead of the RETURN that Docker up to release 28.0 put at its end.
 */
function endOf(user: readonly RuleWords[]): number {
  const hasReturn = sameWords(user.at(-1) ?? [], ['-j', 'RETURN']);
  return user.length + (hasReturn ? 0 : 1);
}

function removeChain(
  chains: ReadonlyMap<string, readonly RuleWords[]>,
  spec: FlannelChain,
): { lines: string[]; isStillReferenced: boolean } {
  const lines: string[] = [];
  let isStillReferenced = false;
  for (const [chain, rules] of chains) {
    for (const words of rules) {
      const { target, comment } = parseRule(words);
      if (target !== spec.chain) continue;
      if (comment === spec.comment) lines.push(restoreLine('-D', chain, words));
      else isStillReferenced = true;
    }
  }
  lines.push(`-F ${spec.chain}`);
  if (!isStillReferenced) lines.push(`-X ${spec.chain}`);
  return { lines, isStillReferenced };
}

/**
 * Rules that flannel before 0.20 wrote straight into the built-in chains.
 *
 * @remarks Up to 0.10 they had no comment, and an administrator may have written the same by hand. They count as
 * flannel's only if the whole masquerade set of a network is there: its first three rules stand in every release, in
 * up to 0.7 with ACCEPT in the first.
 */
function directRules(
  saved: SavedTables,
  table: 'nat' | 'filter',
  { directRulesOf, allCommentedDirectRules }: RemovalScope,
): readonly { readonly chain: string; readonly words: RuleWords }[] {
  const spec = table === 'nat' ? MASQUERADE_CHAIN : FORWARD_CHAIN;
  const parsed = (saved.rules.get(table)?.get(spec.parent) ?? []).map((words) => ({ words, rule: parseRule(words) }));
  const uncommented = directRulesOf.filter((network) => hasUncommentedSet(saved, network));
  return parsed
    .filter(({ rule }) => {
      if (rule.hasOther) return false;
      if (rule.comment === undefined) return uncommented.some((network) => shapeOf(rule, table, network) !== undefined);
      if (rule.comment !== spec.comment) return false;
      if (allCommentedDirectRules) return DIRECT_TARGETS.has(rule.target ?? '');
      return directRulesOf.some((network) => shapeOf(rule, table, network) !== undefined);
    })
    .map(({ words }) => ({ chain: spec.parent, words }));
}

const DIRECT_TARGETS: ReadonlySet<string> = new Set(['RETURN', 'ACCEPT', 'MASQUERADE']);

function hasUncommentedSet(saved: SavedTables, network: Prefix): boolean {
  const shapes = new Set(
    (saved.rules.get('nat')?.get(MASQUERADE_CHAIN.parent) ?? [])
      .map(parseRule)
      .filter((rule) => rule.comment === undefined && !rule.hasOther)
      .map((rule) => shapeOf(rule, 'nat', network)),
  );
  return shapes.has('within') && shapes.has('outwards') && shapes.has('inwards');
}

type DirectShape = 'within' | 'outwards' | 'to-own-subnet' | 'inwards' | 'forward';

function shapeOf(rule: ParsedRule, table: 'nat' | 'filter', network: Prefix): DirectShape | undefined {
  const { source, destination, target } = rule;
  if (table === 'filter') {
    if (target !== 'ACCEPT' || (source !== undefined && destination !== undefined)) return undefined;
    return isExactly(source ?? destination, network, false) ? 'forward' : undefined;
  }
  if (destination === undefined) return undefined;
  const isFromInside = isExactly(source, network, false);
  const isFromOutside = isExactly(source, network, true);
  const isToInside = isExactly(destination, network, false);
  if (target === 'MASQUERADE') {
    if (isFromOutside && isToInside) return 'inwards';
    return isFromInside && destination.isNegated && destination.prefix.address.isMulticast ? 'outwards' : undefined;
  }
  if (isFromInside && isToInside && (target === 'RETURN' || target === 'ACCEPT')) return 'within';
  const isToPart = !destination.isNegated && !isToInside && network.covers(destination.prefix);
  return isFromOutside && isToPart && target === 'RETURN' ? 'to-own-subnet' : undefined;
}

function isExactly(match: AddressMatch | undefined, prefix: Prefix, isNegated: boolean): boolean {
  return match !== undefined && match.isNegated === isNegated && match.prefix.equals(prefix);
}

/** A rule taken apart as far as flannel's own rules need. */
export interface ParsedRule {
  readonly source: AddressMatch | undefined;
  readonly destination: AddressMatch | undefined;
  readonly comment: string | undefined;
  readonly target: string | undefined;
  /** Whether it has matches or options besides these. */
  readonly hasOther: boolean;
}

/** Takes a rule apart. What it does not know is only reported as `hasOther`. */
export function parseRule(words: RuleWords): ParsedRule {
  let source: AddressMatch | undefined;
  let destination: AddressMatch | undefined;
  let comment: string | undefined;
  let target: string | undefined;
  let hasOther = false;
  let isNegated = false;
  const rest = words.values();
  for (const word of rest) {
    if (word === '!') {
      isNegated = true;
      continue;
    }
    if (!OPTIONS_WITH_VALUE.has(word)) {
      hasOther ||= word !== '--random-fully';
    } else {
      const value = rest.next().value ?? '';
      const prefix = parseAddress(value);
      if (word === '-j' || word === '-g') target = value;
      else if (word === '--comment') comment = value;
      else if (word === '-m') hasOther ||= value !== 'comment';
      else if (prefix === undefined) hasOther = true;
      else if (word === '-s') source = { prefix, isNegated };
      else destination = { prefix, isNegated };
    }
    isNegated = false;
  }
  return { source, destination, comment, target, hasOther };
}

const OPTIONS_WITH_VALUE: ReadonlySet<string> = new Set(['-s', '-d', '-j', '-g', '-m', '--comment']);

function parseAddress(text: string): Prefix | undefined {
  if (text.includes('/')) return Prefix.tryParse(text);
  const address = IpAddress.tryParse(text);
  return address === undefined ? undefined : Prefix.host(address);
}

/** The rule of a built-in chain that leads to ours. */
export function jumpWords({ chain, comment }: FlannelChain): RuleWords {
  return [...commentWords(comment), '-j', chain];
}

const VERDICT_WORDS: Readonly<Record<Rule['verdict'], RuleWords>> = {
  return: ['-j', 'RETURN'],
  accept: ['-j', 'ACCEPT'],
  masquerade: ['-j', 'MASQUERADE'],
  'masquerade-fully-random': ['-j', 'MASQUERADE', '--random-fully'],
};

function markWords({ markBits }: Rule): RuleWords {
  if (markBits === undefined) return [];
  const bits = `0x${markBits.toString(16)}`;
  return ['-m', 'mark', '--mark', `${bits}/${bits}`];
}

function addressWords(option: '-s' | '-d', match: AddressMatch | undefined): RuleWords {
  if (match === undefined) return [];
  return [...(match.isNegated ? ['!'] : []), option, match.prefix.toString()];
}

const commentWords = (comment: string): RuleWords => ['-m', 'comment', '--comment', comment];

const sameWords = (a: RuleWords, b: RuleWords): boolean =>
  a.length === b.length && a.every((word, index) => word === b[index]);

const sameRules = (a: readonly RuleWords[], b: readonly RuleWords[]): boolean =>
  a.length === b.length && a.every((words, index) => sameWords(words, b[index] ?? []));

/** A rule as a line for `iptables-restore`, and as `iptables -S` shows it. */
export const restoreLine = (command: '-A' | '-D', chain: string, words: RuleWords): string =>
  `${command} ${chain} ${formatWords(words)}`;

/** Words as text that both `iptables-restore` and {@link parseSave} read back as the same words. */
export function formatWords(words: RuleWords): string {
  return words.map((word) => (/^[^\s"'\\]+$/.test(word) ? word : `"${word.replaceAll(/["\\]/g, '\\$&')}"`)).join(' ');
}

function splitWords(line: string): string[] {
  return Array.from(line.matchAll(/"((?:[^"\\]|\\.)*)"|(\S+)/g), ([, quoted, plain]) =>
    quoted === undefined ? (plain ?? '') : quoted.replaceAll(/\\(.)/g, '$1'),
  );
}
