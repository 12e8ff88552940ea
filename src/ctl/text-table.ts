import { oneLine } from '../printable.js';

/** Room in a cell for a reason and what to do about it. */
const CELL_CHARACTERS = 400;

/**
 * Columns for people, as wide as their widest cell; an empty cell shows as `-`, a very long one is cut.
 *
 * @param rows - cells in the order of the headings.
 */
export function formatTable(headings: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [headings, ...rows.map((row) => row.map((cell) => (cell === '' ? '-' : oneLine(cell, CELL_CHARACTERS))))];
  const widths = headings.map((_, column) => Math.max(...all.map((row) => row[column]?.length ?? 0)));
  return all
    .map(
      (row) =>
        `${row
          .map((cell, column) => cell.padEnd(widths[column] ?? 0))
          .join('  ')
          .trimEnd()}\n`,
    )
    .join('');
}

/** Names and values below each other, each value in one line. */
export function formatFields(fields: readonly (readonly [string, string])[]): string {
  return fields.map(([name, value]) => formatLine(`${name.padEnd(12)} ${value}`)).join('');
}

/** One line, whatever its text holds. */
export function formatLine(text: string): string {
  return `${oneLine(text)}\n`;
}

const STEPS: readonly (readonly [string, number])[] = [
  ['d', 86_400],
  ['h', 3600],
  ['m', 60],
  ['s', 1],
];

/** A duration with its two largest units: `23h 59m`. */
export function formatDuration(seconds: number): string {
  let rest = Math.max(0, Math.round(seconds));
  const parts: string[] = [];
  for (const [unit, size] of STEPS) {
    const count = Math.floor(rest / size);
    rest -= count * size;
    if (count > 0 || (parts.length > 0 && parts.length < 2)) parts.push(`${count}${unit}`);
    if (parts.length === 2) break;
  }
  return parts.filter((part) => !part.startsWith('0')).join(' ') || '0s';
}

/** A duration below some seconds: `0.42 ms`. */
export function formatMilliseconds(seconds: number): string {
  const ms = seconds * 1000;
  return `${ms.toFixed(ms < 10 ? 2 : 0)} ms`;
}

/** A number of bytes with a binary unit: `1.5 MiB`. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let value = bytes;
  let index = 0;
  while (value >= 1024 && index < units.length - 1) {
    value /= 1024;
    index++;
  }
  return `${index === 0 ? value : value.toFixed(1)} ${units[index] ?? ''}`;
}
