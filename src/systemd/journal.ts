import { fstatSync } from 'node:fs';
import { journalPrefix } from '../log-level.js';
import { oneLine } from '../printable.js';

/**
 * Whether journald reads what is written to standard error.
 *
 * @remarks `JOURNAL_STREAM` names device and inode of the stream that systemd made (systemd.exec(5)). A process further
 * down has the variable, too, but perhaps another standard error.
 * @param stderr - device and inode of standard error; undefined if it is closed.
 */
export function isJournal(
  environment: Readonly<Record<string, string | undefined>>,
  stderr: { readonly dev: bigint; readonly ino: bigint } | undefined = statOfStandardError(),
): boolean {
  return stderr !== undefined && environment['JOURNAL_STREAM'] === `${stderr.dev}:${stderr.ino}`;
}

/** An error as the daemon writes it to standard error as long as it has no logger. */
export function errorLine(text: string): string {
  return `${isJournal(process.env) ? journalPrefix('error') : ''}${oneLine(`tsflanneld: ${text}`)}\n`;
}

function statOfStandardError(): { readonly dev: bigint; readonly ino: bigint } | undefined {
  try {
    return fstatSync(2, { bigint: true });
  } catch {
    return undefined;
  }
}
