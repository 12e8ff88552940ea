import { execFile } from 'node:child_process';
import { OverlayError } from '../errors.js';

/** What a program left behind. */
export interface CommandResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Runs a program to its end.
 *
 * @param stdin - written to the program; without it, standard input is empty.
 * @returns undefined if there is no such program.
 * @throws {@link OverlayError} `ERR_PROGRAM` if it could not be started or did not end in time.
 */
export type RunCommand = (
  program: string,
  args: readonly string[],
  stdin?: string,
) => Promise<CommandResult | undefined>;

/** A restore waits for the lock of another one; kube-proxy with 10 000 services holds it for about a second. */
const DEADLINE_MS = 10_000;

/** `iptables-save` writes about 150 bytes for a rule; this is room for several hundred thousand. */
const OUTPUT_BYTES_MAX = 64 * 1024 * 1024;

/** Where the programs are on hosts whose service manager leaves the administrator's directories out of PATH. */
const SYSTEM_PATH = '/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin';

/** {@link RunCommand} on this host, with untranslated messages and a deadline of ten seconds. */
export const runCommand: RunCommand = (program, args, stdin = '') =>
  new Promise((resolve, reject) => {
    const env = { ...process.env, PATH: [process.env['PATH'], SYSTEM_PATH].filter(Boolean).join(':'), LC_ALL: 'C' };
    const options = { env, timeout: DEADLINE_MS, killSignal: 'SIGKILL', maxBuffer: OUTPUT_BYTES_MAX } as const;
    const child = execFile(program, args, options, (error, stdout, stderr) => {
      if (error === null) {
        resolve({ exitCode: 0, stdout, stderr });
      } else if (error.code === 'ENOENT') {
        resolve(undefined);
      } else if (typeof error.code === 'number') {
        resolve({ exitCode: error.code, stdout, stderr });
      } else {
        const cause = error.killed === true ? `no answer within ${DEADLINE_MS / 1000} s` : error.message;
        reject(new OverlayError('ERR_PROGRAM', `cannot run ${program}: ${cause}`, { cause: error, isRetryable: true }));
      }
    });
    // A program that ends without reading everything is judged by its exit code, not by the broken pipe.
    child.stdin?.on('error', () => {});
    child.stdin?.end(stdin);
  });
