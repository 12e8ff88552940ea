import assert from 'node:assert/strict';
import { chmod, chown, mkdir, mkdtemp, readFile, readdir, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { writeFileAtomically } from '../../../src/sys/atomic-file.js';
import { skipBecause } from '../../support/skip.js';

describe('writeFileAtomically', () => {
  let directory: string;
  let umask: number;

  beforeEach(async () => {
    directory = await mkdtemp(path.join(tmpdir(), 'atomic-file-'));
    umask = process.umask(0o077);
  });

  afterEach(async () => {
    process.umask(umask);
    await rm(directory, { recursive: true });
  });

  async function modeOf(file: string): Promise<number> {
    return (await stat(file)).mode & 0o7777;
  }

  it('gives a new file its mode whatever the umask, and makes the directory', async () => {
    const file = path.join(directory, 'a', 'b', 'file');
    await writeFileAtomically(file, 'text\n');
    assert.equal(await readFile(file, 'utf8'), 'text\n');
    assert.equal(await modeOf(file), 0o644);
    await writeFileAtomically(path.join(directory, 'c', 'd', 'file'), '', { file: 0o600, directory: 0o700 });
    assert.equal(await modeOf(path.join(directory, 'c', 'd', 'file')), 0o600);
    assert.equal(await modeOf(path.join(directory, 'c', 'd')), 0o700);
    assert.equal(await modeOf(path.join(directory, 'c')), 0o755);
  });

  it('gives nobody else the right to write, although umask or an earlier process would', async () => {
    process.umask(0);
    const file = path.join(directory, 'a', 'file');
    await writeFileAtomically(file, '');
    assert.deepEqual([await modeOf(file), await modeOf(path.dirname(file))], [0o644, 0o755]);
    await chmod(file, 0o666);
    await writeFileAtomically(file, 'new');
    assert.equal(await modeOf(file), 0o644);
  });

  it('follows no link of another user, and replaces one in the place of the file', async function () {
    if (process.geteuid?.() !== 0) skipBecause(this, 'needs root to make files of others');
    const precious = path.join(directory, 'precious');
    await mkdir(precious);
    await writeFile(path.join(precious, 'file'), 'precious');
    const foreign = path.join(directory, 'foreign');
    await mkdir(foreign);
    await symlink(precious, path.join(foreign, 'link'));
    await chown(foreign, 65_534, 65_534);
    await assert.rejects(writeFileAtomically(path.join(foreign, 'link', 'file'), 'x'), { code: 'ERR_UNSAFE_PATH' });
    assert.equal(await readFile(path.join(precious, 'file'), 'utf8'), 'precious');
    await symlink(path.join(precious, 'file'), path.join(foreign, 'file'));
    await writeFileAtomically(path.join(foreign, 'file'), 'x');
    assert.equal(await readFile(path.join(precious, 'file'), 'utf8'), 'precious');
    assert.equal(await readFile(path.join(foreign, 'file'), 'utf8'), 'x');
  });

  it('keeps the mode of a file that is there', async () => {
    const file = path.join(directory, 'file');
    await writeFile(file, 'old');
    await chmod(file, 0o640);
    await writeFileAtomically(file, 'new');
    assert.equal(await readFile(file, 'utf8'), 'new');
    assert.equal(await modeOf(file), 0o640);
  });

  it('replaces the file instead of writing into it', async () => {
    const file = path.join(directory, 'file');
    await writeFile(file, 'old');
    const before = (await stat(file)).ino;
    await writeFileAtomically(file, 'new');
    assert.notEqual((await stat(file)).ino, before);
  });

  it('leaves nothing behind, neither after success nor after failure', async () => {
    const file = path.join(directory, 'file');
    await writeFileAtomically(file, 'text');
    assert.deepEqual(await readdir(directory), ['file']);
    const taken = path.join(directory, 'taken');
    await mkdir(taken);
    await assert.rejects(writeFileAtomically(taken, 'text'), { code: 'EISDIR' });
    assert.deepEqual((await readdir(directory)).sort(), ['file', 'taken']);
  });

  it('never shows a reader half a text', async () => {
    const file = path.join(directory, 'file');
    const texts = ['a'.repeat(100_000), 'b'.repeat(200_000)];
    await writeFileAtomically(file, texts[0] ?? '');
    const writing = (async () => {
      for (let i = 0; i < 20; i++) await writeFileAtomically(file, texts[i % 2] ?? '');
    })();
    let reads = 0;
    const reading = (async () => {
      for (; reads < 60; reads++) assert.ok(texts.includes(await readFile(file, 'utf8')));
    })();
    await Promise.all([writing, reading]);
    assert.equal(reads, 60);
  });
});
