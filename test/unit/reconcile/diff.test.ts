import assert from 'node:assert/strict';
import fc from 'fast-check';
import { IpAddress } from '../../../src/ip/address.js';
import { parseMac } from '../../../src/ip/mac.js';
import { Prefix } from '../../../src/ip/prefix.js';
import { stationProgram } from '../../../src/netlink/filter-program.js';
import type { LinkInfo } from '../../../src/netlink/link.js';
import type { IpipDetails, LinkDetails, VxlanDetails } from '../../../src/netlink/link-details.js';
import type { RouteInfo } from '../../../src/netlink/route.js';
import { readActual } from '../../../src/reconcile/actual-reader.js';
import {
  type DesiredState,
  EMPTY_STATE,
  type LinkField,
  type LinkSpec,
  ROUTE_PROTOCOL,
  type VxlanLink,
} from '../../../src/reconcile/desired.js';
import { DesiredIndex } from '../../../src/reconcile/desired-index.js';
import { type Aspect, describeAspect } from '../../../src/reconcile/aspects.js';
import { diff } from '../../../src/reconcile/diff.js';
import { linkKey } from '../../../src/reconcile/kinds/link.js';
import { neighbourKey } from '../../../src/reconcile/kinds/neighbour.js';
import { routeKey } from '../../../src/reconcile/kinds/route.js';
import { type ObjectKey, kindOf } from '../../../src/reconcile/object-key.js';
import { Ownership } from '../../../src/reconcile/ownership.js';
import type { Plan } from '../../../src/reconcile/planner.js';
import { ip, mac, net, vxlanLink } from '../../support/builders.js';
import { FakeKernel, detailsOf, routeInfo } from '../../support/fake-kernel.js';
import { finish } from '../../support/steps.js';

const MARK = 'tsflannel:a';
const NETWORK = net('10.5.0.0/16');
const NETWORK6 = net('fd00:10:5::/48');

/** A kernel, what is desired of it, and the difference. */
class Host {
  readonly kernel = new FakeKernel();
  readonly desired = new DesiredIndex();
  readonly staleDevices: string[] = [];
  readonly tunnelDevices = new Set<string>();
  /** As {@link describeAspect} says. */
  readonly held = new Set<string>();
  readonly eth0 = this.kernel.addLink({ name: 'eth0', isUp: true });

  ownership(): Ownership {
    const rules = { instance: 'a', scope: [NETWORK, NETWORK6], staleDevices: this.staleDevices };
    return new Ownership(rules, this.desired);
  }

  async plan(state?: DesiredState, keys?: Iterable<ObjectKey>): Promise<Plan> {
    if (state !== undefined) finish(this.desired.update(state));
    const isHeld = (key: ObjectKey, aspect: Aspect): boolean => this.held.has(describeAspect(key, aspect));
    const { desired, tunnelDevices } = this;
    const ownership = this.ownership();
    const input = {
      actual: await readActual(this.kernel, desired, ownership),
      desired,
      ownership,
      isHeld,
      tunnelDevices,
    };
    return finish(diff(keys === undefined ? input : { ...input, keys }));
  }

  /** Carries out a plan as the reconciler does; the kernel throws on operations that make no sense. */
  carryOut(plan: Plan): void {
    for (const operation of plan.operations) {
      this.kernel.apply(operation, (device) => {
        const link = this.kernel.getLink(device);
        assert.ok(link, `${operation.key}: no device ${device}`);
        return link.index;
      });
    }
  }

  /** Plan, do it, and check that nothing is left to do. */
  async reconcile(state: DesiredState): Promise<Plan> {
    const plan = await this.plan(state);
    this.carryOut(plan);
    const again = await this.plan();
    assert.deepEqual(again.operations, [], 'a second difference finds something to do');
    return plan;
  }
}

/** Device, own address, and one peer per number, as the vxlan backend wants them. */
function overlay(peers: readonly number[], link: LinkSpec = vxlanLink()): DesiredState {
  const device = link.name;
  return {
    ...EMPTY_STATE,
    links: [link],
    addresses: [{ device, address: ip('10.5.1.0'), length: 32 }],
    neighbours: peers.map((n) => ({ device, address: ip(`10.5.${n}.0`), mac: mac(n) })),
    fdb: peers.map((n) => ({ device, mac: mac(n), destination: ip(`192.0.2.${n}`) })),
    routes: peers.map((n) => ({
      destination: net(`10.5.${n}.0/24`),
      type: 'unicast',
      device,
      gateway: ip(`10.5.${n}.0`),
      isOnlink: true,
    })),
  };
}

/** Host-gw's form of one peer. */
function directRoute(n: number, device = 'eth0'): DesiredState {
  const destination = net(`10.5.${n}.0/24`);
  const common = { type: 'unicast', isOnlink: false } as const;
  return { ...EMPTY_STATE, routes: [{ ...common, destination, device, gateway: ip(`192.0.2.${n}`) }] };
}

const steps = (plan: Plan): string[] => plan.operations.map((op) => `${op.kind} ${op.verb}`);

