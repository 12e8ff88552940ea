import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';

const ROOT = path.resolve(import.meta.dirname, '../../..');

describe('the recipes', () => {
  it('never let Docker masquerade where they give its options by hand', () => {
    const pages = readdirSync(path.join(ROOT, 'docs')).filter((name) => name.endsWith('.md'));
    const files = ['README.md', 'src/docker/drop-in.ts', ...pages.map((name) => `docs/${name}`)];
    const recipes = files.flatMap((file) =>
      readFileSync(path.join(ROOT, file), 'utf8')
        .split('\n')
        .filter((line) => line.includes('--bip=${FLANNEL_SUBNET}'))
        .map((line) => `${file}: ${line}`),
    );
    assert.ok(recipes.length >= 3, recipes.join('\n'));
    for (const recipe of recipes) assert.ok(recipe.includes('--ip-masq=false'), recipe);
  });

  it('name the Node that the package carries', () => {
    const [, version = ''] =
      /version: '(.+)'/.exec(readFileSync(path.join(ROOT, '.ci/node-runtime.mjs'), 'utf8')) ?? [];
    for (const file of ['README.md', 'docs/quick-start.md'])
      assert.ok(readFileSync(path.join(ROOT, file), 'utf8').includes(`Node ${version}`), file);
  });
});
