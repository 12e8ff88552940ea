import assert from 'node:assert/strict';
import fc from 'fast-check';
import { type MacAddress, parseMac } from '../../../src/ip/mac.js';
import { stationProgram } from '../../../src/netlink/filter-program.js';
import type { IpipDetails, LinkDetails, VxlanDetails } from '../../../src/netlink/link-details.js';
import type { NetlinkEvent } from '../../../src/netlink/monitor.js';
import type { RouteInfo } from '../../../src/netlink/route.js';
import { ActualState } from '../../../src/reconcile/actual.js';
import { readActual } from '../../../src/reconcile/actual-reader.js';
import { EMPTY_STATE, ROUTE_PROTOCOL, type RouteSpec } from '../../../src/reconcile/desired.js';
import { DesiredIndex } from '../../../src/reconcile/desired-index.js';
import { follow, record } from '../../../src/reconcile/kinds/table.js';
import type { ObjectKey } from '../../../src/reconcile/object-key.js';
import type { Operation } from '../../../src/reconcile/operation.js';
import { Ownership } from '../../../src/reconcile/ownership.js';
import { ip, net, vxlanLink } from '../../support/builders.js';
import { FakeKernel, routeInfo } from '../../support/fake-kernel.js';
import { finish } from '../../support/steps.js';

const MARK = 'tsflannel:a';
const mac = (n: number): MacAddress => parseMac(`02:00:00:00:00:0${n}`);

const desired = new DesiredIndex();
finish(
  desired.update({
    ...EMPTY_STATE,
    routes: [
      {
        destination: net('10.5.9.0/24'),
        type: 'unicast',
        device: 'eth0',
        gateway: ip('192.0.2.9'),
        isOnlink: false,
      },
    ],
    links: [vxlanLink()],
    filters: [{ device: 'flannel.1', direction: 'ingress', stations: [] }],
  }),
);
const ownership = new Ownership({ instance: 'a', scope: [net('10.5.0.0/16')], staleDevices: [] }, desired);

const dump = (kernel: FakeKernel): Promise<ActualState> => readActual(kernel, desired, ownership);

/** Everything known, as sorted lines. */
function describeState(actual: ActualState): string[] {
  const lines = (map: ReadonlyMap<string, unknown>): string[] =>
    Array.from(map, ([key, value]) => `${key}: ${JSON.stringify(value)}`);
  const { links, addresses, neighbours, fdb, filters, routes } = actual;
  return [links, addresses, neighbours, fdb, filters, routes].flatMap(lines).sort();
}

/** A kernel with a device of ours and one of others, and a state that follows its events. */
class Follower {
  readonly kernel = new FakeKernel();
  readonly eth0 = this.kernel.addLink({ name: 'eth0', isUp: true });
  readonly ours = this.kernel.addLink({ name: 'flannel.1', kind: 'vxlan', isUp: true, alias: MARK });
  readonly events: NetlinkEvent[] = [];
  readonly subscription = this.kernel.subscribe((event) => this.events.push(event));
  actual = new ActualState(desired, ownership, 8472);
  readonly touched = new Set<ObjectKey>();

  async start(): Promise<this> {
    this.actual = await dump(this.kernel);
    return this;
  }

  /** @returns whether any event made the state doubtful. */
  follow(): boolean {
    this.subscription.drain();
    const doubts = this.events.splice(0).map((event) => follow(this.actual, event, this.touched));
    return doubts.includes(true);
  }
}