describe('diff', () => {
  it('makes a device before what lies on it, and brings it up before routes lead to it', async () => {
    const host = new Host();
    const sysctl = 'net/ipv6/conf/flannel.1/accept_ra';
    const plan = await host.plan({ ...overlay([2, 3]), sysctls: [{ path: sysctl, value: '0' }] });
    assert.deepEqual(steps(plan), [
      'link add',
      'sysctl set',
      'address replace',
      'link set',
      ...['neighbour replace', 'neighbour replace', 'fdb replace', 'fdb replace', 'route add', 'route add'],
    ]);
  });

  it('removes in reverse order, after everything new is there', async () => {
    const host = new Host();
    await host.reconcile(overlay([2, 3]));
    const plan = await host.reconcile(overlay([3, 4]));
    assert.deepEqual(steps(plan), [
      ...['neighbour replace', 'fdb replace', 'route add'],
      ...['route del', 'fdb del', 'neighbour del'],
    ]);
  });

  it('moves routes to another device in one step each, and deletes the old device last, with all that is on it', async () => {
    const host = new Host();
    await host.reconcile(overlay([2, 3]));
    const plan = await host.reconcile(overlay([2, 3], vxlanLink({ name: 'flannel.2', vni: 2 })));
    assert.deepEqual(steps(plan).slice(-3), ['route replace', 'route replace', 'link del']);
    assert.equal(plan.operations.filter(({ verb }) => verb === 'del').length, 1);
    assert.equal(host.kernel.getLink('flannel.1'), undefined);
  });

  describe('on devices', () => {
    /** What each field can be changed to; those that are changed in place follow below. */
    const fixed = {
      vni: 2,
      underlayIndex: 7,
      local: ip('192.0.2.99'),
      port: 4789,
      gbp: true,
    } satisfies Omit<Pick<VxlanLink, LinkField<'vxlan'>>, 'mtu' | 'mac' | 'learning'>;

    for (const [field, value] of Object.entries(fixed)) {
      const change: Partial<VxlanLink> = { [field]: value };
      it(`makes a VXLAN device anew whose ${field} differs, with everything on it`, async () => {
        const host = new Host();
        await host.reconcile(overlay([2]));
        const plan = await host.reconcile(overlay([2], vxlanLink(change)));
        assert.deepEqual(steps(plan), [
          ...['link add', 'address replace', 'link set'],
          ...['neighbour replace', 'fdb replace', 'route add'],
        ]);
        assert.ok(plan.operations.every(({ key, reason }) => (kindOf(key) === 'link' ? reason === 'altered' : true)));
      });
    }

    for (const [what, change] of Object.entries({
      group: { group: ip('198.51.100.1') },
      'L2 miss notification': { l2miss: true },
      'external control': { isExternal: true },
    } satisfies Record<string, Partial<VxlanDetails>>)) {
      it(`makes a VXLAN device anew that has ${what}`, async () => {
        const host = new Host();
        const details = { ...detailsOf(vxlanLink()), ...change } as LinkDetails;
        host.kernel.addLink({ name: 'flannel.1', kind: 'vxlan', mac: mac(1), mtu: 1450, details, isUp: true });
        assert.equal(steps(await host.reconcile(overlay([])))[0], 'link add');
      });
    }

    for (const [what, change, step] of [
      ['MTU', { mtu: 1400 }, ['link set']],
      ['learning', { learning: true }, ['link set']],
      ['MAC', { mac: mac(9) }, ['link set', 'neighbour replace']],
    ] as const) {
      it(`changes the ${what} in place, and renews what the kernel drops for it`, async () => {
        const host = new Host();
        await host.reconcile(overlay([2]));
        assert.deepEqual(steps(await host.reconcile(overlay([2], vxlanLink(change)))), step);
      });
    }

    it('leaves it to the kernel to remove the neighbours that go with another MAC', async () => {
      const host = new Host();
      await host.reconcile(overlay([2, 3]));
      const plan = await host.reconcile(overlay([2], vxlanLink({ mac: mac(9) })));
      assert.deepEqual(steps(plan), ['link set', 'neighbour replace', 'route del', 'fdb del']);
    });

    it('makes an IPIP device anew whose source differs or that has a fixed remote, and no other', async () => {
      const ipip = (local: string): LinkSpec => ({ kind: 'ipip', name: 'flannel.ipip', mtu: 1480, local: ip(local) });
      const host = new Host();
      await host.reconcile(overlay([], ipip('192.0.2.1')));
      assert.deepEqual(steps(await host.reconcile(overlay([], ipip('192.0.2.1')))), []);
      const { index, details } = host.kernel.getLink('flannel.ipip') as LinkInfo;
      assert.equal(steps(await host.reconcile(overlay([], ipip('192.0.2.9'))))[0], 'link add');
      assert.notEqual(host.kernel.getLink('flannel.ipip')?.index, index);
      const fixed = { ...details, local: ip('192.0.2.9'), remote: ip('192.0.2.7') } as LinkInfo['details'];
      host.kernel.setLink((host.kernel.getLink('flannel.ipip') as LinkInfo).index, { details: fixed });
      assert.equal(steps(await host.reconcile(overlay([], ipip('192.0.2.9'))))[0], 'link add');
    });

    for (const [what, change] of Object.entries({
      'a TTL of its own': { ttl: 1 },
      'path MTU discovery': { pmtuDiscovery: true },
    } satisfies Record<string, Partial<IpipDetails>>)) {
      it(`makes an IPIP device anew that was given ${what}`, async () => {
        const ipip: LinkSpec = { kind: 'ipip', name: 'flannel.ipip', mtu: 1480, local: ip('192.0.2.1') };
        const host = new Host();
        await host.reconcile(overlay([], ipip));
        const { index, details } = host.kernel.getLink('flannel.ipip') as LinkInfo;
        host.kernel.setLink(index, { details: { ...details, ...change } as LinkDetails });
        assert.deepEqual(steps(await host.reconcile(overlay([], ipip))), ['link add', 'address replace', 'link set']);
        assert.deepEqual(host.kernel.getLink('flannel.ipip')?.details, details);
      });
    }

    it("takes over flannel's device as it is and marks it", async () => {
      const host = new Host();
      const link = {
        name: 'flannel.1',
        kind: 'vxlan',
        mac: mac(1),
        mtu: 1450,
        isUp: true,
        details: detailsOf(vxlanLink()),
      };
      const { index } = host.kernel.addLink(link);
      host.kernel.putAddress(index, ip('10.5.1.0'), 32);
      host.kernel.putNeighbour(index, ip('10.5.2.0'), mac(2));
      host.kernel.replaceFdb(index, mac(2), ip('192.0.2.2'));
      const gateway = ip('10.5.2.0');
      host.kernel.putRoute(routeInfo(net('10.5.2.0/24'), { index, gateway, isOnlink: true }), 'add');
      host.kernel.putRoute(routeInfo(net('10.5.9.0/24'), { index, gateway: ip('10.5.9.0'), isOnlink: true }), 'add');
      const plan = await host.reconcile(overlay([2]));
      assert.deepEqual(steps(plan), ['link set', 'route replace', 'route del']);
      assert.equal(host.kernel.getLink('flannel.1')?.alias, MARK);
    });

    it('reports a device of another kind with the wanted name, and leaves it and its objects alone', async () => {
      const host = new Host();
      const { index } = host.kernel.addLink({ name: 'flannel.1', kind: 'bridge', isUp: true });
      host.kernel.putAddress(index, ip('203.0.113.1'), 24);
      const plan = await host.reconcile(overlay([2]));
      assert.deepEqual(plan.operations, []);
      const error = plan.conflicts.get(linkKey('flannel.1'));
      assert.equal(error?.code, 'ERR_DEVICE_TAKEN');
      assert.match(String(error), /cannot make vxlan device flannel\.1: a device of kind bridge has that name/);
      assert.match(error.hint ?? '', /ip link del flannel\.1/);
      assert.equal(plan.blocked.size, 4); // address, neighbour, forwarding entry, route
    });

    it("does not take over another daemon's device", async () => {
      const host = new Host();
      const alias = 'tsflannel:b';
      host.kernel.addLink({ name: 'flannel.1', kind: 'vxlan', alias, details: detailsOf(vxlanLink()), isUp: true });
      const plan = await host.reconcile(overlay([2]));
      assert.deepEqual(plan.operations, []);
      assert.match(String(plan.conflicts.get(linkKey('flannel.1'))), /belongs to another daemon/);
    });

    it('deletes devices with its mark that are not desired, and no others', async () => {
      const host = new Host();
      const details = detailsOf(vxlanLink());
      host.kernel.addLink({ name: 'flannel.7', kind: 'vxlan', alias: MARK, details });
      host.kernel.addLink({ name: 'flannel.8', kind: 'vxlan', alias: 'tsflannel:b', details });
      host.kernel.addLink({ name: 'flannel.9', kind: 'vxlan', details });
      await host.reconcile(EMPTY_STATE);
      assert.deepEqual(
        Array.from(host.kernel.links.values(), ({ name }) => name),
        ['eth0', 'flannel.8', 'flannel.9'],
      );
    });

    it('deletes a listed device of a replaced flanneld if its kind is one that flannel makes', async () => {
      const host = new Host();
      host.staleDevices.push('flannel.9', 'br0');
      host.kernel.addLink({ name: 'flannel.9', kind: 'vxlan', details: detailsOf(vxlanLink()) });
      host.kernel.addLink({ name: 'br0', kind: 'bridge' });
      await host.reconcile(EMPTY_STATE);
      assert.equal(host.kernel.getLink('flannel.9'), undefined);
      assert.ok(host.kernel.getLink('br0'));
    });

    it('waits for the tunnel that makes a TUN device, and then configures it', async () => {
      const host = new Host();
      const tun = { kind: 'tun', name: 'flannel0', mtu: 1472, txQueueLength: 500 } as const;
      const foreign = host.kernel.addLink({ name: 'flannel0', kind: 'tun', mtu: 1400 });
      const waiting = await host.reconcile(overlay([], tun));
      assert.deepEqual(waiting.operations, []);
      assert.ok(waiting.blocked.has(linkKey('flannel0')));
      assert.equal(host.kernel.links.get(foreign.index)?.mtu, 1400);
      host.tunnelDevices.add('flannel0');
      await host.reconcile(overlay([], tun));
      const { mtu, txQueueLength, alias, isUp } = host.kernel.getLink('flannel0') ?? {};
      assert.deepEqual([mtu, txQueueLength, alias, isUp], [1472, 500, MARK, true]);
    });

    it('leaves the deletion of a TUN device to its tunnel', async () => {
      const host = new Host();
      host.tunnelDevices.add('flannel0');
      host.kernel.addLink({ name: 'flannel0', kind: 'tun', alias: MARK });
      assert.deepEqual((await host.plan(EMPTY_STATE)).operations, []);
    });
  });

  describe('on what lies on devices', () => {
    it('removes other addresses of a desired family, except link-local IPv6', async () => {
      const ipv4 = overlay([]);
      const ipv6 = { device: 'flannel.1', address: ip('fd00:10:5:1::'), length: 128 };
      const second = { ...ipv4, links: [...ipv4.links, vxlanLink({ name: 'flannel.2', vni: 2 })] };
      const ofIpv4 = ['10.5.1.1', '10.5.1.0', '169.254.7.7'];
      for (const [state, removed] of [
        [ipv4, ofIpv4],
        [{ ...ipv4, addresses: [...ipv4.addresses, ipv6] }, [...ofIpv4, '2001:db8::1']],
        [{ ...second, addresses: [...ipv4.addresses, { ...ipv6, device: 'flannel.2' }] }, ofIpv4],
      ] as const) {
        const host = new Host();
        await host.reconcile(state);
        const { index } = host.kernel.getLink('flannel.1') as LinkInfo;
        host.kernel.putAddress(index, ip('10.5.1.1'), 24);
        host.kernel.putAddress(index, ip('10.5.1.0'), 32, ip('10.5.1.9'));
        host.kernel.putAddress(index, ip('169.254.7.7'), 16);
        host.kernel.putAddress(index, ip('fe80::1'), 64);
        host.kernel.putAddress(index, ip('2001:db8::1'), 64);
        const { operations } = await host.reconcile(state);
        assert.deepEqual(
          operations.map((op) => op.kind === 'address' && op.verb === 'del' && op.address.toString()),
          removed,
        );
      }
    });

    it('has the kernel make a route with an address unless that is not wanted', async () => {
      const host = new Host();
      const state = overlay([]);
      const bare = { device: 'flannel.1', address: ip('10.5.1.1'), length: 24, noPrefixRoute: true };
      const { operations } = await host.plan({ ...state, addresses: [...state.addresses, bare] });
      assert.deepEqual(
        operations.flatMap((op) => (op.kind === 'address' ? [[String(op.address), op.noPrefixRoute]] : [])),
        [
          ['10.5.1.0', false],
          ['10.5.1.1', true],
        ],
      );
    });

    it('ignores entries that the kernel learned or made itself', async () => {
      const host = new Host();
      await host.reconcile(overlay([2]));
      const { index } = host.kernel.getLink('flannel.1') as LinkInfo;
      host.kernel.putNeighbour(index, ip('10.5.77.0'), mac(7), false);
      host.kernel.replaceFdb(index, parseMac('00:00:00:00:00:00'), ip('192.0.2.9'));
      host.kernel.replaceFdb(index, parseMac('01:00:5e:00:00:01'), ip('192.0.2.9'));
      host.kernel.replaceFdb(index, mac(9), ip('192.0.2.9'), { isPermanent: false });
      host.kernel.putRoute(routeInfo(net('fe80::/64'), { index, protocol: 2, metric: 256 }), 'add');
      assert.deepEqual((await host.plan()).operations, []);
    });

    it('replaces a learned neighbour by a permanent one', async () => {
      const host = new Host();
      await host.reconcile(overlay([2]));
      const { index } = host.kernel.getLink('flannel.1') as LinkInfo;
      host.kernel.putNeighbour(index, ip('10.5.2.0'), mac(2), false);
      assert.deepEqual(steps(await host.reconcile(overlay([2]))), ['neighbour replace']);
    });

    it('says whether neighbours and forwarding entries were altered or are missing', async () => {
      const host = new Host();
      await host.reconcile(overlay([2]));
      const { index } = host.kernel.getLink('flannel.1') as LinkInfo;
      host.kernel.putNeighbour(index, ip('10.5.2.0'), mac(9), true);
      host.kernel.replaceFdb(index, mac(2), ip('192.0.2.9'));
      const { operations } = await host.plan(overlay([2, 3]));
      for (const kind of ['neighbour', 'fdb']) {
        const reasons = operations.filter((op) => op.kind === kind).map(({ reason }) => reason);
        assert.deepEqual(reasons, ['altered', 'missing'], kind);
      }
    });

    it('replaces an entry with the right address but a port of its own', async () => {
      const host = new Host();
      await host.reconcile(overlay([]));
      const { index } = host.kernel.getLink('flannel.1') as LinkInfo;
      host.kernel.replaceFdb(index, mac(2), ip('192.0.2.2'), { port: 4789 });
      await host.reconcile(overlay([2]));
      assert.equal([...host.kernel.fdb.values()][0]?.port, undefined);
    });

    it('sets a parameter that differs, and asks for none that this kernel lacks because IPv6 is off', async () => {
      const host = new Host();
      host.kernel.sysctls.set('net/ipv4/conf/flannel.1/rp_filter', '1');
      await host.reconcile(overlay([]));
      const sysctls = [
        { path: 'net/ipv4/conf/flannel.1/rp_filter', value: '2' },
        { path: 'net/ipv6/conf/flannel.1/accept_ra', value: '0' },
      ];
      assert.deepEqual(steps(await host.reconcile({ ...overlay([]), sysctls })), ['sysctl set']);
      assert.equal(host.kernel.sysctls.get('net/ipv4/conf/flannel.1/rp_filter'), '2');
    });
  });

  describe('on filters', () => {
    const filtered = (stations: readonly number[], link = vxlanLink()): DesiredState => {
      const common = { device: 'flannel.1', stations: stations.map(mac) } as const;
      return {
        ...overlay([], link),
        filters: [
          { ...common, direction: 'ingress' },
          { ...common, direction: 'egress' },
        ],
      };
    };
    const why = (plan: Plan): string[] => plan.operations.map(({ verb, reason }) => `${verb} ${reason}`);

    it('lets no frame pass a new device before its filters', async () => {
      const host = new Host();
      assert.deepEqual(steps(await host.reconcile(filtered([2]))), [
        ...['link add', 'filter replace', 'filter replace'],
        ...['address replace', 'link set'],
      ]);
    });

    it('replaces the filter that is altered, and it alone', async () => {
      const host = new Host();
      await host.reconcile(filtered([2]));
      const { index } = host.kernel.getLink('flannel.1') as LinkInfo;
      host.kernel.replaceFilter({ index, direction: 'egress', program: stationProgram('egress', [mac(9)]) });
      const plan = await host.reconcile(filtered([2]));
      assert.deepEqual([steps(plan), why(plan)], [['filter replace'], ['replace altered']]);
      host.kernel.delFilter(index, 'ingress');
      assert.deepEqual(why(await host.reconcile(filtered([2]))), ['replace missing']);
      assert.deepEqual(why(await host.reconcile(filtered([2, 3]))), ['replace altered', 'replace altered']);
    });

    it('removes the filter that is no longer wanted, and not where it goes with its device', async () => {
      const host = new Host();
      await host.reconcile(filtered([2]));
      const state = filtered([2]);
      const plan = await host.reconcile({ ...state, filters: state.filters.slice(0, 1) });
      assert.deepEqual([steps(plan), why(plan)], [['filter del'], ['del unexpected']]);
      assert.deepEqual(
        Array.from(host.kernel.filters.values(), ({ direction }) => direction),
        ['ingress'],
      );
      assert.deepEqual(steps(await host.reconcile(EMPTY_STATE)), ['link del']);
    });

    it('renews the filters of a device that is made anew', async () => {
      const host = new Host();
      await host.reconcile(filtered([2]));
      const plan = await host.reconcile(filtered([2], vxlanLink({ vni: 2 })));
      assert.deepEqual(steps(plan).slice(0, 3), ['link add', 'filter replace', 'filter replace']);
      assert.equal(why(plan)[1], 'replace missing');
      assert.equal(host.kernel.filters.size, 2);
    });

    it("keeps off another daemon's device", async () => {
      const host = new Host();
      const { index } = host.kernel.addLink({ name: 'flannel.1', kind: 'vxlan', alias: 'tsflannel:b', isUp: true });
      host.kernel.replaceFilter({ index, direction: 'ingress', program: stationProgram('ingress', [mac(9)]) });
      const plan = await host.plan(filtered([2]));
      assert.deepEqual(plan.operations, []);
      assert.equal(plan.blocked.has('filter flannel.1 ingress'), true);
    });
  });

  describe('on routes', () => {
    it("takes over flannel's route that leads the same way", async () => {
      const host = new Host();
      const { index } = host.eth0;
      host.kernel.putRoute(routeInfo(net('10.5.2.0/24'), { index, gateway: ip('192.0.2.2') }), 'add');
      assert.deepEqual(steps(await host.reconcile(directRoute(2))), ['route replace']);
    });

    it("is content with an administrator's route that leads the same way", async () => {
      const host = new Host();
      const { index } = host.eth0;
      host.kernel.putRoute(routeInfo(net('10.5.2.0/24'), { index, gateway: ip('192.0.2.2'), protocol: 4 }), 'add');
      const plan = await host.reconcile(directRoute(2));
      assert.deepEqual([plan.operations, plan.conflicts.size], [[], 0]);
    });

    it('reports a foreign route in the way with the command that removes it', async () => {
      const host = new Host();
      const { index } = host.eth0;
      host.kernel.putRoute(routeInfo(net('10.5.2.0/24'), { index, gateway: ip('192.0.2.77') }), 'add');
      const before = host.kernel.describe();
      const plan = await host.reconcile(directRoute(2));
      assert.deepEqual(host.kernel.describe(), before);
      const error = plan.conflicts.get(routeKey(net('10.5.2.0/24')));
      assert.equal(error?.code, 'ERR_ROUTE_CONFLICT');
      assert.match(error.hint ?? '', /ip route del 10\.5\.2\.0\/24 via 192\.0\.2\.77 dev eth0/);
    });

    for (const [what, change] of Object.entries({
      scope: { scope: 'link' },
      'reach of its gateway': { isOnlink: true },
      source: { prefsrc: ip('192.0.2.1') },
    } satisfies Record<string, Partial<RouteInfo>>)) {
      it(`replaces its own route that somebody gave another ${what}`, async () => {
        const host = new Host();
        await host.reconcile(directRoute(2));
        const [ours] = host.kernel.routes.get('10.5.2.0/24') ?? [];
        assert.ok(ours);
        host.kernel.routes.set('10.5.2.0/24', [{ ...ours, ...change }]);
        assert.deepEqual(steps(await host.reconcile(directRoute(2))), ['route replace']);
      });
    }

    it('takes a route with several ways, or one in a list, for another way than its own', async () => {
      for (const count of [1, 2]) {
        const host = new Host();
        const hop = { index: host.eth0.index, gateway: ip('192.0.2.2') };
        const multipath = [hop, { ...hop, gateway: ip('192.0.2.3') }].slice(0, count) as unknown as [];
        host.kernel.putRoute(routeInfo(net('10.5.2.0/24'), { ...hop, protocol: 4, multipath }), 'add');
        assert.equal((await host.plan(directRoute(2))).conflicts.size, 1);
      }
    });

    it("removes an administrator's route through its device, whatever the destination", async () => {
      const host = new Host();
      await host.reconcile(overlay([2]));
      const { index } = host.kernel.getLink('flannel.1') as LinkInfo;
      host.kernel.putRoute(routeInfo(net('198.51.100.0/24'), { index, protocol: 4 }), 'add');
      assert.deepEqual(steps(await host.reconcile(overlay([2]))), ['route del']);
    });

    it('does not count on it that a route with several ways goes with one of their devices', async () => {
      const host = new Host();
      await host.reconcile(overlay([2]));
      const { index } = host.kernel.getLink('flannel.1') as LinkInfo;
      const multipath = [index, host.eth0.index].map((each) => ({ index: each })) as unknown as RouteInfo['multipath'];
      const stale = { index, multipath, protocol: ROUTE_PROTOCOL };
      host.kernel.putRoute(routeInfo(net('10.5.9.0/24'), stale), 'add');
      const plan = await host.plan(overlay([2], vxlanLink({ vni: 2 })));
      assert.deepEqual(
        plan.operations.filter(({ verb }) => verb === 'del').map(({ key }) => key),
        [routeKey(net('10.5.9.0/24'))],
      );
    });

    it('is content with its own blackhole although IPv6 shows the loopback device with it', async () => {
      const host = new Host();
      const destination = net('fd00:10:5:1::/64');
      const hole = { type: 'blackhole', device: undefined, gateway: undefined, isOnlink: false } as const;
      const shown = routeInfo(destination, { type: 'blackhole', index: 1, protocol: ROUTE_PROTOCOL });
      host.kernel.routes.set(destination.toString(), [shown]);
      const plan = await host.plan({ ...EMPTY_STATE, routes: [{ ...hole, destination }] });
      assert.deepEqual(plan.operations, []);
    });

    it('does not suggest to remove the default route', async () => {
      const host = new Host();
      const destination = net('0.0.0.0/0');
      const foreign = { index: host.eth0.index, gateway: ip('192.0.2.77'), protocol: 4 };
      host.kernel.putRoute(routeInfo(destination, foreign), 'add');
      const [wanted] = directRoute(2).routes;
      assert.ok(wanted);
      const { conflicts } = await host.plan({ ...EMPTY_STATE, routes: [{ ...wanted, destination }] });
      assert.match(conflicts.get(routeKey(destination))?.hint ?? '', /^choose another network/);
    });

    it('does not suggest to remove the way to a network that the host itself is in', async () => {
      for (const own of [{ protocol: 2 }, { protocol: 4, prefsrc: ip('10.5.2.7') }]) {
        const host = new Host();
        host.kernel.putRoute(routeInfo(net('10.5.2.0/24'), { index: host.eth0.index, ...own }), 'add');
        const plan = await host.reconcile(directRoute(2));
        const hint = plan.conflicts.get(routeKey(net('10.5.2.0/24')))?.hint ?? '';
        assert.equal(hint, 'choose another network for the overlay, or another address for eth0');
      }
      const host = new Host();
      host.kernel.putRoute(routeInfo(net('10.5.2.0/24'), { type: 'unreachable', protocol: 2 }), 'add');
      const plan = await host.reconcile(directRoute(2));
      const hint = plan.conflicts.get(routeKey(net('10.5.2.0/24')))?.hint ?? '';
      assert.equal(hint, 'choose another network for the overlay, or another address for that device');
    });

    it('tells of a foreign route in the way as ip shows it, and how it is removed', async () => {
      const subnet = net('10.5.2.0/24');
      const subnet6 = net('fd00:10:5:2::/64');
      const hops = [2, 3].map((index) => ({ index, gateway: undefined })) as unknown as RouteInfo['multipath'];
      const gateway = ip('192.0.2.77');
      for (const [destination, foreign, text, removal] of [
        [
          subnet,
          { gateway },
          '10.5.2.0/24 via 192.0.2.77 dev eth0',
          'ip route del 10.5.2.0/24 via 192.0.2.77 dev eth0',
        ],
        [subnet, {}, '10.5.2.0/24 dev eth0', 'ip route del 10.5.2.0/24 dev eth0'],
        [subnet, { type: 'prohibit' }, 'prohibit 10.5.2.0/24', 'ip route del prohibit 10.5.2.0/24'],
        [subnet, { index: 0, multipath: hops }, '10.5.2.0/24 (multipath)', 'ip route del 10.5.2.0/24'],
        [
          subnet6,
          { multipath: hops.slice(1) },
          'fd00:10:5:2::/64 (multipath)',
          'ip -6 route del fd00:10:5:2::/64 dev eth0',
        ],
        [subnet6, {}, 'fd00:10:5:2::/64 dev eth0', 'ip -6 route del fd00:10:5:2::/64 dev eth0'],
      ] as const) {
        const host = new Host();
        host.kernel.putRoute(routeInfo(destination, { index: host.eth0.index, protocol: 4, ...foreign }), 'add');
        const wanted = {
          destination,
          type: 'unicast',
          device: 'eth0',
          gateway: ip('192.0.2.2'),
          isOnlink: false,
        } as const;
        const { conflicts } = await host.plan({ ...EMPTY_STATE, routes: [wanted] });
        const error = conflicts.get(routeKey(destination));
        assert.equal(error?.message, `cannot route ${destination.toString()}: somebody else's route ${text} is there`);
        assert.equal(error.hint, `remove it (${removal}) or choose another network for the overlay`);
        const route = destination.toString();
        assert.deepEqual(error.context, 'index' in foreign ? { route } : { route, dev: 'eth0' });
      }
    });

    it('names the metric of a foreign route where it is not the usual one', async () => {
      const host = new Host();
      const destination = net('10.5.2.0/24');
      const foreign = { index: host.eth0.index, gateway: ip('192.0.2.77'), metric: 50 };
      host.kernel.putRoute(routeInfo(destination, foreign), 'add');
      const [wanted] = directRoute(2).routes;
      assert.ok(wanted);
      const { conflicts } = await host.plan({ ...EMPTY_STATE, routes: [{ ...wanted, metric: 50 }] });
      assert.match(
        conflicts.get(routeKey(destination, 50))?.hint ?? '',
        /ip route del \S+ via 192\.0\.2\.77 dev eth0 metric 50\)/,
      );
    });

    it('makes its route beside a foreign one for another type of service', async () => {
      const host = new Host();
      const foreign = { index: host.eth0.index, gateway: ip('192.0.2.77'), tos: 16 };
      host.kernel.putRoute(routeInfo(net('10.5.2.0/24'), foreign), 'add');
      const plan = await host.reconcile(directRoute(2));
      assert.deepEqual([steps(plan), plan.conflicts.size], [['route add'], 0]);
    });

    it('leaves the routes of a device that goes to the kernel, and deletes those that lead elsewhere too', async () => {
      const host = new Host();
      await host.reconcile(overlay([2]));
      assert.deepEqual(steps(await host.plan(EMPTY_STATE)), ['link del']);
      const { index } = host.kernel.getLink('flannel.1') as LinkInfo;
      const multipath = [index, host.eth0.index].map((each) => ({ index: each })) as unknown as RouteInfo['multipath'];
      const more = { index, multipath, protocol: ROUTE_PROTOCOL };
      host.kernel.putRoute(routeInfo(net('10.5.9.0/24'), more), 'add');
      assert.deepEqual(steps(await host.plan(EMPTY_STATE)), ['route del', 'link del']);
    });

    it('lets a foreign route with another metric be', async () => {
      const host = new Host();
      const foreign = { index: host.eth0.index, gateway: ip('192.0.2.77'), metric: 100 };
      host.kernel.putRoute(routeInfo(net('10.5.2.0/24'), foreign), 'add');
      assert.deepEqual(steps(await host.reconcile(directRoute(2))), ['route add']);
      assert.equal(host.kernel.routes.get('10.5.2.0/24')?.length, 2);
    });

    it('makes a blackhole of a high metric behind the connected route of a bridge, and removes it alone', async () => {
      const host = new Host();
      const subnet = net('10.5.1.0/24');
      const connected = routeInfo(subnet, { index: host.eth0.index, protocol: 2, scope: 'link' });
      host.kernel.putRoute(connected, 'add');
      const hole = {
        type: 'blackhole',
        device: undefined,
        gateway: undefined,
        isOnlink: false,
      } as const;
      const plan = await host.reconcile({ ...EMPTY_STATE, routes: [{ ...hole, destination: subnet, metric: 5000 }] });
      assert.deepEqual([steps(plan), plan.conflicts.size], [['route add'], 0]);
      assert.deepEqual(
        host.kernel.routes.get('10.5.1.0/24')?.map(({ type, metric }) => [type, metric]),
        [
          ['unicast', 0],
          ['blackhole', 5000],
        ],
      );
      await host.reconcile({ ...EMPTY_STATE, routes: [{ ...hole, destination: subnet, metric: 6000 }] });
      assert.deepEqual(
        host.kernel.routes.get('10.5.1.0/24')?.map(({ metric }) => metric),
        [0, 6000],
      );
      await host.reconcile(EMPTY_STATE);
      assert.deepEqual(host.kernel.routes.get('10.5.1.0/24'), [connected]);
    });

    it('removes routes with its protocol number only inside its own networks', async () => {
      const host = new Host();
      const own = { index: host.eth0.index, protocol: ROUTE_PROTOCOL, gateway: ip('192.0.2.9') };
      host.kernel.putRoute(routeInfo(net('10.5.9.0/24'), own), 'add');
      host.kernel.putRoute(routeInfo(net('10.6.9.0/24'), own), 'add');
      host.kernel.putRoute(routeInfo(net('10.5.8.0/24'), { protocol: ROUTE_PROTOCOL, type: 'blackhole' }), 'add');
      await host.reconcile(EMPTY_STATE);
      assert.deepEqual([...host.kernel.routes.keys()], ['10.6.9.0/24']);
    });

    it("never touches routes on another daemon's device, whatever their destination", async () => {
      const host = new Host();
      const { index } = host.kernel.addLink({ name: 'flannel.8', kind: 'vxlan', alias: 'tsflannel:b', isUp: true });
      host.kernel.putRoute(routeInfo(net('10.5.9.0/24'), { index, protocol: ROUTE_PROTOCOL }), 'add');
      assert.deepEqual((await host.plan(EMPTY_STATE)).operations, []);
    });

    it('keeps the route that carries packets while the device of its successor is missing', async () => {
      const host = new Host();
      await host.reconcile(overlay([2]));
      const tun: LinkSpec = { kind: 'tun', name: 'flannel0', mtu: 1472, txQueueLength: 500 };
      const both = { ...overlay([2]), links: [vxlanLink(), tun] };
      const moved = both.routes.map((route) => ({ ...route, device: 'flannel0' }));
      const plan = await host.reconcile({ ...both, routes: moved });
      assert.deepEqual(plan.operations, []);
      assert.ok(plan.blocked.has(routeKey(net('10.5.2.0/24'))));
    });

    it('waits for an underlay device that is down', async () => {
      const host = new Host();
      host.kernel.setLink(host.eth0.index, { isUp: false });
      const plan = await host.reconcile(directRoute(2));
      assert.deepEqual([...plan.blocked], [routeKey(net('10.5.2.0/24'))]);
    });
  });

  it('leaves out what failed lately, and says so', async () => {
    const host = new Host();
    await host.reconcile(overlay([]));
    host.held.add(routeKey(net('10.5.2.0/24')));
    const plan = await host.plan(overlay([2]));
    assert.deepEqual(steps(plan), ['neighbour replace', 'fdb replace']);
    assert.deepEqual([plan.held.size, plan.held.has(routeKey(net('10.5.2.0/24')), 'whole')], [1, true]);
  });

  it('puts nothing on a device that could not be made lately', async () => {
    const host = new Host();
    host.held.add(linkKey('flannel.1'));
    const plan = await host.plan(overlay([2]));
    assert.deepEqual(plan.operations, []);
    assert.equal(plan.blocked.size, 4);
  });

  it('looks only at the given objects when asked to', async () => {
    const host = new Host();
    await host.reconcile(overlay([2, 3]));
    const { index } = host.kernel.getLink('flannel.1') as LinkInfo;
    host.kernel.delNeighbour(index, ip('10.5.2.0'));
    host.kernel.delNeighbour(index, ip('10.5.3.0'));
    const plan = await host.plan(undefined, [neighbourKey('flannel.1', ip('10.5.3.0'))]);
    assert.deepEqual(
      plan.operations.map(({ key }) => key),
      ['neighbour flannel.1 10.5.3.0'],
    );
  });

  it('needs as many operations as there are changes, whatever the number of peers', async () => {
    const peers = (count: number): DesiredState => {
      const base = overlay([]);
      const numbers = Array.from({ length: count }, (_, n) => n);
      const address = (n: number): IpAddress => IpAddress.fromValue(4, ip('10.5.0.0').value + (BigInt(n) << 8n));
      return {
        ...base,
        neighbours: numbers.map((n) => ({ device: 'flannel.1', address: address(n), mac: mac(n % 200) })),
        routes: numbers.map((n) => {
          const gateway = address(n);
          const destination = Prefix.of(gateway, 24);
          return { destination, type: 'unicast', device: 'flannel.1', gateway, isOnlink: true };
        }),
      };
    };
    const host = new Host();
    await host.reconcile(peers(2000));
    const plan = await host.plan(peers(2001));
    assert.equal(plan.operations.length, 2);
  });
});

