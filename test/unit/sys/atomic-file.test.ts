import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { writeFileAtomically } from '../../../src/sys/atomic-file.js';

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
    await writeFileAtomically(`${file}2`, '', 0o600);
    assert.equal(await modeOf(`${file}2`), 0o600);
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
