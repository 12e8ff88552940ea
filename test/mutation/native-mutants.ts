import type { Mutant } from './mutants.js';

/** A mutant of a C++ source, with the whole file as it is then. */
export interface NativeMutant extends Mutant {
  readonly source: string;
}

/** Operators are changed where spaces stand round them, which clang-format keeps from being part of a template. */
const OPERATORS: readonly (readonly [from: string, to: string])[] = [
  [' < ', ' <= '],
  [' <= ', ' < '],
  [' > ', ' >= '],
  [' >= ', ' > '],
  [' == ', ' != '],
  [' != ', ' == '],
  [' && ', ' || '],
  [' || ', ' && '],
  [' + ', ' - '],
  [' - ', ' + '],
  [' += ', ' = '],
  [' -= ', ' = '],
  ['std::min', 'std::max'],
  ['std::max', 'std::min'],
  ['return true;', 'return false;'],
  ['return false;', 'return true;'],
  ['if (!', 'if ('],
];

/** A statement on a line of its own that can be left out: a call, an assignment, `continue`, `return` of nothing. */
const STATEMENT = /^\s+(?:[\w.>[\]-]+(?:\(.*\)| [-+|&^]?= .*|\+\+|--)|\+\+[\w.>-]+|continue|return);$/;

/** Finds the mutants of a C++ source, line by line and without a parser: what does not compile is no mutant. */
export function mutateNative(source: string): readonly NativeMutant[] {
  const lines = source.split('\n');
  const mutants: NativeMutant[] = [];
  lines.forEach((line, index) => {
    const add = (change: string, text: string): void => {
      const changed = lines.with(index, text).join('\n');
      mutants.push({ id: mutants.length, line: index + 1, code: line.trim(), change, source: changed });
    };
    const code = codeOf(line);
    for (const [from, to] of OPERATORS) {
      for (let at = code.indexOf(from), nth = 1; at >= 0; at = code.indexOf(from, at + 1), nth++) {
        const where = nth === 1 ? '' : `, number ${nth}`;
        add(`${from.trim()} → ${to.trim()}${where}`, line.slice(0, at) + to + line.slice(at + from.length));
      }
    }
    if (STATEMENT.test(code)) add('removed', '');
  });
  return mutants;
}

/** The line with what is not code made blank, at the same places. */
function codeOf(line: string): string {
  if (/^\s*(?:#|\/\/|\*|static_assert|constexpr)/.test(line)) return '';
  const comment = line.indexOf(' //');
  const code = comment < 0 ? line : line.slice(0, comment);
  return code.replace(/"[^"]*"/g, (text) => ' '.repeat(text.length));
}
