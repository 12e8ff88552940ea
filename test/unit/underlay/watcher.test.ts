import assert from 'node:assert/strict';
import type { LogFields, Logger } from '../../../src/log.js';
import { isOverlayError } from '../../../src/errors.js';
import { IpAddress } from '../../../src/ip/address.js';
import type { HostNetwork, UnderlayRequest } from '../../../src/underlay/select.js';
import { type HostNetworkSource, type UnderlayState, UnderlayWatcher } from '../../../src/underlay/watcher.js';
import { FakeClock } from '../../support/fake-clock.js';
import { host, request } from './host-builder.js';

/** A host whose network the test changes. */
class FakeHost implements HostNetworkSource {
  readonly routeTo = (): undefined => undefined;
  reads = 0;
  failure: Error | undefined;
  private hold: ((release: () => void) => void) | undefined;
  private callback: ((ifindex: number | undefined) => void) | undefined;

  constructor(private network: HostNetwork) {}

  read({ withRoutes }: { readonly withRoutes: boolean }): Promise<HostNetwork> {
    this.reads++;
    if (this.failure !== undefined) return Promise.reject(this.failure);
    const { hold } = this;
    this.hold = undefined;
    const answer = withRoutes ? this.network : { ...this.network, defaultRoutes: [] };
    return hold === undefined ? Promise.resolve(answer) : new Promise((resolve) => hold(() => resolve(answer)));
  }

  onChange(callback: (ifindex: number | undefined) => void): () => void {
    this.callback = callback;
    return () => (this.callback = undefined);
  }

  get isWatched(): boolean {
    return this.callback !== undefined;
  }

  /** Keeps the next answer, which tells how the network was when it was asked for, until it is let go. */
  holdNextRead(onHeld: (release: () => void) => void): void {
    this.hold = onHeld;
  }

  change(network: HostNetwork, ifindex?: number): void {
    this.network = network;
    this.callback?.(ifindex);
  }
}

const UP = host([{ name: 'eth0', addresses: ['192.0.2.1'] }], ['4 eth0']);
const GONE = host([]);
const DOWN = host([{ name: 'eth0', addresses: ['192.0.2.1'], isUp: false }]);
const NO_ADDRESS = host([{ name: 'eth0' }]);

interface Watched {
  readonly source: FakeHost;
  readonly clock: FakeClock;
  readonly watcher: UnderlayWatcher;
  /** Every state that was reported, as `device address mtu` or `!` and the reason. */
  readonly reports: string[];
  readonly lines: string[];
}

function textOf({ underlay, reason }: UnderlayState): string {
  const addresses = [underlay.address, underlay.addressV6].filter((address) => address !== undefined).map(String);
  return reason === undefined ? `${underlay.device} ${addresses.join(' ')} ${underlay.mtu}` : `! ${reason}`;
}

async function watch(network: HostNetwork, given: Partial<UnderlayRequest> = {}): Promise<Watched> {
  const source = new FakeHost(network);
  const clock = new FakeClock();
  const reports: string[] = [];
  const lines: string[] = [];
  const note =
    (level: string) =>
    (message: string, fields: LogFields = {}): void =>
      void lines.push([level, message, fields.detail].filter((part) => part !== undefined).join(': '));
  const logger: Logger = { error: note('error'), warn: note('warn'), info: note('info'), debug: note('debug') };
  const onChange = (state: UnderlayState): void => void reports.push(textOf(state));
  const watcher = await UnderlayWatcher.start({ source, request: request(given), clock, logger, onChange });
  await clock.advance(1000);
  return { source, clock, watcher, reports, lines };
}

