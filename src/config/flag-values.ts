import { type Family, IpAddress } from '../ip/address.js';
import { OverlayError } from '../errors.js';
import { maskCredentials } from '../printable.js';
import { parseGoBool, parseGoInt } from './go-flags.js';

/** Headings of the help text, in its order. */
export const FLAG_GROUPS = {
  store: 'Store (etcd)',
  underlay: 'Interface that carries the overlay',
  files: 'Files',
  lease: 'Lease',
  containers: 'Networks of containers',
  rules: 'Firewall and routes',
  datapath: 'Packet path of the udp backend',
  extension: 'Commands of the extension backend',
  observe: 'Health, log, version',
  unused: 'Taken for compatibility, without effect',
} as const;

/** One of the keys of {@link FLAG_GROUPS}. */
export type FlagGroup = keyof typeof FLAG_GROUPS;

/** A value that a flag cannot take; the caller knows which flag, and whether it came from the environment. */
export class UnfitValue extends Error {
  constructor(
    reason: string,
    /** What would fit, as an imperative sentence. */
    readonly hint: string,
  ) {
    super(reason);
  }
}

/** What the value of any flag can be. */
export type FlagValue = string | number | boolean | IpAddress | readonly string[] | undefined;

/** What one flag means. */
export interface Flag<T extends FlagValue> {
  readonly group: FlagGroup;
  /** Sentences for the help text, without the default, which is added. */
  readonly help: string;
  /** Name of the value in the help text; undefined for a switch. */
  readonly placeholder: string | undefined;
  readonly initial: T;
  /** Never shown. */
  readonly isSecret: boolean;
  /** A value as it may be shown, valid or not. */
  show(text: string): string;
  /**
   * @param previous - the value so far: a repeatable flag adds to it.
   * @throws {@link UnfitValue}
   */
  read(text: string, previous: T): T;
}

interface Words {
  readonly group: FlagGroup;
  readonly help: string;
  readonly placeholder?: string;
}

function valueFlag<T extends FlagValue>(
  words: Words,
  placeholder: string,
  initial: T,
  read: (text: string, previous: T) => T,
): Flag<T> {
  return { placeholder, ...words, initial, isSecret: false, show: (text) => text, read };
}

/** `true` or `false`. */
export function switchFlag(initial: boolean, words: Words): Flag<boolean> {
  const read = (text: string): boolean => {
    const value = parseGoBool(text);
    if (value === undefined) throw new UnfitValue('it is neither true nor false', 'use true or false');
    return value;
  };
  return { ...words, placeholder: undefined, initial, isSecret: false, show: (text) => text, read };
}

/** An integer within limits. */
export function intFlag(
  initial: number,
  limits: { readonly min: number; readonly max: number },
  words: Words,
): Flag<number> {
  return valueFlag(words, 'NUMBER', initial, (text) => {
    const value = parseGoInt(text);
    const hint = `use a whole number in ${limits.min}…${limits.max}`;
    if (value === undefined) throw new UnfitValue('it is not a whole number', hint);
    if (value < limits.min || value > limits.max) throw new UnfitValue('it is out of range', hint);
    return value;
  });
}

/** A text that must not be empty. */
export function textFlag(initial: string, words: Words): Flag<string> {
  return valueFlag(words, 'TEXT', initial, (text) => {
    if (text.trim() === '') throw new UnfitValue('it is empty', `leave it out for ${initial}`);
    return text;
  });
}

/** A text; the empty one is the same as none. */
export function optionalTextFlag(words: Words): Flag<string | undefined> {
  return valueFlag<string | undefined>(words, 'TEXT', undefined, (text) => (text === '' ? undefined : text));
}

/** Like {@link optionalTextFlag}, for what must never be shown. */
export function secretFlag(words: Words): Flag<string | undefined> {
  return { ...optionalTextFlag(words), isSecret: true, show: (text) => (text === '' ? '' : '***') };
}

/** One of a few words. */
export function choiceFlag<const Choice extends string>(
  choices: readonly Choice[],
  initial: NoInfer<Choice>,
  words: Words,
): Flag<Choice> {
  return valueFlag<Choice>(words, choices.join('|'), initial, (text) => {
    const value = choices.find((choice) => choice === text);
    if (value === undefined) throw new UnfitValue('it is not known', `use ${choices.join(', ')}`);
    return value;
  });
}

/** An address; the empty text is the same as none. */
export function addressFlag(families: readonly Family[], words: Words): Flag<IpAddress | undefined> {
  const kind = families.map((family) => `IPv${family}`).join(' or ');
  return valueFlag<IpAddress | undefined>(words, 'ADDRESS', undefined, (text) => {
    if (text === '') return undefined;
    const address = IpAddress.tryParse(text);
    if (address !== undefined && families.includes(address.family)) return address;
    throw new UnfitValue(`it is not an ${kind} address`, `use an ${kind} address`);
  });
}

/** A flag that can be given several times; the empty text adds nothing. */
export function repeatableFlag(words: Words, check: (text: string) => void = () => {}): Flag<readonly string[]> {
  return valueFlag<readonly string[]>(words, 'TEXT', [], (text, previous) => {
    if (text === '') return previous;
    check(text);
    return [...previous, text];
  });
}

/** Several words in one text, separated by commas and perhaps blanks; none at all only where that is the default. */
export function listFlag<Item extends string>(
  initial: readonly Item[],
  readItem: (text: string) => Item | readonly Item[],
  words: Words,
): Flag<readonly Item[]> {
  return valueFlag<readonly Item[]>(words, 'LIST', initial, (text) => {
    const items = text.split(',').map((item) => item.trim());
    const values = items.filter((item) => item !== '').flatMap(readItem);
    if (values.length > 0 || initial.length === 0) return values;
    throw new UnfitValue('it is empty', `leave it out for ${initial.join(',')}`);
  });
}

/** A flag whose values are addresses, which somebody may have written with a user and a password. */
export function masked<T extends FlagValue>(flag: Flag<T>): Flag<T> {
  return { ...flag, show: maskCredentials };
}

/**
 * Takes over what somebody wrote for a flag.
 *
 * @param source - the flag or variable, as it is named in an error.
 * @throws {@link OverlayError} `ERR_FLAG`
 */
export function setFlagValue(
  values: Map<string, FlagValue>,
  {
    name,
    flag,
    text,
    source,
  }: { readonly name: string; readonly flag: Flag<FlagValue>; readonly text: string; readonly source: string },
): void {
  try {
    values.set(name, flag.read(text, values.has(name) ? values.get(name) : flag.initial));
  } catch (error) {
    if (!(error instanceof UnfitValue)) throw error;
    const shown = flag.isSecret ? 'its value' : `the value "${flag.show(text)}"`;
    throw new OverlayError('ERR_FLAG', `cannot use ${shown} for ${source}: ${error.message}`, { hint: error.hint });
  }
}
