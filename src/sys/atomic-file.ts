import { randomBytes } from 'node:crypto';
import { open, rename, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { errnoOf } from './errno.js';
import { makeDirectory } from './make-directory.js';
import { refuseForeignLinks } from './safe-path.js';

/** Others never may write to what we make, whatever an earlier process allowed. */
const NOT_OF_OTHERS = 0o7755;

/** Permissions of what is made, whatever the umask. */
export interface FileModes {
  readonly file?: number;
  readonly directory?: number;
}

/**
 * Puts a text where readers see either all of the old one or all of the new one, also after a power cut.
 *
 * @remarks Written to a temporary file beside the target, synced, renamed over it. The directory is made if it is
 * missing. An existing file keeps its mode, except that nobody but its owner may write to it; a symbolic link is replaced,
 * not followed.
 * @param modes.file - permissions of a new file, whatever the umask says.
 * @param modes.directory - permissions of its directory, if that is new, likewise.
 * @throws {@link OverlayError} `ERR_UNSAFE_PATH`, or the error of the file system, with the temporary file removed.
 */
export async function writeFileAtomically(file: string, text: string, modes: FileModes = {}): Promise<void> {
  const directory = path.dirname(file);
  refuseForeignLinks(directory);
  await makeDirectory(directory, modes.directory ?? 0o755);
  const temporary = path.join(directory, `.${path.basename(file)}.${randomBytes(6).toString('hex')}`);
  try {
    const handle = await open(temporary, 'wx', 0o600);
    try {
      await handle.writeFile(text);
      await handle.chmod(((await modeOf(file)) ?? modes.file ?? 0o644) & NOT_OF_OTHERS);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, file);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  await syncDirectory(directory);
}

async function modeOf(file: string): Promise<number | undefined> {
  try {
    return (await stat(file)).mode & 0o7777;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** Without it a power cut may bring the old file back (fsync(2), "does not necessarily ensure that the entry …"). */
export async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
