import assert from 'node:assert/strict';
import fc from 'fast-check';
import { parseGoBool, parseGoInt, scanArguments } from '../../../src/config/go-flags.js';
import { isOverlayError } from '../../../src/errors.js';

function scan(...argv: string[]): ReturnType<typeof scanArguments> {
  return scanArguments(argv, (name) => (name.startsWith('is-') ? 'switch' : 'value'));
}

describe('scanArguments', () => {
  for (const argv of [['-name', 'x'], ['--name', 'x'], ['-name=x'], ['--name=x']]) {
    it(`reads ${argv.join(' ')}`, () => {
      assert.deepEqual(scan(...argv), { settings: [{ name: 'name', value: 'x' }], rest: [], isHelpWanted: false });
    });
  }

  it('gives a switch its value only with "="', () => {
    assert.deepEqual(scan('--is-on', '--is-off=false', '--is-on', 'false').settings, [
      { name: 'is-on', value: 'true' },
      { name: 'is-off', value: 'false' },
      { name: 'is-on', value: 'true' },
    ]);
    assert.deepEqual(scan('--is-on', 'false', '--name=x').rest, ['false', '--name=x']);
  });

  it('takes the next word as a value whatever it looks like', () => {
    assert.deepEqual(scan('--name', '--other', '-n', '--').settings, [
      { name: 'name', value: '--other' },
      { name: 'n', value: '--' },
    ]);
  });

  it('keeps "=" and line ends inside a value', () => {
    assert.deepEqual(scan('--name=a=b\nc', '--other=').settings, [
      { name: 'name', value: 'a=b\nc' },
      { name: 'other', value: '' },
    ]);
  });

  it('stops at "--", which is dropped, and at the first other word', () => {
    assert.deepEqual(scan('--name=x', '--', '--y=1').rest, ['--y=1']);
    assert.deepEqual(scan('--name=x', 'word', '--y=1').rest, ['word', '--y=1']);
    assert.deepEqual(scan('-', '--y=1').rest, ['-', '--y=1']);
    assert.deepEqual(scan('', '--y=1').rest, ['', '--y=1']);
  });

  for (const word of ['-h', '--h', '-help', '--help', '--help=no']) {
    it(`asks for help with ${word}, whatever follows`, () => {
      assert.equal(scan('--name=x', word, '---').isHelpWanted, true);
    });
  }

  for (const word of ['---name', '--=x', '-=', '---']) {
    it(`refuses ${word}`, () => {
      assert.throws(
        () => scan(word),
        (error) => isOverlayError(error, 'ERR_FLAG') && error.message.includes(word),
      );
    });
  }

  it('refuses a value flag at the end', () => {
    assert.throws(
      () => scan('--name'),
      (error) => isOverlayError(error, 'ERR_FLAG') && error.hint === 'write --name=value',
    );
  });

  it('never loses or invents a word', () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom('--a=1', '--is-b', '-c', 'd', '--', '-', '--e=')), (argv) => {
        let scanned;
        try {
          scanned = scan(...argv);
        } catch (error) {
          assert.ok(isOverlayError(error, 'ERR_FLAG'));
          assert.equal(argv.at(-1), '-c', 'only a missing value is an error here');
          return;
        }
        const taken = scanned.settings.flatMap(({ name, value }) =>
          name === 'c' ? ['-c', value] : name === 'is-b' ? ['--is-b'] : [`--${name}=${value}`],
        );
        const isEnded = argv[taken.length] === '--';
        assert.deepEqual([...taken, ...(isEnded ? ['--'] : []), ...scanned.rest], argv);
      }),
    );
  });
});

describe('parseGoBool', () => {
  it('takes the twelve spellings of Go and no other', () => {
    for (const text of ['1', 't', 'T', 'true', 'TRUE', 'True']) assert.equal(parseGoBool(text), true);
    for (const text of ['0', 'f', 'F', 'false', 'FALSE', 'False']) assert.equal(parseGoBool(text), false);
    for (const text of ['', 'yes', 'on', 'tRUE', ' true', '2', 'no']) assert.equal(parseGoBool(text), undefined);
  });
});

describe('parseGoInt', () => {
  for (const [text, value] of [
    ['0', 0],
    ['-0', 0],
    ['+7', 7],
    ['-7', -7],
    ['0x1F', 31],
    ['-0x1f', -31],
    ['0X_1f', 31],
    ['0o17', 15],
    ['0O17', 15],
    ['017', 15],
    ['0_7', 7],
    ['00', 0],
    ['0b101', 5],
    ['1_000', 1000],
  ] as const) {
    it(`reads ${text} as ${value}`, () => assert.equal(parseGoInt(text), value));
  }

  for (const text of [
    '',
    '-',
    '08',
    '0x',
    '0b2',
    '1__0',
    '_1',
    '1_',
    '1.0',
    '1e3',
    ' 1',
    '١',
    '99999999999999999999',
  ]) {
    it(`refuses "${text}"`, () => assert.equal(parseGoInt(text), undefined));
  }

  it('reads every integer in every base', () => {
    fc.assert(
      fc.property(
        fc.maxSafeInteger(),
        fc.constantFrom<[number, string][]>([10, ''], [16, '0x'], [8, '0o'], [8, '0'], [2, '0b']),
        (value, [base, prefix]) => {
          const text = `${value < 0 ? '-' : ''}${prefix}${Math.abs(value).toString(base)}`;
          assert.equal(parseGoInt(text), value);
        },
      ),
    );
  });
});
