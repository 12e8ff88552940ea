import assert from 'node:assert/strict';
import { mostSimilar } from '../../../src/config/similar.js';

const KNOWN = [
  'config',
  'leases',
  'status',
  'list',
  'config get',
  'config set',
  'leases reserve',
  'etcd-endpoints',
  'etcd-prefix',
];

describe('mostSimilar', () => {
  for (const [word, meant] of [
    ['confg', 'config'],
    ['stauts', 'status'],
    ['lsit', 'list'], // one exchange, where two wrong letters would be too many
    ['lease', 'leases'],
    ['config-get', 'config get'],
    ['reserve', 'leases reserve'],
    ['endpoints', 'etcd-endpoints'],
    ['etcd-end', 'etcd-endpoints'],
    ['etcd-prefixes', 'etcd-prefix'],
    ['config get all', 'config'],
  ] as const) {
    it(`takes "${word}" for "${meant}"`, () => assert.equal(mostSimilar(word, KNOWN), meant));
  }

  for (const word of ['', 'v', 'ps', 'remove', 'prefix-of-nothing']) {
    it(`takes "${word}" for nothing known`, () => assert.equal(mostSimilar(word, KNOWN), undefined));
  }
});
