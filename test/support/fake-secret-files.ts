import type { SecretFiles, SecretText } from '../../src/sys/secret-file.js';

/** Files with secrets in memory. */
export class FakeSecretFiles implements SecretFiles {
  readonly texts = new Map<string, string>();
  /** Files that users besides their owner can read. */
  readonly open = new Set<string>();
  /** While set, reading and making fail with this errno. */
  errno: string | undefined;

  read(file: string): Promise<SecretText> {
    const text = this.texts.get(file);
    if (this.errno !== undefined || text === undefined) return Promise.reject(failure(this.errno ?? 'ENOENT', file));
    return Promise.resolve({ text, isOpen: this.open.has(file) });
  }

  create(file: string, text: string): Promise<boolean> {
    if (this.errno !== undefined) return Promise.reject(failure(this.errno, file));
    if (this.texts.has(file)) return Promise.resolve(false);
    this.texts.set(file, text);
    return Promise.resolve(true);
  }
}

function failure(code: string, file: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`${code}: '${file}'`), { code });
}
