import assert from 'node:assert/strict';
import { readNetwork } from '../../../src/backend/network.js';
import { BACKENDS } from '../../../src/backend/registry.js';

const text = (backend: object): string => JSON.stringify({ Network: '10.5.0.0/16', Backend: backend });

describe('readNetwork', () => {
  it('gives the network, the backend with its options and the keys that nobody reads', () => {
    const { network, backend, unknownKeys } = readNetwork(text({ Type: 'UDP', PORT: 9000, VNI: 1 }));
    assert.equal(network.backendType, 'udp');
    assert.deepEqual(backend.carrier, { protocol: 'udp', port: 9000 });
    assert.deepEqual(unknownKeys, ['Backend.vni']);
  });

  it('refuses a backend that there is not', () => {
    assert.throws(() => readNetwork(text({ Type: 'gre' })), { code: 'ERR_BACKEND_UNKNOWN' });
  });

  for (const { type, optionKeys } of BACKENDS.filter((backend) => backend.optionKeys.length > 0)) {
    it(`refuses each key of ${type} with a value of the wrong type, and knows it`, () => {
      for (const key of optionKeys) {
        assert.throws(() => readNetwork(text({ Type: type, [key]: {} })), {
          code: 'ERR_BACKEND_OPTION',
          // What should be a secret may be one all the same.
          message: `cannot use backend ${type}: Backend.${key} is ${key === 'PSK' ? 'not a text' : '{}'}`,
        });
      }
      assert.deepEqual(
        readNetwork(text({ Type: type, ...Object.fromEntries(optionKeys.map((key) => [key, null])) })).unknownKeys,
        [],
      );
    });
  }
});
