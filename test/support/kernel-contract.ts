import assert from 'node:assert/strict';
import { OverlayError } from '../../src/errors.js';
import type { MacAddress } from '../../src/ip/mac.js';
import { stationProgram } from '../../src/netlink/filter-program.js';
import type { LinkInfo } from '../../src/netlink/link.js';
import type { NetlinkEvent } from '../../src/netlink/monitor.js';
import { netlinkErrno } from '../../src/netlink/socket.js';
import type { ActualState } from '../../src/reconcile/actual.js';
import { readActual } from '../../src/reconcile/actual-reader.js';
import { EMPTY_STATE, type RouteSpec, type VxlanLink } from '../../src/reconcile/desired.js';
import { DesiredIndex } from '../../src/reconcile/desired-index.js';
import type { Kernel } from '../../src/reconcile/kernel.js';
import { hasFixedAttributes, changesTo } from '../../src/reconcile/kinds/links/table.js';
import { follow } from '../../src/reconcile/kinds/table.js';
import type { ObjectKey } from '../../src/reconcile/object-key.js';
import type { Operation } from '../../src/reconcile/operation.js';
import { Ownership } from '../../src/reconcile/ownership.js';
import { ip, mac, net, vxlanLink } from './builders.js';
import { finish } from './steps.js';

/** A kernel to test. */
export interface KernelFixture {
  readonly kernel: Kernel;
  /** A device named eth0, up, with 192.0.2.1/24. */
  readonly eth0: LinkInfo;
}

/** A parameter that every kernel has, 0 unless somebody sets it. */
export const CONTRACT_SYSCTL = 'net/ipv4/conf/eth0/accept_local';

const NAME = 'flannel.1';
const LINK = { kind: 'link', key: `link ${NAME}`, reason: 'missing', device: NAME } as const;
const ADDRESS = { kind: 'address', key: `address ${NAME}`, reason: 'missing', device: NAME } as const;
const NEIGHBOUR = { kind: 'neighbour', key: `neighbour ${NAME}`, reason: 'missing', device: NAME } as const;
const PROXY = { kind: 'proxy-neighbour', key: 'proxy-neighbour eth0', reason: 'missing', device: 'eth0' } as const;
const FILTER = { kind: 'filter', key: `filter ${NAME} ingress`, reason: 'missing', device: NAME } as const;
const FDB = { kind: 'fdb', key: `fdb ${NAME}`, reason: 'missing', device: NAME } as const;
const ROUTE = { kind: 'route', key: 'route 10.5.2.0/24', reason: 'missing' } as const;
const SYSCTL = { kind: 'sysctl', key: 'sysctl a', reason: 'missing', verb: 'set', device: undefined } as const;

