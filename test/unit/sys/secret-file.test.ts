import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { errnoOf } from '../../../src/sys/errno.js';
import { systemSecretFiles as files } from '../../../src/sys/secret-file.js';

describe('a file with a secret', () => {
  let directory: string;
  let file: string;
  let umask: number;

  beforeEach(() => {
    directory = mkdtempSync(path.join(tmpdir(), 'tsflannel-secret-'));
    file = path.join(directory, 'run', 'key');
    umask = process.umask(0);
  });

  afterEach(() => {
    process.umask(umask);
    rmSync(directory, { recursive: true });
  });

  it('is made with its directory, for its owner alone, and leaves nothing else behind', async () => {
    assert.equal(await files.create(file, 'secret\n'), true);
    assert.equal(readFileSync(file, 'utf8'), 'secret\n');
    assert.equal(statSync(file).mode & 0o7777, 0o600);
    assert.equal(statSync(path.dirname(file)).mode & 0o7777, 0o755);
    assert.deepEqual(readdirSync(path.dirname(file)), ['key']);
    assert.deepEqual(await files.read(file), { text: 'secret\n', isOpen: false });
  });

  it('takes nobody else’s place', async () => {
    mkdirSync(path.dirname(file));
    writeFileSync(file, 'other');
    assert.equal(await files.create(file, 'secret\n'), false);
    assert.equal(readFileSync(file, 'utf8'), 'other');
    assert.deepEqual(readdirSync(path.dirname(file)), ['key']);
  });

  it('is made by one of many at the same time', async () => {
    const made = await Promise.all(Array.from({ length: 8 }, (_, n) => files.create(file, `secret ${n}`)));
    assert.equal(made.filter(Boolean).length, 1);
    assert.equal(readFileSync(file, 'utf8'), `secret ${made.indexOf(true)}`);
  });

  for (const mode of [0o640, 0o604, 0o620, 0o602]) {
    it(`is open with mode ${mode.toString(8)}`, async () => {
      await files.create(file, 'secret\n');
      chmodSync(file, mode);
      assert.equal((await files.read(file)).isOpen, true);
    });
  }

  it('is read as far as a secret can be long', async () => {
    mkdirSync(path.dirname(file));
    writeFileSync(file, 'x'.repeat(1_000_000));
    assert.equal((await files.read(file)).text.length, 4096);
  });

  it('that is not there says so', async () => {
    await assert.rejects(files.read(file), (error) => errnoOf(error) === 'ENOENT');
  });
});
