import { environmentName, FLAGS } from '../config/flags.js';
import { type FlagValue, setFlagValue } from '../config/flag-values.js';
import { scanArguments, shownWord } from '../config/go-flags.js';
import { mostSimilar } from '../config/similar.js';
import { OverlayError } from '../errors.js';
import { COMMON_FLAGS, type Command, type FlagTable, type Request } from './command.js';

/** What a command line asks for. */
export type Invocation =
  /** About these commands: one, those of a group, or all. */
  | { readonly kind: 'help'; readonly commands: readonly Command[] }
  | { readonly kind: 'version' }
  | ({ readonly kind: 'run' } & GivenRequest)
  | { readonly kind: 'raw'; readonly command: Command; readonly argv: readonly string[] };

/** What was said about a command; the rest is to be found. */
export interface GivenRequest {
  readonly command: Command;
  readonly operands: readonly string[];
  /** By flag. */
  readonly given: ReadonlyMap<string, FlagValue>;
}

/**
 * Reads a command line: flags may stand anywhere, in front of the command, behind it, between its operands. Those that
 * the daemon has too can come from its variables in the environment.
 *
 * @throws {@link OverlayError} `ERR_FLAG`
 */
export function parseInvocation(
  commands: readonly Command[],
  argv: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
): Invocation {
  const raw = commands.find(({ name, isRaw }) => isRaw === true && name === argv[0]);
  if (raw !== undefined) return { kind: 'raw', command: raw, argv: argv.slice(1) };

  const known = new Map(commands.flatMap(({ flags }) => Object.entries({ ...COMMON_FLAGS, ...flags })));
  const { settings, words, isHelpWanted } = scanAll(argv, (name) => {
    if (name === 'version') return 'switch';
    const flag = known.get(name);
    if (flag === undefined) throw unknownFlag(name, [...known.keys()], 'see tsflannelctl help');
    return flag.placeholder === undefined ? 'switch' : 'value';
  });
  if (settings.some(({ name }) => name === 'version') && words.length === 0) return { kind: 'version' };
  if (words[0] === 'version' && words.length === 1) return { kind: 'version' };
  if (words.length === 0 || words[0] === 'help') return helpOn(commands, words.slice(1));
  // With a password on the command line, a stray word may be the rest of it.
  const hasSecret = settings.some(({ name }) => known.get(name)?.isSecret === true);
  const show = (word: string): string => (hasSecret ? '***' : shownWord(word));
  if (isHelpWanted && words.length === 1) return helpOn(commands, words);
  const { command, operands } = find(commands, words, show);
  if (isHelpWanted) return { kind: 'help', commands: [command] };

  const flags: FlagTable = { ...COMMON_FLAGS, ...command.flags };
  const values = new Map<string, FlagValue>();
  for (const { name, value } of settings) {
    const flag = flags[name];
    if (flag === undefined) {
      throw unknownFlag(name, Object.keys(flags), `see tsflannelctl help ${command.name}`, command.name);
    }
    setFlagValue(values, { name, flag, text: value, source: `--${name}` });
  }
  for (const [name, flag] of Object.entries(flags)) {
    const variable = environment[environmentName(name)];
    if (values.has(name) || !Object.hasOwn(FLAGS, name) || variable === undefined || variable === '') continue;
    setFlagValue(values, { name, flag, text: variable, source: environmentName(name) });
  }
  checkOperands(command, operands, show);
  return { kind: 'run', command, operands, given: values };
}

/**
 * Completes a request by what was found for flags that were not given, and by their defaults.
 *
 * @param found - texts, by flag.
 * @param origin - of them, as it is named in an error.
 * @throws {@link OverlayError} `ERR_FLAG`
 */
export function completeRequest(
  { command, operands, given }: GivenRequest,
  found: ReadonlyMap<string, string> = new Map(),
  origin = '',
): Request<FlagTable> {
  const all = Object.entries({ ...COMMON_FLAGS, ...command.flags } as FlagTable).map(([name, flag]) => {
    const values = new Map(given);
    const text = found.get(name);
    if (!values.has(name) && text !== undefined)
      setFlagValue(values, { name, flag, text, source: `--${name} (${origin})` });
    return [optionName(name), values.has(name) ? values.get(name) : flag.initial] as const;
  });
  return { operands, options: Object.fromEntries(all) as Request<FlagTable>['options'] };
}

function helpOn(commands: readonly Command[], words: readonly string[]): Invocation {
  if (words.length === 0 || words[0] === 'help' || words[0] === 'version') return { kind: 'help', commands };
  const group = words.length === 1 ? groupOf(commands, words[0]) : [];
  return { kind: 'help', commands: group.length > 0 ? group : [find(commands, words, shownWord).command] };
}

