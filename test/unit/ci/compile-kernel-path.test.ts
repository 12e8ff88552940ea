import assert from 'node:assert/strict';
import { cpSync, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { run } from '../../support/netns.js';

const ROOT = path.resolve(import.meta.dirname, '../../..');

describe('compiling the kernel path on a machine without clang', () => {
  let clone: string;

  beforeEach(() => {
    clone = mkdtempSync(path.join(tmpdir(), 'tsflannel-clone-'));
    for (const name of ['native/bpf', 'native/core/kernel_path/layout.h'])
      cpSync(path.join(ROOT, name), path.join(clone, name), { recursive: true });
  });
  afterEach(() => {
    rmSync(clone, { recursive: true });
  });

  const compile = async (...args: readonly string[]): Promise<{ code: number; stderr: string }> =>
    run(['env', '-i', `PATH=${clone}`, process.execPath, path.join(clone, 'native/bpf/compile.mjs'), ...args], {
      mayFail: true,
    });

  it('says what is missing and how to get it, and lets the rest be built', async () => {
    const { code, stderr } = await compile();
    assert.equal(code, 0);
    assert.match(stderr, /clang not found; --datapath=kernel will not work\n.*apt-get install clang/);
    assert.ok(!existsSync(path.join(clone, 'native/prebuilds')));
  });

  it('is an error where a package is made of it', async () => {
    assert.equal((await compile('--required')).code, 1);
  });
});
