import { constants } from 'node:fs';
import { mkdir, open, stat } from 'node:fs/promises';
import path from 'node:path';
import { errnoOf } from './errno.js';

/**
 * Makes a directory and those above it that are missing.
 *
 * @remarks One by one instead of with Node's `recursive`: where an existing directory answers ENOENT to a new one in it,
 * as /proc does, Node 20 asks for the two in turn for ever, on a thread that nothing can stop.
 * @param mode - permissions of the last one, if it is new, whatever the umask says; new ones above it get 0755.
 * @throws the error of the file system.
 */
export async function makeDirectory(directory: string, mode = 0o755): Promise<void> {
  const missing: string[] = [];
  for (let at = path.resolve(directory); !(await isDirectory(at)); at = path.dirname(at)) missing.unshift(at);
  for (const each of missing) {
    try {
      const ownMode = each === missing.at(-1) ? mode : 0o755;
      await mkdir(each, { mode: ownMode });
      await setMode(each, ownMode);
    } catch (error) {
      // Somebody else may have made it meanwhile.
      if (errnoOf(error) === 'EEXIST' && (await isDirectory(each))) continue;
      throw errnoOf(error) === 'ENOENT' ? noNewDirectories(each, error) : error;
    }
  }
}

/** The umask can only have taken permissions away, so nobody else has been in there meanwhile. */
async function setMode(directory: string, mode: number): Promise<void> {
  const handle = await open(directory, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  try {
    await handle.chmod(mode);
  } finally {
    await handle.close();
  }
}

async function isDirectory(file: string): Promise<boolean> {
  try {
    return (await stat(file)).isDirectory();
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false;
    throw error;
  }
}

/** The error's own words, "no such file or directory", would be about a directory that is there. */
function noNewDirectories(directory: string, cause: unknown): NodeJS.ErrnoException {
  const text = `cannot make ${directory}: ${path.dirname(directory)} takes no new directories (ENOENT)`;
  return Object.assign(new Error(text, { cause }), { code: 'ENOENT' });
}
