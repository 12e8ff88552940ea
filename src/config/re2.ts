import { OverlayError, describeError } from '../errors.js';

/** POSIX classes inside brackets, which RE2 has and JavaScript lacks. */
const POSIX_CLASSES: Readonly<Record<string, string>> = {
  alnum: 'A-Za-z0-9',
  alpha: 'A-Za-z',
  digit: '0-9',
  lower: 'a-z',
  punct: '!-\\/:-@\\[-`{-~',
  space: '\\s',
  upper: 'A-Z',
  word: '\\w',
  xdigit: '0-9A-Fa-f',
};

/**
 * A pattern for `--iface-regex` as a regular expression of JavaScript.
 *
 * @remarks flannel uses RE2. What the two write differently is translated: flags for the whole pattern in front
 * (`(?i)`), named groups `(?P<name>…)`, `\A`, `\z` and POSIX classes. Look-around and back references, which RE2
 * refuses, are accepted. The match is not anchored.
 * @throws {@link OverlayError} `ERR_FLAG`
 */
export function compileRe2(pattern: string): RegExp {
  const [prefix = '', flags = ''] = /^\(\?([ims]+)\)/.exec(pattern) ?? [];
  const source = pattern
    .slice(prefix.length)
    .replace(/\[:(\w+):\]/g, (whole, name: string) => POSIX_CLASSES[name] ?? whole)
    .replace(/\\.|\(\?P</gs, (token) => ({ '(?P<': '(?<', '\\A': '^', '\\z': '$' })[token] ?? token);
  try {
    return new RegExp(source, [...new Set(flags)].join(''));
  } catch (cause) {
    throw new OverlayError('ERR_FLAG', `cannot use the pattern "${pattern}": ${describeError(cause)}`, { cause });
  }
}
