import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { OverlayError } from '../../../src/errors.js';
import { errnoOf, isDenied } from '../../../src/sys/errno.js';

describe('errnoOf', () => {
  it('is what the system call said', () => {
    try {
      readFileSync('/proc/nothing-there');
      assert.fail('it was read');
    } catch (error) {
      assert.equal(errnoOf(error), 'ENOENT');
    }
  });

  it('is undefined where no system call failed', () => {
    for (const error of [
      new OverlayError('ERR_FLAG', 'ours'),
      Object.assign(new Error('exit status'), { code: 1 }),
      Object.assign(new Error("Node's"), { code: 'ERR_INVALID_ARG_TYPE' }),
      new Error('none'),
      'ENOENT',
      { code: 'ENOENT' },
      undefined,
    ]) {
      assert.equal(errnoOf(error), undefined);
    }
  });
});

describe('isDenied', () => {
  for (const [errno, expected] of [
    ['EPERM', true],
    ['EACCES', true],
    ['ENOENT', false],
    [undefined, false],
  ] as const) {
    it(`is ${expected} for ${String(errno)}`, () => assert.equal(isDenied(errno), expected));
  }
});
