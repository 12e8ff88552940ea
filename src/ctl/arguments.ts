import { environmentName, FLAGS } from '../config/flags.js';
import { type FlagValue, setFlagValue } from '../config/flag-values.js';
import { scanArguments, shownWord } from '../config/go-flags.js';
import { OverlayError } from '../errors.js';
import { COMMON_FLAGS, type Command, type FlagTable, type Request } from './command.js';

/** What a command line asks for. */
export type Invocation =
  /** `command` is undefined for the overview. */
  | { readonly kind: 'help'; readonly command: Command | undefined }
  | { readonly kind: 'version' }
  | { readonly kind: 'run'; readonly command: Command; readonly request: Request<FlagTable> }
  | { readonly kind: 'raw'; readonly command: Command; readonly argv: readonly string[] };

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
  if (words.length === 0 || words[0] === 'help') {
    return { kind: 'help', command: words.length > 1 ? find(commands, words.slice(1), shownWord).command : undefined };
  }
  // With a password on the command line, a stray word may be the rest of it.
  const hasSecret = settings.some(({ name }) => known.get(name)?.isSecret === true);
  const show = (word: string): string => (hasSecret ? '***' : shownWord(word));
  const isGroup = commands.some(({ name }) => name.startsWith(`${words[0] ?? ''} `));
  if (isHelpWanted && isGroup && words.length === 1) return { kind: 'help', command: undefined };
  const { command, operands } = find(commands, words, show);
  if (isHelpWanted) return { kind: 'help', command };

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
  const all = Object.entries(flags).map(([name, flag]) => [
    name.replaceAll(/-(\w)/g, (_, letter: string) => letter.toUpperCase()),
    values.has(name) ? values.get(name) : flag.initial,
  ]);
  return {
    kind: 'run',
    command,
    request: { operands, options: Object.fromEntries(all) as Request<FlagTable>['options'] },
  };
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
  const group = commands.filter(({ name }) => name.startsWith(`${first} `)).map(({ name }) => name);
  if (group.length > 0) {
    const cause =
      second === undefined ? `"${first}" alone is no command` : `there is no command "${first} ${show(second)}"`;
    throw new OverlayError('ERR_FLAG', `cannot understand the command line: ${cause}`, {
      hint: `use ${group.join(', ')}`,
    });
  }
  throw new OverlayError('ERR_FLAG', `cannot understand the command line: there is no command "${show(first)}"`, {
    hint: `use one of ${[...new Set(commands.map(({ name }) => name.split(' ')[0]))].join(', ')}; see tsflannelctl help`,
  });
}

function checkOperands(command: Command, operands: readonly string[], show: (word: string) => string): void {
  const missing = command.operands.filter(({ isOptional }, index) => !isOptional && operands[index] === undefined)[0];
  if (missing !== undefined) {
    throw new OverlayError('ERR_FLAG', `cannot run ${command.name}: ${missing.name} is missing`, {
      hint: `give ${missing.help}`,
    });
  }
  for (const [index, operand] of operands.entries()) {
    const expected = command.operands[index];
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
  const similar = known.find((each) => each.startsWith(name) || name.startsWith(each));
  const cause = command === undefined ? 'there is no such flag' : `the command ${command} does not have it`;
  return new OverlayError('ERR_FLAG', `cannot use --${shownWord(name)}: ${cause}`, {
    hint: similar === undefined ? see : `use --${similar} or ${see}`,
  });
}
