import assert from 'node:assert/strict';
import fc from 'fast-check';
import { type MacAddress, parseMac } from '../../../src/ip/mac.js';
import type { IpipDetails, LinkDetails, VxlanDetails } from '../../../src/netlink/link-details.js';
import type { NetlinkEvent } from '../../../src/netlink/monitor.js';
import { ActualState } from '../../../src/reconcile/actual.js';
import { readActual } from '../../../src/reconcile/actual-reader.js';
import { EMPTY_STATE, ROUTE_PROTOCOL } from '../../../src/reconcile/desired.js';
import { DesiredIndex } from '../../../src/reconcile/desired-index.js';
import { follow, record } from '../../../src/reconcile/kinds/table.js';
import type { ObjectKey } from '../../../src/reconcile/object-key.js';
import { Ownership } from '../../../src/reconcile/ownership.js';
import { ip, net } from '../../support/builders.js';
import { FakeKernel, routeInfo } from '../../support/fake-kernel.js';

const MARK = 'tsflannel:a';
const mac = (n: number): MacAddress => parseMac(`02:00:00:00:00:0${n}`);

const desired = new DesiredIndex();
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
});
const ownership = new Ownership({ instance: 'a', scope: [net('10.5.0.0/16')], staleDevices: [] }, desired);

const dump = (kernel: FakeKernel): Promise<ActualState> => readActual(kernel, desired, ownership);

/** Everything known, as sorted lines. */
function describeState(actual: ActualState): string[] {
  const lines = (map: ReadonlyMap<string, unknown>): string[] =>
    Array.from(map, ([key, value]) => `${key}: ${JSON.stringify(value)}`);
  const { links, addresses, neighbours, fdb, routes } = actual;
  return [links, addresses, neighbours, fdb, routes].flatMap(lines).sort();
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
