import assert from 'node:assert/strict';
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { mutate } from '../../mutation/mutants.js';
import { Session } from '../../mutation/session.js';

const ROOT = path.resolve(import.meta.dirname, '../../..');

const SOURCE = `
export const LIMIT = Math.max(3, 2);
export const count = (until: number): number => {
  let n = 0;
  while (n < until) n += 1;
  return n;
};
export const wait = async (resolve: (done: () => void) => void): Promise<void> => {
  await new Promise<void>((done) => {
    resolve(done);
  });
};
export const unused = (a: number): boolean => a < 1;
`;

const TESTS = `
import assert from 'node:assert/strict';
import { LIMIT, count, wait } from '../src/subject.js';
it('counts', () => assert.equal(count(LIMIT), 3));
it('waits', () => wait((done) => done()));
`;

describe('a mutation session', function () {
  this.timeout(120_000);
  let root: string;

  beforeEach(() => {
    root = mkdtempSync(path.join(tmpdir(), 'tsflannel-session-'));
    for (const name of ['src', 'test/mutation']) mkdirSync(path.join(root, name), { recursive: true });
    cpSync(path.join(ROOT, 'test/mutation/worker.ts'), path.join(root, 'test/mutation/worker.ts'));
    cpSync(path.join(ROOT, 'package.json'), path.join(root, 'package.json'));
    symlinkSync(path.join(ROOT, 'node_modules'), path.join(root, 'node_modules'));
    writeFileSync(path.join(root, 'src/subject.ts'), mutate('subject.ts', SOURCE).instrumented);
    writeFileSync(path.join(root, 'test/subject.test.ts'), TESTS);
  });

  afterEach(() => {
    rmSync(root, { recursive: true, force: true });
  });

  const open = (endMs: number): Session => new Session(root, ['test/subject.test.ts'], endMs);
  const idOf = (change: string): number => {
    const found = mutate('subject.ts', SOURCE).mutants.find((mutant) => mutant.change === change);
    assert.ok(found, change);
    return found.id;
  };

  it('tells what a test notices, what none does and what none comes by; what never ends is noticed', async () => {
    const session = open(Infinity);
    try {
      assert.equal(await session.try(idOf('n < until: < → <=')), 'killed');
      assert.equal(await session.try(idOf('Math.max(3, 2): max → min')), 'killed', 'while it is loaded');
      assert.equal(await session.try(idOf('n += 1;: removed')), 'killed', 'runs for ever');
      assert.equal(await session.try(idOf('resolve(done);: removed')), 'killed', 'waits in vain');
      assert.equal(await session.try(idOf('0: 1')), 'survived');
      assert.equal(await session.try(idOf('a < 1: < → <=')), 'unreached');
      await session.check();
    } finally {
      session.close();
    }
  });

  it('gives up what is under way when the time is over', async () => {
    const session = open(performance.now() + 200);
    try {
      assert.equal(await session.try(idOf('n += 1;: removed')), undefined);
    } finally {
      session.close();
    }
  });
});
