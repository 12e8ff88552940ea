import assert from 'node:assert/strict';
import fc from 'fast-check';
import { cut, escapeBlock, escapeControls, oneLine } from '../../src/printable.js';
import { UNPRINTABLE } from '../support/hostile-text.js';

describe('escapeControls', () => {
  for (const [name, text, shown] of [
    ['C0', 'a\u001b[2Jb\u0000', 'a\\u001b[2Jb\\u0000'],
    ['line feeds and tabs', 'a\r\nb\tc', 'a\\u000d\\u000ab\\u0009c'],
    ['DEL and C1', '\u007f\u009b31m\u0085', '\\u007f\\u009b31m\\u0085'],
    ['separators of lines and paragraphs', '\u2028\u2029', '\\u2028\\u2029'],
    ['bidirectional overrides, isolates and marks', '\u202egpj\u2066\u200f\u061c', '\\u202egpj\\u2066\\u200f\\u061c'],
    ['halves of surrogate pairs', 'a\ud800b', 'a\\ud800b'],
  ] as const) {
    it(`shows ${name}`, () => assert.equal(escapeControls(text), shown));
  }

  it('leaves what people write alone', () => {
    const text = 'Grüße, 中文, ‎'.replace('\u200e', '') + '😀 “–…”';
    assert.equal(escapeControls(text), text);
  });

  it('leaves a JSON document the same document', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        const document = JSON.stringify(value);
        assert.deepEqual(JSON.parse(escapeControls(document)), JSON.parse(document));
      }),
    );
  });
});

describe('escapeBlock', () => {
  it('keeps the lines and columns of a text, and nothing else that a terminal obeys', () => {
    assert.equal(escapeBlock('a\tb\r\nc\rd\u001b\n'), 'a\tb\nc\\u000dd\\u001b\n');
  });
});

describe('cut', () => {
  it('says how long a text was that it shortens, and leaves others alone', () => {
    assert.equal(cut('x'.repeat(1000)), 'x'.repeat(1000));
    assert.equal(cut('x'.repeat(1_000_000)), `${'x'.repeat(1000)}… (1000000 characters)`);
    assert.equal(cut('abcdef', 2), 'ab… (6 characters)');
  });
});

describe('oneLine', () => {
  it('gives one bounded printable line for any text', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 300 }), fc.nat(100), (text, limit) => {
        const line = oneLine(text, limit);
        assert.doesNotMatch(line, UNPRINTABLE);
        assert.ok(line.length <= 6 * limit + 30);
      }),
    );
  });
});
