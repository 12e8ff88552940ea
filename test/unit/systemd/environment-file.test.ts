import assert from 'node:assert/strict';
import { parseEnvironmentFile, splitWords } from '../../../src/systemd/environment-file.js';

describe('parseEnvironmentFile', () => {
  // Each row was compared with what `systemd-run --property=EnvironmentFile=` gives to its program (systemd 252).
  for (const [what, text, values] of [
    ['plain lines', 'A=1\nB=two words \n', { A: '1', B: 'two words' }],
    ['comments, which begin lines only', '# A=0\n ; A=0\nA=1 # no comment\n', { A: '1 # no comment' }],
    ['the last line for a name', 'A=1\nA=2', { A: '2' }],
    ['quotes', `A="a b" \nB='c "d" $e'\nC="x"'y'z`, { A: 'a b', B: 'c "d" $e', C: 'xyz' }],
    ['quotes that do not begin the value as letters', 'A=a"b"', { A: 'a"b"' }],
    ['escapes', 'A="\\"\\$\\x"\nB=\\"b\\ \nC=a\\\nb\n', { A: '"$\\x', B: '"b ', C: 'ab' }],
    ['a quoted text over two lines', 'A="one\ntwo"\nB=1', { A: 'one\ntwo', B: '1' }],
    ['a quote that nobody ends', 'A="one two', { A: 'one two' }],
    ['blanks around the name, and an empty value', '  A =\t1\nB=\n', { A: '1', B: '' }],
    ['CR LF', 'A=1\r\nB=2\r\n', { A: '1', B: '2' }],
    ['nothing from lines that set nothing', 'export A=1\nA B=1\nwords\n1A=2\n', {}],
    ['nothing from an empty file', '', {}],
  ] as const) {
    it(`reads ${what}`, () => assert.deepEqual(Object.fromEntries(parseEnvironmentFile(text)), values));
  }

  it('runs nothing', () => {
    assert.equal(parseEnvironmentFile('A=$(touch /tmp/x)`id`${HOME}').get('A'), '$(touch /tmp/x)`id`${HOME}');
  });
});

describe('splitWords', () => {
  for (const [text, words] of [
    ['', []],
    ['--a=1   --b\t2\n', ['--a=1', '--b', '2']],
    [`--a='1 2' "--b" --c="x"'y'`, ['--a=1 2', '--b', '--c=xy']],
    ['--a=1\\ 2 \\"', ['--a=1 2', '"']],
    ['"a\\"b" --c="unended words', ['a"b', '--c=unended words']],
    ['--a=$HOME `id`', ['--a=$HOME', '`id`']],
  ] as const) {
    it(`makes ${words.length} words of ${JSON.stringify(text)}`, () => assert.deepEqual(splitWords(text), words));
  }
});
