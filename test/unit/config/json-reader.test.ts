import assert from 'node:assert/strict';
import fc from 'fast-check';
import { JsonSyntaxError, readJson, toJsonValue } from '../../../src/config/json-reader.js';

function accepts(read: (text: string) => unknown, text: string): boolean {
  try {
    read(text);
    return true;
  } catch {
    return false;
  }
}

describe('readJson', () => {
  it('reads what JSON.stringify writes, in any indentation', () => {
    fc.assert(
      fc.property(fc.json(), fc.nat(4), (text, indent) => {
        const spaced = JSON.stringify(JSON.parse(text), undefined, indent);
        // Compared as text: Object.fromEntries and JSON.parse agree on everything, "__proto__" included.
        assert.equal(JSON.stringify(toJsonValue(readJson(spaced))), JSON.stringify(JSON.parse(text)));
      }),
    );
  });

  it('accepts and refuses the same texts as JSON.parse', () => {
    const piece = fc.constantFrom(
      ...['{', '}', '[', ']', ',', ':', '"', '"a"', '"\\u00e9"', '"\\x"', '"\t"', ' ', '\n', '\u00a0'],
      ...['0', '01', '-', '-1', '1.', '1.5', '.5', '1e2', '1e', 'true', 'null', 'nul', '/', '"\\ud800"'],
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 8 }), (pieces) => {
        const text = pieces.join('');
        assert.equal(accepts(readJson, text), accepts(JSON.parse, text), JSON.stringify(text));
      }),
      { numRuns: 3000 },
    );
  });

  it('keeps duplicates, order and the way a number is written', () => {
    assert.deepEqual(readJson('{"b":1.0,"a":1e2,"b":-0}'), {
      kind: 'object',
      entries: [
        ['b', { kind: 'number', literal: '1.0' }],
        ['a', { kind: 'number', literal: '1e2' }],
        ['b', { kind: 'number', literal: '-0' }],
      ],
    });
  });

  for (const [text, line, column, reason] of [
    ['{\n  "a": 1,\n}', 3, 1, /key in double quotes/],
    ['{"a" 1}', 1, 6, /":" expected/],
    ['[1 2]', 1, 4, /"," or "]" expected/],
    ['{"a":1} x', 1, 9, /something follows/],
    ['{"a":"b', 1, 6, /does not end/],
    ['', 1, 1, /ends too early/],
    ['\ufeff{}', 1, 1, /a value expected/],
  ] as const) {
    it(`says where ${JSON.stringify(text)} goes wrong`, () => {
      assert.throws(
        () => readJson(text),
        (error: unknown) => {
          assert.ok(error instanceof JsonSyntaxError);
          assert.deepEqual([error.line, error.column], [line, column]);
          assert.match(error.message, reason);
          return true;
        },
      );
    });
  }

  it('refuses nesting that would exhaust the stack', () => {
    assert.throws(() => readJson('['.repeat(100_000)), /levels of nesting/);
  });
});
