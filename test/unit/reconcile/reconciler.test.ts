import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { Tunnel, TunnelOptions } from '../../../src/dataplane/tunnel.js';
import type { TunnelSpec } from '../../../src/dataplane/tunnel-spec.js';
import { OverlayError } from '../../../src/errors.js';
import { IpAddress } from '../../../src/ip/address.js';
import { Prefix } from '../../../src/ip/prefix.js';
import type { NetlinkEvent } from '../../../src/netlink/monitor.js';
import { type DesiredState, EMPTY_STATE, mergeStates } from '../../../src/reconcile/desired.js';
import { aspectOf } from '../../../src/reconcile/planner.js';
import { Reconciler } from '../../../src/reconcile/reconciler.js';
import type { ReconcilerStatus } from '../../../src/reconcile/status.js';
import { ip, mac, net, tunnelSpec, vxlanLink } from '../../support/builders.js';
import { FakeClock, settle } from '../../support/fake-clock.js';
import { FakeKernel, detailsOf, routeInfo } from '../../support/fake-kernel.js';
import { FakeTunnel } from '../../support/fake-tunnel.js';
import { RecordingLogger } from '../../support/recorder.js';
import { countTurns } from '../../support/ticking-clock.js';
import { waitFor } from '../../support/wait.js';

const SCOPE = { scope: [net('10.0.0.0/11')] };
/** Address and subnet of peer `n`, 1 … 60 000, in 10.0.0.0/8. */
const subnetAddress = (n: number): IpAddress => IpAddress.fromValue(4, ip('10.5.0.0').value + (BigInt(n) << 8n));

function vxlanPeer(n: number, device = 'flannel.1'): DesiredState {
  const address = subnetAddress(n);
  const destination = Prefix.of(address, 24);
  return {
    ...EMPTY_STATE,
    neighbours: [{ device, address, mac: mac(n) }],
    fdb: [{ device, mac: mac(n), destination: IpAddress.fromValue(4, ip('192.0.2.0').value + BigInt(n)) }],
    routes: [{ destination, type: 'unicast', device, gateway: address, isOnlink: true }],
  };
}

/** The parts that stay the same, as backends keep them, are the same objects. */
const cachedPeer = ((): ((n: number) => DesiredState) => {
  const cache = new Map<number, DesiredState>();
  return (n) => {
    const state = cache.get(n) ?? vxlanPeer(n);
    cache.set(n, state);
    return state;
  };
})();

function overlay(peers: readonly number[], link = vxlanLink()): DesiredState {
  const addresses = [{ device: link.name, address: ip('10.5.1.0'), length: 32 }];
  const base = { ...EMPTY_STATE, links: [link], addresses };
  const peer = link.name === 'flannel.1' ? cachedPeer : (n: number): DesiredState => vxlanPeer(n, link.name);
  return mergeStates([base, ...peers.map(peer)]);
}

function directRoute(n: number): DesiredState {
  const common = { type: 'unicast', isOnlink: false, device: 'eth0' } as const;
  return { ...EMPTY_STATE, routes: [{ ...common, destination: net(`10.5.${n}.0/24`), gateway: ip(`192.0.2.${n}`) }] };
}

function tunnelState(more: Partial<TunnelSpec> = {}): DesiredState {
  const device = 'flannel0';
  return {
    ...EMPTY_STATE,
    links: [{ kind: 'tun', name: device, mtu: 1472, txQueueLength: 500 }],
    addresses: [{ device, address: ip('10.5.1.0'), length: 32 }],
    routes: [{ destination: net('10.5.0.0/16'), type: 'unicast', device, gateway: undefined, isOnlink: false }],
    tunnels: [tunnelSpec({ device, ...more })],
  };
}

class Rig {
  readonly kernel = new FakeKernel();
  readonly clock = new FakeClock();
  readonly log = new RecordingLogger();
  readonly tunnels: FakeTunnel[] = [];
  readonly statuses: ReconcilerStatus[] = [];
  readonly eth0 = this.kernel.addLink({ name: 'eth0', isUp: true });
  /** Code with which opening a tunnel fails. */
  tunnelError: 'ERR_PORT_IN_USE' | undefined;
  /** Thrown by the one who is told of the status. */
  statusError: Error | undefined;
  reconciler = this.start();

  start(instance = 'a'): Reconciler {
    return new Reconciler({
      kernel: this.kernel,
      clock: this.clock,
      logger: this.log,
      instance,
      tunnels: { open: (options) => this.open(options), workers: 0, disabledOffloads: [] },
      onStatus: (status) => {
        this.statuses.push(status);
        if (this.statusError !== undefined) throw this.statusError;
      },
    });
  }

  async reach(state: DesiredState): Promise<void> {
    this.reconciler.setDesired(state, SCOPE);
    await this.clock.advance(500);
    assert.ok(this.reconciler.status.isConverged, JSON.stringify(this.reconciler.status));
  }

  /** Index of one of our devices. */
  index(name: string): number {
    const link = this.kernel.getLink(name);
    assert.ok(link, name);
    return link.index;
  }

  private open(options: TunnelOptions): Promise<Tunnel> {
    if (this.tunnelError !== undefined) {
      return Promise.reject(new OverlayError(this.tunnelError, 'cannot open tunnel flannel0: EADDRINUSE'));
    }
    const tunnel = FakeTunnel.open(options, this.kernel);
    this.tunnels.push(tunnel);
    return Promise.resolve(tunnel);
  }
}

