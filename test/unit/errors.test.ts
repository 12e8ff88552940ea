import assert from 'node:assert/strict';
import { ERROR_CODES, OverlayError, describeError, isOverlayError } from '../../src/errors.js';

describe('OverlayError', () => {
  const cause = new Error('EADDRINUSE');

  it('carries code, cause, context and hint', () => {
    const error = new OverlayError('ERR_FLAG', 'cannot use --x: it is empty', {
      cause,
      context: { port: 8285 },
      hint: 'leave it out',
      isRetryable: true,
    });
    assert.ok(error instanceof Error);
    assert.equal(error.name, 'OverlayError');
    assert.equal(error.cause, cause);
    assert.deepEqual(
      [error.code, error.context, error.hint, error.isRetryable],
      ['ERR_FLAG', { port: 8285 }, 'leave it out', true],
    );
  });

  it('has nothing to add if nothing was given', () => {
    const error = new OverlayError('ERR_FLAG', 'cannot');
    assert.deepEqual([error.context, error.hint, error.isRetryable], [{}, undefined, false]);
    assert.equal('cause' in error, false);
  });

  it('keeps a cause that is itself undefined-like', () => {
    assert.equal(new OverlayError('ERR_FLAG', 'cannot', { cause: null }).cause, null);
  });
});

describe('describeError', () => {
  for (const [what, value, text] of [
    [
      'message and hint',
      new OverlayError('ERR_FLAG', 'cannot do it: why', { hint: 'do that' }),
      'cannot do it: why; do that',
    ],
    ['the message alone without a hint', new OverlayError('ERR_FLAG', 'cannot do it: why'), 'cannot do it: why'],
    ['the message of other errors', new TypeError('not a function'), 'not a function'],
    ['any other value', 'text', 'text'],
    ['nothing', undefined, 'undefined'],
  ] as const) {
    it(`gives ${what}`, () => assert.equal(describeError(value), text));
  }

  it('is what an error turns into as text', () => {
    const error = new OverlayError('ERR_FLAG', 'cannot do it: why', { hint: 'do that' });
    assert.equal(String(error), describeError(error));
  });
});

describe('isOverlayError', () => {
  it('tells by class and, if asked, by code', () => {
    const error: unknown = new OverlayError('ERR_FLAG', 'cannot');
    assert.equal(isOverlayError(error), true);
    assert.equal(isOverlayError(error, 'ERR_FLAG'), true);
    assert.equal(isOverlayError(error, 'ERR_IP_SYNTAX'), false);
    assert.equal(isOverlayError(Object.assign(new Error('x'), { code: 'ERR_FLAG' })), false);
    assert.equal(isOverlayError(undefined), false);
  });
});

describe('ERROR_CODES', () => {
  it('explains every code in a sentence', () => {
    for (const [code, sentence] of Object.entries(ERROR_CODES)) {
      assert.match(code, /^ERR_[A-Z][A-Z0-9_]+$/);
      assert.match(sentence, /^\S.*\S\.$/);
    }
  });
});
