import assert from 'node:assert/strict';
import { Request } from '../../../../src/docker/plugin/request.js';
import { isOverlayError } from '../../../../src/errors.js';

const of = (fields: object): Request => Request.parse(JSON.stringify(fields));

describe('a request of Docker', () => {
  it('has no fields where its body is empty', () => {
    assert.equal(Request.parse('').text('Any'), undefined);
  });

  it('takes null and an empty text for what is not there', () => {
    for (const value of [null, '', undefined]) {
      const request = of({ Field: value });
      assert.deepEqual(
        [
          request.text('Field'),
          request.address('Field'),
          request.prefix('Field'),
          request.mac('Field'),
          request.list('Field'),
        ],
        [undefined, undefined, undefined, undefined, []],
      );
    }
  });

  it('does not take what every object has for a field', () => {
    assert.equal(of({}).text('constructor'), undefined);
  });

  it('gives an address without a length the length of its family', () => {
    assert.equal(of({ A: '10.0.0.1' }).interfaceAddress('A')?.length, 32);
    assert.equal(of({ A: '2001:DB8::1' }).interfaceAddress('A')?.length, 128);
    const { address, length } = of({ A: '10.0.0.1/8' }).interfaceAddress('A') ?? {};
    assert.deepEqual([address?.toString(), length], ['10.0.0.1', 8]);
  });

  it('takes flags and numbers among options for texts', () => {
    assert.deepEqual(of({ O: { a: true, b: 'x', c: 7 } }).options('O'), { a: 'true', b: 'x', c: '7' });
  });

  const refusals: readonly (readonly [what: string, read: (request: Request) => unknown, value: unknown])[] = [
    ['a number for a text', (request) => request.text('F'), 7],
    ['a text without end', (request) => request.text('F'), 'x'.repeat(1025)],
    ['a path for an identifier', (request) => request.id('F'), '../../etc/passwd'],
    ['nothing for an identifier', (request) => request.id('F'), undefined],
    ['a word for a flag', (request) => request.flag('F'), 'maybe'],
    ['a name for an address', (request) => request.address('F'), 'localhost'],
    ['an address for a network', (request) => request.prefix('F'), '10.0.0.1'],
    ['the length of another family', (request) => request.interfaceAddress('F'), '10.0.0.1/64'],
    ['the MAC address of a group', (request) => request.mac('F'), '01:00:5e:00:00:01'],
    ['half a MAC address', (request) => request.mac('F'), '02:42'],
    ['a list for an object', (request) => request.nested('F'), []],
    ['an object for a list', (request) => request.list('F'), {}],
    ['options in options', (request) => request.options('F'), { a: { b: 'c' } }],
    [
      'options without end',
      (request) => request.options('F'),
      Object.fromEntries(Array.from({ length: 65 }, (_, n) => [n, ''])),
    ],
  ];
  for (const [what, read, value] of refusals) {
    it(`refuses ${what}, and names the field`, () => {
      assert.throws(
        () => read(of({ F: value })),
        (error) =>
          isOverlayError(error, 'ERR_PLUGIN_REQUEST') && error.message.startsWith('cannot use F: it has to be '),
      );
    });
  }

  for (const text of ['[]', 'null', '7', '"x"']) {
    it(`refuses ${text} for a body`, () => {
      assert.throws(
        () => Request.parse(text),
        (error) => isOverlayError(error, 'ERR_PLUGIN_REQUEST'),
      );
    });
  }
});
