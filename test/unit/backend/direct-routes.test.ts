import assert from 'node:assert/strict';
import { directRoutes } from '../../../src/backend/direct-routes.js';
import { ADDITIONAL_METRIC } from '../../../src/backend/families.js';
import type { PeerReach } from '../../../src/container/peer-reach.js';
import { ip, lease, net } from '../../support/builders.js';

const FAR = ip('203.0.113.2');

const peer = (changes: Partial<PeerReach> = {}): PeerReach => ({
  lease: lease(2),
  direct: [net('10.99.0.0/28'), net('fd00:99::40/122')],
  overlay: [net('10.97.0.0/28')],
  gateways: { 4: ip('192.0.2.2'), 6: ip('2001:db8::2') },
  ...changes,
});

describe('directRoutes', () => {
  const isOnLink = (address: { equals(other: typeof FAR): boolean }): boolean => !address.equals(FAR);

  it('leads via the host of the containers, in both families, behind routes to containers here', () => {
    const { routes, skipped } = directRoutes([peer()], 'eth0', isOnLink);
    const common = { type: 'unicast', device: 'eth0', isOnlink: false, metric: ADDITIONAL_METRIC };
    assert.deepEqual(routes, [
      { ...common, destination: net('10.99.0.0/28'), gateway: ip('192.0.2.2') },
      { ...common, destination: net('fd00:99::40/122'), gateway: ip('2001:db8::2') },
    ]);
    assert.deepEqual(skipped, []);
  });

  it('leaves what is behind a router to that, and says so', () => {
    const { routes, skipped } = directRoutes([peer({ gateways: { 4: FAR, 6: ip('2001:db8::2') } })], 'eth0', isOnLink);
    assert.deepEqual(
      routes.map(({ destination }) => destination.toString()),
      ['fd00:99::40/122'],
    );
    assert.deepEqual(
      skipped.map(({ cause, prefixes }) => [cause, prefixes.map(String)]),
      [['off-link', ['10.99.0.0/28']]],
    );
    assert.match(skipped[0]?.reason ?? '', /203\.0\.113\.2 is not on the link of eth0/);
  });

  it('says of which family a host has told no address, if it has containers there', () => {
    const gateways = { 4: ip('192.0.2.2') };
    const { skipped } = directRoutes(
      [peer({ gateways }), peer({ gateways, direct: [net('10.99.0.16/28')] })],
      'eth0',
      isOnLink,
    );
    assert.deepEqual(
      skipped.map(({ cause, reason }) => [cause, reason]),
      [['address', 'it has told no IPv6 address']],
    );
  });
});
