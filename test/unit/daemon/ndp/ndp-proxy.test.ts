import assert from 'node:assert/strict';
import { NdpProxy } from '../../../../src/daemon/ndp/ndp-proxy.js';
import { MAX_PROXIED } from '../../../../src/daemon/ndp/proxied-addresses.js';
import { OverlayError } from '../../../../src/errors.js';
import type { Family, IpAddress } from '../../../../src/ip/address.js';
import type { NetlinkMonitor } from '../../../../src/netlink/monitor.js';
import { ROUTE_PROTOCOL } from '../../../../src/reconcile/desired.js';
import { FormerValuesInMemory } from '../../../../src/reconcile/former-values.js';
import { ip, mac, net } from '../../../support/builders.js';
import { FakeClock } from '../../../support/fake-clock.js';
import { FakeKernel } from '../../../support/fake-kernel.js';
import { RecordingLogger } from '../../../support/recorder.js';

const BEFORE = {
  'net/ipv6/conf/eth0/accept_ra': '1',
  'net/ipv6/conf/all/forwarding': '0',
  'net/ipv6/conf/eth0/proxy_ndp': '0',
  'net/ipv6/neigh/eth0/proxy_delay': '80',
} as const;

const container = (n: number): IpAddress => ip('2001:db8:0:1:8000::').add(BigInt(n));

/** A host with one on-link /64 on eth0, and docker0 with a /80 of it. */
class Rig {
  readonly kernel = new FakeKernel();
  readonly clock = new FakeClock();
  readonly log = new RecordingLogger();
  readonly asked: string[] = [];
  readonly announced: string[] = [];
  /** Calls that announced them. */
  sends = 0;
  readonly eth0 = this.kernel.addLink({ name: 'eth0', isUp: true, isRunning: true });
  readonly docker0 = this.kernel.addLink({ name: 'docker0', kind: 'bridge', isUp: true, isRunning: true });
  readonly port = this.kernel.addLink({ name: 'veth1', kind: 'veth', isUp: true, masterIndex: this.docker0.index });
  onQuestion: ((address: IpAddress) => void) | undefined;
  listening: string[] = [];
  socketError: Error | undefined;
  askError: Error | undefined;
  proxy: NdpProxy | undefined;

  constructor() {
    this.kernel.putAddress(this.eth0.index, ip('2001:db8:0:1::5'), 64);
    this.kernel.putAddress(this.docker0.index, ip('2001:db8:0:1:8000::1'), 80);
    for (const [path, value] of Object.entries(BEFORE)) this.kernel.sysctls.set(path, value);
  }

  async start(): Promise<void> {
    const { clock, kernel, log } = this;
    this.proxy = new NdpProxy({
      clock,
      log,
      kernel,
      instance: 'a',
      formerValues: new FormerValuesInMemory(),
      leased: () => net('2001:db8:0:1:8000::/80'),
      netlink: {
        links: { list: () => kernel.listLinks() },
        addresses: { list: () => Promise.resolve([...kernel.addresses.values()]) },
        neighbours: {
          list: (family: Family, index?: number) => kernel.listNeighbours(family, index ?? 0),
          ask: ({ address, mac: known }) => {
            if (this.askError !== undefined) throw this.askError;
            this.asked.push(`${address.toString()}${known === undefined ? '' : ` at ${known}`}`);
          },
          del: ({ index, address }) => {
            if (kernel.delNeighbour(index, address)) return;
            throw new OverlayError('ERR_NETLINK', 'cannot delete: ENOENT', { context: { errno: 'ENOENT' } });
          },
        },
        subscribe: (_topics, onEvent) => kernel.subscribe(onEvent) as unknown as NetlinkMonitor,
      },
      announcements: {
        send: ({ name, mac: own }, frames) => {
          assert.equal(name, 'eth0');
          this.sends++;
          for (const frame of frames) {
            assert.equal(Buffer.from(frame.subarray(6, 12)).toString('hex'), String(own).replaceAll(':', ''));
            this.announced.push(Buffer.from(frame.subarray(14 + 48, 14 + 64)).toString('hex'));
          }
        },
      },
      openQuestions: (link, subnets, onQuestion) => {
        if (this.socketError !== undefined) throw this.socketError;
        const what = `${link.name} ${subnets.map(String).join(' ')}`;
        this.listening.push(what);
        this.onQuestion = onQuestion;
        return { close: () => (this.listening = this.listening.filter((each) => each !== what)) };
      },
    });
    const started = this.proxy.start();
    await this.clock.advance(500);
    await started;
  }

