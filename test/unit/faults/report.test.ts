import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { FAULTS } from '../../faults/catalog.js';
import { faultTable, withTable } from '../../faults/report.js';

const file = (name: string): URL => new URL(`../../../${name}`, import.meta.url);

describe('faultTable', () => {
  it('has a line for every fault, with figures only where there are any', () => {
    const table = faultTable([
      { id: 'etcd-wiped', backend: 'vxlan', sent: 1000, lost: 0, recoveryMs: 1240 },
      { id: 'etcd-wiped', backend: 'udp', sent: 900, lost: 12, failure: 'it took 3 | 4 s' },
    ]);
    const lines = table.trim().split('\n');
    assert.equal(lines.length, 2 + Object.keys(FAULTS).length);
    const cells = lines[2]?.split(/(?<!\\)\|/).map((cell) => cell.trim());
    assert.equal(cells?.[3], 'vxlan: 0 of 1000<br>udp: 12 of 900 **failed**: it took 3 \\| 4 s');
    assert.equal(cells[4], 'vxlan: 1.2 s');
    assert.equal(cells[6], '`npm run test:faults -- --only etcd-wiped`');
    assert.equal(lines[3]?.split('|')[3]?.trim(), '');
  });

  it('shows only the faults that were asked for', () => {
    const lines = faultTable([], new Set(['leader-killed']))
      .trim()
      .split('\n');
    assert.equal(lines.length, 3);
    assert.match(lines[2] ?? '', /--only leader-killed/);
  });

  it('replaces the table of a page and nothing else', () => {
    const page = 'before\n<!-- results: begin -->\nold\n<!-- results: end -->\nafter\n';
    const replaced = withTable(page, 'new\n');
    assert.equal(replaced, 'before\n<!-- results: begin -->\n\nnew\n\n<!-- results: end -->\nafter\n');
    assert.equal(withTable(replaced, 'new\n'), replaced);
    assert.throws(() => withTable('no marks', 'new'), /no <!-- results: begin -->/);
  });
});

describe('docs/reliability.md', () => {
  it('names every fault with the command that repeats it', () => {
    const page = readFileSync(file('docs/reliability.md'), 'utf8');
    const named = [...page.matchAll(/`npm run test:faults -- --only ([\w-]+)` \|/g)].map((match) => match[1]);
    assert.deepEqual(named, Object.keys(FAULTS));
  });

  it('has a test behind every row', () => {
    const tests = readdirSync(file('test/faults')).filter((name) => name.endsWith('.test.ts'));
    const sources = tests.map((name) => readFileSync(file(`test/faults/${name}`), 'utf8')).join('\n');
    const defined = [...sources.matchAll(/^scenario\(\s*'([\w-]+)'/gm)].map((match) => match[1]);
    assert.deepEqual(defined.sort(), Object.keys(FAULTS).sort());
  });
});
