import path from 'node:path';
import type { Flag, FlagValue } from './flag-values.js';
import { type DaemonOptions, FLAGS, type FlagName, flagsOf, optionOf, textOf } from './flags.js';

/** Where the daemon tells {@link DaemonSettings} on its Unix socket. */
export const SETTINGS_PATH = '/settings';

/** How a daemon reaches etcd and where its files are: what others on its host need to find both. */
export interface DaemonSettings {
  /** Values as they would be written on a command line, by flag; those that are set. File names are absolute. */
  readonly flags: Readonly<Record<string, string>>;
  /** Flags that are set to something secret, which is not told. */
  readonly withheld: readonly string[];
}

/** Flags of {@link DaemonSettings}. */
const SHARED: readonly (readonly [FlagName, Flag<FlagValue>])[] = [...flagsOf('store'), ...flagsOf('files')];

/**
 * The settings to be told.
 *
 * @param directory - where relative file names begin.
 */
export function settingsOf(options: DaemonOptions, directory: string): DaemonSettings {
  const set = SHARED.flatMap(([name, flag]) => {
    const text = textOf(optionOf(options, name));
    if (text === '') return [];
    const isFile = flag.placeholder === 'FILE' || flag.placeholder === 'DIRECTORY';
    return [{ name, isSecret: flag.isSecret, text: isFile ? path.resolve(directory, text) : text }];
  });
  return {
    flags: Object.fromEntries(set.filter(({ isSecret }) => !isSecret).map(({ name, text }) => [name, text])),
    withheld: set.filter(({ isSecret }) => isSecret).map(({ name }) => name),
  };
}

/**
 * Reads what a daemon told; flags that are not known, as of another release, are passed over.
 *
 * @returns undefined if it is something else.
 */
export function parseSettings(json: string): DaemonSettings | undefined {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch {
    return undefined; // whoever listens there is no daemon of this kind
  }
  const { flags, withheld } = (value ?? {}) as Readonly<Record<string, unknown>>;
  if (typeof flags !== 'object' || flags === null || !Array.isArray(withheld)) return undefined;
  const known = Object.entries(flags).filter(([name, text]) => Object.hasOwn(FLAGS, name) && typeof text === 'string');
  return {
    flags: Object.fromEntries(known),
    withheld: withheld.filter((name) => typeof name === 'string'),
  };
}
