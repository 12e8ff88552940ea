import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { Totals } from '../../../../.ci/reporter.mjs';
import { run } from '../../../support/netns.js';
import { bundleTests } from '../../../support/vm/bundle.js';

const SKIP = path.resolve(import.meta.dirname, '../../../support/skip.ts');

describe('bundleTests', function () {
  this.timeout(60_000);
  let directory: string;

  before(() => {
    directory = mkdtempSync(path.join(os.tmpdir(), 'tsflannel-bundle-'));
  });

  after(() => {
    rmSync(directory, { recursive: true });
  });

  const write = (name: string, text: string): string => {
    const file = path.join(directory, name);
    writeFileSync(file, text);
    return file;
  };

  it('gives a program that runs the tests of all files and counts them', async () => {
    const first = write(
      'first.test.ts',
      `import { skipBecause } from ${JSON.stringify(SKIP)};
      describe('first', () => {
        it('passes', (): void => {});
        it('fails', () => { throw new Error('on purpose'); });
        it('skips', function () { skipBecause(this, 'no such device'); });
      });`,
    );
    // What a test finds beside its source must not be looked for beside the bundle.
    const second = write(
      'second.test.ts',
      `import { readFileSync } from 'node:fs';
      describe('second', () => {
        it('reads itself', () => void readFileSync(new URL('second.test.ts', import.meta.url)));
        it('knows its directory', () => { if (import.meta.dirname !== ${JSON.stringify(directory)}) throw new Error(); });
      });`,
    );
    const totals = path.join(directory, 'totals.json');
    const program = await bundleTests([first, second], path.join(directory, 'bundle'), totals);
    const { code, stdout } = await run([process.execPath, program], { mayFail: true });
    assert.equal(code, 1, stdout);
    assert.deepEqual(JSON.parse(readFileSync(totals, 'utf8')) as Totals, {
      passed: 3,
      failed: 1,
      failures: ['first fails'],
      skipped: [{ title: 'first skips', reason: 'no such device' }],
      retried: [],
    });
    assert.match(stdout, /on purpose/);
  });
});
