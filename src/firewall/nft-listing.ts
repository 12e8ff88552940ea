import { OverlayError } from '../errors.js';
import type { Logger } from '../log.js';
import type { RunCommand } from '../sys/command.js';
import { checkResult, runChecked } from './run.js';

/** What to install where `nft` is missing. */
export const NFT_PACKAGE = 'nftables';

/** A table as `nft -j list table` shows it. */
export interface Listing {
  /** Everything about the table, kernel handles included, as text: any later change by anybody changes it. */
  readonly fingerprint: string;
  /** The comments of its rules: chain, then comment, in order. */
  readonly comments: readonly string[];
}

/**
 * Lists a table, as `ip flannel-ipv4`.
 *
 * @returns undefined if there is no such table.
 * @throws {@link OverlayError} `ERR_FIREWALL`, `ERR_PROGRAM`
 */
export async function listTable(run: RunCommand, table: string): Promise<Listing | undefined> {
  const args = ['-j', 'list', 'table', ...table.split(' ')];
  const result = await run('nft', args);
  if (result?.exitCode === 1 && result.stderr.includes('No such file or directory')) return undefined;
  const request = { program: 'nft', args, task: `list table ${table}`, packageName: NFT_PACKAGE };
  return parseListing(checkResult(result, request).stdout);
}

/**
 * Deletes those of the tables that are there.
 *
 * @returns what was removed, for people. Nothing if `nft` is not installed.
 * @throws {@link OverlayError} `ERR_FIREWALL`, `ERR_PROGRAM`
 */
export async function removeTables(
  run: RunCommand,
  log: Logger,
  tables: readonly string[],
): Promise<readonly string[]> {
  const args = ['list', 'tables'];
  const result = await run('nft', args);
  if (result === undefined) {
    log.debug('nothing to remove with a program that is not installed', { detail: 'nft' });
    return [];
  }
  const request = { program: 'nft', args, task: 'list the tables of nft', packageName: NFT_PACKAGE };
  const lines = checkResult(result, request)
    .stdout.split('\n')
    .map((line) => line.trim());
  const present = tables.filter((table) => lines.includes(`table ${table}`));
  if (present.length > 0) {
    await runChecked(run, {
      program: 'nft',
      args: ['-f', '-'],
      stdin: present.map((table) => `delete table ${table}\n`).join(''),
      task: 'remove the tables of nft',
      packageName: NFT_PACKAGE,
    });
  }
  return present.map((table) => `nft table ${table}`);
}

/**
 * Reads the output of `nft -j list table`.
 *
 * @throws {@link OverlayError} `ERR_FIREWALL` if it is not JSON.
 * @internal Exported for tests.
 */
export function parseListing(json: string): Listing {
  const root = parseJson(json);
  const objects = isRecord(root) && Array.isArray(root['nftables']) ? (root['nftables'] as readonly unknown[]) : [];
  // The first entry tells the version of nft, which an upgrade changes.
  const content = objects.filter((object) => !(isRecord(object) && 'metainfo' in object));
  const comments = content.flatMap((object) => {
    const rule = isRecord(object) ? object['rule'] : undefined;
    return isRecord(rule) ? [`${String(rule['chain'])} ${String(rule['comment'])}`] : [];
  });
  return { fingerprint: JSON.stringify(content), comments };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    throw new OverlayError('ERR_FIREWALL', 'cannot read the listing of nft: it is not JSON', { cause: error });
  }
}

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
