import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { FAULTS } from '../../faults/catalog.js';
import { ACTIONS } from '../../soak/actions.js';
import { LEAST_ROUNDS } from '../../soak/trend.js';
import { run } from '../../support/netns.js';

const ROOT = path.resolve(import.meta.dirname, '../../..');
const SCRIPTS = (
  JSON.parse(readFileSync(path.join(ROOT, 'package.json'), 'utf8')) as { scripts: Record<string, string> }
).scripts;

describe('the npm scripts', function () {
  this.timeout(60_000);
  let clone: string;

  before(() => {
    clone = mkdtempSync(path.join(tmpdir(), 'tsflannel-clone-'));
    for (const name of ['.ci', 'package.json', 'package-lock.json', 'native/install.mjs'])
      cpSync(path.join(ROOT, name), path.join(clone, name), { recursive: true });
  });

  after(() => {
    rmSync(clone, { recursive: true });
  });

  const filesOf = (directory: string): string[] => readdirSync(directory, { recursive: true }).map(String).sort();

  it('answer --help in a bare clone, without installing or building anything', async () => {
    const before = filesOf(clone);
    // Nothing can be reached by PATH: who looked for npm or a compiler would fail.
    for (const [name, command] of Object.entries(SCRIPTS)) {
      const words = command.split(' ').map((word) => (word === 'node' ? process.execPath : word));
      const { stdout } = await run(['env', '-C', clone, '-i', `PATH=${clone}`, ...words, '--help']);
      assert.ok(stdout.includes(`npm run ${name}`), `${name}: ${stdout}`);
    }
    assert.deepEqual(filesOf(clone), before);
  });

  it('say in one line what is missing', async () => {
    const words = ['env', '-C', clone, '-i', `PATH=${clone}`, process.execPath, '.ci/script.mjs', 'prepare'];
    const { code, stderr } = await run(words, { mayFail: true });
    assert.equal(code, 2);
    assert.match(stderr, /^cannot run tsc: .*: run npm ci first\n$/);
  });

  const listed = (file: string): string => readFileSync(path.join(ROOT, '.ci/usage', file), 'utf8');

  it('list every fault and everything that happens in a soak', () => {
    for (const name of Object.keys(FAULTS)) assert.match(listed('test-faults.txt'), new RegExp(` ${name}(,|\n)`));
    for (const { name } of ACTIONS) assert.match(listed('soak.txt'), new RegExp(` ${name}(,|\n)`));
    assert.ok(listed('soak.txt').includes(`at least ${LEAST_ROUNDS} rounds`));
  });
});
