import { FLAG_GROUPS, type Flag, type FlagGroup, type FlagValue } from './flag-values.js';
import { environmentName, flagsOf, textOf } from './flags.js';

const INTRODUCTION = [
  'Carries container networks between hosts, as flanneld does.',
  `Every option but --version can come from the environment, --etcd-prefix as ${environmentName('etcd-prefix')}; the command line wins. ` +
    'One or two dashes are the same; a switch takes a value only with "=", as in --ip-masq=false.',
];

/**
 * The text for `--help`.
 *
 * @param options.width - columns of the terminal; lines are wrapped to fit, down to 40.
 */
export function formatHelp(options: { readonly program: string; readonly width: number }): string {
  const width = Math.max(40, options.width);
  const sections = (Object.keys(FLAG_GROUPS) as FlagGroup[]).map((group) => [
    '',
    `${FLAG_GROUPS[group]}:`,
    ...flagsOf(group).flatMap(([name, flag]) => formatFlag(name, flag, width)),
  ]);
  return [
    `Usage: ${options.program} [OPTION]...`,
    ...INTRODUCTION.flatMap((paragraph) => ['', ...wrap(paragraph, width, '')]),
    ...sections.flat(),
    '',
  ].join('\n');
}

function formatFlag(name: string, flag: Flag<FlagValue>, width: number): readonly string[] {
  const initial = textOf(flag.initial);
  const help = initial === '' ? flag.help : `${flag.help} [${initial}]`;
  return [
    `  --${name}${flag.placeholder === undefined ? '' : ` ${flag.placeholder}`}`,
    ...wrap(help, width, '        '),
  ];
}

function wrap(text: string, width: number, indent: string): readonly string[] {
  const lines: string[] = [];
  let line = indent;
  for (const word of text.split(' ')) {
    const isFirst = line === indent;
    if (!isFirst && line.length + 1 + word.length > width) {
      lines.push(line);
      line = `${indent}${word}`;
    } else {
      line += isFirst ? word : ` ${word}`;
    }
  }
  return [...lines, line];
}
