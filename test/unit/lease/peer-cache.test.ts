import assert from 'node:assert/strict';
import { decodePeerCache, encodePeerCache } from '../../../src/lease/peer-cache.js';
import { lease } from '../../support/builders.js';

describe('peer cache', () => {
  const some = [
    lease(2, { type: 'vxlan', data: { VNI: 1, VtepMAC: '02:00:00:00:00:02' } }),
    { ...lease(3, { isDualStack: true }), isReservation: true, revision: '77', createdAt: '70' },
  ];

  it('survives writing and reading', () => {
    assert.deepEqual(
      JSON.parse(JSON.stringify(decodePeerCache(encodePeerCache(some)))),
      JSON.parse(JSON.stringify(some)),
    );
    assert.deepEqual(decodePeerCache(encodePeerCache([])), []);
  });

  it('takes the age of a lease from its revision in a file of 0.1.0, which does not tell', () => {
    const text = encodePeerCache(some).replaceAll(/"createdAt":"\d+",/g, '');
    assert.deepEqual(
      decodePeerCache(text).map(({ createdAt }) => createdAt),
      ['1', '77'],
    );
  });

  for (const [title, text] of [
    ['nothing', ''],
    ['half a file', encodePeerCache(some).slice(0, 100)],
    ['another version', '{"version":2,"leases":[]}'],
    ['no object', 'null'],
    ['a bad key', '{"version":1,"leases":[{"key":"x","value":"{}","revision":"1"}]}'],
    ['a bad value', '{"version":1,"leases":[{"key":"10.5.1.0-24","value":"[]","revision":"1"}]}'],
    ['no revision', '{"version":1,"leases":[{"key":"10.5.1.0-24","value":"{}"}]}'],
    ['no lease', '{"version":1,"leases":[null]}'],
  ] as const) {
    it(`is refused with a reason if it has ${title}`, () => {
      assert.throws(() => decodePeerCache(text), { code: 'ERR_PEER_CACHE' });
    });
  }
});
