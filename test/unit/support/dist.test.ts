import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { assertFresh } from '../../support/dist.js';

describe('assertFresh', () => {
  let root: string;

  beforeEach(() => {
    root = mkdtempSync(path.join(tmpdir(), 'tsflannel-dist-'));
  });

  afterEach(() => {
    rmSync(root, { recursive: true });
  });

  const write = (file: string, seconds: number): void => {
    mkdirSync(path.join(root, path.dirname(file)), { recursive: true });
    writeFileSync(path.join(root, file), '');
    utimesSync(path.join(root, file), seconds, seconds);
  };

  it('takes what is as old as its source or younger', () => {
    write('src/a.ts', 10);
    write('dist/a.js', 10);
    write('src/sub/b.ts', 10);
    write('dist/sub/b.js', 11);
    write('src/types.d.ts', 20);
    assert.doesNotThrow(() => assertFresh(root));
  });

  it('refuses what is older than its source, or was never compiled', () => {
    write('src/sub/b.ts', 10);
    assert.throws(() => assertFresh(root), /dist is older than src\/sub\/b\.ts: run "npm run build:ts"/);
    write('dist/sub/b.js', 9);
    assert.throws(() => assertFresh(root), /dist is older/);
  });
});
