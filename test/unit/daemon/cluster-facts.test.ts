import assert from 'node:assert/strict';
import { clusterFacts } from '../../../src/daemon/cluster-facts.js';
import { lease, net } from '../../support/builders.js';

describe('clusterFacts', () => {
  it('has the addresses under which other hosts call containers: of the underlay and of their tunnel devices', () => {
    const { containers, hosts } = clusterFacts([net('10.5.0.0/16')], [lease(2, { isDualStack: true }), lease(3)]);
    assert.deepEqual(containers.map(String), ['10.5.0.0/16']);
    assert.deepEqual(hosts.map(String), [
      ...['192.0.2.2', '2001:db8::2', '10.5.2.0', 'fd00:10:5:2::'],
      ...['192.0.2.3', '10.5.3.0'],
    ]);
  });
});