/** What every {@link Kernel} does; each test begins with the underlay device alone. */
export function describeKernelContract(
  name: string,
  open: () => Promise<KernelFixture> | KernelFixture,
  close: (fixture: KernelFixture) => Promise<void> | void,
): void {
  describe(`${name} as a Kernel`, () => {
    let fixture: KernelFixture;
    let kernel: Kernel;

    beforeEach(async () => {
      fixture = await open();
      ({ kernel } = fixture);
    });

    afterEach(async () => {
      await close(fixture);
    });

    const spec = (changes: Partial<VxlanLink> = {}): VxlanLink =>
      vxlanLink({ underlayIndex: fixture.eth0.index, ...changes });

    const device = (): LinkInfo => {
      const link = kernel.getLink(NAME);
      assert.ok(link, `${NAME} is not there`);
      return link;
    };

    const apply = (operation: Operation): boolean =>
      kernel.apply(operation, (wanted) => kernel.getLink(wanted)?.index ?? 0);

    /** The device, up, as everything else needs it. */
    const makeDevice = (): void => {
      apply({ ...LINK, verb: 'add', spec: spec(), alias: 'tsflannel:a', replaces: false });
      apply({ ...LINK, verb: 'set', aspect: 'up', change: { isUp: true } });
    };

    const fails = (operation: Operation, errno: string): void => {
      assert.throws(
        () => apply(operation),
        (error) => netlinkErrno(error) === errno,
        errno,
      );
    };

    const route = (changes: Partial<RouteSpec> = {}): RouteSpec => ({
      destination: net('10.5.2.0/24'),
      type: 'unicast',
      device: NAME,
      gateway: ip('10.5.2.0'),
      isOnlink: true,
      ...changes,
    });

    const routesTo = async (destination: string): Promise<string[]> => {
      const all = [...(await kernel.listRoutes(4)), ...(await kernel.listRoutes(6))];
      return all
        .filter((one) => one.destination.toString() === destination)
        .map((one) => `${one.type} via ${String(one.gateway)} proto ${one.protocol} metric ${one.metric}`);
    };

    it('makes a device as specified, down, with its mark', () => {
      assert.equal(apply({ ...LINK, verb: 'add', spec: spec(), alias: 'tsflannel:a', replaces: false }), true);
      const link = device();
      assert.deepEqual([link.kind, link.isUp, link.alias, link.txQueueLength], ['vxlan', false, 'tsflannel:a', 0]);
      const defaults = { defaultVxlanPort: kernel.defaultVxlanPort() };
      assert.equal(hasFixedAttributes(spec(), link, defaults), true);
      assert.deepEqual(changesTo(spec(), link, defaults), []);
    });

    for (const [field, value] of Object.entries({ vni: 2, local: ip('192.0.2.2'), port: 4789, gbp: true })) {
      it(`shows a device with another ${field}`, () => {
        const other = spec({ [field]: value });
        apply({ ...LINK, verb: 'add', spec: other, alias: 'tsflannel:a', replaces: false });
        const defaults = { defaultVxlanPort: kernel.defaultVxlanPort() };
        assert.equal(hasFixedAttributes(other, device(), defaults), true);
        assert.equal(hasFixedAttributes(spec(), device(), defaults), false);
      });
    }

    it('refuses a device whose name is taken, and takes its place when asked to', async () => {
      makeDevice();
      const { index } = device();
      apply({ ...NEIGHBOUR, verb: 'replace', address: ip('10.5.2.0'), mac: mac(2) });
      fails({ ...LINK, verb: 'add', spec: spec(), alias: 'tsflannel:a', replaces: false }, 'EEXIST');
      apply({ ...LINK, verb: 'add', spec: spec({ vni: 2 }), alias: 'tsflannel:a', replaces: true });
      assert.notEqual(device().index, index);
      assert.deepEqual(await kernel.listNeighbours(4, device().index), []);
    });

    for (const [aspect, wanted] of [
      ['mtu', { mtu: 1400 }],
      ['mac', { mac: mac(9) }],
      ['learning', { learning: true }],
    ] as const) {
      it(`changes the ${aspect} of a device in place`, () => {
        makeDevice();
        const defaults = { defaultVxlanPort: kernel.defaultVxlanPort() };
        const changes = changesTo(spec(wanted), device(), defaults);
        assert.deepEqual(
          changes.map((change) => change.aspect),
          [aspect],
        );
        for (const { change } of changes) apply({ ...LINK, verb: 'set', aspect, change });
        assert.deepEqual(changesTo(spec(wanted), device(), defaults), []);
      });
    }

    it('drops ARP entries with the MAC of their device, and not its forwarding entries', async () => {
      makeDevice();
      const { index } = device();
      apply({ ...NEIGHBOUR, verb: 'replace', address: ip('10.5.2.0'), mac: mac(2) });
      apply({ ...FDB, verb: 'replace', mac: mac(2), destination: ip('192.0.2.2') });
      apply({ ...LINK, verb: 'set', aspect: 'mac', change: { mac: mac(9) } });
      assert.deepEqual(await kernel.listNeighbours(4, index), []);
      assert.ok((await kernel.listFdb(index)).some((entry) => entry.mac === mac(2)));
    });

    it('deletes a device, and says when it was gone before', () => {
      makeDevice();
      const { index } = device();
      assert.equal(
        kernel.apply({ ...LINK, verb: 'del' }, () => index),
        true,
      );
      assert.equal(kernel.getLink(NAME), undefined);
      assert.equal(
        kernel.apply({ ...LINK, verb: 'del' }, () => index),
        false,
      );
    });

    for (const [address, length] of [
      ['10.5.1.0', 32],
      ['fd00:10:5:1::', 128],
    ] as const) {
      it(`puts ${address} on a device, once, and takes it off`, async () => {
        makeDevice();
        const what = { address: ip(address), length, peer: undefined };
        const shown = async (): Promise<number> =>
          (await kernel.listAddresses(device().index)).filter((info) => info.address.equals(ip(address))).length;
        apply({ ...ADDRESS, ...what, verb: 'replace' });
        apply({ ...ADDRESS, ...what, verb: 'replace' });
        assert.equal(await shown(), 1);
        assert.equal(apply({ ...ADDRESS, ...what, verb: 'del' }), true);
        assert.equal(await shown(), 0);
        assert.equal(apply({ ...ADDRESS, ...what, verb: 'del' }), false);
      });
    }

    for (const [address, family] of [
      ['10.5.2.0', 4],
      ['fd00:10:5:2::', 6],
    ] as const) {
      it(`has one permanent neighbour for ${address}, the last that was given`, async () => {
        makeDevice();
        const { index } = device();
        const what = { ...NEIGHBOUR, address: ip(address) };
        const shown = async (): Promise<unknown[]> =>
          (await kernel.listNeighbours(family, index))
            .filter((info) => info.address.equals(ip(address)))
            .map((info) => [info.mac, info.isPermanent]);
        apply({ ...what, verb: 'replace', mac: mac(2) });
        apply({ ...what, verb: 'replace', mac: mac(3) });
        assert.deepEqual(await shown(), [[mac(3), true]]);
        assert.equal(apply({ ...what, verb: 'del', mac: undefined }), true);
        assert.deepEqual(await shown(), []);
        assert.equal(apply({ ...what, verb: 'del', mac: undefined }), false);
      });
    }

    it('makes a device a port of a bridge, isolated and with hairpin or not', () => {
      const bridge = { kind: 'bridge', name: 'tsfb-1', mtu: 1500, mac: mac(1) } as const;
      const made = { ...LINK, key: 'link tsfb-1', device: 'tsfb-1', alias: 'tsflannel:a', replaces: false } as const;
      apply({ ...made, verb: 'add', spec: bridge });
      const port = { kind: 'port', key: 'port eth0', reason: 'missing', verb: 'set', device: 'eth0' } as const;
      for (const [isIsolated, isHairpin] of [
        [true, false],
        [false, true],
      ] as const) {
        assert.equal(apply({ ...port, bridge: 'tsfb-1', isIsolated, isHairpin }), true);
        const link = kernel.getLink('eth0');
        assert.deepEqual(
          [link?.masterIndex, link?.isIsolated, link?.isHairpin],
          [kernel.getLink('tsfb-1')?.index, isIsolated, isHairpin],
        );
      }
    });

    it('answers for an address on a device of others, once, with our protocol number', async () => {
      const { index } = fixture.eth0;
      const address = ip('2001:db8::2');
      const shown = async (): Promise<unknown[]> =>
        (await kernel.listProxies()).map((one) => [one.index, one.address.toString(), one.protocol]);
      assert.deepEqual(await shown(), []);
      assert.equal(apply({ ...PROXY, verb: 'add', address }), true);
      assert.equal(apply({ ...PROXY, verb: 'add', address }), true);
      assert.deepEqual(await shown(), [[index, '2001:db8::2', 173]]);
      assert.equal(apply({ ...PROXY, verb: 'del', address }), true);
      assert.deepEqual(await shown(), []);
      assert.equal(apply({ ...PROXY, verb: 'del', address }), false);
    });

    it('answers for no address any more on a device that went down', async () => {
      apply({ ...PROXY, verb: 'add', address: ip('2001:db8::2') });
      apply({ ...LINK, device: 'eth0', verb: 'set', aspect: 'up', change: { isUp: false } });
      assert.deepEqual(await kernel.listProxies(), []);
    });

    it('has one destination for a MAC, the last that was given', async () => {
      makeDevice();
      const { index } = device();
      const shown = async (): Promise<unknown[]> =>
        (await kernel.listFdb(index))
          .filter((entry) => entry.mac === mac(2))
          .map(({ destination, port, vni, viaIndex, isPermanent, isSelf }) => [
            String(destination),
            ...[port, vni, viaIndex, isPermanent, isSelf],
          ]);
      apply({ ...FDB, verb: 'replace', mac: mac(2), destination: ip('192.0.2.2') });
      apply({ ...FDB, verb: 'replace', mac: mac(2), destination: ip('192.0.2.3') });
      assert.deepEqual(await shown(), [['192.0.2.3', undefined, undefined, undefined, true, true]]);
      assert.equal(apply({ ...FDB, verb: 'del', mac: mac(2) }), true);
      assert.deepEqual(await shown(), []);
      assert.equal(apply({ ...FDB, verb: 'del', mac: mac(2) }), false);
    });

    for (const direction of ['ingress', 'egress'] as const) {
      it(`has one ${direction} filter on a device, the last that was given`, async () => {
        makeDevice();
        const { index } = device();
        const shown = async (): Promise<unknown[]> =>
          (await kernel.listFilters(index)).map((one) => [one.direction, Buffer.from(one.program).toString('hex')]);
        const programOf = (stations: readonly MacAddress[]): string =>
          Buffer.from(stationProgram(direction, stations)).toString('hex');
        assert.deepEqual(await shown(), []);
        apply({ ...FILTER, verb: 'replace', direction, stations: [mac(2)] });
        apply({ ...FILTER, verb: 'replace', direction, stations: [mac(2), mac(3)] });
        assert.deepEqual(await shown(), [[direction, programOf([mac(2), mac(3)])]]);
        assert.equal(apply({ ...FILTER, verb: 'del', direction, stations: [] }), true);
        assert.deepEqual(await shown(), []);
        assert.equal(apply({ ...FILTER, verb: 'del', direction, stations: [] }), false);
      });
    }

    for (const [family, destination, gateway, metric] of [
      [4, '10.5.2.0/24', '10.5.2.0', 0],
      [6, 'fd00:10:5:2::/64', 'fd00:10:5:2::', 1024],
    ] as const) {
      it(`adds an IPv${family} route once, replaces it, and deletes exactly it`, async () => {
        makeDevice();
        const wanted = route({ destination: net(destination), gateway: ip(gateway) });
        const common = { ...ROUTE, device: NAME };
        assert.equal(apply({ ...common, verb: 'add', route: wanted }), true);
        fails({ ...common, verb: 'add', route: wanted }, 'EEXIST');
        const other = route({ destination: net(destination), gateway: ip(gateway).add(1n) });
        assert.equal(apply({ ...common, verb: 'replace', route: other }), true);
        assert.deepEqual(await routesTo(destination), [
          `unicast via ${ip(gateway).add(1n).toString()} proto 173 metric ${metric}`,
        ]);
        apply({ ...common, verb: 'add', route: { ...wanted, metric: 7 } });
        const [found] = (await kernel.listRoutes(family)).filter((one) => one.metric === 7);
        assert.ok(found);
        assert.equal(apply({ ...common, verb: 'del', route: found }), true);
        assert.equal((await routesTo(destination)).length, 1);
        assert.equal(apply({ ...common, verb: 'del', route: found }), false);
      });
    }

    it('makes a blackhole without a device', async () => {
      apply({
        ...ROUTE,
        verb: 'add',
        device: undefined,
        route: route({ type: 'blackhole', device: undefined, gateway: undefined, isOnlink: false, metric: 5000 }),
      });
      assert.deepEqual(await routesTo('10.5.2.0/24'), ['blackhole via undefined proto 173 metric 5000']);
    });

    it('refuses a route through a device that is down', () => {
      apply({ ...LINK, verb: 'add', spec: spec(), alias: 'tsflannel:a', replaces: false });
      fails({ ...ROUTE, device: NAME, verb: 'add', route: route() }, 'ENETDOWN');
    });

    it('takes what lies on a device with it', async () => {
      makeDevice();
      apply({ ...ROUTE, device: NAME, verb: 'add', route: route() });
      apply({ ...LINK, verb: 'del' });
      assert.deepEqual(await routesTo('10.5.2.0/24'), []);
    });

    it('sets a parameter, says when it has the value, and knows which it lacks', () => {
      assert.equal(kernel.readSysctl(CONTRACT_SYSCTL), '0');
      assert.equal(apply({ ...SYSCTL, path: CONTRACT_SYSCTL, value: '1' }), true);
      assert.equal(kernel.readSysctl(CONTRACT_SYSCTL), '1');
      assert.equal(apply({ ...SYSCTL, path: CONTRACT_SYSCTL, value: '1' }), false);
      assert.equal(kernel.readSysctl('net/ipv4/conf/eth0/nothing'), undefined);
      assert.throws(
        () => apply({ ...SYSCTL, path: 'net/ipv4/conf/eth0/nothing', value: '1' }),
        (error) => error instanceof OverlayError && error.code === 'ERR_SYSCTL',
      );
      assert.equal(apply({ ...SYSCTL, path: 'net/ipv6/conf/eth0/nothing', value: '1' }), false);
    });

    it('reports every change, so that who follows knows what a list would tell', async () => {
      makeDevice();
      const desired = new DesiredIndex();
      finish(
        desired.update({
          ...EMPTY_STATE,
          links: [spec()],
          filters: [{ device: NAME, direction: 'ingress', stations: [mac(2)] }],
        }),
      );
      const ownership = new Ownership({ instance: 'a', scope: [net('10.5.0.0/16')], staleDevices: [] }, desired);
      const events: NetlinkEvent[] = [];
      const subscription = kernel.subscribe((event) => events.push(event));
      const actual = await readActual(kernel, desired, ownership);
      const shown = ({ neighbours, fdb, filters, routes, addresses }: ActualState): string[] =>
        [neighbours, fdb, filters, routes, addresses].flatMap((objects: ReadonlyMap<string, unknown>) =>
          Array.from(objects, ([key, value]) => `${key}: ${JSON.stringify(value)}`).filter((line) =>
            /^(?:neighbour|fdb|filter|route|address) (?:flannel\.1 )?(?:10\.5\.|02:|ingress)/.test(line),
          ),
        );
      const steps: readonly Operation[] = [
        { ...ADDRESS, verb: 'replace', address: ip('10.5.1.0'), length: 32, peer: undefined },
        { ...NEIGHBOUR, verb: 'replace', address: ip('10.5.2.0'), mac: mac(2) },
        { ...NEIGHBOUR, verb: 'replace', address: ip('10.5.2.0'), mac: mac(3) },
        { ...FDB, verb: 'replace', mac: mac(2), destination: ip('192.0.2.2') },
        { ...FDB, verb: 'replace', mac: mac(2), destination: ip('192.0.2.3') },
        { ...FILTER, verb: 'replace', direction: 'ingress', stations: [mac(2)] },
        { ...FILTER, verb: 'replace', direction: 'ingress', stations: [mac(3)] },
        { ...ROUTE, device: NAME, verb: 'add', route: route() },
        { ...ROUTE, device: NAME, verb: 'replace', route: route({ gateway: ip('10.5.2.1') }) },
        { ...NEIGHBOUR, verb: 'del', address: ip('10.5.2.0'), mac: undefined },
        { ...FDB, verb: 'del', mac: mac(2) },
      ];
      for (const step of steps) {
        const touched = new Set<ObjectKey>();
        apply(step);
        subscription.drain();
        const isDoubtful = events.splice(0).map((event) => follow(actual, event, touched));
        assert.ok(touched.size > 0, `${step.kind} ${step.verb}`);
        assert.ok(!isDoubtful.includes(true), `${step.kind} ${step.verb}`);
        assert.deepEqual(shown(actual), shown(await readActual(kernel, desired, ownership)));
      }
      subscription.close();
      apply({ ...LINK, verb: 'del' });
      subscription.drain();
      assert.deepEqual(events, [], 'nothing after it was closed');
    });
  });
}