// Properties

const numbers = fc.uniqueArray(fc.integer({ min: 2, max: 9 }), { maxLength: 6 });
const macs = fc.integer({ min: 1, max: 9 }).map(mac);
const underlays = fc.integer({ min: 1, max: 9 }).map((n) => ip(`192.0.2.${n}`));

/** Any state of a VXLAN device for IPv4 and host-gw routes, some for the same destinations. */
const desiredStates: fc.Arbitrary<DesiredState> = fc
  .record({
    link: fc.option(
      fc.record({
        vni: fc.constantFrom(1, 2),
        mtu: fc.constantFrom(1400, 1450),
        mac: macs,
        port: fc.constantFrom(0, 4789),
        learning: fc.boolean(),
      }),
      { nil: undefined },
    ),
    peers: numbers,
    direct: numbers,
    blackhole: fc.constantFrom('none', 'metric 0', 'metric 50'),
  })
  .map(({ link, peers, direct, blackhole }) => {
    const spec = link && vxlanLink({ ...link, name: `flannel.${link.vni}` });
    const base = spec === undefined ? EMPTY_STATE : overlay(peers, spec);
    const onLink = direct.filter((n) => spec === undefined || !peers.includes(n));
    const hole = {
      type: 'blackhole',
      device: undefined,
      gateway: undefined,
      isOnlink: false,
    } as const;
    return {
      ...base,
      routes: [
        ...base.routes,
        ...onLink.flatMap((n) => directRoute(n).routes),
        ...(blackhole === 'metric 0' ? [{ ...hole, destination: net('10.5.1.0/24') }] : []),
        ...(blackhole === 'metric 50' ? [{ ...hole, destination: net('10.5.3.0/24'), metric: 50 }] : []),
      ],
    };
  });

