import assert from 'node:assert/strict';
import { clusterFacts } from '../../../src/daemon/cluster-facts.js';
import { ip, lease, net } from '../../support/builders.js';

describe('clusterFacts', () => {
  it('has the addresses under which other hosts call containers: of the underlay and of their tunnel devices', () => {
    const around = { filtered: [net('10.30.0.0/16')], hosts: [ip('2001:db8::3')] };
    const peers = [lease(2, { isDualStack: true }), lease(3)];
    const { overlay, routed, hosts } = clusterFacts([net('10.5.0.0/16')], peers, around);
    assert.deepEqual([overlay, routed].map(String), ['10.5.0.0/16', '10.30.0.0/16']);
    assert.deepEqual(hosts.map(String), [
      ...['192.0.2.2', '2001:db8::2', '10.5.2.0', 'fd00:10:5:2::'],
      ...['192.0.2.3', '10.5.3.0', '2001:db8::3'],
    ]);
  });
});
