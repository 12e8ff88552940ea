import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { FILES_OF_BUNDLES } from '../../../.ci/programs.mjs';

const ROOT = path.resolve(import.meta.dirname, '../../..');

describe('the compiled programs', () => {
  it('are what setup leaves in dist/bin: one file for each source, and what their bundles are made of', () => {
    const programs = readdirSync(path.join(ROOT, 'src/bin')).map((file) => file.replace(/\.ts$/, '.js'));
    const expected = [...programs.map((file) => path.join('dist/bin', file)), ...FILES_OF_BUNDLES];
    const found = readdirSync(path.join(ROOT, 'dist/bin')).map((file) => path.join('dist/bin', file));
    assert.deepEqual(found.toSorted(), expected.toSorted());
  });
});
