import { randomBytes } from 'node:crypto';
import { link, open, rm } from 'node:fs/promises';
import path from 'node:path';
import { syncDirectory } from './atomic-file.js';
import { errnoOf } from './errno.js';
import { makeDirectory } from './make-directory.js';
import { refuseForeignLinks } from './safe-path.js';

/** What a file with a secret holds, and who can read it. */
export interface SecretText {
  readonly text: string;
  /** Whether users besides its owner can read it. */
  readonly isOpen: boolean;
}

/** Where a program keeps what nobody else is to know. */
export interface SecretFiles {
  /** @throws the error of the file system; `ENOENT` as its code where there is no such file. */
  read(file: string): Promise<SecretText>;
  /**
   * Makes a file that only its owner can read. Readers see all of it or nothing, also after a power cut.
   *
   * @returns false if there is one already, which stays as it is.
   * @throws the error of the file system, {@link OverlayError} `ERR_UNSAFE_PATH`
   */
  create(file: string, text: string): Promise<boolean>;
}

/** Secrets are short; whatever else a path leads to is not read into memory. */
const MAX_BYTES = 4096;

/** The file system of the host. */
export const systemSecretFiles: SecretFiles = {
  async read(file) {
    const handle = await open(file, 'r');
    try {
      const { mode } = await handle.stat();
      const { buffer, bytesRead } = await handle.read(Buffer.alloc(MAX_BYTES), 0, MAX_BYTES, null);
      return { text: buffer.toString('utf8', 0, bytesRead), isOpen: (mode & 0o077) !== 0 };
    } finally {
      await handle.close();
    }
  },

  async create(file, text) {
    const directory = path.dirname(file);
    refuseForeignLinks(file);
    await makeDirectory(directory);
    const temporary = path.join(directory, `.${path.basename(file)}.${randomBytes(6).toString('hex')}`);
    try {
      const handle = await open(temporary, 'wx', 0o600);
      try {
        await handle.writeFile(text);
        await handle.sync();
      } finally {
        await handle.close();
      }
      // Unlike rename(2), link(2) takes nobody's place.
      await link(temporary, file);
    } catch (error) {
      if (errnoOf(error) === 'EEXIST') return false;
      throw error;
    } finally {
      await rm(temporary, { force: true });
    }
    await syncDirectory(directory);
    return true;
  },
};
