import { readFile } from 'node:fs/promises';
import { type FileModes, writeFileAtomically } from './atomic-file.js';

/** Where a program keeps its texts. */
export interface TextFiles {
  /** @throws the error of the file system; `ENOENT` as its code where there is no such file. */
  read(file: string): Promise<string>;
  /**
   * Puts a text in place of the old one, all of it or nothing.
   *
   * @param modes - of a new file and a new directory; 0644 and 0755 unless they say otherwise.
   * @throws the error of the file system, {@link OverlayError} `ERR_UNSAFE_PATH`
   */
  write(file: string, text: string, modes?: FileModes): Promise<void>;
}

/** The file system of the host. */
export const systemFiles: TextFiles = {
  read: (file) => readFile(file, 'utf8'),
  write: writeFileAtomically,
};