  proxied(): string[] {
    return Array.from(this.kernel.proxies.values(), ({ address }) => address.toString()).sort();
  }

  /** Nobody has answered for it. */
  fail(address: IpAddress): void {
    const neighbour = { index: this.docker0.index, address, mac: undefined, isPermanent: false, isFailed: true };
    this.kernel.neighbours.delete(`${this.docker0.index} ${address.toString()}`);
    this.kernel.disturb({ type: 'neighbour', isDeleted: false, neighbour });
  }

  /** The bridge forgets behind which port a machine is. */
  loseForwarding(n: number): void {
    const unknown = { destination: undefined, port: undefined, vni: undefined, viaIndex: undefined };
    const entry = { index: this.port.index, mac: mac(n), masterIndex: this.docker0.index, ...unknown };
    this.kernel.disturb({ type: 'fdb', isDeleted: true, entry: { ...entry, isPermanent: false, isSelf: false } });
  }
}

describe('NdpProxy', () => {
  let rig: Rig;

  const join = async (...numbers: readonly number[]): Promise<void> => {
    for (const n of numbers) rig.kernel.putNeighbour(rig.docker0.index, container(n), mac(n), false);
    await rig.clock.advance(500);
  };

  beforeEach(() => {
    rig = new Rig();
  });

  afterEach(async () => {
    await rig.proxy?.stop();
  });

  it('has the kernel answer on the uplink, with the default route of the host kept before it forwards', async () => {
    await rig.start();
    assert.deepEqual(Object.fromEntries(rig.kernel.sysctls), {
      'net/ipv6/conf/eth0/accept_ra': '2',
      'net/ipv6/conf/all/forwarding': '1',
      'net/ipv6/conf/eth0/proxy_ndp': '1',
      'net/ipv6/neigh/eth0/proxy_delay': '0',
    });
    const order = rig.kernel.applied.flatMap((each) => (each.kind === 'sysctl' ? [each.path.split('/').at(-1)] : []));
    assert.deepEqual(order, ['accept_ra', 'forwarding', 'proxy_ndp', 'proxy_delay']);
  });

  it('puts back what it may when no bridge needs it any more', async () => {
    await rig.start();
    rig.kernel.delLink(rig.docker0.index);
    await rig.clock.advance(1000);
    assert.deepEqual(Object.fromEntries(rig.kernel.sysctls), {
      ...BEFORE,
      'net/ipv6/conf/eth0/accept_ra': '2', // the host forwards still
      'net/ipv6/conf/all/forwarding': '1',
    });
    assert.deepEqual(rig.listening, []);
  });

  it('answers for the neighbours of the bridge, those there at the start and those that come', async () => {
    await join(2);
    await rig.start();
    assert.deepEqual(rig.proxied(), ['2001:db8:0:1:8000::2']);
    await join(3);
    assert.deepEqual(rig.proxied(), ['2001:db8:0:1:8000::2', '2001:db8:0:1:8000::3']);
    assert.equal(rig.proxy?.status().addresses, 2);
  });

  it('answers for nobody outside of the subnet of the bridge, nor on another device', async () => {
    await rig.start();
    rig.kernel.putNeighbour(rig.docker0.index, ip('fe80::2'), mac(2), false);
    rig.kernel.putNeighbour(rig.docker0.index, ip('2001:db8:0:1:9000::2'), mac(2), false);
    rig.kernel.putNeighbour(rig.eth0.index, container(3), mac(3), false);
    await rig.clock.advance(500);
    assert.deepEqual(rig.proxied(), []);
  });

  it('leaves everything as it is where the subnet of the bridge is routed to this host', async () => {
    rig.kernel.delAddress(rig.docker0.index, ip('2001:db8:0:1:8000::1'), 80);
    rig.kernel.putAddress(rig.docker0.index, ip('2001:db8:0:2::1'), 80);
    rig.kernel.putNeighbour(rig.docker0.index, ip('2001:db8:0:2::2'), mac(2), false);
    await rig.start();
    assert.deepEqual(rig.proxied(), []);
    assert.deepEqual(rig.proxy?.status().uplinks, []);
    assert.deepEqual(Object.fromEntries(rig.kernel.sysctls), BEFORE);
  });

  it('goes on answering for a neighbour that the kernel forgot, until nobody answers', async () => {
    await rig.start();
    await join(2);
    rig.kernel.delNeighbour(rig.docker0.index, container(2));
    await rig.clock.advance(500);
    assert.deepEqual(rig.asked, ['2001:db8:0:1:8000::2']);
    assert.deepEqual(rig.proxied(), ['2001:db8:0:1:8000::2']);
    rig.fail(container(2));
    await rig.clock.advance(500);
    assert.deepEqual(rig.proxied(), []);
  });

  it('stops answering at once when the port of a container goes', async () => {
    await rig.start();
    await join(2, 3);
    rig.loseForwarding(2);
    rig.kernel.delLink(rig.port.index);
    await rig.clock.advance(500);
    assert.deepEqual(rig.proxied(), ['2001:db8:0:1:8000::3']);
    assert.equal(rig.kernel.neighbours.size, 1, 'what the kernel remembers of it would bring it back');
  });

  it('asks a container that was silent for long whether it is there, and answers for it meanwhile', async () => {
    await rig.start();
    await join(2);
    rig.loseForwarding(2);
    await rig.clock.advance(500);
    assert.deepEqual(rig.asked, [`2001:db8:0:1:8000::2 at ${mac(2)}`]);
    assert.deepEqual(rig.proxied(), ['2001:db8:0:1:8000::2']);
  });

  it('asks on the bridge for whom somebody asks outside, and answers once it is there', async () => {
    await rig.start();
    assert.deepEqual(rig.listening, ['eth0 2001:db8:0:1:8000::/80']);
    rig.onQuestion?.(container(7));
    assert.deepEqual(rig.asked, ['2001:db8:0:1:8000::7']);
    await rig.clock.advance(500);
    assert.deepEqual(rig.proxied(), [], 'never for an address that nobody has');
    await join(7);
    assert.deepEqual(rig.proxied(), ['2001:db8:0:1:8000::7']);
    rig.onQuestion?.(container(7));
    rig.onQuestion?.(ip('2001:db8:0:1:8000::1'));
    assert.equal(rig.asked.length, 1, 'neither for those that are answered for, nor for the host itself');
  });

  it('passes a flood of questions on at a steady rate, and counts the rest', async () => {
    await rig.start();
    for (let n = 0; n < 10_000; n++) rig.onQuestion?.(container(n + 2));
    assert.equal(rig.asked.length, 30);
    await rig.clock.advance(1000);
    for (let n = 0; n < 10_000; n++) rig.onQuestion?.(container(n + 2));
    assert.equal(rig.asked.length, 60);
    const { questions, droppedQuestions, addresses } = rig.proxy?.status() ?? assert.fail();
    assert.deepEqual([questions, droppedQuestions, addresses], [20_000, 19_940, 0]);
    assert.deepEqual(
      rig.log.lines.filter(({ level }) => level === 'warn' || level === 'error'),
      [],
    );
  });

  it('takes no more addresses than it can have, and says so in one line', async () => {
    await rig.start();
    for (let n = 0; n < MAX_PROXIED + 50; n++) {
      rig.kernel.putNeighbour(rig.docker0.index, container(n + 2), mac(2), false);
    }
    await rig.clock.advance(2000);
    const status = rig.proxy?.status() ?? assert.fail();
    assert.deepEqual([status.addresses, status.refusedAddresses], [MAX_PROXIED, 50]);
    assert.equal(rig.log.lines.filter(({ level }) => level === 'warn').length, 1);
  });

  it('announces each address that it begins to answer for, a few at a time', async () => {
    await join(2);
    await rig.start();
    assert.deepEqual(rig.announced, ['20010db8000000018000000000000002']);
    for (let n = 0; n < 200; n++) rig.kernel.putNeighbour(rig.docker0.index, container(n + 3), mac(3), false);
    await rig.clock.advance(10);
    assert.equal(rig.announced.length, 65);
    await rig.clock.advance(500);
    assert.equal(rig.announced.length, 201);
    assert.equal(rig.sends, 1 + 4, 'all of a device at once');
  });

  it('announces nothing anew after a restart, and asks for those whose neighbours are forgotten', async () => {
    const entry = { index: rig.eth0.index, protocol: ROUTE_PROTOCOL };
    rig.kernel.putProxy({ ...entry, address: container(2) });
    rig.kernel.putProxy({ ...entry, address: container(3) });
    await join(2);
    await rig.start();
    assert.deepEqual(rig.announced, []);
    assert.deepEqual(rig.asked, ['2001:db8:0:1:8000::3']);
    assert.equal(rig.proxied().length, 2);
    rig.fail(container(3));
    await rig.clock.advance(500);
    assert.deepEqual(rig.proxied(), ['2001:db8:0:1:8000::2']);
  });

  it('leaves entries and parameters as they are when it stops', async () => {
    await join(2);
    await rig.start();
    await rig.proxy?.stop();
    assert.deepEqual(rig.proxied(), ['2001:db8:0:1:8000::2']);
    assert.equal(rig.kernel.sysctls.get('net/ipv6/conf/eth0/proxy_ndp'), '1');
    assert.deepEqual(rig.listening, []);
  });

  it('answers for those that have spoken while nobody can be heard, says so, and tries again', async () => {
    rig.socketError = new OverlayError('ERR_NDP_PROXY', 'cannot listen on eth0: EPERM');
    await join(2);
    await rig.start();
    assert.deepEqual(rig.proxied(), ['2001:db8:0:1:8000::2']);
    assert.ok(rig.proxy?.status().problem);
    rig.socketError = undefined;
    await rig.clock.advance(6000);
    assert.equal(rig.proxy.status().problem, null);
    assert.equal(rig.listening.length, 1);
  });

  it('keeps an address that cannot be asked for now, and asks again later', async () => {
    await rig.start();
    await join(2);
    rig.askError = new OverlayError('ERR_NETLINK', 'cannot ask: ENOBUFS', { context: { errno: 'ENOBUFS' } });
    rig.kernel.delNeighbour(rig.docker0.index, container(2));
    await rig.clock.advance(500);
    assert.deepEqual(rig.proxied(), ['2001:db8:0:1:8000::2']);
    rig.askError = undefined;
    await rig.clock.advance(6000);
    assert.deepEqual(rig.asked, ['2001:db8:0:1:8000::2']);
  });

  it('moves with the prefix to another uplink', async () => {
    await rig.start();
    await join(2);
    const eth1 = rig.kernel.addLink({ name: 'eth1', isUp: true, isRunning: true });
    rig.kernel.delAddress(rig.eth0.index, ip('2001:db8:0:1::5'), 64);
    rig.kernel.putAddress(eth1.index, ip('2001:db8:0:1::5'), 64);
    await rig.clock.advance(1000);
    assert.deepEqual(
      Array.from(rig.kernel.proxies.values(), ({ index }) => index),
      [eth1.index],
    );
    assert.deepEqual(rig.listening, ['eth1 2001:db8:0:1:8000::/80']);
  });
});