describe('ActualState', () => {
  it('is after any events what a dump would find, or knows that it may not be', async () => {
    const n = fc.integer({ min: 1, max: 4 });
    const indexes = fc.constantFrom(1, 2);
    const steps = fc.oneof(
      fc.tuple(indexes, n, n, fc.boolean()).map(([index, a, m, isPermanent]) => ({ kernel }: Follower) => {
        kernel.putNeighbour(index, ip(`10.5.${a}.0`), mac(m), isPermanent);
      }),
      fc.tuple(indexes, n).map(([index, a]) => ({ kernel }: Follower) => {
        kernel.delNeighbour(index, ip(`10.5.${a}.0`));
      }),
      fc.tuple(n, n, fc.boolean()).map(([m, d, isPermanent]) => ({ kernel, ours }: Follower) => {
        kernel.replaceFdb(ours.index, mac(m), ip(`192.0.2.${d}`), { isPermanent });
      }),
      n.map((m) => ({ kernel, ours }: Follower) => {
        kernel.delFdb(ours.index, mac(m));
      }),
      fc.tuple(indexes, n).map(([index, a]) => ({ kernel }: Follower) => {
        kernel.putAddress(index, ip(`10.5.${a}.0`), 32);
      }),
      fc
        .tuple(indexes, fc.constantFrom(1, 2, 9), n, fc.constantFrom(0, 7), fc.constantFrom('add', 'replace', 'append'))
        .map(([index, a, gateway, metric, verb]) => ({ kernel }: Follower) => {
          const destination = net(`10.5.${a}.0/24`);
          const isTaken = kernel.routes.get(destination.toString())?.some((route) => route.metric === metric) === true;
          if (verb === 'add' && isTaken) return;
          const more = { index, metric, gateway: ip(`192.0.2.${gateway}`), protocol: ROUTE_PROTOCOL };
          kernel.putRoute(routeInfo(destination, more), verb);
        }),
      fc.tuple(fc.constantFrom(1, 2, 9), fc.nat(3)).map(([a, at]) => ({ kernel }: Follower) => {
        const route = kernel.routes.get(`10.5.${a}.0/24`)?.[at];
        if (route !== undefined) kernel.delRoute(route);
      }),
      fc
        .tuple(indexes, fc.constantFrom('ingress', 'egress'), n)
        .map(([index, direction, m]) => ({ kernel }: Follower) => {
          kernel.replaceFilter({ index, direction, program: stationProgram(direction, [mac(m)]) });
        }),
      fc.tuple(indexes, fc.constantFrom('ingress', 'egress')).map(([index, direction]) => ({ kernel }: Follower) => {
        kernel.delFilter(index, direction);
      }),
      fc.tuple(indexes, fc.constantFrom(1400, 1500)).map(([index, mtu]) => ({ kernel }: Follower) => {
        kernel.setLink(index, { mtu });
      }),
      fc.tuple(indexes, n).map(([index, m]) => ({ kernel }: Follower) => {
        kernel.setLink(index, { mac: mac(m) });
      }),
      fc.tuple(indexes, n).map(([index, a]) => ({ kernel }: Follower) => {
        kernel.delAddress(index, ip(`10.5.${a}.0`), 32);
      }),
      indexes.map((index) => ({ kernel }: Follower) => {
        kernel.setLink(index, { isUp: false });
        kernel.setLink(index, { isUp: true });
      }),
    );
    let certain = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(steps, fc.boolean()), { maxLength: 12 }), async (sequence) => {
        const follower = await new Follower().start();
        for (const [step, isFollowed] of sequence) {
          step(follower);
          if (!isFollowed) continue;
          if (follower.follow()) return;
          assert.deepEqual(describeState(follower.actual), describeState(await dump(follower.kernel)));
          certain++;
        }
      }),
      { numRuns: 2000 },
    );
    assert.ok(certain > 1000, 'nearly every sequence ended in doubt');
  });

  it('takes no notice of the echo of what was recorded', async () => {
    const follower = await new Follower().start();
    const device = 'flannel.1';
    const key = 'neighbour flannel.1 10.5.2.0';
    const operation = { kind: 'neighbour', verb: 'replace', reason: 'missing', key, device, mac: mac(2) } as const;
    const made = { ...operation, address: ip('10.5.2.0') };
    follower.kernel.apply(made, () => follower.ours.index);
    record(follower.actual, made);
    assert.equal(follower.follow(), false);
    assert.equal(follower.touched.size, 0);
    follower.kernel.delNeighbour(follower.ours.index, ip('10.5.2.0'));
    follower.follow();
    assert.deepEqual([...follower.touched], [key]);
  });

  it('is after an operation of ours what a dump would find, whatever the kind, and takes no notice of the echo', async () => {
    const follower = await new Follower().start();
    const { kernel, ours, actual } = follower;
    const device = 'flannel.1';
    const common = { key: '', reason: 'missing', device } as const;
    const address = { ...common, kind: 'address', address: ip('10.5.1.0'), length: 32, peer: undefined } as const;
    const neighbour = { ...common, kind: 'neighbour', address: ip('10.5.2.0') } as const;
    const fdb = { ...common, kind: 'fdb', mac: mac(2) } as const;
    const filter = { ...common, kind: 'filter', direction: 'ingress' } as const;
    const route = { destination: net('10.5.2.0/24'), type: 'unicast', device, isOnlink: true } as const;
    const via = (n: number): RouteSpec => ({ ...route, gateway: ip(`10.5.2.${n}`) });
    const steps: readonly Operation[] = [
      { ...address, key: 'address flannel.1 10.5.1.0/32', verb: 'replace' },
      { ...neighbour, key: 'neighbour flannel.1 10.5.2.0', verb: 'replace', mac: mac(2) },
      { ...neighbour, key: 'neighbour flannel.1 10.5.2.0', verb: 'replace', mac: mac(3) },
      { ...fdb, key: `fdb flannel.1 ${mac(2)}`, verb: 'replace', destination: ip('192.0.2.2') },
      { ...fdb, key: `fdb flannel.1 ${mac(2)}`, verb: 'replace', destination: ip('192.0.2.3') },
      { ...filter, key: 'filter flannel.1 ingress', verb: 'replace', stations: [mac(2)] },
      { ...common, kind: 'route', key: 'route 10.5.2.0/24', verb: 'add', route: via(0) },
      { ...common, kind: 'route', key: 'route 10.5.2.0/24', verb: 'replace', route: via(1) },
      {
        ...common,
        kind: 'route',
        key: 'route 10.5.2.0/24 metric 7',
        verb: 'add',
        route: { ...via(0), metric: 7 },
      },
      { ...neighbour, key: 'neighbour flannel.1 10.5.2.0', verb: 'del', mac: undefined },
      { ...fdb, key: `fdb flannel.1 ${mac(2)}`, verb: 'del' },
    ];
    const carryOut = async (operation: Operation): Promise<void> => {
      const what = `${operation.verb} ${operation.key}`;
      kernel.apply(operation, () => ours.index);
      record(actual, operation);
      assert.deepEqual(describeState(actual), describeState(await dump(kernel)), what);
      follower.follow();
      assert.deepEqual([...follower.touched], [], what);
    };
    for (const step of steps) await carryOut(step);
    const made = kernel.routes.get('10.5.2.0/24') ?? [];
    for (const [at, key] of (['route 10.5.2.0/24', 'route 10.5.2.0/24 metric 7'] as const).entries()) {
      const each = made[at] ?? assert.fail(key);
      await carryOut({ kind: 'route', verb: 'del', key, reason: 'unexpected', device, route: each });
    }
    await carryOut({ ...address, key: 'address flannel.1 10.5.1.0/32', verb: 'del' });
    record(actual, { ...filter, key: 'filter flannel.1 ingress', verb: 'del', stations: [] });
    assert.equal(actual.filters.size, 0);
  });

  it('learns nothing from what rtnetlink tells of a forwarding entry after its device, which is without the way', async () => {
    const follower = await new Follower().start();
    const { kernel, ours } = follower;
    kernel.replaceFdb(ours.index, mac(2), ip('192.0.2.2'));
    follower.follow();
    follower.touched.clear();
    const [entry] = await kernel.listFdb(ours.index);
    assert.ok(entry);
    const event = { type: 'fdb', isDeleted: false, entry: { ...entry, destination: undefined } } as const;
    assert.equal(follow(follower.actual, event, follower.touched), false);
    assert.deepEqual([...follower.touched], []);
    assert.deepEqual(describeState(follower.actual), describeState(await dump(kernel)));
  });

  describe('on routes', () => {
    const destination = net('10.5.9.0/24');
    const plain = { gateway: ip('192.0.2.9'), protocol: ROUTE_PROTOCOL } as const;

    const started = async (...routes: readonly Partial<RouteInfo>[]): Promise<Follower> => {
      const follower = await new Follower().start();
      for (const more of routes) {
        follower.kernel.putRoute(routeInfo(destination, { index: follower.eth0.index, ...plain, ...more }), 'append');
      }
      follower.actual = await dump(follower.kernel);
      follower.follow();
      follower.touched.clear();
      return follower;
    };
    const heard = (follower: Follower, more: Partial<RouteInfo>, isDeleted = false, isReplacement = true): boolean => {
      const route = routeInfo(destination, { index: follower.eth0.index, ...plain, ...more });
      return follow(follower.actual, { type: 'route', isDeleted, isReplacement, route }, follower.touched);
    };

    for (const [field, value] of Object.entries({
      type: 'blackhole',
      protocol: 4,
      scope: 'link',
      prefsrc: ip('192.0.2.1'),
      index: 2,
      gateway: ip('192.0.2.7'),
      isOnlink: true,
      nexthopId: 7,
    } satisfies Partial<RouteInfo>)) {
      it(`notices another ${field}`, async () => {
        const follower = await started({});
        assert.equal(heard(follower, {}), false);
        assert.deepEqual([...follower.touched], [], 'the same again');
        assert.equal(heard(follower, { [field]: value }), false);
        assert.deepEqual([...follower.touched], ['route 10.5.9.0/24']);
        follower.touched.clear();
        heard(follower, {});
        assert.deepEqual([...follower.touched], ['route 10.5.9.0/24'], 'and back');
      });
    }

    it('doubts what an event says of one with several ways', async () => {
      const hops = [1, 2].map((index) => ({ index, gateway: undefined })) as unknown as RouteInfo['multipath'];
      for (const multipath of [hops, hops.slice(1)]) {
        assert.equal(heard(await started({}), { multipath }), true);
        assert.equal(heard(await started({ multipath }), { gateway: ip('192.0.2.7') }), true);
        assert.equal(heard(await started({ multipath }), { tos: 16 }), false, 'it is another one');
      }
    });

    const known = ({ actual }: Follower): string[] =>
      (actual.routes.get('route 10.5.9.0/24') ?? []).map(({ tos, gateway }) => `${tos} ${String(gateway)}`);

    it('knows which one is gone of several, by an event or by itself', async () => {
      const follower = await started({}, { tos: 16 }, { tos: 8 });
      assert.equal(heard(follower, {}, true), false);
      assert.deepEqual([...follower.touched], ['route 10.5.9.0/24']);
      assert.deepEqual(known(follower), ['16 192.0.2.9', '8 192.0.2.9']);
      const { actual, eth0 } = follower;
      const common = { kind: 'route', verb: 'del', key: 'route 10.5.9.0/24', reason: 'unexpected' } as const;
      for (const tos of [16, 8]) {
        const route = routeInfo(destination, { index: eth0.index, ...plain, tos });
        record(actual, { ...common, device: 'eth0', route });
        assert.deepEqual(known(follower), tos === 16 ? ['8 192.0.2.9'] : []);
      }
      assert.equal(actual.routes.size, 0);
    });

    it('knows one with a single way from one in a list, when it has removed it', async () => {
      const multipath = [{ index: 1, gateway: plain.gateway }] as unknown as RouteInfo['multipath'];
      const { actual, eth0 } = await started({}, { multipath });
      const route = routeInfo(destination, { index: eth0.index, ...plain });
      const common = { kind: 'route', verb: 'del', key: 'route 10.5.9.0/24', reason: 'unexpected' } as const;
      record(actual, { ...common, device: 'eth0', route });
      assert.deepEqual(
        actual.routes.get('route 10.5.9.0/24')?.map((each) => each.multipath),
        [multipath],
      );
    });

    it('takes in what comes beside others, in place of the first of its rank, and before that', async () => {
      const beside = await started({ tos: 16 }, { tos: 8 });
      heard(beside, {});
      assert.deepEqual(known(beside), ['16 192.0.2.9', '8 192.0.2.9', '0 192.0.2.9']);
      const other = { gateway: ip('192.0.2.7') };
      const instead = await started({}, { gateway: ip('192.0.2.8') });
      heard(instead, other);
      assert.deepEqual(known(instead), ['0 192.0.2.7', '0 192.0.2.8']);
      const before = await started({});
      heard(before, other, false, false);
      assert.deepEqual(known(before), ['0 192.0.2.7', '0 192.0.2.9']);
    });

    it('knows its own blackhole although IPv6 shows the loopback device with it', async () => {
      const hole = { type: 'blackhole', gateway: undefined } as const;
      const follower = await started({ ...hole, index: 0 });
      assert.equal(heard(follower, { ...hole, index: 1 }), false);
      assert.deepEqual([...follower.touched], []);
    });

    it('doubts where one comes to stand among several with equal rank, and knows it otherwise', async () => {
      const other = { gateway: ip('192.0.2.7') };
      assert.equal(heard(await started({}, { gateway: ip('192.0.2.8') }), other), true);
      assert.equal(heard(await started({}), other, false, false), true);
      assert.equal(heard(await started({}), other), false);
      assert.equal(heard(await started({ tos: 16 }), other, false, false), false, 'of another rank');
    });

    it('doubts when a next hop object is gone that one of them uses, and none else', async () => {
      const { actual, touched } = await started({ nexthopId: 7 });
      const isDoubtful = (id: number): boolean => follow(actual, { type: 'nexthop', id }, touched);
      assert.deepEqual([isDoubtful(7), isDoubtful(8), isDoubtful(0)], [true, false, false]);
      const later = await started({});
      heard(later, { nexthopId: 9 });
      heard(later, { gateway: ip('192.0.2.7') });
      const isDoubtfulNow = (id: number): boolean => follow(later.actual, { type: 'nexthop', id }, later.touched);
      assert.deepEqual([isDoubtfulNow(9), isDoubtfulNow(0)], [true, false], 'as an event told');
    });
  });

  const vxlan: VxlanDetails = {
    kind: 'vxlan',
    vni: 1,
    underlayIndex: 1,
    local: ip('192.0.2.1'),
    group: undefined,
    port: 8472,
    learning: false,
    l2miss: false,
    l3miss: false,
    gbp: false,
    isExternal: false,
  };
  const ipip: IpipDetails = { kind: 'ipip', local: ip('192.0.2.1'), remote: undefined, ttl: 0, pmtuDiscovery: false };
  const changed: readonly (readonly [LinkDetails, Readonly<Record<string, unknown>>])[] = [
    [
      vxlan,
      {
        vni: 2,
        underlayIndex: 7,
        local: ip('192.0.2.9'),
        group: ip('198.51.100.1'),
        port: 4789,
        learning: true,
        l2miss: true,
        l3miss: true,
        gbp: true,
        isExternal: true,
      } satisfies Omit<VxlanDetails, 'kind'>,
    ],
    [
      ipip,
      { local: ip('192.0.2.9'), remote: ip('192.0.2.7'), ttl: 1, pmtuDiscovery: true } satisfies Omit<
        IpipDetails,
        'kind'
      >,
    ],
  ];
  for (const [details, values] of changed) {
    for (const [field, value] of Object.entries(values)) {
      it(`notices another ${field} of a ${details.kind} device`, async () => {
        const follower = await new Follower().start();
        const { kernel, ours } = follower;
        kernel.setLink(ours.index, { details });
        follower.follow();
        follower.touched.clear();
        kernel.setLink(ours.index, { details: { ...details } });
        follower.follow();
        assert.deepEqual([...follower.touched], [], 'the same again');
        kernel.setLink(ours.index, { details: { ...details, [field]: value } });
        follower.follow();
        assert.deepEqual([...follower.touched], ['link flannel.1']);
      });
    }
  }

  it('notices a filter that is another one, doubts when one is gone, and no more than that', async () => {
    const follower = await new Follower().start();
    const { kernel, ours, eth0 } = follower;
    const put = (index: number, n: number): void => {
      kernel.replaceFilter({ index, direction: 'ingress', program: stationProgram('ingress', [mac(n)]) });
    };
    put(ours.index, 2);
    assert.deepEqual([follower.follow(), [...follower.touched]], [false, ['filter flannel.1 ingress']]);
    follower.touched.clear();
    put(ours.index, 2);
    put(eth0.index, 2);
    kernel.delFilter(eth0.index, 'ingress');
    assert.deepEqual([follower.follow(), [...follower.touched]], [false, []], "the same again, and somebody else's");
    kernel.delFilter(ours.index, 'ingress');
    assert.equal(follower.follow(), true, 'the event does not name it');
  });

  it('looks at all anew when an address goes of a device that counts, since routes go with it unreported', async () => {
    const follower = await new Follower().start();
    const { kernel, ours, eth0 } = follower;
    kernel.putAddress(ours.index, ip('10.5.1.1'), 24);
    const [address] = kernel.addresses.values();
    assert.ok(address);
    assert.equal(follower.follow(), false);
    follower.touched.clear();
    assert.equal(kernel.delAddress(ours.index, ip('10.5.1.1'), 24), true);
    assert.deepEqual([follower.follow(), [...follower.touched]], [true, ['address flannel.1 10.5.1.1/24']]);
    kernel.disturb({ type: 'address', isDeleted: true, address });
    assert.equal(follower.follow(), false, 'it is known by now');
    const other = kernel.addLink({ name: 'eth7' });
    for (const [{ index }, isAnew] of [
      [eth0, true],
      [other, false],
    ] as const) {
      kernel.putAddress(index, ip('192.0.2.77'), 24);
      follower.follow();
      kernel.delAddress(index, ip('192.0.2.77'), 24);
      assert.equal(follower.follow(), isAnew);
    }
  });

  it('follows the forwarding entries of our VXLAN devices that are their own, permanent and unicast', async () => {
    const follower = new Follower();
    const { kernel, ours } = follower;
    const bridge = kernel.addLink({ name: 'tsfb-1', kind: 'bridge', alias: MARK });
    kernel.replaceFdb(ours.index, mac(2), ip('192.0.2.2'));
    kernel.replaceFdb(ours.index, mac(3), ip('192.0.2.3'), { isSelf: false });
    const [entry] = kernel.fdb.values();
    assert.ok(entry);
    kernel.fdb.set('of a bridge', { ...entry, index: bridge.index });
    await follower.start();
    const known = (): string[] =>
      Array.from(follower.actual.fdb, ([key, { destination }]) => `${key} ${String(destination)}`);
    assert.deepEqual(known(), [`fdb flannel.1 ${mac(2)} 192.0.2.2`]);
    kernel.replaceFdb(ours.index, mac(2), ip('192.0.2.9'));
    kernel.disturb({ type: 'fdb', isDeleted: true, entry });
    kernel.replaceFdb(ours.index, mac(4), ip('192.0.2.4'), { isSelf: false });
    assert.equal(follower.follow(), false);
    assert.deepEqual(known(), [`fdb flannel.1 ${mac(2)} 192.0.2.9`], 'the end of what had been replaced tells nothing');
    kernel.delFdb(ours.index, mac(2));
    assert.equal(follower.follow(), false);
    assert.deepEqual(known(), []);
  });

  it('keeps nothing of what is not ours', async () => {
    const follower = await new Follower().start();
    const { kernel, eth0 } = follower;
    kernel.putNeighbour(eth0.index, ip('192.0.2.9'), mac(9));
    kernel.putAddress(eth0.index, ip('192.0.2.1'), 24);
    kernel.putRoute(routeInfo(net('198.51.100.0/24'), { index: eth0.index }), 'add');
    kernel.putRoute(routeInfo(net('10.5.7.0/24'), { index: eth0.index, table: 100 }), 'add');
    assert.equal(follower.follow(), false);
    const { neighbours, addresses, routes } = follower.actual;
    assert.deepEqual([neighbours.size, addresses.size, routes.size], [0, 0, 0]);
    assert.equal(follower.touched.size, 0);
  });

  it('keeps foreign routes where ours lie or may come to lie', async () => {
    const follower = await new Follower().start();
    const { kernel, eth0 } = follower;
    kernel.putRoute(routeInfo(net('10.5.9.0/24'), { index: eth0.index, protocol: 4 }), 'add');
    kernel.putRoute(routeInfo(net('10.5.44.0/24'), { index: eth0.index, protocol: 4 }), 'add');
    follower.follow();
    assert.deepEqual([...follower.actual.routes.keys()].sort(), ['route 10.5.44.0/24', 'route 10.5.9.0/24']);
  });
});
