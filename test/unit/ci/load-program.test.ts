import assert from 'node:assert/strict';
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { run } from '../../support/netns.js';

const LOADER = path.resolve(import.meta.dirname, '../../../.ci/load-program.cjs');

const PROGRAM = `
  function answer() { return 'first'; }
  exports.answer = answer;
  exports.place = () => new Error().stack.split('\\n')[1].trim();
  exports.directory = __dirname;`;

describe('load-program', function () {
  this.timeout(20_000);
  let directory: string;

  beforeEach(() => {
    directory = mkdtempSync(path.join(tmpdir(), 'tsflannel-load-'));
    copyFileSync(LOADER, path.join(directory, 'load-program.js'));
    writeFileSync(path.join(directory, 'package.json'), '{ "type": "commonjs" }');
    writeFileSync(bundle(), PROGRAM);
  });

  afterEach(() => {
    rmSync(directory, { recursive: true });
  });

  const bundle = (): string => path.join(directory, 'program.bundle.js');
  const cache = (): string => path.join(directory, 'program.cache');

  /** Makes the byte code. */
  async function make(flags: readonly string[] = [], ...args: readonly string[]): Promise<void> {
    await run([process.execPath, ...flags, path.join(directory, 'load-program.js'), ...args]);
  }

  /** Loads the program and tells what it exports and whether V8 took the byte code (undefined: it was offered none). */
  async function load(
    flags: readonly string[] = [],
    env: Readonly<Record<string, string>> = {},
  ): Promise<{
    readonly answer: string;
    readonly place: string;
    readonly directory: string;
    readonly isTaken?: boolean;
  }> {
    const script = `
      const vm = require('node:vm');
      let isTaken;
      vm.Script = class extends vm.Script {
        constructor(text, options) {
          super(text, options);
          if (options.cachedData !== undefined) isTaken = this.cachedDataRejected === false;
        }
      };
      const { answer, place, directory } = require(${JSON.stringify(path.join(directory, 'load-program.js'))}).load('program');
      console.log(JSON.stringify({ answer: answer(), place: place(), directory, isTaken }));`;
    const { stdout } = await run([process.execPath, ...flags, '--eval', script], { env });
    return JSON.parse(stdout) as Awaited<ReturnType<typeof load>>;
  }

  it('runs the program with the byte code that was made of it', async () => {
    await make();
    const loaded = await load();
    assert.equal(loaded.isTaken, true);
    assert.equal(loaded.answer, 'first');
    assert.equal(loaded.directory, directory);
    assert.ok(loaded.place.includes(`${bundle()}:4:`), loaded.place);
  });

  it('has byte code for the flag of the unit, too', async () => {
    await make();
    const unit = readFileSync(path.resolve(import.meta.dirname, '../../../systemd/tsflanneld.service'), 'utf8');
    const flag = /^Environment=NODE_OPTIONS=(\S+)$/m.exec(unit)?.[1] ?? 'none';
    assert.equal((await load([flag])).isTaken, true);
    assert.equal((await load([], { NODE_OPTIONS: flag })).isTaken, true);
    rmSync(path.join(directory, 'program.unit.cache'));
    assert.equal((await load([flag])).isTaken, undefined);
    assert.equal((await load()).isTaken, true);
  });

  it('runs the program without byte code', async () => {
    const { answer, isTaken } = await load();
    assert.deepEqual([answer, isTaken], ['first', undefined]);
  });

  it('never runs the byte code of another text, even of one as long', async () => {
    await make();
    writeFileSync(bundle(), PROGRAM.replace('first', 'other'));
    const { answer, isTaken } = await load();
    assert.deepEqual([answer, isTaken], ['other', undefined]);
  });

  it('runs the program with byte code that V8 does not take, and with what is none', async () => {
    await make();
    const { answer, isTaken } = await load(['--stack-size=900']); // other flags, as another version of Node has
    assert.deepEqual([answer, isTaken], ['first', false]);
    for (const length of [0, 7, 8, 100]) {
      writeFileSync(cache(), readFileSync(cache()).subarray(0, length));
      assert.equal((await load()).answer, 'first', `cut off after ${length} bytes`);
      await make();
    }
  });

  it('makes the same byte code twice with seeds, wherever, for a place of its own', async () => {
    const seeds = ['--random-seed=1', '--hash-seed=1'];
    await make(seeds, '/usr/lib/tsflannel/dist/bin');
    const first = readFileSync(cache());
    rmSync(cache());
    await make(seeds, '/usr/lib/tsflannel/dist/bin');
    assert.ok(readFileSync(cache()).equals(first));
    assert.equal((await load()).isTaken, true);
    assert.ok(!existsSync(`${cache()}.new`));
  });
});
