import assert from 'node:assert/strict';
import { findLease } from '../../../src/ctl/find-lease.js';
import { isOverlayError } from '../../../src/errors.js';
import type { HostStatus } from '../../../src/lease/host-status.js';
import type { LeaseSnapshot } from '../../../src/lease/store.js';
import { ip } from '../../support/builders.js';
import { leaseRecord } from '../../support/lease-world.js';

const leases = [3, 4, 5].map((number) =>
  leaseRecord(number, {
    subnets: `10.5.${number}.0-24&fd00:10:5:${number}::-64`,
    attributes: { publicIpv6: ip(`2001:db8::${number}`) },
  }),
);
const SNAPSHOT: LeaseSnapshot = { leases, bad: [], revision: '10' };

const host = (hostName: string): HostStatus => ({ hostName, version: '', leaseKey: '', leaseSince: '' });
const HOSTS = new Map([
  ['192.0.2.3', host('alpha.example.org')],
  ['192.0.2.4', host('Beta')],
  ['192.0.2.5', host('alpha')],
]);

describe('findLease', () => {
  for (const [word, number] of [
    ['10.5.4.0/24', 4],
    ['10.5.4.1/24', 4], // as FLANNEL_SUBNET has it
    ['10.5.4.0-24', 4],
    ['10.5.4.0-24&fd00:10:5:4::-64', 4],
    ['fd00:10:5:4::/64', 4],
    ['192.0.2.4', 4],
    ['2001:db8::4', 4],
    ['10.5.4.77', 4],
    ['fd00:10:5:4::77', 4],
    ['beta', 4],
    ['alpha.example.org', 3],
    ['ALPHA', 5], // the whole name goes before the first part of another one
  ] as const) {
    it(`finds ${word}`, () => assert.equal(findLease(SNAPSHOT, HOSTS, word), SNAPSHOT.leases[number - 3]));
  }

  for (const word of ['gamma', '10.5.9.1', '10.5.9.0/24', '10.5.0.0/16', 'fd00::/64', 'example', '']) {
    it(`finds nothing for "${word}"`, () => {
      assert.throws(
        () => findLease(SNAPSHOT, HOSTS, word),
        (error) => isOverlayError(error, 'ERR_NOT_FOUND'),
      );
    });
  }

  it('says what is wrong with a subnet', () => {
    assert.throws(
      () => findLease(SNAPSHOT, HOSTS, '10.5.9.0/99'),
      (error) => isOverlayError(error, 'ERR_IP_SYNTAX'),
    );
  });

  it('chooses none of several hosts with one name', () => {
    const hosts = new Map([...HOSTS, ['192.0.2.4', host('alpha')] as const]);
    assert.throws(
      () => findLease(SNAPSHOT, hosts, 'alpha'),
      (error) =>
        isOverlayError(error, 'ERR_NOT_FOUND') && /name one of 10\.5\.4\.0-24&\S+, 10\.5\.5/.test(error.hint ?? ''),
    );
  });
});