/** Something that somebody did to a kernel; `owner` says whose object it makes or breaks. */
const disturbances: fc.Arbitrary<(host: Host) => void> = fc.oneof(
  fc.record({ n: fc.integer({ min: 1, max: 9 }), mac: macs }).map(({ n, mac }) => (host: Host) => {
    for (const index of devices(host)) host.kernel.putNeighbour(index, ip(`10.5.${n}.0`), mac);
  }),
  fc.integer({ min: 1, max: 9 }).map((n) => (host: Host) => {
    for (const index of devices(host)) host.kernel.delNeighbour(index, ip(`10.5.${n}.0`));
  }),
  fc.record({ mac: macs, destination: underlays }).map(({ mac, destination }) => (host: Host) => {
    for (const index of devices(host)) host.kernel.replaceFdb(index, mac, destination);
  }),
  macs.map((mac) => (host: Host) => {
    for (const index of devices(host)) host.kernel.delFdb(index, mac);
  }),
  fc.integer({ min: 1, max: 9 }).map((n) => (host: Host) => {
    for (const index of devices(host)) host.kernel.putAddress(index, ip(`10.5.1.${n}`), 32);
  }),
  fc.constant((host: Host) => {
    for (const index of devices(host)) host.kernel.delAddress(index, ip('10.5.1.0'), 32);
  }),
  fc
    .record({
      n: fc.integer({ min: 2, max: 9 }),
      gateway: underlays,
      metric: fc.constantFrom(0, 50),
      owned: fc.boolean(),
    })
    .map(({ n, gateway, metric, owned }) => (host: Host) => {
      // A route of flannel's that leads the desired way would be taken over; others lead elsewhere.
      const way = owned ? { gateway, protocol: ROUTE_PROTOCOL } : { gateway: ip('198.51.100.1'), protocol: 3 };
      const more = { ...way, metric, index: host.eth0.index };
      host.kernel.putRoute(routeInfo(net(`10.5.${n}.0/24`), more), 'append');
    }),
  fc.integer({ min: 2, max: 9 }).map((n) => (host: Host) => {
    for (const route of host.kernel.routes.get(`10.5.${n}.0/24`) ?? []) host.kernel.delRoute(route);
  }),
  fc.record({ mtu: fc.constantFrom(1300, 1500), isUp: fc.boolean(), mac: macs }).map((change) => (host: Host) => {
    for (const index of devices(host)) host.kernel.setLink(index, change);
  }),
  fc.constant((host: Host) => {
    for (const index of devices(host)) host.kernel.delLink(index);
  }),
);

