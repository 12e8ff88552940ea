import type { TextFiles } from '../../src/sys/text-files.js';

/** Files in memory. */
export class FakeFiles implements TextFiles {
  readonly texts = new Map<string, string>();
  /** While set, writing fails with this errno. */
  writeErrno: string | undefined;

  read(file: string): Promise<string> {
    const text = this.texts.get(file);
    return text === undefined ? Promise.reject(failure('ENOENT', file)) : Promise.resolve(text);
  }

  write(file: string, text: string): Promise<void> {
    if (this.writeErrno !== undefined) return Promise.reject(failure(this.writeErrno, file));
    this.texts.set(file, text);
    return Promise.resolve();
  }
}

function failure(code: string, file: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`${code}: '${file}'`), { code });
}
