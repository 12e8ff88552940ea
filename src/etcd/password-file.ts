import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';
import { OverlayError, describeError, isOverlayError } from '../errors.js';

/** Far longer than etcd's own limit on anything one would type. */
const BYTES_MAX = 4096;

const OTHERS_MAY_READ = 0o004;

/**
 * Reads a password from a file of its own; a line feed at its end does not belong to it.
 *
 * @throws {@link OverlayError} `ERR_PASSWORD_FILE` if it cannot be read or holds something else than one line, and also
 * if every user of this host may read it.
 */
export function readPasswordFile(file: string): string {
  const refuse = (why: string, hint: string, cause?: unknown): OverlayError =>
    new OverlayError('ERR_PASSWORD_FILE', `cannot use the password file ${file}: ${why}`, {
      cause,
      context: { file },
      hint,
    });
  try {
    // Not blocking: a pipe that nobody writes to must not hold the daemon up.
    const descriptor = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const stats = fstatSync(descriptor);
      if ((stats.mode & OTHERS_MAY_READ) !== 0)
        throw refuse('everybody on this host may read it', `run chmod 600 ${file}`);
      const isFit = stats.isFile() && stats.size <= BYTES_MAX;
      const text = isFit ? readFileSync(descriptor, 'utf8').replace(/\r?\n$/, '') : '';
      if (text !== '' && !/\p{Cc}/u.test(text)) return text;
      throw refuse('it does not hold one line of text', 'let it hold the password and nothing else');
    } finally {
      closeSync(descriptor);
    }
  } catch (cause) {
    if (isOverlayError(cause)) throw cause;
    throw refuse(describeError(cause), 'give --etcd-password-file a file that this user can read', cause);
  }
}