const devices = (host: Host): number[] =>
  [...host.kernel.links.values()].filter(({ alias }) => alias === MARK).map(({ index }) => index);

/** Lines about what is nobody's business but its owner's. */
function foreignLines(host: Host): string[] {
  const own = new Set(devices(host).map((index) => host.kernel.links.get(index)?.name ?? ''));
  return host.kernel.describe().filter((line) => {
    if (line.startsWith('route')) {
      if (line.endsWith(' dev flannel.9')) return true;
      return !line.includes(` ${ROUTE_PROTOCOL} `) && ![...own].some((name) => line.endsWith(` dev ${name}`));
    }
    return ![...own].some((name) => line.includes(`${name} `) || line.includes(`"${name}"`));
  });
}

/** Objects of others that no desired state ever mentions, and one that sits where ours may have to. */
function addForeignObjects(host: Host): void {
  const { kernel, eth0 } = host;
  kernel.putAddress(eth0.index, ip('192.0.2.1'), 24);
  kernel.putNeighbour(eth0.index, ip('192.0.2.2'), mac(77));
  kernel.putRoute(routeInfo(net('198.51.100.0/24'), { index: eth0.index, gateway: ip('192.0.2.254') }), 'add');
  kernel.putRoute(routeInfo(net('10.5.3.0/24'), { index: eth0.index, gateway: ip('192.0.2.254'), protocol: 4 }), 'add');
  const other = kernel.addLink({ name: 'flannel.9', kind: 'vxlan', alias: 'tsflannel:b', isUp: true });
  kernel.putAddress(other.index, ip('10.9.1.0'), 32);
  kernel.putRoute(routeInfo(net('10.5.4.0/25'), { index: other.index, protocol: ROUTE_PROTOCOL }), 'add');
}

