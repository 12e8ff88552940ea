import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import type { LinkModel } from '../test/support/rig.js';
import { allCases, chooseCases, QUICK_CASES, type Case } from './cases.js';

/** The text of `--help`. */
export const USAGE = readFileSync(new URL('../.ci/usage/bench.txt', import.meta.url), 'utf8');

/** A word on the command line that cannot be used. */
export class UsageError extends Error {}

/** A benchmark of the packet path. */
export interface PathOptions {
  readonly mode: 'path';
  readonly isQuick: boolean;
  readonly cases: readonly Case[];
  readonly links: readonly LinkModel[];
  readonly rounds: number;
  readonly isJson: boolean;
  readonly hasFiles: boolean;
  /** Whether the micro-benchmarks belong to the run: when nothing was narrowed. */
  readonly hasMicro: boolean;
}

/** A benchmark of the control plane. */
export interface ControlOptions {
  readonly mode: 'control';
  readonly peers: number;
  readonly isJson: boolean;
}

/** The micro-benchmarks alone. */
export interface MicroOptions {
  readonly mode: 'micro';
  readonly isJson: boolean;
}

/** A report made anew from a raw record. */
export interface ReportOptions {
  readonly mode: 'report';
  readonly file: string;
}

/**
 * What the command line asks for.
 *
 * @param stock - a stock flanneld, from the environment.
 * @throws UsageError for anything it cannot mean.
 */
export function readOptions(
  args: string[],
  stock?: string,
): PathOptions | ControlOptions | MicroOptions | ReportOptions | { readonly mode: 'help' } {
  const { values, positionals } = parse(args);
  if (values.help) return { mode: 'help' };
  const isJson = values.json;
  const [mode, ...more] = positionals;
  if (mode === 'report' && more.length === 1) return { mode, file: more[0] ?? '' };
  if (more.length > 0 || (mode !== undefined && mode !== 'control' && mode !== 'micro'))
    throw new UsageError(`unknown word ${positionals.join(' ')}`);
  if (mode === 'micro') return { mode, isJson };
  if (mode === 'control') return { mode, isJson, peers: wholeNumber('peers', values.peers ?? '1000', 50_000) };

  const links: readonly LinkModel[] = ['wire', 'veth'];
  const chosenLinks = links.filter((link) => values.link === undefined || values.link === link);
  if (chosenLinks.length === 0) throw new UsageError(`--link ${values.link ?? ''}: not wire or veth`);
  const names = values.only === undefined ? undefined : values.only.split(',');
  const cases = allCases(stock);
  const wanted = names ?? (values.quick ? QUICK_CASES : cases.map(({ name }) => name));
  return {
    mode: 'path',
    isQuick: values.quick,
    cases: choose(cases, wanted),
    links: chosenLinks,
    rounds: wholeNumber('rounds', values.rounds ?? (values.quick ? '2' : '5'), 100),
    isJson,
    hasFiles: !values['no-files'],
    hasMicro: !values.quick && names === undefined,
  };
}

function parse(args: string[]) {
  try {
    return parseArgs({
      args,
      allowPositionals: true,
      options: {
        quick: { type: 'boolean', default: false },
        only: { type: 'string' },
        link: { type: 'string' },
        rounds: { type: 'string' },
        peers: { type: 'string' },
        json: { type: 'boolean', default: false },
        'no-files': { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    });
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

function choose(cases: readonly Case[], names: readonly string[]): Case[] {
  try {
    return chooseCases(cases, names);
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

function wholeNumber(name: string, text: string, most: number): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= 1 && value <= most) return value;
  throw new UsageError(`--${name} ${text}: not a whole number from 1 to ${most}`);
}
