import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import type { NativeMutant } from './native-mutants.js';
import type { Fate } from './session.js';

/** A mutant that loops for ever is ended after so long; the tests take a second or two on a quiet machine. */
const LIMIT_SECONDS = 60;

/** Tries mutants of one C++ file: in a copy of the tree, its object is built anew for each and linked to the tests. */
export class NativeSession {
  readonly #source: string;
  readonly #directory: string;
  readonly #make: readonly string[];
  #isSound = false;

  /**
   * @param root - of the copy.
   * @param directories - of `test/native` whose tests are run.
   */
  constructor(
    root: string,
    private readonly file: string,
    private readonly original: string,
    directories: readonly string[],
  ) {
    this.#source = path.join(root, file);
    this.#directory = path.join(root, 'test/native');
    // Without optimization an object is built in half the time; what a mutant makes unused is no error.
    const settings = [`DIRS=${directories.join(' ')}`, 'RELEASE_FLAGS=-O0 -fno-rtti', 'WARNINGS=-w'];
    this.#make = ['-s', '-j2', '-C', this.#directory, ...settings, 'build/release/tests'];
  }

  /**
   * @returns undefined if it does not compile, which makes it none.
   * @throws Error if the tests fail without a mutant.
   */
  try(mutant: NativeMutant): Fate | undefined {
    if (!this.#isSound) {
      if (!this.#build() || !this.#test()) throw new Error(`${this.file}: the native tests fail without a mutant`);
      this.#isSound = true;
    }
    writeFileSync(this.#source, mutant.source);
    try {
      if (!this.#build()) return undefined;
      return this.#test() ? 'survived' : 'killed';
    } finally {
      writeFileSync(this.#source, this.original);
    }
  }

  #build(): boolean {
    return spawnSync('make', this.#make, { stdio: 'ignore' }).status === 0;
  }

  #test(): boolean {
    const argv = [`--cpu=${LIMIT_SECONDS}`, 'build/release/tests'];
    return spawnSync('prlimit', argv, { cwd: this.#directory, stdio: 'ignore' }).status === 0;
  }
}
