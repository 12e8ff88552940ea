import assert from 'node:assert/strict';
import fc from 'fast-check';
import {
  type DesiredState,
  EMPTY_STATE,
  type Kinds,
  LISTS,
  OBJECT_KINDS,
  type ObjectKind,
  type RouteSpec,
} from '../../../src/reconcile/desired.js';
import { finish } from '../../support/steps.js';
import { DesiredIndex } from '../../../src/reconcile/desired-index.js';
import { fieldsBy, isIdentical } from '../../../src/reconcile/equality.js';
import { routeKey } from '../../../src/reconcile/kinds/route.js';
import type { ObjectKey } from '../../../src/reconcile/object-key.js';
import { SpecList } from '../../../src/reconcile/spec-list.js';
import { ip, mac, net, tunnelSpec } from '../../support/builders.js';
import { type Changes, LINK_CHANGES } from '../../support/link-changes.js';
import { secretOf } from '../../support/wireguard-contract.js';

interface Spec {
  readonly name: number;
  readonly value: number;
}

const keyOf = ({ name }: Spec): ObjectKey => `sysctl ${name}`;

const route = (n: number, device = 'eth0'): RouteSpec => ({
  destination: net(`10.5.${n}.0/24`),
  type: 'unicast',
  device,
  gateway: ip(`192.0.2.${n}`),
  isOnlink: false,
});

const routes = (...list: RouteSpec[]): DesiredState => ({ ...EMPTY_STATE, routes: list });

describe('SpecList', () => {
  const specs = fc.array(fc.record({ name: fc.nat(12), value: fc.nat(2) }), { maxLength: 12 });
  const distinct = fc.uniqueArray(fc.record({ name: fc.nat(12), value: fc.nat(2) }), {
    maxLength: 12,
    selector: ({ name }) => name,
  });
  const make = (): SpecList<Spec> =>
    new SpecList({ keyOf, isSame: fieldsBy<Spec>({ name: isIdentical, value: isIdentical }) });

  it('names exactly what was added, removed or altered, whatever the order of the lists', () => {
    fc.assert(
      fc.property(fc.array(distinct, { maxLength: 6 }), (lists) => {
        const list = make();
        let before = new Map<ObjectKey, number>();
        let previous: readonly Spec[] = [];
        for (const next of lists) {
          const changed = new Set<ObjectKey>();
          finish(list.update(previous, next, changed));
          previous = next;
          const after = new Map(next.map((spec) => [keyOf(spec), spec.value]));
          const keys = [...new Set([...before.keys(), ...after.keys()])];
          assert.deepEqual([...changed].sort(), keys.filter((key) => before.get(key) !== after.get(key)).sort());
          assert.deepEqual(new Map(Array.from(list.entries(), ([key, spec]) => [key, spec.value])), after);
          before = after;
        }
      }),
    );
  });

  it('finds one of several with the same key, and none that is gone', () => {
    fc.assert(
      fc.property(fc.array(specs, { maxLength: 6 }), (lists) => {
        const list = make();
        let previous: readonly Spec[] = [];
        for (const next of lists) {
          const before = new Map(list.entries());
          const changed = new Set<ObjectKey>();
          finish(list.update(previous, next, changed));
          previous = next;
          assert.equal(list.size, new Set(next.map(keyOf)).size);
          for (const [key, spec] of list.entries())
            assert.ok(next.some((one) => keyOf(one) === key && one.value === spec.value));
          for (const key of new Set([...before.keys(), ...next.map(keyOf)])) {
            const isDifferent = before.get(key)?.value !== list.get(key)?.value;
            assert.equal(changed.has(key), isDifferent, key);
            if (!isDifferent) assert.equal(list.get(key), before.get(key), 'keeps the object of what did not change');
          }
        }
      }),
    );
  });
});