describe('Reconciler', () => {
  let rig: Rig;

  beforeEach(() => {
    rig = new Rig();
  });

  afterEach(async () => {
    await rig.reconciler.close();
    assert.equal(rig.clock.pending, 0, 'a timer is left over');
  });

  it('touches nothing before it is told what is desired', async () => {
    rig.kernel.addLink({ name: 'flannel.7', kind: 'vxlan', alias: 'tsflannel:a' });
    const before = rig.kernel.describe();
    await rig.clock.advance(120_000);
    assert.deepEqual(rig.kernel.describe(), before);
  });

  it('brings an empty host to the desired state, and tells it in one line', async () => {
    await rig.reach(overlay([2, 3]));
    const [line, ...rest] = rig.log.lines.filter(({ level }) => level !== 'debug');
    assert.deepEqual(rest, []);
    assert.equal(line?.message, 'kernel state changed');
    assert.match(
      line.fields.detail ?? '',
      /link add 1, address replace 1, link set 1, neighbour replace 2.*route add 2/,
    );
    const { changes, drift } = rig.reconciler.statistics;
    assert.equal(changes.route.add, 2);
    assert.ok(Object.values(drift).every((count) => count === 0));
  });

  it('adds and removes peers without listing anything, and counts none of it as drift', async () => {
    await rig.reach(overlay([2, 3]));
    const { dumps } = rig.kernel;
    await rig.reach(overlay([3, 4]));
    assert.equal(rig.kernel.dumps, dumps);
    assert.deepEqual([...rig.kernel.routes.keys()].sort(), ['10.5.3.0/24', '10.5.4.0/24']);
    assert.ok(Object.values(rig.reconciler.statistics.drift).every((count) => count === 0));
    assert.deepEqual(rig.log.find(/reverted/), []);
  });

  it('takes the last of several desired states that come at once', async () => {
    rig.reconciler.setDesired(overlay([2, 3, 4]), SCOPE);
    rig.reconciler.setDesired(overlay([5]), SCOPE);
    await rig.clock.advance(500);
    assert.deepEqual([...rig.kernel.routes.keys()], ['10.5.5.0/24']);
  });

  describe('when somebody else changes what is ours', () => {
    const vandalism: Record<string, { kind: string; act: (rig: Rig, index: number) => void }> = {
      'deletes a neighbour': {
        kind: 'neighbour',
        act: ({ kernel }, at) => {
          kernel.delNeighbour(at, ip('10.5.2.0'));
        },
      },
      'alters a neighbour': {
        kind: 'neighbour',
        act: ({ kernel }, at) => {
          kernel.putNeighbour(at, ip('10.5.2.0'), mac(99));
        },
      },
      'adds a neighbour': {
        kind: 'neighbour',
        act: ({ kernel }, at) => {
          kernel.putNeighbour(at, ip('10.5.9.0'), mac(9));
        },
      },
      'deletes a forwarding entry': {
        kind: 'fdb',
        act: ({ kernel }, at) => {
          kernel.delFdb(at, mac(2));
        },
      },
      'alters a forwarding entry': {
        kind: 'fdb',
        act: ({ kernel }, at) => {
          kernel.replaceFdb(at, mac(2), ip('192.0.2.99'));
        },
      },
      'deletes a route': {
        kind: 'route',
        act: ({ kernel }) => {
          kernel.delRoute(kernel.routes.get('10.5.2.0/24')?.[0] as never);
        },
      },
      'replaces a route': {
        kind: 'route',
        act: ({ kernel }, index) => {
          kernel.putRoute(routeInfo(net('10.5.2.0/24'), { index, gateway: ip('10.5.3.0'), isOnlink: true }), 'replace');
        },
      },
      'adds a route': {
        kind: 'route',
        act: ({ kernel }, index) => {
          kernel.putRoute(routeInfo(net('10.5.9.0/24'), { index, gateway: ip('10.5.3.0'), isOnlink: true }), 'add');
        },
      },
      'deletes the address, and with it the routes': {
        kind: 'address',
        act: ({ kernel }, at) => {
          kernel.delAddress(at, ip('10.5.1.0'), 32);
        },
      },
      'adds an address': {
        kind: 'address',
        act: ({ kernel }, at) => {
          kernel.putAddress(at, ip('10.5.1.7'), 24);
        },
      },
      'deletes the device': {
        kind: 'link',
        act: ({ kernel }, at) => {
          kernel.delLink(at);
        },
      },
      'sets the device down': {
        kind: 'link',
        act: ({ kernel }, at) => {
          kernel.setLink(at, { isUp: false });
        },
      },
      'sets the device down and up at once': {
        kind: 'route',
        act: ({ kernel }, at) => {
          kernel.setLink(at, { isUp: false });
          kernel.setLink(at, { isUp: true });
        },
      },
      'changes the MTU': {
        kind: 'link',
        act: ({ kernel }, at) => {
          kernel.setLink(at, { mtu: 1300 });
        },
      },
      'changes the MAC': {
        kind: 'link',
        act: ({ kernel }, at) => {
          kernel.setLink(at, { mac: mac(77) });
        },
      },
      'renames the device': {
        kind: 'link',
        act: ({ kernel }, at) => {
          kernel.setLink(at, { name: 'mine' });
        },
      },
      'removes the mark': {
        kind: 'link',
        act: ({ kernel }, at) => {
          kernel.setLink(at, { alias: '' });
        },
      },
    };
    for (const [what, { kind, act }] of Object.entries(vandalism)) {
      it(`reverts it within a second and says so once: ${what}`, async () => {
        await rig.reach(overlay([2, 3]));
        const before = rig.kernel.describe();
        act(rig, rig.index('flannel.1'));
        await rig.clock.advance(1000);
        assert.deepEqual(rig.kernel.describe(), before);
        assert.ok(rig.reconciler.status.isConverged);
        assert.ok(rig.reconciler.statistics.drift[kind as 'link'] > 0, 'not counted');
        const lines = rig.log.find(/reverted a change made by somebody else/, 'warn');
        assert.equal(lines.filter(({ fields }) => fields.kind === kind).length, 1);
        await rig.clock.advance(5000);
        assert.equal(rig.log.find(/reverted/).length, lines.length);
      });
    }

    it('names what was reverted, and how it differed', async () => {
      await rig.reach(overlay([2, 3]));
      rig.kernel.delNeighbour(rig.index('flannel.1'), ip('10.5.3.0'));
      await rig.clock.advance(1000);
      const { fields } = rig.log.find(/reverted/)[0] ?? { fields: {} };
      assert.deepEqual(fields, { kind: 'neighbour', count: 1, detail: 'flannel.1 10.5.3.0 was missing' });
    });

    it('makes a route at once when the next hop object goes that somebody had put in its place', async () => {
      await rig.reach(directRoute(2));
      const [ours] = rig.kernel.routes.get('10.5.2.0/24') ?? [];
      assert.ok(ours);
      rig.kernel.putRoute({ ...ours, protocol: 4, nexthopId: 7 }, 'replace');
      await rig.clock.advance(1000);
      rig.kernel.delNexthop(7);
      await rig.clock.advance(1000);
      assert.deepEqual(rig.kernel.routes.get('10.5.2.0/24'), [ours]);
    });

    it('lists nothing for next hop objects that no route of the overlay uses', async () => {
      await rig.reach(directRoute(2));
      const { dumps } = rig.reconciler.statistics;
      rig.kernel.delNexthop(7);
      await rig.clock.advance(1000);
      assert.equal(rig.reconciler.statistics.dumps, dumps);
    });

    it('looks once at a burst of changes', async () => {
      await rig.reach(overlay(Array.from({ length: 50 }, (_, n) => n + 2)));
      const { runs } = rig.reconciler.statistics;
      for (let n = 2; n < 52; n++) rig.kernel.delNeighbour(rig.index('flannel.1'), subnetAddress(n));
      await rig.clock.advance(1000);
      assert.equal(rig.reconciler.statistics.drift.neighbour, 50);
      assert.ok(rig.reconciler.statistics.runs - runs <= 2);
    });

    /** Has something happen while everything is listed, after neighbours were. */
    function whileListing(happen: () => void): void {
      const { kernel } = rig;
      const listRoutes = kernel.listRoutes.bind(kernel);
      kernel.listRoutes = (family) => {
        kernel.listRoutes = listRoutes;
        happen();
        return listRoutes(family);
      };
    }

    it('takes in what happens while everything is listed, and does not list again for it', async () => {
      await rig.reach(overlay([2, 3]));
      const before = rig.kernel.describe();
      const { dumps } = rig.kernel;
      whileListing(() => {
        rig.kernel.delNeighbour(rig.index('flannel.1'), ip('10.5.2.0'));
        assert.notDeepEqual(rig.kernel.describe(), before);
      });
      rig.kernel.loseEvents();
      await rig.clock.advance(1000);
      assert.deepEqual(rig.kernel.describe(), before);
      assert.equal(rig.reconciler.statistics.drift.neighbour, 1);
      assert.equal(rig.kernel.dumps, dumps + 1);
    });

    for (const [title, count, lists] of [
      ['a hundred thousand changes while everything is listed', 100_000, 1],
      ['more changes while everything is listed than it keeps by listing it again', 100_001, 2],
    ] as const) {
      it(`copes with ${title}`, async () => {
        await rig.reach(overlay([2]));
        const { dumps } = rig.kernel;
        whileListing(() => {
          for (let n = 0; n < count; n++) rig.kernel.disturb({ type: 'nexthop', id: 7 });
        });
        rig.kernel.loseEvents();
        await rig.clock.advance(1000);
        assert.equal(rig.kernel.dumps, dumps + lists);
      });
    }

    it('finds what happened after the kernel dropped events', async () => {
      await rig.reach(overlay([2, 3]));
      const before = rig.kernel.describe();
      rig.kernel.delNeighbour(rig.index('flannel.1'), ip('10.5.3.0'));
      rig.kernel.loseEvents();
      await rig.clock.advance(1000);
      assert.deepEqual(rig.kernel.describe(), before);
      assert.equal(rig.reconciler.statistics.lostEvents, 1);
    });

    it('finds within half a minute what no event tells', async () => {
      const path = 'net/ipv4/conf/flannel.1/rp_filter';
      rig.kernel.sysctls.set(path, '1');
      await rig.reach({ ...overlay([2]), sysctls: [{ path, value: '2' }] });
      assert.equal(rig.kernel.sysctls.get(path), '2');
      rig.kernel.sysctls.set(path, '1');
      await rig.clock.advance(31_000);
      assert.equal(rig.kernel.sysctls.get(path), '2');
      assert.equal(rig.reconciler.statistics.drift.sysctl, 1);
    });

    it('reads no parameters when only peers change', async () => {
      const path = 'net/ipv4/conf/flannel.1/rp_filter';
      rig.kernel.sysctls.set(path, '1');
      const withPeers = (...peers: number[]): DesiredState => ({ ...overlay(peers), sysctls: [{ path, value: '2' }] });
      await rig.reach(withPeers(2));
      rig.kernel.readSysctl = () => assert.fail('read');
      await rig.reach(withPeers(2, 3));
      assert.deepEqual(rig.log.find(/could not be read/), []);
    });

    it('sets the parameters of a device that somebody deleted before the new one is up, also between two lists', async () => {
      const path = 'net/ipv4/conf/flannel.1/rp_filter';
      const setDefault = (): void => void rig.kernel.sysctls.set(path, '1');
      setDefault();
      await rig.reach({ ...overlay([2]), sysctls: [{ path, value: '2' }] });
      rig.kernel.loseEvents();
      await rig.clock.advance(100);
      const { dumps } = rig.kernel;
      rig.kernel.delLink(rig.index('flannel.1'));
      rig.kernel.sysctls.delete(path);
      rig.kernel.refuse = ({ kind, verb }) => {
        if (kind === 'link' && verb === 'add') setDefault();
        return undefined;
      };
      rig.kernel.applied.length = 0;
      await rig.clock.advance(30);
      assert.equal(rig.kernel.dumps, dumps);
      const order = rig.kernel.applied.map(({ kind, verb }) => `${kind} ${verb}`);
      assert.deepEqual(order.slice(0, 4), ['link add', 'sysctl set', 'address replace', 'link set']);
    });

    it('sets the parameters that a device gets with a larger MTU', async () => {
      const path = 'net/ipv6/conf/flannel.1/accept_ra'; // not there below 1280 bytes
      const state = (mtu: number): DesiredState => ({
        ...overlay([2], vxlanLink({ mtu })),
        sysctls: [{ path, value: '0' }],
      });
      await rig.reach(state(1200));
      rig.kernel.refuse = ({ kind }) => {
        if (kind === 'link') rig.kernel.sysctls.set(path, '1');
        return undefined;
      };
      await rig.reach(state(1450));
      assert.equal(rig.kernel.sysctls.get(path), '0');
    });

    it('does not list everything more than a few times a second while others keep changing devices', async () => {
      await rig.reach(overlay([2]));
      const { dumps } = rig.kernel;
      for (let n = 0; n < 100; n++) {
        rig.kernel.setLink(rig.eth0.index, { isUp: n % 2 === 0 });
        rig.kernel.loseEvents();
        await rig.clock.advance(10);
      }
      assert.ok(rig.kernel.dumps - dumps <= 7, `${rig.kernel.dumps - dumps} lists in a second`);
    });

    it('ignores changes to what is not ours', async () => {
      await rig.reach(overlay([2]));
      const { runs } = rig.reconciler.statistics;
      const { index } = rig.kernel.addLink({ name: 'veth7', kind: 'veth', isUp: true });
      rig.kernel.putAddress(index, ip('203.0.113.7'), 24);
      rig.kernel.putNeighbour(index, ip('203.0.113.8'), mac(8));
      rig.kernel.putRoute(routeInfo(net('198.51.100.0/24'), { index }), 'add');
      await rig.clock.advance(1000);
      assert.equal(rig.reconciler.statistics.runs, runs);
    });
  });

  describe('when the kernel refuses a change', () => {
    const refuseRoute = (): void => {
      rig.kernel.refuse = (operation) => (operation.key === 'route 10.5.2.0/24' ? 'ENETUNREACH' : undefined);
    };

    it('makes everything else, and tries the one again with growing delays', async () => {
      const attempts: number[] = [];
      rig.kernel.refuse = (operation) => {
        if (operation.key !== 'route 10.5.2.0/24') return undefined;
        attempts.push(rig.clock.monotonicMs());
        return 'ENETUNREACH';
      };
      rig.reconciler.setDesired(overlay([2, 3, 4]), SCOPE);
      await rig.clock.advance(10);
      assert.deepEqual([...rig.kernel.routes.keys()].sort(), ['10.5.3.0/24', '10.5.4.0/24']);
      await rig.clock.advance(300_000);
      const delays = attempts.slice(1).map((at, index) => at - (attempts[index] ?? 0));
      assert.ok(
        delays.slice(0, 6).every((delay, index) => delay >= 75 * 2 ** index && delay <= 130 * 2 ** index),
        String(delays),
      );
      assert.ok(
        delays.slice(10).every((delay) => delay >= 22_000 && delay <= 38_000),
        String(delays),
      );
    });

    it('says it once, and once more when it works again', async () => {
      refuseRoute();
      rig.reconciler.setDesired(overlay([2, 3]), SCOPE);
      await rig.clock.advance(20_000);
      const [line, ...more] = rig.log.find(/could not be changed/, 'warn');
      assert.deepEqual(more, []);
      assert.equal(line?.fields.kind, 'route');
      assert.equal(rig.reconciler.status.isConverged, false);
      assert.deepEqual(
        rig.reconciler.status.failures.map(({ key }) => key),
        ['route 10.5.2.0/24'],
      );
      assert.ok(rig.reconciler.statistics.failed.route > 3);
      rig.kernel.refuse = () => undefined;
      await rig.clock.advance(40_000);
      assert.ok(rig.reconciler.status.isConverged);
      assert.equal(rig.log.find(/after earlier failures/, 'info').length, 1);
      assert.equal(rig.reconciler.statistics.drift.route, 0);
    });

    it('says it again when the reason is another one', async () => {
      refuseRoute();
      rig.reconciler.setDesired(overlay([2]), SCOPE);
      await rig.clock.advance(10_000);
      rig.kernel.refuse = (operation) => (operation.key === 'route 10.5.2.0/24' ? 'ENOMEM' : undefined);
      await rig.clock.advance(40_000);
      const told = rig.log.find(/could not be changed/).map(({ fields }) => (fields.error as OverlayError).context);
      assert.deepEqual(told, [{ errno: 'ENETUNREACH' }, { errno: 'ENOMEM' }]);
    });

    it('counts and tells only what it did: no parameter of a device that cannot be made', async () => {
      const path = 'net/ipv4/conf/flannel.1/accept_local';
      rig.kernel.sysctls.set(path, '0');
      await rig.reach({ ...overlay([2]), sysctls: [{ path, value: '1' }] });
      rig.kernel.refuse = ({ kind, verb }) => (kind === 'link' && verb === 'add' ? 'EEXIST' : undefined);
      rig.kernel.delLink(rig.index('flannel.1'));
      rig.kernel.sysctls.delete(path);
      await rig.clock.advance(70_000);
      assert.deepEqual(rig.log.find(/reverted/), []);
      assert.equal(rig.reconciler.statistics.changes.sysctl.set, 1);
      assert.equal(rig.log.find(/could not be changed/).length, 1);
    });

    it('counts and tells nothing where a device has no such parameter', async () => {
      const sysctls = [{ path: 'net/ipv6/conf/flannel.1/accept_ra', value: '0' }];
      await rig.reach({ ...overlay([2]), sysctls });
      assert.equal(rig.reconciler.statistics.changes.sysctl.set, 0);
      rig.kernel.delLink(rig.index('flannel.1'));
      await rig.clock.advance(1000);
      assert.ok(rig.reconciler.status.isConverged);
      assert.equal(rig.reconciler.statistics.drift.sysctl, 0);
    });

    it('says it in one line if it concerns many', async () => {
      rig.kernel.refuse = ({ kind }) => (kind === 'neighbour' ? 'ENOBUFS' : undefined);
      rig.reconciler.setDesired(overlay(Array.from({ length: 100 }, (_, n) => n + 2)), SCOPE);
      await rig.clock.advance(2000);
      const lines = rig.log.find(/could not be changed/);
      assert.deepEqual(
        lines.map(({ fields }) => fields.count),
        [100],
      );
    });

    it('forgets a failure that nobody wants repaired any more', async () => {
      refuseRoute();
      rig.reconciler.setDesired(overlay([2, 3]), SCOPE);
      await rig.clock.advance(5000);
      await rig.reach(overlay([3]));
      assert.deepEqual(rig.reconciler.status.failures, []);
      assert.deepEqual(rig.log.find(/after earlier failures/), []);
    });

    it('puts nothing on a device that cannot be made, and all of it as soon as it can', async () => {
      rig.kernel.refuse = ({ kind, verb }) => (kind === 'link' && verb === 'add' ? 'EEXIST' : undefined);
      rig.reconciler.setDesired(overlay([2]), SCOPE);
      await rig.clock.advance(1000);
      const { failures, blocked } = rig.reconciler.status;
      assert.deepEqual([failures.length, blocked], [1, 4]);
      rig.kernel.refuse = () => undefined;
      await rig.clock.advance(5000);
      assert.ok(rig.reconciler.status.isConverged);
      assert.equal(rig.kernel.routes.size, 1);
    });

    it('counts what waits for a device that cannot be made, as long as that is not tried again', async () => {
      let tried = 0;
      rig.kernel.refuse = ({ kind, verb }) => {
        tried++;
        return kind === 'link' && verb === 'add' ? 'EPERM' : undefined;
      };
      rig.reconciler.setDesired(overlay([2]), SCOPE);
      await rig.clock.advance(1);
      assert.equal(tried, 1);
      assert.ok(rig.reconciler.status.blocked >= 4);
    });

    it('puts nothing on a device that cannot be set up, and takes away what is stale all the same', async () => {
      await rig.reach(overlay([2, 3]));
      rig.kernel.refuse = (operation) =>
        operation.kind === 'link' && aspectOf(operation) === 'up' ? 'EADDRINUSE' : undefined;
      rig.kernel.setLink(rig.index('flannel.1'), { isUp: false });
      rig.reconciler.setDesired(overlay([2, 4]), SCOPE);
      await rig.clock.advance(1);
      const { failures, blocked } = rig.reconciler.status;
      assert.deepEqual(
        failures.map(({ key }) => key),
        ['link flannel.1'],
      );
      assert.ok(blocked > 0);
      const on = rig.kernel.describe().join('\n');
      assert.ok(!on.includes('10.5.4.0') && !on.includes('10.5.3.0'), on);
    });

    it('puts everything on a device of which something else cannot be set', async () => {
      await rig.reach(overlay([2]));
      rig.kernel.refuse = (operation) =>
        operation.kind === 'link' && aspectOf(operation) === 'mtu' ? 'EINVAL' : undefined;
      rig.kernel.setLink(rig.index('flannel.1'), { mtu: 1300 });
      rig.reconciler.setDesired(overlay([2, 3]), SCOPE);
      await rig.clock.advance(1);
      assert.deepEqual(
        rig.reconciler.status.failures.map(({ aspect }) => aspect),
        ['mtu'],
      );
      assert.equal(rig.reconciler.status.blocked, 0);
      assert.ok(rig.kernel.routes.has('10.5.3.0/24'));
    });

    it('lists again soon after somebody was faster, and not for any other refusal', async () => {
      for (const [errno, isListed] of [
        ['EEXIST', true],
        ['ENETUNREACH', false],
      ] as const) {
        await rig.reach(overlay([2]));
        rig.kernel.refuse = ({ kind }) => (kind === 'route' ? errno : undefined);
        const { dumps } = rig.kernel;
        rig.reconciler.setDesired(overlay([2, 3]), SCOPE);
        await rig.clock.advance(1000);
        assert.equal(rig.kernel.dumps > dumps, isListed, errno);
        rig.kernel.refuse = () => undefined;
      }
    });

    it('tells nothing of what was to be changed on a device that goes at that moment, and tries no more of it', async () => {
      await rig.reach(overlay([2]));
      const tried: string[] = [];
      rig.kernel.refuse = ({ kind }) => {
        tried.push(kind);
        if (tried.length === 1) rig.kernel.delLink(rig.index('flannel.1'));
        return kind === 'neighbour' ? 'ENODEV' : undefined;
      };
      rig.reconciler.setDesired(overlay([2, 3]), SCOPE);
      await rig.clock.advance(1);
      assert.deepEqual(tried, ['neighbour']);
      assert.equal(rig.reconciler.status.blocked, 3);
      rig.kernel.refuse = () => undefined;
      await rig.clock.advance(1000);
      assert.ok(rig.reconciler.status.isConverged);
      assert.deepEqual(rig.log.find(/could not be changed/), []);
    });

    it('tells of a refusal for any other reason where the device is still there', async () => {
      await rig.reach(overlay([2]));
      rig.kernel.refuse = ({ kind }) => (kind === 'neighbour' ? 'ENODEV' : undefined);
      rig.reconciler.setDesired(overlay([2, 3]), SCOPE);
      await rig.clock.advance(1000);
      assert.equal(rig.log.find(/could not be changed/).length, 1);
    });

    it('does not hurry to read an unreadable kernel because of what failed before', async () => {
      refuseRoute();
      rig.reconciler.setDesired(overlay([2]), SCOPE);
      await rig.clock.advance(1000);
      rig.kernel.isUnreadable = true;
      rig.kernel.loseEvents();
      const { dumps } = rig.kernel;
      await rig.clock.advance(60_000);
      assert.ok(rig.kernel.dumps - dumps < 30, `${rig.kernel.dumps - dumps} lists in a minute`);
    });

    it('keeps trying to read a kernel that cannot be read', async () => {
      rig.kernel.isUnreadable = true;
      rig.reconciler.setDesired(overlay([2]), SCOPE);
      await rig.clock.advance(60_000);
      assert.equal(rig.log.find(/could not be read/, 'warn').length, 1);
      assert.ok(rig.kernel.dumps < 30);
      rig.kernel.isUnreadable = false;
      await rig.clock.advance(15_000);
      assert.ok(rig.reconciler.status.isConverged);
      assert.equal(rig.log.find(/can be read again/, 'info').length, 1);
    });
  });

  describe('when the daemon itself has a defect', () => {
    it('says so once, lists everything and goes on after an event that it cannot handle', async () => {
      await rig.reach(overlay([2]));
      const before = rig.kernel.describe();
      rig.kernel.disturb({ type: 'neighbour' } as NetlinkEvent);
      rig.kernel.delNeighbour(rig.index('flannel.1'), subnetAddress(2));
      await rig.clock.advance(1000);
      assert.equal(rig.log.find(/defect/, 'error').length, 1);
      assert.deepEqual(rig.kernel.describe(), before);
      assert.ok(rig.reconciler.status.isConverged);
    });

    it('goes on when the one who is told of its status throws', async () => {
      rig.statusError = new Error('no');
      await rig.reach(overlay([2]));
      await rig.reach(overlay([2, 3]));
      assert.equal(rig.log.find(/defect/, 'error').length, 1);
    });
  });

  describe('when an object of somebody else is in the way', () => {
    it('reports it once, leaves it, and takes the place as soon as it is free', async () => {
      const foreign = routeInfo(net('10.5.2.0/24'), { index: rig.eth0.index, gateway: ip('192.0.2.77') });
      rig.kernel.putRoute(foreign, 'add');
      rig.reconciler.setDesired(directRoute(2), SCOPE);
      await rig.clock.advance(70_000);
      const [line, ...more] = rig.log.find(/in the way/, 'error');
      assert.deepEqual(more, []);
      assert.equal((line?.fields.error as OverlayError).code, 'ERR_ROUTE_CONFLICT');
      assert.deepEqual(rig.kernel.routes.get('10.5.2.0/24'), [foreign]);
      assert.equal(rig.reconciler.status.conflicts.length, 1);
      rig.kernel.delRoute(foreign);
      await rig.clock.advance(1000);
      assert.equal(String(rig.kernel.routes.get('10.5.2.0/24')?.[0]?.gateway), '192.0.2.2');
      assert.ok(rig.reconciler.status.isConverged);
      assert.equal(rig.log.find(/no longer in the way/, 'info').length, 1);
      assert.equal(rig.reconciler.statistics.drift.route, 0);
    });

    it('tells of many runs in a few lines, and counts everything', async () => {
      for (let n = 2; n < 200; n += 2) {
        const foreign = routeInfo(net(`10.5.${n}.0/24`), { index: rig.eth0.index, gateway: ip('192.0.2.77') });
        rig.kernel.putRoute(foreign, 'add');
      }
      const states: DesiredState[] = [];
      for (let n = 2; n < 200; n++) {
        states.push(directRoute(n));
        rig.reconciler.setDesired(mergeStates(states), SCOPE);
        await rig.clock.advance(50);
      }
      for (let n = 2; n < 200; n += 2) {
        for (const route of rig.kernel.routes.get(`10.5.${n}.0/24`) ?? []) rig.kernel.delRoute(route);
      }
      await rig.clock.advance(2000);
      rig.reconciler.setDesired(mergeStates([...states, directRoute(200)]), SCOPE);
      await rig.clock.advance(50);
      const { route } = rig.reconciler.statistics.changes;
      await rig.reconciler.close();
      assert.equal(rig.clock.pending, 0);
      const told = (message: RegExp): number =>
        rig.log.find(message).reduce((sum, { fields }) => sum + (fields.count ?? 1), 0);
      assert.equal(told(/^kernel state changed$/), route.add);
      assert.equal(told(/objects? of (somebody else|others) (is|are) in the way/), 99);
      assert.equal(told(/no longer in the way/), 99);
      assert.ok(rig.log.lines.length < 60, `${rig.log.lines.length} lines`);
    });

    it('keeps ours behind one that comes before it, and claims to have reverted nothing', async () => {
      await rig.reach(directRoute(2));
      const [ours] = rig.kernel.routes.get('10.5.2.0/24') ?? [];
      assert.ok(ours);
      const foreign = routeInfo(net('10.5.2.0/24'), { index: rig.eth0.index, gateway: ip('192.0.2.77'), protocol: 4 });
      rig.kernel.routes.set('10.5.2.0/24', [foreign, ours]);
      rig.kernel.loseEvents();
      await rig.clock.advance(70_000);
      assert.deepEqual(rig.kernel.routes.get('10.5.2.0/24'), [foreign, ours]);
      assert.equal(rig.log.find(/in the way/, 'error').length, 1);
      assert.deepEqual(rig.log.find(/reverted/), []);
      assert.equal(rig.reconciler.statistics.drift.route, 0);
    });

    it('leaves one alone that leads the same way and comes before ours', async () => {
      await rig.reach(directRoute(2));
      const [ours] = rig.kernel.routes.get('10.5.2.0/24') ?? [];
      assert.ok(ours);
      const twins = [{ ...ours, protocol: 3, prefsrc: ip('192.0.2.1') }, ours];
      rig.kernel.routes.set('10.5.2.0/24', twins);
      rig.kernel.loseEvents();
      await rig.clock.advance(70_000);
      assert.deepEqual(rig.kernel.routes.get('10.5.2.0/24'), twins);
      assert.equal(rig.reconciler.statistics.drift.route, 0);
    });

    it('notices one that comes later in place of ours', async () => {
      await rig.reach(directRoute(2));
      const foreign = routeInfo(net('10.5.2.0/24'), { index: rig.eth0.index, gateway: ip('192.0.2.77'), protocol: 4 });
      rig.kernel.putRoute(foreign, 'replace');
      await rig.clock.advance(1000);
      assert.equal(rig.reconciler.status.conflicts[0]?.code, 'ERR_ROUTE_CONFLICT');
      assert.deepEqual(rig.kernel.routes.get('10.5.2.0/24'), [foreign]);
    });

    it('does not overwrite a foreign route that came after the last look', async () => {
      await rig.reach(directRoute(2));
      rig.kernel.refuse = ({ key, verb }) => {
        if (key !== 'route 10.5.3.0/24' || verb !== 'add') return undefined;
        rig.kernel.refuse = () => undefined;
        const more = { index: rig.eth0.index, gateway: ip('192.0.2.77'), protocol: 4 };
        rig.kernel.putRoute(routeInfo(net('10.5.3.0/24'), more), 'add');
        return 'EEXIST';
      };
      rig.reconciler.setDesired(mergeStates([directRoute(2), directRoute(3)]), SCOPE);
      await rig.clock.advance(1000);
      assert.equal(rig.kernel.routes.get('10.5.3.0/24')?.[0]?.protocol, 4);
      assert.equal(rig.reconciler.status.conflicts.length, 1);
    });
  });

  it('makes routes again that an underlay device lost while it was down', async () => {
    await rig.reach(directRoute(2));
    rig.kernel.setLink(rig.eth0.index, { isUp: false });
    await rig.clock.advance(1000);
    assert.equal(rig.reconciler.status.blocked, 1);
    rig.kernel.setLink(rig.eth0.index, { isUp: true });
    await rig.clock.advance(1000);
    assert.ok(rig.reconciler.status.isConverged);
    assert.equal(rig.kernel.routes.size, 1);
  });

  it('removes after a restart what became stale meanwhile, and counts it as no drift', async () => {
    await rig.reach(mergeStates([overlay([2, 3]), directRoute(9)]));
    await rig.reconciler.close();
    rig.reconciler = rig.start();
    await rig.reach(overlay([3]));
    assert.deepEqual([...rig.kernel.routes.keys()], ['10.5.3.0/24']);
    assert.equal(rig.kernel.neighbours.size, 1);
    assert.equal(rig.reconciler.statistics.drift.route, 0);
  });

  describe('while looking at the clock takes a millisecond', () => {
    let turns: ReturnType<typeof countTurns>;

    beforeEach(() => {
      const { clock } = rig;
      const monotonicMs = clock.monotonicMs.bind(clock);
      let looks = 0;
      clock.monotonicMs = () => monotonicMs() + looks++;
      turns = countTurns();
    });

    /** Makes the state so. @returns the turns that others had before the first change of the kernel. */
    async function turnsUntilChange(state: DesiredState): Promise<number> {
      let before: number | undefined;
      rig.kernel.refuse = () => {
        before ??= turns.end();
        return undefined;
      };
      rig.reconciler.setDesired(state, SCOPE);
      await waitFor(() => before !== undefined, { what: 'a change' });
      return before ?? 0;
    }

    it('lets others have their turn while it takes over many objects and compares them', async () => {
      const peers = Array.from({ length: 600 }, (_, n) => n + 2);
      const found = turnsUntilChange(overlay(peers));
      await rig.clock.advance(1);
      // Each of 1800 objects is entered, compared with the former state and compared with the kernel.
      assert.ok((await found) > (0.9 * 3 * 1800) / 8, `${await found} turns`);
    });

    it('lets others have their turn while it applies what was reported during a list', async () => {
      const { kernel } = rig;
      const eth0 = kernel.getLink('eth0');
      assert.ok(eth0);
      const list = kernel.listRoutes.bind(kernel);
      kernel.listRoutes = async (family) => {
        for (let n = 0; n < 800; n++) kernel.disturb({ type: 'link', isDeleted: false, link: eth0 });
        kernel.listRoutes = list;
        await Promise.resolve();
        return list(family);
      };
      const found = turnsUntilChange(overlay([2]));
      await rig.clock.advance(1);
      assert.ok((await found) > (0.9 * 800) / 8, `${await found} turns`);
    });

    it('lets others have their turn while the kernel has more to report', async () => {
      const { kernel } = rig;
      const subscribe = kernel.subscribe.bind(kernel);
      let portions = 800;
      kernel.subscribe = (onEvent) => ({ ...subscribe(onEvent), drain: () => portions-- > 0 });
      const found = turnsUntilChange(overlay([2]));
      await rig.clock.advance(1);
      assert.ok((await found) > (0.9 * 800) / 8, `${await found} turns`);
    });
  });

  it('hears nothing more of the kernel once it is closed', async () => {
    await rig.reach(overlay([2]));
    assert.equal(rig.kernel.listenerCount, 1);
    await rig.reconciler.close();
    assert.equal(rig.kernel.listenerCount, 0);
  });

  it('makes no further change once it is closed, however many are left', async () => {
    const applied: string[] = [];
    rig.kernel.refuse = ({ key }) => {
      applied.push(key);
      if (applied.length === 3) void rig.reconciler.close();
      return undefined;
    };
    rig.reconciler.setDesired(overlay([2, 3, 4, 5]), SCOPE);
    await rig.clock.advance(500);
    assert.equal(applied.length, 3);
  });

  it('has ended what it was looking at when it is closed', async () => {
    await rig.reach(overlay([2]));
    const { kernel } = rig;
    const listLinks = kernel.listNeighbours.bind(kernel);
    let release = (): void => {};
    const gate = new Promise<void>((resolve) => (release = resolve));
    kernel.listNeighbours = async (...args) => {
      await gate;
      return listLinks(...args);
    };
    kernel.loseEvents();
    await rig.clock.advance(1000);
    let isClosed = false;
    const closing = rig.reconciler.close().then(() => (isClosed = true));
    await settle();
    assert.equal(isClosed, false);
    release();
    await closing;
  });

  it('lets others have their turn every eight milliseconds', async () => {
    const { clock, kernel } = rig;
    const monotonicMs = clock.monotonicMs.bind(clock);
    let appliedMs = 0;
    clock.monotonicMs = () => monotonicMs() + appliedMs;
    let turn = 0;
    let isCounting = true;
    const count = (): void => {
      turn++;
      if (isCounting) setImmediate(count);
    };
    const perTurn = new Map<number, number>();
    kernel.refuse = () => {
      appliedMs += 1;
      perTurn.set(turn, (perTurn.get(turn) ?? 0) + 1);
      return undefined;
    };
    setImmediate(count);
    rig.reconciler.setDesired(overlay(Array.from({ length: 100 }, (_, n) => n + 2)), SCOPE);
    while (!rig.reconciler.status.isConverged) {
      await clock.advance(1);
      await new Promise(setImmediate);
    }
    isCounting = false;
    const [last, ...turns] = [...perTurn.values()].reverse();
    assert.ok(turns.length > 30 && last !== undefined, `${turns.length} turns`);
    assert.deepEqual([...new Set(turns)], [8]);
  });

  it('lists nothing again where what it may look at has not changed', async () => {
    const options = { ...SCOPE, proxyScope: [net('2001:db8::/64')] };
    const state = overlay([2]);
    rig.reconciler.setDesired(state, options);
    await rig.clock.advance(1000);
    const { dumps } = rig.reconciler.statistics;
    rig.reconciler.setDesired(overlay([2, 3]), options);
    await rig.clock.advance(1000);
    assert.equal(rig.reconciler.statistics.dumps, dumps);
    rig.reconciler.setDesired(overlay([2, 3]), { ...options, proxyScope: [net('2001:db8:1::/64')] });
    await rig.clock.advance(1000);
    assert.equal(rig.reconciler.statistics.dumps, dumps + 1);
  });

  it('lists anew for a route outside of its scope, so that it tries nothing where one of others is', async () => {
    await rig.reach(overlay([2]));
    const destination = net('198.51.100.0/24');
    rig.kernel.putRoute(routeInfo(destination, { index: rig.eth0.index, protocol: 4 }), 'add');
    await rig.clock.advance(1000);
    const outside = {
      destination,
      type: 'unicast',
      device: 'eth0',
      gateway: ip('192.0.2.9'),
      isOnlink: false,
    } as const;
    rig.reconciler.setDesired(mergeStates([overlay([2]), { ...EMPTY_STATE, routes: [outside] }]), SCOPE);
    await rig.clock.advance(100);
    assert.equal(rig.reconciler.status.conflicts.length, 1);
    assert.equal(rig.reconciler.statistics.failed.route, 0);
  });

  it('leaves the kernel as it is when it is closed', async () => {
    await rig.reach(overlay([2, 3]));
    const before = rig.kernel.describe();
    await rig.reconciler.close();
    await rig.reconciler.close();
    rig.kernel.delNeighbour(rig.index('flannel.1'), ip('10.5.3.0'));
    await rig.clock.advance(60_000);
    assert.equal(rig.kernel.describe().length, before.length - 1);
  });

  it('cleans up by reconciling to the empty state, without touching another daemon', async () => {
    const other = rig.start('b');
    other.setDesired(overlay([7, 8], vxlanLink({ name: 'flannel.2', vni: 2 })), { scope: [net('10.64.0.0/16')] });
    await rig.clock.advance(500);
    const before = rig.kernel.describe();
    await rig.reach(mergeStates([overlay([20, 30]), directRoute(40)]));
    await rig.reach(EMPTY_STATE);
    assert.deepEqual(rig.kernel.describe(), before);
    await other.close();
  });

  it('deletes the devices of a replaced flanneld that are listed', async () => {
    rig.kernel.addLink({ name: 'flannel.9', kind: 'vxlan', isUp: true });
    await rig.reach(overlay([2]));
    assert.ok(rig.kernel.getLink('flannel.9'));
    rig.reconciler.setDesired(overlay([2]), { ...SCOPE, staleDevices: ['flannel.9'] });
    await rig.clock.advance(500);
    assert.equal(rig.kernel.getLink('flannel.9'), undefined);
    assert.equal(rig.reconciler.statistics.drift.link, 0);
    assert.deepEqual(rig.log.find(/reverted/), []);
    const { dumps } = rig.kernel;
    await rig.reach(overlay([2, 3]));
    assert.equal(rig.kernel.dumps, dumps);
  });

  it('leaves a device alone that it could not mark once that is not desired any more', async () => {
    const refuseMark: FakeKernel['refuse'] = (operation) =>
      operation.kind === 'link' && aspectOf(operation) === 'alias' ? 'EPERM' : undefined;
    const spec = vxlanLink();
    rig.kernel.addLink({ ...spec, details: detailsOf(spec) });
    rig.kernel.refuse = refuseMark;
    rig.reconciler.setDesired(overlay([2], spec), SCOPE);
    await rig.clock.advance(1000);
    assert.equal(rig.reconciler.status.failures.length, 1);
    rig.reconciler.setDesired(EMPTY_STATE, SCOPE);
    await rig.clock.advance(1000);
    assert.ok(rig.kernel.getLink('flannel.1'));
    assert.ok(rig.reconciler.status.isConverged);
  });

  it('takes the place of a route that goes with an address which it removes', async () => {
    await rig.reach(overlay([2]));
    const stray = ip('10.5.1.7');
    rig.kernel.putAddress(rig.index('flannel.1'), stray, 32);
    rig.kernel.putRoute(routeInfo(net('10.5.3.0/24'), { index: rig.eth0.index, prefsrc: stray }), 'add');
    await rig.reach(overlay([2, 3]));
    assert.equal(rig.kernel.routes.get('10.5.3.0/24')?.[0]?.index, rig.index('flannel.1'));
  });

  it('lists nothing for an address more', async () => {
    await rig.reach(overlay([2]));
    const { dumps } = rig.kernel;
    const addresses = [{ device: 'flannel.1', address: ip('10.5.1.7'), length: 32 }];
    await rig.reach(mergeStates([overlay([2]), { ...EMPTY_STATE, addresses }]));
    assert.equal(rig.kernel.dumps, dumps);
  });

  it('removes routes of a network that it had before', async () => {
    await rig.reach(directRoute(2));
    const { index } = rig.eth0;
    const moved = { ...EMPTY_STATE };
    rig.reconciler.setDesired(moved, { scope: [net('10.77.0.0/16')] });
    await rig.clock.advance(500);
    assert.deepEqual(
      [...rig.kernel.routes.values()].flat().filter((route) => route.index === index),
      [],
    );
  });

  describe('whenConverged', () => {
    it('resolves once the state that was just desired is there', async () => {
      let isDone = false;
      rig.reconciler.setDesired(overlay([2]), SCOPE);
      const waiting = rig.reconciler.whenConverged().then(() => (isDone = true));
      await settle();
      assert.equal(isDone, false);
      await rig.clock.advance(500);
      await waiting;
      rig.reconciler.setDesired(overlay([3]), SCOPE);
      const again = rig.reconciler.whenConverged();
      await rig.clock.advance(500);
      await again;
      assert.ok(rig.kernel.routes.has('10.5.3.0/24'));
    });

    it('resolves at once where it is there, and rejects at once where nobody waits any more', async () => {
      await rig.reach(overlay([2]));
      let isDone = false;
      await Promise.race([rig.reconciler.whenConverged().then(() => (isDone = true)), settle()]);
      assert.equal(isDone, true);
      await assert.rejects(rig.reconciler.whenConverged(AbortSignal.abort(new Error('enough'))), /enough/);
    });

    it('waits while something fails', async () => {
      rig.kernel.refuse = ({ kind }) => (kind === 'route' ? 'ENETUNREACH' : undefined);
      rig.reconciler.setDesired(overlay([2]), SCOPE);
      let isDone = false;
      const waiting = rig.reconciler.whenConverged().then(() => (isDone = true));
      await rig.clock.advance(5000);
      assert.equal(isDone, false);
      rig.kernel.refuse = () => undefined;
      await rig.clock.advance(10_000);
      await waiting;
    });

    it('rejects when it is given up or closed', async () => {
      const abort = new AbortController();
      const given = assert.rejects(rig.reconciler.whenConverged(abort.signal), /enough/);
      const closed = assert.rejects(rig.reconciler.whenConverged(), /closed/);
      abort.abort(new Error('enough'));
      await given;
      await rig.reconciler.close();
      await closed;
    });
  });

  it('has converged neither before it is told what is desired nor while it has not looked at a change', async () => {
    assert.equal(rig.reconciler.status.isConverged, false);
    await rig.reach(overlay([2]));
    rig.reconciler.setDesired(overlay([3]), SCOPE);
    let isDone = false;
    const waiting = rig.reconciler.whenConverged().then(() => (isDone = true));
    await settle();
    assert.equal(isDone, false);
    await rig.clock.advance(500);
    await waiting;
  });

  it('reports its status only when it changes', async () => {
    await rig.reach(overlay([2]));
    const { length } = rig.statuses;
    assert.ok(rig.statuses[length - 1]?.isConverged);
    await rig.clock.advance(120_000);
    assert.equal(rig.statuses.length, length);
  });

  describe('with tunnels', () => {
    it('opens the tunnel, then configures its device', async () => {
      await rig.reach(tunnelState());
      const { isUp, mtu, alias } = rig.kernel.getLink('flannel0') ?? {};
      assert.deepEqual([isUp, mtu, alias], [true, 1472, 'tsflannel:a']);
      assert.equal(rig.kernel.routes.get('10.5.0.0/16')?.[0]?.index, rig.index('flannel0'));
      assert.equal(rig.reconciler.tunnels.length, 1);
      assert.ok(Object.values(rig.reconciler.statistics.drift).every((count) => count === 0));
    });

    it('hands new peers to the open tunnel', async () => {
      await rig.reach(tunnelState());
      const peers = [{ subnet: net('10.5.2.0/24'), publicIp: ip('192.0.2.2') }];
      await rig.reach(tunnelState({ peers }));
      assert.equal(rig.tunnels.length, 1);
      assert.deepEqual(rig.tunnels[0]?.specs.at(-1)?.peers, peers);
    });

    it('opens a new tunnel where the open one cannot be changed, and restores its routes', async () => {
      await rig.reach(tunnelState());
      await rig.reach(tunnelState({ port: 9000 }));
      assert.deepEqual(
        rig.tunnels.map(({ isClosed }) => isClosed),
        [true, false],
      );
      assert.equal(rig.kernel.routes.get('10.5.0.0/16')?.[0]?.index, rig.index('flannel0'));
      assert.ok(Object.values(rig.reconciler.statistics.drift).every((count) => count === 0));
    });

    for (const [what, act] of Object.entries({
      'its tunnel fails': (tunnel: FakeTunnel) => {
        tunnel.options.onEvent({ type: 'failed', operation: 'read', errno: 'EBADFD' });
      },
      'its device is deleted': (tunnel: FakeTunnel) => {
        rig.kernel.delLink(tunnel.index);
      },
    })) {
      it(`is back within a second when ${what}`, async () => {
        await rig.reach(tunnelState());
        await rig.clock.advance(20_000);
        const before = rig.kernel.describe();
        act(rig.tunnels[0] as FakeTunnel);
        await rig.clock.advance(1000);
        assert.deepEqual(rig.kernel.describe(), before);
        assert.deepEqual(
          rig.tunnels.map(({ isClosed }) => isClosed),
          [true, false],
        );
        assert.ok(rig.reconciler.status.isConverged);
        assert.equal(rig.reconciler.statistics.drift.tunnel, 1);
        assert.equal(rig.log.find(/tunnel lost/, 'warn').length, 1);
      });
    }

    for (const [what, isReplaced] of [
      ['its device goes unreported', false],
      ['its device goes and somebody makes another one of that name', true],
    ] as const) {
      it(`opens it again when ${what}`, async () => {
        await rig.reach(tunnelState());
        await rig.clock.advance(20_000);
        rig.kernel.delLink(rig.index('flannel0'));
        if (isReplaced) rig.kernel.addLink({ name: 'flannel0', kind: 'tun' });
        else rig.kernel.loseEvents();
        await rig.clock.advance(100);
        assert.equal(rig.log.find(/tunnel lost/, 'warn').length, 1);
        if (isReplaced) rig.kernel.delLink(rig.index('flannel0'));
        await rig.clock.advance(5000);
        assert.ok(rig.reconciler.status.isConverged);
        assert.equal(rig.tunnels.length, 2);
      });
    }

    it('slows down when the tunnel fails again and again', async () => {
      await rig.reach(tunnelState());
      for (let ms = 0; ms < 60_000; ms += 10) {
        rig.tunnels.at(-1)?.options.onEvent({ type: 'failed', operation: 'read', errno: 'EIO' });
        await rig.clock.advance(10);
      }
      assert.ok(rig.tunnels.length > 3 && rig.tunnels.length < 15, `opened ${rig.tunnels.length} times`);
    });

    it('retries a tunnel that cannot be opened, and makes everything else meanwhile', async () => {
      rig.tunnelError = 'ERR_PORT_IN_USE';
      rig.reconciler.setDesired(mergeStates([tunnelState(), overlay([2])]), SCOPE);
      await rig.clock.advance(1000);
      assert.ok(rig.kernel.routes.has('10.5.2.0/24'));
      assert.equal(rig.reconciler.status.failures[0]?.key, 'tunnel flannel0');
      rig.tunnelError = undefined;
      await rig.clock.advance(5000);
      assert.ok(rig.reconciler.status.isConverged);
    });

    it('moves from vxlan to a tunnel and back without a moment in which a subnet has no route', async () => {
      const hasRoute = (): boolean => rig.kernel.routes.has('10.5.0.0/16') || rig.kernel.routes.has('10.5.2.0/24');
      await rig.reach(overlay([2]));
      rig.kernel.refuse = () => {
        assert.ok(hasRoute());
        return undefined;
      };
      await rig.reach(tunnelState());
      assert.equal(rig.kernel.getLink('flannel.1'), undefined);
      await rig.reach(overlay([2]));
      assert.equal(rig.kernel.getLink('flannel0'), undefined);
      assert.ok(hasRoute());
      assert.ok(Object.values(rig.reconciler.statistics.drift).every((count) => count === 0));
    });

    it('tells which offload a tunnel gave up', async () => {
      await rig.reach(tunnelState());
      rig.tunnels[0]?.options.onEvent({ type: 'downgrade', offload: 'udpSegment', errno: 'EIO' });
      assert.deepEqual(rig.log.find(/offload/)[0]?.fields, { dev: 'flannel0', kind: 'udpSegment', errno: 'EIO' });
    });

    it('tells which offload a tunnel tries again', async () => {
      await rig.reach(tunnelState());
      rig.tunnels[0]?.options.onEvent({ type: 'trial', offload: 'udpSegment' });
      assert.deepEqual(rig.log.find(/tried again/, 'info')[0]?.fields, { dev: 'flannel0', kind: 'udpSegment' });
    });

    it('lets no exception back into the data plane that tells it something', async () => {
      await rig.reach(tunnelState());
      const event = { type: 'failed', operation: 'read', errno: 'EIO' } as const;
      rig.kernel.getLink = () => assert.fail('a defect of ours');
      rig.tunnels[0]?.options.onEvent(event);
      assert.equal(rig.log.find(/defect in the daemon, going on/, 'error').length, 1);
    });

    it('closes tunnels when it is closed', async () => {
      await rig.reach(tunnelState());
      await rig.reconciler.close();
      assert.ok(rig.tunnels[0]?.isClosed);
    });
  });

  it('repairs any sequence of changes by others, whether or not events are lost', async () => {
    const index = (rig: Rig): number | undefined => rig.kernel.getLink('flannel.1')?.index;
    const on = (act: (rig: Rig, index: number) => void) => (rig: Rig) => {
      const at = index(rig);
      if (at !== undefined) act(rig, at);
    };
    const peer = fc.integer({ min: 2, max: 6 });
    const act = fc.oneof(
      peer.map((n) =>
        on(({ kernel }, at) => {
          kernel.delNeighbour(at, subnetAddress(n));
        }),
      ),
      peer.map((n) =>
        on(({ kernel }, at) => {
          kernel.putNeighbour(at, subnetAddress(n), mac(n + 1));
        }),
      ),
      peer.map((n) =>
        on(({ kernel }, at) => {
          kernel.delFdb(at, mac(n));
        }),
      ),
      peer.map((n) =>
        on(({ kernel }, at) => {
          kernel.replaceFdb(at, mac(n), ip('192.0.2.88'));
        }),
      ),
      peer.map((n) =>
        on(({ kernel }, at) => {
          kernel.replaceFdb(at, mac(n), ip('192.0.2.89'));
        }),
      ),
      peer.map((n) =>
        on(({ kernel }) => {
          for (const route of kernel.routes.get(`10.5.${n}.0/24`) ?? []) kernel.delRoute(route);
        }),
      ),
      peer.map((n) =>
        on(({ kernel }, at) => {
          if (kernel.links.get(at)?.isUp !== true) return;
          kernel.putRoute(
            routeInfo(net(`10.5.${n}.0/24`), { index: at, gateway: ip('10.5.7.0'), isOnlink: true }),
            'replace',
          );
        }),
      ),
      fc.boolean().map((isUp) =>
        on(({ kernel }, at) => {
          kernel.setLink(at, { isUp });
        }),
      ),
      peer.map((n) =>
        on(({ kernel }, at) => {
          kernel.setLink(at, { mac: mac(n) });
        }),
      ),
      fc.constant(
        on(({ kernel }, at) => {
          kernel.delLink(at);
        }),
      ),
      fc.constant(
        on(({ kernel }, at) => {
          kernel.delAddress(at, ip('10.5.1.0'), 32);
        }),
      ),
      fc.constant((rig: Rig) => {
        rig.kernel.loseEvents();
      }),
    );
    const step = fc.record({ act, waitMs: fc.constantFrom(0, 0, 5, 30, 300) });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (sequence) => {
        const other = new Rig();
        await other.reach(overlay([2, 3, 4, 5, 6]));
        const before = other.kernel.describe();
        for (const { act, waitMs } of sequence) {
          act(other);
          if (waitMs > 0) await other.clock.advance(waitMs);
        }
        await other.clock.advance(1000);
        assert.deepEqual(other.kernel.describe(), before);
        assert.ok(other.reconciler.status.isConverged);
        await other.reconciler.close();
      }),
      { numRuns: 150 },
    );
  }).timeout(60_000);

  it('looks only at the parts that are new or gone when one peer among 5000 changes, and compares no others', async () => {
    const looked = new Set<number>();
    const compared = new Set<number>();
    const parts = Array.from({ length: 5000 }, (_, index) => {
      const { routes, fdb, neighbours } = vxlanPeer(index + 2);
      return {
        fdb,
        neighbours: neighbours.map(({ mac, ...rest }) => ({
          ...rest,
          get mac() {
            compared.add(index);
            return mac;
          },
        })),
        get routes() {
          looked.add(index);
          return routes;
        },
      };
    });
    rig.reconciler.setDesired(overlay([]), { ...SCOPE, parts });
    await rig.clock.advance(500);
    assert.ok(rig.reconciler.status.isConverged);
    assert.equal(rig.kernel.routes.size, 5000);
    const { runs, dumps } = rig.reconciler.statistics;
    for (let round = 0; round < 7; round++) {
      looked.clear();
      compared.clear();
      rig.reconciler.setDesired(overlay([]), { ...SCOPE, parts: parts.toSpliced(2500 + round, 1) });
      await rig.clock.advance(1);
      assert.deepEqual([...looked].sort(), round === 0 ? [2500] : [2499 + round, 2500 + round]);
      assert.deepEqual([...compared], round === 0 ? [] : [2499 + round]);
    }
    assert.equal(rig.kernel.routes.size, 4999);
    assert.equal(rig.reconciler.statistics.dumps, dumps);
    assert.ok(rig.reconciler.statistics.runs >= runs + 7);
  }).timeout(30_000);
});
