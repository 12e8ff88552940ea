import assert from 'node:assert/strict';
import type { Netlink } from '../../../src/netlink/netlink.js';
import type { RouteInfo } from '../../../src/netlink/route.js';
import { routeKey, routeKind } from '../../../src/reconcile/kinds/route.js';
import { ip, net } from '../../support/builders.js';
import { routeInfo } from '../../support/fake-kernel.js';

const DESTINATION = net('10.5.2.0/24');

// Of several routes to one destination the kernel deletes the first that agrees with everything that is named.
describe('the deletion of a route', () => {
  /** What the kernel is asked for. */
  function asked(changes: Partial<RouteInfo>): unknown {
    const route = routeInfo(DESTINATION, {
      index: 2,
      gateway: ip('192.0.2.2'),
      protocol: 4,
      scope: 'link',
      tos: 16,
      metric: 7,
      ...changes,
    });
    const requests: unknown[] = [];
    const netlink = { routes: { del: (request: unknown) => requests.push(request) } } as unknown as Netlink;
    const key = routeKey(DESTINATION, 7);
    const isDone = routeKind.carryOut(
      netlink,
      { kind: 'route', verb: 'del', key, reason: 'unexpected', device: 'eth0', route },
      () => assert.fail('its device is in the route'),
    );
    assert.equal(isDone, true);
    assert.equal(requests.length, 1);
    return requests[0];
  }

  const common = { destination: DESTINATION, scope: 'link', protocol: 4, metric: 7, tos: 16 };

  it('names all that tells it from others', () => {
    assert.deepEqual(asked({}), { ...common, type: 'unicast', index: 2, gateway: ip('192.0.2.2') });
  });

  it('names no way where it has none, several, or that of a next hop object', () => {
    const hops = [2, 3].map((index) => ({ index, gateway: undefined })) as unknown as RouteInfo['multipath'];
    for (const multipath of [hops, hops.slice(1)]) {
      assert.deepEqual(asked({ multipath }), { ...common, type: 'unicast' });
    }
    assert.deepEqual(asked({ nexthopId: 1 }), { ...common, type: 'unicast' });
    assert.deepEqual(asked({ type: 'blackhole', index: 0, gateway: undefined }), { ...common, type: 'blackhole' });
  });
});
