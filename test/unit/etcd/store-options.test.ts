import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseCommandLine } from '../../../src/config/flags.js';
import { describeError, isOverlayError } from '../../../src/errors.js';
import { storeOptionsOf } from '../../../src/etcd/store-options.js';

describe('storeOptionsOf', () => {
  let directory: string;
  let file: string;

  beforeEach(() => {
    directory = mkdtempSync(path.join(tmpdir(), 'tsflannel-password-'));
    file = path.join(directory, 'password');
  });

  afterEach(() => rmSync(directory, { recursive: true }));

  function read(...argv: string[]): ReturnType<typeof storeOptionsOf> {
    const line = parseCommandLine(argv, {});
    assert.ok(line.kind === 'run');
    return storeOptionsOf(line.options);
  }

  it('hands every flag of the store on', () => {
    const argv = ['endpoints=http://a,http://b', 'prefix=/p', 'cafile=c', 'certfile=d', 'keyfile=e', 'username=f'];
    assert.deepEqual(read(...argv.map((word) => `--etcd-${word}`), '--etcd-password=g'), {
      ...{ endpoints: 'http://a,http://b', prefix: '/p', caFile: 'c', certFile: 'd', keyFile: 'e' },
      ...{ username: 'f', password: 'g' },
    });
  });

  for (const text of ['s3 cret', 's3 cret\n', 's3 cret\r\n']) {
    it(`reads the password file ${JSON.stringify(text)}`, () => {
      writeFileSync(file, text, { mode: 0o640 });
      assert.equal(read(`--etcd-password-file=${file}`).password, 's3 cret');
    });
  }

  it('prefers the password that was given', () => {
    assert.equal(read('--etcd-password=given', '--etcd-password-file=/nowhere').password, 'given');
  });

  const refusal = (): string => {
    try {
      read(`--etcd-password-file=${file}`);
    } catch (error) {
      assert.ok(isOverlayError(error, 'ERR_PASSWORD_FILE'));
      return describeError(error);
    }
    return assert.fail('it was taken');
  };

  it('refuses a file that everybody may read', () => {
    writeFileSync(file, 's3cret');
    chmodSync(file, 0o644);
    assert.equal(
      refusal(),
      `cannot use the password file ${file}: everybody on this host may read it; run chmod 600 ${file}`,
    );
  });

  it('refuses a file that is not there', () => {
    assert.match(refusal(), /ENOENT.*; give --etcd-password-file a file that this user can read$/);
  });

  for (const text of ['', '\n', 'two\nlines\n', 'x'.repeat(5000)]) {
    it(`refuses ${JSON.stringify(text.slice(0, 12))} without repeating it`, () => {
      writeFileSync(file, text, { mode: 0o600 });
      assert.match(refusal(), /: it does not hold one line of text; let it hold the password and nothing else$/);
    });
  }

  it('does not wait for a pipe', () => {
    assert.equal(spawnSync('mkfifo', ['-m', '600', file]).status, 0);
    assert.match(refusal(), /it does not hold one line of text/);
  });
});
