import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { run } from '../support/netns.js';
import { skipBecause } from '../support/skip.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const NATIVE_TESTS = path.join(ROOT, 'test/native');
const PROGRAMS = path.join(ROOT, 'native/prebuilds/kernel_path.bpf.o');
const BUILD_TIMEOUT_MS = 600_000;

describe('the programs of the kernel path', function () {
  this.timeout(BUILD_TIMEOUT_MS);

  before(async function () {
    await run([process.execPath, path.join(ROOT, 'native/bpf/compile.mjs')]);
    if (!existsSync(PROGRAMS)) skipBecause(this, 'no clang on this machine to compile them (Debian package clang)');
    await run(['make', '-s', '-C', NATIVE_TESTS, 'kernel-path'], { timeoutMs: BUILD_TIMEOUT_MS });
  });

  it('pass this kernel’s verifier, and do with every packet what the native core does', async () => {
    await run([path.join(NATIVE_TESTS, 'build/release/kernel_path/programs')], {
      env: { TSFLANNEL_KERNEL_PATH: PROGRAMS },
      timeoutMs: 120_000,
    });
  });
});
