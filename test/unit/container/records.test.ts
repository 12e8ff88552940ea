import assert from 'node:assert/strict';
import fc from 'fast-check';
import {
  PoolPaths,
  decodeBlock,
  decodeHolder,
  decodeRecord,
  encodeBlock,
  encodeHolder,
  encodeRecord,
  parsePoolPath,
  parseRequestPath,
} from '../../../src/container/records.js';
import { ip, net } from '../../support/builders.js';

describe('what hosts tell each other about addresses', () => {
  const network = { name: 'lan', subnet: net('10.10.10.0/24') };
  const paths = new PoolPaths(network);

  it('lies under paths that say what it is about', () => {
    assert.deepEqual(
      [
        paths.record,
        paths.host('a'),
        paths.block(net('10.10.10.16/28')),
        paths.container(ip('10.10.10.7')),
        paths.shared(ip('10.10.10.7'), 'a'),
        paths.request('b', ip('10.10.10.7')),
      ],
      [
        'network-records/lan/10.10.10.0-24',
        'networks/lan/10.10.10.0-24/hosts/a',
        'networks/lan/10.10.10.0-24/blocks/10.10.10.16-28',
        'networks/lan/10.10.10.0-24/addresses/10.10.10.7/container',
        'networks/lan/10.10.10.0-24/addresses/10.10.10.7/shared-a',
        'address-requests/b/lan/10.10.10.0-24/10.10.10.7',
      ],
    );
    assert.ok(!paths.container(ip('10.10.10.77')).startsWith(paths.address(ip('10.10.10.7'))));
  });

  it('is read as it was written', () => {
    const block = { host: 'a', own: 0xffff_ffff_ffff_fff0n, used: 0x10n };
    assert.deepEqual(decodeBlock(encodeBlock(block)), block);
    const holder = { host: 'a', kind: 'auxiliary' } as const;
    assert.deepEqual(decodeHolder(encodeHolder(holder)), holder);
    const record = { range: net('10.10.10.128/25'), properties: { vlan: '19', type: 'macvlan' } };
    assert.deepEqual(JSON.stringify(decodeRecord(encodeRecord(record))?.properties), '{"type":"macvlan","vlan":"19"}');
    assert.equal(decodeRecord(encodeRecord({ ...record, properties: undefined }))?.properties, undefined);
    const request = parseRequestPath('b', paths.request('b', ip('10.10.10.7')));
    assert.deepEqual(JSON.stringify(request), '{"name":"lan","subnet":"10.10.10.0/24","address":"10.10.10.7"}');
    assert.deepEqual(parsePoolPath('-/10.10.10.0-24')?.name, undefined);
  });

  for (const [what, read, texts] of [
    [
      'block',
      decodeBlock,
      [
        '{"host":"a","own":"f"}',
        '{"host":"a","own":"00000000000000000","used":"0"}',
        '{"host":"a","own":"-1","used":"0"}',
        '{"host":"a/b","own":"f","used":"0"}',
        '{"host":"","own":"f","used":"0"}',
        `{"host":"${'a'.repeat(65)}","own":"f","used":"0"}`,
        `{"host":"a","own":"f","used":"0","x":"${'x'.repeat(20_000)}"}`,
      ],
    ],
    ['holder', decodeHolder, ['', 'null', '[]', '{"host":"a"}', '{"host":"a","kind":"x"}', '{"kind":"container"}']],
    [
      'record',
      decodeRecord,
      [
        '{}',
        '{"range":"10.10.10.1-24"}',
        '{"range":"10.10.10.0-24","properties":[]}',
        '{"range":"10.10.10.0-24","properties":{"a":1}}',
        `{"range":"10.10.10.0-24","properties":{"a":"${'x'.repeat(257)}"}}`,
        JSON.stringify({
          range: '10.10.10.0-24',
          properties: Object.fromEntries(Array.from({ length: 33 }, (_, index) => [`p${index}`, ''])),
        }),
      ],
    ],
  ] as const) {
    it(`is no ${what} if anything about it is wrong`, () => {
      for (const text of texts) assert.equal(read(text), undefined, text.slice(0, 100));
      fc.assert(fc.property(fc.string(), (text) => read(text) === undefined || text.includes('"')));
    });
  }

  it('does not claim that addresses are used which are not its own', () => {
    assert.deepEqual(decodeBlock('{"host":"a","own":"3","used":"6"}'), { host: 'a', own: 3n, used: 2n });
  });

  it('is no request if its path is not one', () => {
    for (const rest of [
      '',
      'lan',
      'lan/10.10.10.0-24',
      'lan/10.10.10.0-24/x',
      '../10.10.10.0-24/10.10.10.7',
      '-/x/y/z',
    ]) {
      assert.equal(parseRequestPath('b', `address-requests/b/${rest}`), undefined, rest);
    }
  });
});
