import { readFile } from 'node:fs/promises';
import { writeFileAtomically } from './atomic-file.js';

/** Where a program keeps its texts. */
export interface TextFiles {
  /** @throws the error of the file system; `ENOENT` as its code where there is no such file. */
  read(file: string): Promise<string>;
  /**
   * Puts a text in place of the old one, all of it or nothing.
   *
   * @param mode - permissions of a new file.
   * @throws the error of the file system.
   */
  write(file: string, text: string, mode?: number): Promise<void>;
}

/** The file system of the host. */
export const systemFiles: TextFiles = {
  read: (file) => readFile(file, 'utf8'),
  write: writeFileAtomically,
};