function groupOf(commands: readonly Command[], word = ''): readonly Command[] {
  return commands.filter(({ name }) => name === word || name.startsWith(`${word} `));
}

function optionName(flag: string): string {
  return flag.replaceAll(/-(\w)/g, (_, letter: string) => letter.toUpperCase());
}

interface Scanned {
  readonly settings: readonly { readonly name: string; readonly value: string }[];
  readonly words: readonly string[];
  readonly isHelpWanted: boolean;
}

function scanAll(argv: readonly string[], kindOf: (name: string) => 'switch' | 'value'): Scanned {
  const end = argv.indexOf('--');
  const settings: { name: string; value: string }[] = [];
  const words: string[] = [];
  let isHelpWanted = false;
  let rest = end < 0 ? argv : argv.slice(0, end);
  while (rest.length > 0) {
    const scanned = scanArguments(rest, kindOf);
    settings.push(...scanned.settings);
    const helpAt = scanned.isHelpWanted ? rest.findIndex((word) => /^--?(?:h|help)$/.test(word)) : -1;
    isHelpWanted ||= scanned.isHelpWanted;
    if (scanned.isHelpWanted) {
      rest = rest.slice(helpAt + 1);
    } else {
      words.push(...scanned.rest.slice(0, 1));
      rest = scanned.rest.slice(1);
    }
  }
  return { settings, words: [...words, ...(end < 0 ? [] : argv.slice(end + 1))], isHelpWanted };
}

function find(
  commands: readonly Command[],
  words: readonly string[],
  show: (word: string) => string,
): { readonly command: Command; readonly operands: readonly string[] } {
  for (const count of [2, 1]) {
    const name = words.slice(0, count).join(' ');
    const command = words.length >= count ? commands.find((each) => each.name === name) : undefined;
    if (command !== undefined) return { command, operands: words.slice(count) };
  }
  const [first = '', second] = words;
  const group = groupOf(commands, first).map(({ name }) => name);
  if (group.length > 0) {
    const cause =
      second === undefined ? `"${first}" alone is no command` : `there is no command "${first} ${show(second)}"`;
    const meant = mostSimilar(
      second ?? '',
      group.map((name) => name.slice(first.length + 1)),
    );
    throw notUnderstood(cause, meant && `${first} ${meant}`, `use ${group.join(', ')}`);
  }
  const names = [...new Set(commands.map(({ name }) => name.split(' ')[0] ?? ''))];
  const meant = mostSimilar(first, [...names, ...commands.map(({ name }) => name)]);
  const all = `use one of ${names.join(', ')}; see tsflannelctl help`;
  throw notUnderstood(`there is no command "${show(first)}"`, meant, all);
}

function notUnderstood(cause: string, meant: string | undefined, all: string): OverlayError {
  const hint = meant === undefined ? all : `did you mean ${meant}? See tsflannelctl help`;
  return new OverlayError('ERR_FLAG', `cannot understand the command line: ${cause}`, { hint });
}

function checkOperands(command: Command, operands: readonly string[], show: (word: string) => string): void {
  const missing = command.operands.filter(({ isOptional }, index) => !isOptional && operands[index] === undefined)[0];
  if (missing !== undefined) {
    throw new OverlayError('ERR_FLAG', `cannot run ${command.name}: ${missing.name} is missing`, {
      hint: `give ${missing.help}`,
    });
  }
  for (const [index, operand] of operands.entries()) {
    const last = command.operands.at(-1);
    const expected = command.operands[index] ?? (last?.isRepeatable === true ? last : undefined);
    if (expected === undefined) {
      throw new OverlayError(
        'ERR_FLAG',
        `cannot run ${command.name}: there is no place for the word "${show(operand)}"`,
        {
          hint: `see tsflannelctl help ${command.name}`,
        },
      );
    }
    if (typeof expected.values === 'object' && !expected.values.includes(operand)) {
      throw new OverlayError('ERR_FLAG', `cannot run ${command.name} for "${show(operand)}": it is not known`, {
        hint: `use ${expected.values.join(' or ')}`,
      });
    }
  }
}

function unknownFlag(name: string, known: readonly string[], see: string, command?: string): OverlayError {
  const similar = mostSimilar(name, known);
  const cause = command === undefined ? 'there is no such flag' : `the command ${command} does not have it`;
  return new OverlayError('ERR_FLAG', `cannot use --${shownWord(name)}: ${cause}`, {
    hint: similar === undefined || similar === name ? see : `did you mean --${similar}? S${see.slice(1)}`,
  });
}
