import { OverlayError } from '../errors.js';

/** One `--name value` of a command line. */
export interface FlagSetting {
  readonly name: string;
  readonly value: string;
}

/** What a command line says, before any value has been looked at. */
export interface ScannedArguments {
  readonly settings: readonly FlagSetting[];
  /** Words from the first one on that is no flag. */
  readonly rest: readonly string[];
  /** `-h` or `-help` was met; nothing behind it has been looked at. */
  readonly isHelpWanted: boolean;
}

/**
 * Takes a command line apart as Go's `flag` package does: one or two dashes, `-name=value` or `-name value`, switches
 * only with `=`, and an end at `--` or at the first word that is no flag.
 *
 * @param kindOf - what is known about a name; for an unknown one it throws the error that explains it.
 * @throws {@link OverlayError} `ERR_FLAG`
 * @see Go `flag.FlagSet.Parse`
 */
export function scanArguments(argv: readonly string[], kindOf: (name: string) => 'switch' | 'value'): ScannedArguments {
  const settings: FlagSetting[] = [];
  let at = 0;
  for (;;) {
    const word = argv[at];
    if (word === undefined || word === '-' || !word.startsWith('-')) break;
    at++;
    if (word === '--') break;
    const match = /^--?(?<name>[^-=][^=]*)(?:=(?<value>.*))?$/s.exec(word);
    if (match?.groups?.['name'] === undefined) {
      throw new OverlayError('ERR_FLAG', `cannot read "${shownWord(word)}": it is not a flag`, {
        hint: 'write --name=value',
      });
    }
    const { name, value } = match.groups as { name: string; value?: string };
    if (name === 'help' || name === 'h') return { settings, rest: [], isHelpWanted: true };
    const kind = kindOf(name);
    if (value !== undefined || kind === 'switch') {
      settings.push({ name, value: value ?? 'true' });
      continue;
    }
    const next = argv[at++];
    if (next === undefined) {
      throw new OverlayError('ERR_FLAG', `cannot use --${name}: its value is missing`, {
        hint: `write --${name}=value`,
      });
    }
    settings.push({ name, value: next });
  }
  return { settings, rest: argv.slice(at), isHelpWanted: false };
}

/** A word that is not understood, without what may be a secret: everything behind its name. */
export function shownWord(word: string): string {
  return word.replace(/^(-*\w[\w.-]*)[=:\s].*$/s, '$1=***');
}

const BOOLEANS: ReadonlyMap<string, boolean> = new Map([
  ...['1', 't', 'T', 'true', 'TRUE', 'True'].map((text) => [text, true] as const),
  ...['0', 'f', 'F', 'false', 'FALSE', 'False'].map((text) => [text, false] as const),
]);

/** A boolean as Go's `strconv.ParseBool` reads it, or undefined. */
export function parseGoBool(text: string): boolean | undefined {
  return BOOLEANS.get(text);
}

const INTEGER = new RegExp(
  '^[+-]?(?:0[xX](?:_?[0-9a-fA-F])+|0[bB](?:_?[01])+|0[oO](?:_?[0-7])+|0(?:_?[0-7])*|[1-9](?:_?[0-9])*)$',
);

/** An integer as Go's `strconv.ParseInt` with base 0 reads it (`0x1f`, `0o17`, `017`, `0b1`, `1_000`), or undefined. */
export function parseGoInt(text: string): number | undefined {
  if (!INTEGER.test(text)) return undefined;
  const digits = text.replace(/^[+-]/, '').replaceAll('_', '');
  const value = Number(/^0\d/.test(digits) ? `0o${digits.slice(1)}` : digits);
  if (!Number.isSafeInteger(value)) return undefined;
  return text.startsWith('-') && value !== 0 ? -value : value;
}
