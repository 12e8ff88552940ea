import { FLAG_GROUPS, type FlagGroup } from '../../src/config/flag-values.js';
import { environmentName, flagsOf, textOf } from '../../src/config/flags.js';

/** The flags as Markdown tables, one for each heading of `--help`; docs/configuration.md contains this text. */
export function flagTables(): string {
  return (Object.keys(FLAG_GROUPS) as FlagGroup[]).map(flagTable).join('\n');
}

function flagTable(group: FlagGroup): string {
  const rows = flagsOf(group).map(([name, flag]) => {
    const value = flag.placeholder === undefined ? '' : `=${flag.placeholder}`;
    const initial = textOf(flag.initial);
    const cells = [
      `\`--${name}${value}\``,
      name === 'version' ? '' : `\`${environmentName(name)}\``,
      initial === '' ? '' : `\`${initial}\``,
      flag.help,
    ];
    return `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  });
  return [
    `### ${FLAG_GROUPS[group]}`,
    '',
    '| flag | environment | default | meaning |',
    '|---|---|---|---|',
    ...rows,
    '',
  ].join('\n');
}