describe('diff, for any kernel and any desired state', () => {
  const runs = { numRuns: 400 };

  it('reaches the desired state in one go, finds nothing more to do, and touches nothing of others', async () => {
    await fc.assert(
      fc.asyncProperty(
        desiredStates,
        fc.array(disturbances, { maxLength: 8 }),
        desiredStates,
        async (first, disturbing, second) => {
          const host = new Host();
          addForeignObjects(host);
          const foreign = foreignLines(host);
          await host.reconcile(first);
          for (const disturb of disturbing) disturb(host);
          const before = foreignLines(host);
          const plan = await host.reconcile(second);
          assert.deepEqual(foreignLines(host), before);
          assert.ok(foreign.every((line) => before.includes(line) || line.startsWith('route 10.5.')));
          assertReached(host, second, plan);
        },
      ),
      runs,
    );
  });

  // The kernel refuses to replace the first route by one that is there already: both were gone after two runs.
  it('keeps the wanted route where it stands behind another one of ours', async () => {
    const host = new Host();
    const destination = net('10.5.6.0/24');
    const via = (gateway: string): ReturnType<typeof routeInfo> =>
      routeInfo(destination, { gateway: ip(gateway), protocol: ROUTE_PROTOCOL, index: host.eth0.index });
    host.kernel.putRoute(via('192.0.2.7'), 'add');
    host.kernel.putRoute(via('192.0.2.6'), 'append');
    const wanted = { destination, device: 'eth0', gateway: ip('192.0.2.6'), isOnlink: false } as const;
    await host.reconcile({ ...EMPTY_STATE, routes: [{ ...wanted, type: 'unicast' }] });
    const left = host.kernel.routes.get('10.5.6.0/24') ?? [];
    assert.deepEqual(
      left.map(({ gateway }) => gateway?.toString()),
      ['192.0.2.6'],
    );
  });

  it('cleans up everything of ours and nothing else', async () => {
    await fc.assert(
      fc.asyncProperty(desiredStates, fc.array(disturbances, { maxLength: 8 }), async (state, disturbing) => {
        const host = new Host();
        addForeignObjects(host);
        await host.reconcile(state);
        for (const disturb of disturbing) disturb(host);
        const before = foreignLines(host);
        await host.reconcile(EMPTY_STATE);
        assert.deepEqual(host.kernel.describe(), [...before].sort());
      }),
      runs,
    );
  });

  it('makes every route before it removes any', async () => {
    await fc.assert(
      fc.asyncProperty(desiredStates, desiredStates, async (first, second) => {
        const host = new Host();
        await host.reconcile(first);
        const plan = await host.plan(second);
        const firstRemoval = plan.operations.findIndex(({ verb }) => verb === 'del');
        const lastMade = plan.operations.findLastIndex(({ verb }) => verb !== 'del');
        assert.ok(firstRemoval < 0 || lastMade < firstRemoval, steps(plan).join());
      }),
      runs,
    );
  });
});