describe('DesiredIndex', () => {
  it('gives the same for a state in parts as for all of it in one piece, after any history', () => {
    const part = fc.record({
      // Two parts may have a route with the same key, and a part may be listed twice.
      routes: fc.uniqueArray(fc.integer({ min: 2, max: 7 }), { maxLength: 2 }),
      device: fc.constantFrom('eth0', 'eth1'),
    });
    const pool = fc.array(part, { minLength: 1, maxLength: 8 });
    const lists = fc.array(fc.record({ base: fc.nat(3), picks: fc.array(fc.nat(7), { maxLength: 8 }) }), {
      maxLength: 8,
    });
    fc.assert(
      fc.property(pool, lists, (specs, history) => {
        const parts = specs.map(({ routes: numbers, device }) => ({ routes: numbers.map((n) => route(n, device)) }));
        const inParts = new DesiredIndex();
        let wereRoutes = new Map<ObjectKey, RouteSpec>();
        for (const { base, picks } of history) {
          const chosen = picks.flatMap((pick) => parts[pick] ?? []);
          const own = routes(...(base === 0 ? [] : [route(base, 'flannel0')]));
          const all = [own, ...chosen].flatMap((each) => each.routes);
          const changed = finish(inParts.update(own, chosen));
          const nowRoutes = new Map(inParts.routes.entries());
          assert.deepEqual(
            [...nowRoutes.keys()].sort(),
            [...new Set(all.map((spec) => routeKey(spec.destination)))].sort(),
          );
          for (const [key, spec] of nowRoutes) {
            assert.ok(
              all.some((each) => each.device === spec.device && routeKey(each.destination) === key),
              key,
            );
          }
          for (const key of new Set([...wereRoutes.keys(), ...nowRoutes.keys()])) {
            const isDifferent = wereRoutes.get(key)?.device !== nowRoutes.get(key)?.device;
            assert.equal(changed.has(key), isDifferent, key);
            if (!isDifferent) assert.equal(nowRoutes.get(key), wereRoutes.get(key), 'keeps what did not change');
          }
          for (const device of ['eth0', 'eth1', 'flannel0']) {
            assert.equal(
              inParts.refersTo(device),
              all.some((spec) => spec.device === device),
              device,
            );
          }
          wereRoutes = nowRoutes;
        }
      }),
      { numRuns: 300 },
    );
  });

  it('compares by value, not by identity', () => {
    const index = new DesiredIndex();
    assert.deepEqual([...finish(index.update(routes(route(2), route(3))))], ['route 10.5.2.0/24', 'route 10.5.3.0/24']);
    assert.deepEqual([...finish(index.update(routes(route(3), route(2))))], []);
    assert.deepEqual([...finish(index.update(routes(route(3, 'eth1'), route(2))))], ['route 10.5.3.0/24']);
    assert.deepEqual([...finish(index.update(EMPTY_STATE))].sort(), ['route 10.5.2.0/24', 'route 10.5.3.0/24']);
  });

  const device = 'flannel.1';
  const others: { readonly [K in Exclude<ObjectKind, 'link'>]: readonly [Changes<Kinds[K]>] } = {
    address: [
      [
        { device, address: ip('10.5.1.0'), length: 32 },
        { device: ['flannel.2'], address: [ip('10.5.1.1')], length: [24], noPrefixRoute: [true] },
      ],
    ],
    route: [
      [
        { ...route(2), metric: 7 },
        {
          destination: [net('10.5.3.0/24')],
          type: ['blackhole'],
          device: ['eth1', undefined],
          gateway: [ip('192.0.2.9'), undefined],
          isOnlink: [true],
          metric: [8],
        },
      ],
    ],
    neighbour: [
      [
        { device, address: ip('10.5.2.0'), mac: mac(2) },
        { device: ['flannel.2'], address: [ip('10.5.3.0')], mac: [mac(3)] },
      ],
    ],
    fdb: [
      [
        { device, mac: mac(2), destination: ip('192.0.2.2') },
        { device: ['flannel.2'], mac: [mac(3)], destination: [ip('192.0.2.3')] },
      ],
    ],
    'proxy-neighbour': [
      [
        { device, address: ip('2001:db8::2') },
        { device: ['eth1'], address: [ip('2001:db8::3')] },
      ],
    ],
    filter: [
      [
        { device, direction: 'ingress', stations: [mac(2)] },
        { device: ['flannel.2'], direction: ['egress'], stations: [[], [mac(3)], [mac(2), mac(3)]] },
      ],
    ],
    port: [
      [
        { device, bridge: 'tsfb-1', isIsolated: false, isHairpin: false },
        { device: ['flannel.2'], bridge: ['tsfb-2'], isIsolated: [true], isHairpin: [true] },
      ],
    ],
    wireguard: [
      [
        { device, privateKey: secretOf(1), listenPort: 51820 },
        { device: ['flannel.2'], privateKey: [secretOf(2)], listenPort: [51821] },
      ],
    ],
    'wireguard-peer': [
      [
        {
          device,
          publicKey: secretOf(2).publicKey,
          presharedKey: secretOf(7),
          endpoint: { address: ip('192.0.2.2'), port: 51820 },
          keepaliveSeconds: 0,
          allowedIps: [net('10.5.2.0/24')],
        },
        {
          device: ['flannel.2'],
          publicKey: [secretOf(3).publicKey],
          presharedKey: [secretOf(8), undefined],
          endpoint: [
            { address: ip('192.0.2.3'), port: 51820 },
            { address: ip('192.0.2.2'), port: 51821 },
          ],
          keepaliveSeconds: [25],
          allowedIps: [[], [net('10.5.3.0/24')], [net('10.5.2.0/24'), net('10.5.3.0/24')]],
        },
      ],
    ],
    sysctl: [
      [
        { path: 'a/b', value: '0', keptWhile: { path: 'a', value: '1' } },
        {
          path: ['a/c'],
          value: ['1'],
          from: ['0'],
          isRestored: [true],
          keptWhile: [undefined, { path: 'b', value: '1' }, { path: 'a', value: '0' }],
        },
      ],
    ],
    tunnel: [
      [
        tunnelSpec({ peers: [{ subnet: net('10.5.2.0/24'), publicIp: ip('192.0.2.2') }] }),
        {
          device: ['flannel1'],
          bindAddress: [ip('192.0.2.9')],
          port: [1],
          mtu: [1400],
          verifySource: ['strict'],
          icmpSource: [ip('10.5.9.0')],
          ownPrefixes: [[], [net('10.5.1.0/24'), net('192.0.2.9/32')]],
          peers: [
            [],
            [{ subnet: net('10.5.2.0/24'), publicIp: ip('192.0.2.3') }],
            [{ subnet: net('10.5.2.0/24'), publicIp: ip('192.0.2.2'), isKernelPeer: true }],
          ],
          uplink: [{ device: 'eth0', index: 2 }],
        },
      ],
    ],
  };

  for (const kind of OBJECT_KINDS) {
    it(`notices a change of every field of a ${kind}`, () => {
      const changes: readonly (readonly [object, object])[] =
        kind === 'link' ? Object.values(LINK_CHANGES) : others[kind];
      for (const [object, fields] of changes) {
        const stateOf = (one: object): DesiredState => ({ ...EMPTY_STATE, [LISTS[kind]]: [one] });
        for (const [field, values] of Object.entries(fields) as [string, readonly unknown[]][]) {
          for (const value of values) {
            const index = new DesiredIndex();
            finish(index.update(stateOf(object)));
            assert.equal(finish(index.update(stateOf({ ...object }))).size, 0);
            const changed = finish(index.update(stateOf({ ...object, [field]: value })));
            assert.ok(changed.size > 0, `${field} of ${JSON.stringify(object)}`);
          }
        }
      }
    });
  }

  it('knows which devices matter', () => {
    const index = new DesiredIndex();
    finish(
      index.update({ ...routes(route(2)), links: [{ kind: 'tun', name: 'flannel0', mtu: 1472, txQueueLength: 500 }] }),
    );
    assert.deepEqual(
      ['eth0', 'flannel0', 'eth1'].map((name) => index.refersTo(name)),
      [true, true, false],
    );
    finish(index.update(EMPTY_STATE));
    assert.equal(index.refersTo('eth0'), false);
  });
});
