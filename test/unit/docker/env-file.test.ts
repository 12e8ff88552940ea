import assert from 'node:assert/strict';
import fc from 'fast-check';
import { parseEnvFile } from '../../../src/docker/env-file.js';

describe('parseEnvFile', () => {
  for (const [line, value] of [
    ['NAME=value', 'value'],
    ['NAME=', ''],
    ['  NAME =  value  ', 'value'],
    ['export NAME=value', 'value'],
    ['NAME: value', 'value'],
    ['NAME=a=b', 'a=b'],
    ['NAME="two words"', 'two words'],
    ['NAME="a \\"b\\" # c" # comment', 'a "b" # c'],
    ["NAME='$x # y'", '$x # y'],
    ['NAME=value # comment', 'value'],
    ['NAME=value#no-comment', 'value#no-comment'],
    ['NAME=# comment', ''],
    ['NAME=value\r', 'value'],
    ['NAME=old\nNAME=value', 'value'],
  ] as const) {
    it(`reads ${JSON.stringify(line)}`, () => assert.deepEqual([...parseEnvFile(line)], [['NAME', value]]));
  }

  it('skips what is no assignment', () => {
    assert.deepEqual([...parseEnvFile('# NAME=1\n\nwords only\n9NAME=1\n=1\n')], []);
  });

  it('reads back plain lines of any kind', () => {
    const name = fc.stringMatching(/^[A-Z_][A-Z0-9_]{0,10}$/);
    const value = fc.stringMatching(/^[0-9a-z.:/,-]{0,30}$/);
    fc.assert(
      fc.property(fc.dictionary(name, value), (values) => {
        const text = Object.entries(values).map(([key, content]) => `${key}=${content}\n`);
        assert.deepEqual(Object.fromEntries(parseEnvFile(text.join(''))), { ...values });
      }),
    );
  });
});