/** Every desired object is there, except what the plan says cannot be. */
function assertReached(host: Host, state: DesiredState, plan: Plan): void {
  const { kernel } = host;
  const isMissing = (key: ObjectKey): boolean => plan.conflicts.has(key) || plan.blocked.has(key);
  for (const spec of state.links) {
    const link = kernel.getLink(spec.name);
    assert.ok(link?.isUp && link.mtu === spec.mtu && link.alias === MARK, spec.name);
    assert.deepEqual(spec.kind === 'vxlan' ? link.details : undefined, detailsOf(spec as VxlanLink));
  }
  for (const { device, address, mac } of state.neighbours) {
    assert.equal(kernel.neighbours.get(`${String(kernel.getLink(device)?.index)} ${address.toString()}`)?.mac, mac);
  }
  for (const { device, mac, destination } of state.fdb) {
    const entry = kernel.fdb.get(`${String(kernel.getLink(device)?.index)} ${mac}`);
    assert.equal(String(entry?.destination), destination.toString());
  }
  for (const spec of state.routes) {
    if (isMissing(routeKey(spec.destination, spec.metric))) continue;
    const metric = spec.metric ?? (spec.destination.family === 4 ? 0 : 1024);
    const used = kernel.routes.get(spec.destination.toString())?.find((route) => route.metric === metric);
    assert.ok(used, spec.destination.toString());
    assert.equal(used.type, spec.type);
    assert.equal(String(used.gateway), String(spec.gateway));
    assert.equal(spec.device === undefined ? 0 : kernel.getLink(spec.device)?.index, used.index);
  }
}
