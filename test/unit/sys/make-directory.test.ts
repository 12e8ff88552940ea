import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, rm, stat, symlink, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { makeDirectory } from '../../../src/sys/make-directory.js';

describe('making a directory', () => {
  let directory: string;

  beforeEach(async () => {
    directory = await mkdtemp(path.join(os.tmpdir(), 'make-directory-'));
  });
  afterEach(() => rm(directory, { recursive: true, force: true }));

  it('makes what is missing above it, with the mode that is asked for', async () => {
    const deep = path.join(directory, 'a', 'b', 'c');
    await makeDirectory(deep, 0o750);
    assert.equal((await stat(deep)).mode & 0o7777, 0o750);
    assert.equal((await stat(path.dirname(deep))).mode & 0o7777, 0o755);
  });

  it('gives that mode whatever the umask says', async () => {
    const before = process.umask(0);
    try {
      for (const umask of [0, 0o077]) {
        process.umask(umask);
        const made = path.join(directory, `umask-${umask}`, 'b');
        await makeDirectory(made);
        for (const each of [made, path.dirname(made)]) assert.equal((await stat(each)).mode & 0o7777, 0o755);
      }
    } finally {
      process.umask(before);
    }
  });

  it('is content with one that is there, through a symbolic link too, and with one that somebody else makes', async () => {
    await makeDirectory(directory);
    await symlink(directory, path.join(directory, 'link'));
    await makeDirectory(path.join(directory, 'link', 'a'));
    assert.ok((await stat(path.join(directory, 'a'))).isDirectory());
    const deep = path.join(directory, 'x', 'y', 'z');
    await Promise.all(Array.from({ length: 20 }, () => makeDirectory(deep)));
    assert.ok((await stat(deep)).isDirectory());
  });

  it('does not take a file or a broken link for one', async () => {
    const file = path.join(directory, 'file');
    await writeFile(file, '');
    await assert.rejects(makeDirectory(file), { code: 'EEXIST' });
    await assert.rejects(makeDirectory(path.join(file, 'a')), { code: 'ENOTDIR' });
    const link = path.join(directory, 'broken');
    await symlink(path.join(directory, 'nowhere'), link);
    await assert.rejects(makeDirectory(link), { code: 'EEXIST' });
  });

  // Node's own recursive mkdir never came back from here: the daemon hung with --subnet-file=/proc/x/subnet.env, and not
  // even its end could be waited for. Hence a process of its own, which can be killed.
  it('says at once that /proc takes no new directories', async function () {
    this.timeout(20_000);
    const code = `
      import { writeFileAtomically } from './src/sys/atomic-file.ts';
      await writeFileAtomically('/proc/nowhere/deep/subnet.env', 'text').catch((error) => console.log(error.message));`;
    const { stdout } = await promisify(execFile)(
      process.execPath,
      ['--import', 'tsx', '--input-type=module', '-e', code],
      { timeout: 15_000, killSignal: 'SIGKILL' },
    );
    assert.equal(stdout, 'cannot make /proc/nowhere: /proc takes no new directories (ENOENT)\n');
  });
});