describe('UnderlayWatcher', () => {
  it('starts with what the flags choose and reports nothing while nothing changes', async () => {
    const { source, clock, watcher, reports, lines } = await watch(UP);
    source.change(UP);
    await clock.advance(60_000);
    assert.equal(textOf(watcher.state), 'eth0 192.0.2.1 1500');
    assert.equal(watcher.state.isUsable, true);
    assert.deepEqual(reports, []);
    assert.deepEqual(lines, ['info: interface chosen']);
  });

  it('throws at the start when nothing fits, as a state that may pass', async () => {
    await assert.rejects(watch(NO_ADDRESS), (error) => isOverlayError(error, 'ERR_UNDERLAY') && error.isRetryable);
  });

  it('notices what changed while it subscribed', async () => {
    const source = new FakeHost(UP);
    const onChange = source.onChange.bind(source);
    source.onChange = (callback) => {
      source.change(host([{ name: 'eth0', addresses: ['192.0.2.1'], mtu: 1400 }]));
      return onChange(callback);
    };
    const clock = new FakeClock();
    const seen: number[] = [];
    const logger: Logger = { error() {}, warn() {}, info() {}, debug() {} };
    const report = ({ underlay }: UnderlayState): void => void seen.push(underlay.mtu);
    await UnderlayWatcher.start({ source, request: request(), clock, logger, onChange: report });
    await clock.advance(1000);
    assert.deepEqual(seen, [1400]);
  });

  for (const [what, network, report] of [
    ['MTU', host([{ name: 'eth0', addresses: ['192.0.2.1'], mtu: 9000 }]), 'eth0 192.0.2.1 9000'],
    ['index', host([{ name: 'eth0', addresses: ['192.0.2.1'], index: 7 }]), 'eth0 192.0.2.1 1500'],
    ['address', host([{ name: 'eth0', addresses: ['192.0.2.7'] }], ['4 eth0']), 'eth0 192.0.2.7 1500'],
  ] as const) {
    it(`reports another ${what}`, async () => {
      const { source, clock, watcher, reports, lines } = await watch(UP);
      source.change(network);
      await clock.advance(1000);
      assert.deepEqual(reports, [report]);
      assert.equal(watcher.state.underlay.ifindex, network.links[1]?.index);
      assert.deepEqual(lines.slice(1), ['info: interface changed']);
    });
  }

  for (const [what, network, reason] of [
    ['the device is gone', GONE, 'the device is gone'],
    ['the device is down', DOWN, 'the device is down or has no carrier'],
    ['the address is gone', NO_ADDRESS, 'it has no IPv4 address any more'],
  ] as const) {
    it(`keeps the last underlay while ${what}, says so once, and goes on afterwards`, async () => {
      const { source, clock, watcher, reports, lines } = await watch(UP);
      for (let i = 0; i < 5; i++) {
        source.change(network);
        await clock.advance(20_000);
      }
      assert.deepEqual(reports, [`! ${reason}`]);
      assert.equal(watcher.state.isUsable, false);
      assert.equal(String(watcher.state.underlay.address), '192.0.2.1');
      source.change(UP);
      await clock.advance(1000);
      assert.deepEqual(reports.slice(1), ['eth0 192.0.2.1 1500']);
      assert.deepEqual(lines.slice(1), [
        `warn: interface cannot be used, keeping its last state: ${reason}`,
        'info: interface is usable again',
      ]);
    });
  }

  it('keeps its address as long as it is there, also when another one would now be chosen', async () => {
    const { source, clock, reports } = await watch(host([{ name: 'eth0', addresses: ['192.0.2.1 y'] }], ['4 eth0']));
    source.change(host([{ name: 'eth0', addresses: ['192.0.2.9', '192.0.2.1 y'] }], ['4 eth0']));
    await clock.advance(60_000);
    source.change(
      host(
        [
          { name: 'eth0', addresses: ['192.0.2.1 y'] },
          { name: 'tun0', addresses: ['203.0.113.1'] },
        ],
        ['4 tun0'],
      ),
    );
    await clock.advance(60_000);
    assert.deepEqual(reports, []);
  });

  it('leaves a link-local address as soon as the device has a global one', async () => {
    const { source, clock, reports } = await watch(host([{ name: 'eth0', addresses: ['169.254.0.1'] }], ['4 eth0']));
    source.change(host([{ name: 'eth0', addresses: ['169.254.0.1', '192.0.2.1 y'] }], ['4 eth0']));
    await clock.advance(1000);
    assert.deepEqual(reports, ['eth0 192.0.2.1 1500']);
  });

  it('stays with a link-local address while the choice would fall on another device', async () => {
    const both = [
      { name: 'eth0', addresses: ['169.254.0.1', '192.0.2.1'] },
      { name: 'eth1', addresses: ['203.0.113.1'] },
    ];
    const { source, clock, watcher, reports } = await watch(
      host([{ name: 'eth0', addresses: ['169.254.0.1'] }], ['4 eth0']),
    );
    source.change(host(both, ['4 eth1']));
    await clock.advance(60_000);
    assert.deepEqual(reports, []);
    assert.equal(watcher.state.isUsable, true);
  });

  it('stays on an address that the operator has named though nothing would choose it', async () => {
    const { source, clock, reports } = await watch(UP, { iface: ['127.0.0.1'] });
    source.change(UP);
    await clock.advance(1000);
    assert.deepEqual(reports, []);
  });

  it('misses one of two families', async () => {
    const { source, clock, reports } = await watch(
      host([{ name: 'eth0', addresses: ['192.0.2.1', '2001:db8::1'] }], ['4 eth0', '6 eth0']),
      { families: [4, 6] },
    );
    source.change(host([{ name: 'eth0', addresses: ['192.0.2.1', '2001:db8::2'] }], ['4 eth0', '6 eth0']));
    await clock.advance(1000);
    source.change(host([{ name: 'eth0', addresses: ['192.0.2.1'] }], ['4 eth0', '6 eth0']));
    await clock.advance(1000);
    assert.deepEqual(reports, ['eth0 192.0.2.1 2001:db8::2 1500', '! it has no IPv6 address any more']);
  });

  describe('another device', () => {
    const bridged = host([{ name: 'eth0' }, { name: 'br0', addresses: ['192.0.2.1'], mtu: 1400 }], ['4 br0']);
    const other = host([{ name: 'eth1', addresses: ['203.0.113.1'] }], ['4 eth1']);

    it('is taken at once when it has got the same address', async () => {
      const { source, clock, reports } = await watch(UP);
      source.change(bridged);
      await clock.advance(1000);
      assert.deepEqual(reports, ['br0 192.0.2.1 1400']);
    });

    it('with another address is taken after a while, as it changes who we are', async () => {
      const { source, clock, reports } = await watch(UP);
      source.change(other);
      await clock.advance(9000);
      assert.deepEqual(reports, ['! the device is gone']);
      await clock.advance(2000);
      assert.deepEqual(reports, ['! the device is gone', 'eth1 203.0.113.1 1500']);
    });

    it('is not taken when the first one is back in time', async () => {
      const { source, clock, reports } = await watch(UP);
      source.change(other);
      await clock.advance(9000);
      source.change(UP);
      await clock.advance(60_000);
      assert.deepEqual(reports, ['! the device is gone', 'eth0 192.0.2.1 1500']);
    });

    it('is not taken while it is down', async () => {
      const { source, clock, reports } = await watch(UP);
      source.change(host([{ name: 'eth1', addresses: ['203.0.113.1'], isUp: false }], ['4 eth1']));
      await clock.advance(60_000);
      assert.deepEqual(reports, ['! the device is gone']);
      source.change(other);
      await clock.advance(1000);
      assert.deepEqual(reports.slice(1), ['eth1 203.0.113.1 1500']);
    });

    it('is not taken against the flags', async () => {
      const { source, clock, reports } = await watch(UP, { iface: ['eth0'] });
      source.change(other);
      await clock.advance(60_000);
      assert.deepEqual(reports, ['! the device is gone']);
    });
  });

  it('reads once for a storm of events, and not at all for devices of others', async () => {
    const { source, clock } = await watch(UP);
    const before = source.reads;
    for (let i = 0; i < 1000; i++) source.change(UP, 2);
    await clock.advance(1000);
    assert.equal(source.reads, before + 1);
    for (let i = 0; i < 1000; i++) source.change(UP, 77);
    await clock.advance(1000);
    assert.equal(source.reads, before + 1);
  });

  it('reads again what changed while it was being read', async () => {
    const { source, clock, watcher, reports } = await watch(UP);
    let answer = (): void => {};
    source.holdNextRead((release) => (answer = release));
    source.change(UP, 2);
    await clock.advance(150);
    source.change(GONE, 2);
    await clock.advance(150);
    answer();
    await clock.advance(1000);
    assert.equal(watcher.state.isUsable, false);
    assert.deepEqual(reports, ['! the device is gone']);
  });

  it('tries again, ever more slowly, when the interfaces cannot be read', async () => {
    const { source, clock, reports, lines } = await watch(UP);
    source.failure = new Error('no buffer space');
    const before = source.reads;
    source.change(host([{ name: 'eth0', addresses: ['192.0.2.1'], mtu: 9000 }]));
    await clock.advance(100_000);
    const attempts = source.reads - before;
    assert.ok(attempts >= 5 && attempts <= 12, `${attempts} attempts`);
    assert.equal(lines.filter((line) => line.startsWith('warn: interfaces cannot be read')).length, 1);
    source.failure = undefined;
    await clock.advance(40_000);
    assert.deepEqual(reports, ['eth0 192.0.2.1 9000']);
  });

  it('is silent after close, which may be called twice', async () => {
    const { source, clock, watcher, reports } = await watch(UP);
    source.change(GONE);
    watcher.close();
    watcher.close();
    assert.equal(clock.pending, 0);
    await clock.advance(60_000);
    assert.equal(source.isWatched, false);
    assert.deepEqual(reports, []);
  });

  it('announces the public address beside the one on the device', async () => {
    const publicIp = IpAddress.parse('203.0.113.7');
    const { source, clock, watcher } = await watch(UP, { iface: ['eth0'], publicIp });
    source.change(host([{ name: 'eth0', addresses: ['192.0.2.7'] }]));
    await clock.advance(1000);
    assert.equal(String(watcher.state.underlay.address), '192.0.2.7');
    assert.equal(String(watcher.state.underlay.publicIp), '203.0.113.7');
  });
});
