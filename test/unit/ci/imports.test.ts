import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Linter } from 'eslint';
import tseslint from 'typescript-eslint';
import { type Imports, ROWS, faultOf, importRule, readImports, unusedNeighbours } from '../../../.ci/imports.mjs';

const ROOT = path.resolve(import.meta.dirname, '../../..');

/** Each file with what it imports. */
const graph = (files: Readonly<Record<string, readonly string[]>>): Imports =>
  new Map(Object.entries(files).map(([file, imported]) => [file, new Set(imported)]));

describe('the rule of imports', () => {
  const NONE = graph({});

  it('has a row for everything in src', () => {
    assert.deepEqual(ROWS.flat().sort(), readdirSync(path.join(ROOT, 'src')).sort());
  });

  it('lists no neighbour that nothing imports any more', () => {
    assert.deepEqual(unusedNeighbours(readImports(ROOT)), []);
    assert.ok(unusedNeighbours(NONE).includes('etcd imports lease'));
  });

  it('lets a file import its own folder and the rows above', () => {
    assert.equal(faultOf(NONE, 'src/daemon/status.ts', 'src/daemon/parts.ts'), undefined);
    assert.equal(faultOf(NONE, 'src/daemon/status.ts', 'src/ip/mac.ts'), undefined);
  });

  it('refuses a row below', () => {
    assert.match(faultOf(NONE, 'src/ip/mac.ts', 'src/daemon/parts.ts') ?? '', /^src\/daemon stands below src\/ip/);
  });

  it('refuses the same row, except for neighbours that are listed', () => {
    assert.equal(faultOf(NONE, 'src/etcd/store.ts', 'src/lease/store.ts'), undefined);
    assert.match(faultOf(NONE, 'src/lease/store.ts', 'src/etcd/store.ts') ?? '', /same row as src\/lease and is not/);
  });

  it('refuses what stands in no row', () => {
    assert.match(faultOf(NONE, 'src/new/thing.ts', 'src/ip/mac.ts') ?? '', /^src\/new stands in no row/);
    assert.match(faultOf(NONE, 'src/ip/mac.ts', 'src/new.ts') ?? '', /^src\/new\.ts stands in no row/);
  });

  it('refuses that the program imports tests or benchmarks, not the other way round', () => {
    assert.match(faultOf(NONE, 'src/ip/mac.ts', 'test/support/wait.ts') ?? '', /does not depend on its tests/);
    assert.match(faultOf(NONE, 'src/ip/mac.ts', 'bench/stats.ts') ?? '', /does not depend on its tests/);
    assert.equal(faultOf(NONE, 'bench/bed.ts', 'test/support/wait.ts'), undefined);
    assert.equal(faultOf(NONE, 'test/support/wait.ts', 'src/ip/mac.ts'), undefined);
  });

  for (const folder of ['src/lease', 'bench', 'test/support']) {
    it(`refuses a circle in ${folder} and says where it leads`, () => {
      const [a, b, c] = ['a', 'b', 'c'].map((name) => `${folder}/${name}.ts`) as [string, string, string];
      const circle = graph({ [a]: [b], [b]: [c], [c]: [a] });
      assert.equal(faultOf(circle, a, b), `a circle of imports: ${a} → ${b} → ${c} → ${a}`);
      assert.equal(faultOf(graph({ [a]: [b], [b]: [c], [c]: [] }), a, b), undefined);
    });
  }

  it('counts imports of types, re-exports and imports at run time, but no packages', () => {
    const root = mkdtempSync(path.join(tmpdir(), 'tsflannel-imports-'));
    try {
      for (const folder of ['src', 'bench', 'test']) mkdirSync(path.join(root, folder));
      const text = [
        `import type { A } from './a.js';`,
        `import { type B } from './b.js';`,
        `export * from './c.js';`,
        `export type { D } from './d.js';`,
        `const e = await import('./e.js');`,
        `import path from 'node:path';`,
      ];
      writeFileSync(path.join(root, 'bench/all.ts'), text.join('\n'));
      const files = ['a', 'b', 'c', 'd', 'e'].map((name) => `bench/${name}.ts`);
      assert.deepEqual([...(readImports(root).get('bench/all.ts') ?? [])], files);
    } finally {
      rmSync(root, { recursive: true });
    }
  });

  for (const text of [
    `import { a } from '../daemon/parts.js';`,
    `import type { A } from '../daemon/parts.js';`,
    `export { a } from '../daemon/parts.js';`,
    `export * from '../daemon/parts.js';`,
    `await import('../daemon/parts.js');`,
    `let a: import('../daemon/parts.js').A;`,
  ]) {
    it(`reports ${text}`, () => {
      const config: Linter.Config = {
        files: ['**/*.ts'],
        languageOptions: { parser: tseslint.parser },
        plugins: { tsflannel: { rules: { imports: importRule(ROOT) } } },
        rules: { 'tsflannel/imports': 'error' },
      };
      const filename = path.join(ROOT, 'src/ip/mac.ts');
      const messages = new Linter({ cwd: ROOT }).verify(text, [config], { filename });
      assert.deepEqual(
        messages.map(({ message }) => message),
        ['src/daemon stands below src/ip; the rows are in .ci/imports.mjs'],
      );
    });
  }
});
