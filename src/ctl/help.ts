import type { Flag, FlagValue } from '../config/flag-values.js';
import { FLAGS, environmentName, textOf } from '../config/flags.js';
import { COMMON_FLAGS, type Command, EXIT, EXIT_MEANINGS } from './command.js';

/** `tsflannelctl config set FILE [--yes] …` without the flags. */
export function usageOf({ name, operands, isRaw }: Command): string {
  const words = operands.map(({ name: word, isOptional, isRepeatable }) => {
    const shown = isRepeatable === true ? `${word}...` : word;
    return isOptional ? `[${shown}]` : shown;
  });
  return ['tsflannelctl', name, ...words, ...(isRaw === true ? [] : ['[OPTION]...'])].join(' ');
}

/** All commands, one line each. */
export function overview(commands: readonly Command[]): string {
  const width = Math.max(...commands.map(({ name }) => name.length));
  return [
    'Usage: tsflannelctl COMMAND [OPTION]...',
    '',
    'Looks after the overlay network: its configuration and leases in etcd, and the daemon on this host.',
    '',
    'Commands:',
    ...commands.map(({ name, summary }) => `  ${name.padEnd(width)}  ${summary}`),
    `  ${'help'.padEnd(width)}  Explain a command: tsflannelctl help config set`,
    `  ${'version'.padEnd(width)}  Print the version`,
    '',
    ...exitLines(Object.keys(EXIT) as (keyof typeof EXIT)[]),
    '',
  ].join('\n');
}

/** The commands of one group, such as those about leases, one line each. */
export function explainGroup(commands: readonly Command[]): string {
  const width = Math.max(...commands.map((command) => usageOf(command).length));
  return [
    'Usage:',
    ...commands.map((command) => `  ${usageOf(command).padEnd(width)}  ${command.summary}`),
    '',
    `See tsflannelctl help ${commands[0]?.name ?? ''} and so on for each of them.`,
    '',
  ].join('\n');
}

/** Everything about one command. */
export function explain(command: Command): string {
  const { summary, description, operands, flags, exits, isRaw } = command;
  const flagLines = Object.entries<Flag<FlagValue>>({ ...flags, ...COMMON_FLAGS }).flatMap(([name, flag]) => [
    `  --${name}${flag.placeholder === undefined ? '' : ` ${flag.placeholder}`}`,
    `        ${describeFlag(name, flag)}`,
  ]);
  return [
    `Usage: ${usageOf(command)}`,
    '',
    `${summary}.`,
    ...(description === undefined ? [] : [description]),
    '',
    ...operands.map((operand) => `  ${operand.name}: ${operand.help}`),
    ...(operands.length > 0 ? [''] : []),
    ...(isRaw === true ? [] : [...flagLines, '']),
    ...exitLines(['ok', 'failed', 'usage', ...exits]),
    '',
  ].join('\n');
}

/** A flag's sentence with its default and its variable. */
export function describeFlag(name: string, flag: Flag<FlagValue>): string {
  const initial = textOf(flag.initial);
  const hasDefault = initial !== '' && flag.placeholder !== undefined;
  const variable = Object.hasOwn(FLAGS, name) ? ` (${environmentName(name)})` : '';
  return `${flag.help}${hasDefault ? ` [${initial}]` : ''}${variable}`;
}

function exitLines(names: readonly (keyof typeof EXIT)[]): readonly string[] {
  return ['Exit codes:', ...names.map((name) => `  ${EXIT[name]}  ${EXIT_MEANINGS[name]}`)];
}
