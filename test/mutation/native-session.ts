import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import type { NativeMutant } from './native-mutants.js';
import type { Fate } from './session.js';

/** Processor time after which a mutant is held to run for ever; the longest suite takes 8 s. */
const LIMIT_SECONDS = 20;

/**
 * Tries mutants of one C++ file: in a copy of the tree, its object is built anew for each and linked to its suites alone,
 * under ASAN, which sees what is read or written outside of a packet.
 */
export class NativeSession {
  readonly #source: string;
  readonly #directory: string;
  readonly #make: readonly string[];
  #isSound = false;

  /**
   * @param root - of the copy.
   * @param suites - below `test/native`, such as `offload/segmenter_test.cc`.
   */
  constructor(
    root: string,
    private readonly file: string,
    private readonly original: string,
    suites: readonly string[],
  ) {
    this.#source = path.join(root, file);
    this.#directory = path.join(root, 'test/native');
    // What a mutant makes unused is no error, and nobody reads at which line it fails. UBSAN would double the time that
    // a mutant takes to compile. The tests are compiled once and run for each mutant, so they are optimized here.
    const asan = ['ASAN_FLAGS=-O1 -fsanitize=address -D_GLIBCXX_ASSERTIONS', 'ASAN_TEST_FLAGS=-O2'];
    const quick = ['WARNINGS=-w', 'DEBUG=', 'COVERAGE=', ...asan];
    const settings = [`TEST_SOURCES=${suites.join(' ')}`, 'DIRS=base offload packet peers', ...quick];
    this.#make = ['-s', '-j2', '-C', this.#directory, ...settings, 'build/asan/tests'];
  }

  /**
   * @returns undefined if it does not compile, which makes it none.
   * @throws Error if the tests fail without a mutant.
   */
  try(mutant: NativeMutant): Fate | undefined {
    if (!this.#isSound) {
      if (!this.#build()) throw new Error(`${this.file}: the native tests do not build without a mutant`);
      if (!this.#test()) throw new Error(`${this.file}: the native tests fail without a mutant`);
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
    const argv = [`--cpu=${LIMIT_SECONDS}`, 'build/asan/tests', '--bail'];
    return spawnSync('prlimit', argv, { cwd: this.#directory, stdio: 'ignore' }).status === 0;
  }
}
