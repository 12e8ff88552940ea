import { execFile } from 'node:child_process';
import { OverlayError } from '../errors.js';

/** Starting Docker with many containers takes minutes; systemd itself sets it no limit. */
const DEADLINE_MS = 600_000;

/**
 * Runs `systemctl` and gives what it prints.
 *
 * @throws {@link OverlayError} `ERR_SYSTEMD` if there is none, or with what it said.
 */
export type Systemctl = (args: readonly string[]) => Promise<string>;

/** {@link Systemctl} on this host. */
export const systemctl: Systemctl = (args) =>
  new Promise((resolve, reject) => {
    const env = { ...process.env, LC_ALL: 'C', SYSTEMD_PAGER: '' };
    execFile('systemctl', args, { env, timeout: DEADLINE_MS, killSignal: 'SIGKILL' }, (error, stdout, stderr) => {
      if (error === null) {
        resolve(stdout);
        return;
      }
      const isMissing = error.code === 'ENOENT';
      const said = stderr.trim().replaceAll(/\s*\n\s*/g, ' | ') || error.message;
      const reason = isMissing ? 'there is no such program' : error.killed === true ? 'it does not end' : said;
      reject(
        new OverlayError('ERR_SYSTEMD', `cannot run systemctl ${args.join(' ')}: ${reason}`, {
          cause: error,
          hint: isMissing ? 'give Docker its options in the way of this host' : 'run it yourself to see more',
        }),
      );
    });
  });
