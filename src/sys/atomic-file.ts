import { randomBytes } from 'node:crypto';
import { open, rename, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { makeDirectory } from './make-directory.js';

/**
 * Puts a text where readers see either all of the old one or all of the new one, also after a power cut.
 *
 * @remarks Written to a temporary file beside the target, synced, renamed over it. The directory is made if it is
 * missing. An existing file keeps its mode; a symbolic link is replaced, not followed.
 * @param mode - permissions of a new file, whatever the umask says.
 * @throws the error of the file system, with the temporary file removed.
 */
export async function writeFileAtomically(file: string, text: string, mode = 0o644): Promise<void> {
  const directory = path.dirname(file);
  await makeDirectory(directory, 0o755);
  const temporary = path.join(directory, `.${path.basename(file)}.${randomBytes(6).toString('hex')}`);
  try {
    const handle = await open(temporary, 'wx', 0o600);
    try {
      await handle.writeFile(text);
      await handle.chmod((await modeOf(file)) ?? mode);
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
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/** Without it a power cut may bring the old file back (fsync(2), "does not necessarily ensure that the entry …"). */
async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
