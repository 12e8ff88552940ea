import assert from 'node:assert/strict';
import { leaseRecord } from '../../support/lease-world.js';
import { ownershipFaults } from '../../support/owners.js';

describe('ownershipFaults', () => {
  for (const [title, other, faults] of [
    ['nothing', leaseRecord(8), []],
    ['two hosts for one subnet', leaseRecord(8, { subnets: '10.5.7.0-24' }), ['10.5.7.0-24 and 10.5.7.0-24 overlap']],
    ['a subnet within another', leaseRecord(8, { subnets: '10.5.7.64-26' }), ['10.5.7.0-24 and 10.5.7.64-26 overlap']],
    ['a subnet around another', leaseRecord(8, { subnets: '10.5.0.0-20' }), ['10.5.7.0-24 and 10.5.0.0-20 overlap']],
    ['a host with two keys', leaseRecord(8, { host: 7 }), ['192.0.2.7 has 10.5.7.0-24 and 10.5.8.0-24']],
  ] as const) {
    it(`finds ${title}`, () => assert.deepEqual(ownershipFaults([leaseRecord(7), other]), faults));
  }

  it('finds IPv6 subnets that overlap', () => {
    const [one, two] = ['10.5.7.0-24&fd00:10:5:7::-64', '10.5.8.0-24&fd00:10:5::-48'];
    assert.deepEqual(ownershipFaults([leaseRecord(7, { subnets: one }), leaseRecord(8, { subnets: two })]), [
      `${one} and ${two} overlap`,
    ]);
  });
});
