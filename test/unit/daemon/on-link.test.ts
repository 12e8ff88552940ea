import assert from 'node:assert/strict';
import { OnLinkCache, type RouteAnswer } from '../../../src/daemon/on-link.js';
import { ip } from '../../support/builders.js';

function rig(routes: Record<string, RouteAnswer>): { cache: OnLinkCache; asked: string[] } {
  const asked: string[] = [];
  const cache = new OnLinkCache((address) => {
    asked.push(address.toString());
    return Promise.resolve(routes[address.toString()]);
  });
  return { cache, asked };
}

describe('on-link cache', () => {
  const near = ip('192.0.2.2');
  const far = ip('198.51.100.2');
  const routes = { '192.0.2.2': { ifindex: 2, gateway: undefined }, '198.51.100.2': { ifindex: 2, gateway: near } };

  it('tells addresses behind a gateway, on other devices and without a route from those on the link', async () => {
    const { cache } = rig({ ...routes, '192.0.2.3': { ifindex: 3, gateway: undefined } });
    await cache.refresh([near, far, ip('192.0.2.3'), ip('203.0.113.1')], 2);
    const answers = [near, far, ip('192.0.2.3'), ip('203.0.113.1'), ip('192.0.2.99')].map((a) => cache.isOnLink(a));
    assert.deepEqual(answers, [true, false, false, false, false]);
  });

  it('asks the kernel once for each address until told to forget', async () => {
    const { cache, asked } = rig(routes);
    assert.equal(await cache.refresh([near], 2), true);
    assert.equal(await cache.refresh([near, far], 2), true);
    assert.equal(await cache.refresh([near, far], 2), false);
    assert.deepEqual(asked, ['192.0.2.2', '198.51.100.2']);
    cache.forget();
    assert.equal(await cache.refresh([near, far], 2), false);
    assert.equal(asked.length, 4);
  });

  it('tells the MTU of a route that has one, and when it is another one', async () => {
    const answers: Record<string, RouteAnswer> = { '192.0.2.2': { ifindex: 2, gateway: undefined, mtu: 1400 } };
    const { cache } = rig(answers);
    await cache.refresh([near, far], 2);
    assert.deepEqual([cache.routeMtu(near), cache.routeMtu(far), cache.isOnLink(near)], [1400, undefined, true]);
    answers['192.0.2.2'] = { ifindex: 2, gateway: undefined };
    cache.forget();
    assert.equal(await cache.refresh([near, far], 2), true);
    assert.equal(cache.routeMtu(near), undefined);
  });

  it('asks again when the underlay device is another one', async () => {
    const { cache } = rig(routes);
    await cache.refresh([near], 2);
    assert.equal(await cache.refresh([near], 7), true);
    assert.equal(cache.isOnLink(near), false);
  });
});
