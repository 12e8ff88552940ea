import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { BACKENDS } from '../../../src/backend/registry.js';
import { ERROR_CODES } from '../../../src/errors.js';
import { flagTables } from '../../support/manual.js';

const page = (name: string): string => readFileSync(new URL(`../../../docs/${name}`, import.meta.url), 'utf8');

describe('manual', () => {
  it('lists every flag as the program has it, and no other', () => {
    const text = page('configuration.md');
    const begin = text.indexOf('### Store (etcd)');
    const end = text.indexOf('## Network configuration');
    assert.ok(begin > 0 && end > begin);
    assert.equal(text.slice(begin, end).trim(), flagTables().trim());
  });

  it('lists every backend with the keys it reads, and no other', () => {
    const [, table = ''] = /### Backends\n(.*?)\n## /s.exec(page('configuration.md')) ?? [];
    const rows = [...table.matchAll(/^\| `([\w-]+)` \| (.+?) \|/gm)];
    assert.deepEqual(
      new Map(rows.map(([, type, keys = '']) => [type, [...keys.matchAll(/`([A-Z]\w*)`/g)].map(([, key]) => key)])),
      new Map(BACKENDS.map(({ type, optionKeys }) => [type, optionKeys])),
    );
    for (const { type } of BACKENDS)
      assert.match(page('coming-from-flannel.md'), new RegExp(`^\\| backend .*\`${type}\``, 'm'));
  });

  it('lists every error code with its meaning, and no other', () => {
    const rows = [...page('errors.md').matchAll(/^\| `(ERR_[A-Z_0-9]+)` \| (.+?) \| (.+?) \|$/gm)];
    assert.deepEqual(new Map(rows.map(([, code, meaning]) => [code, meaning])), new Map(Object.entries(ERROR_CODES)));
    for (const [, code, , remedy] of rows) assert.ok((remedy ?? '').length > 10, `${String(code)} has a remedy`);
  });
});
