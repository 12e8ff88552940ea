import assert from 'node:assert/strict';
import type { ContainerNetwork, Endpoint } from '../../../../src/docker/plugin/network.js';
import { ProxyAnnouncer, proxiedStates, proxyScope } from '../../../../src/docker/plugin/proxied-endpoints.js';
import { type DesiredState, mergeStates } from '../../../../src/reconcile/desired.js';
import { ip, mac, net } from '../../../support/builders.js';
import { containerNetwork } from '../../../support/container-network.js';
import { FakeClock } from '../../../support/fake-clock.js';
import { FakeKernel } from '../../../support/fake-kernel.js';
import { RecordingLogger } from '../../../support/recorder.js';

const MARK = 'tsflannel:test:docker';

function network(id: string, change: Partial<ContainerNetwork> = {}): ContainerNetwork {
  const none = { gateway: undefined, auxiliary: [], pool: undefined };
  const subnets = ['10.10.10.0/24', '2001:db8:0:1:c000::/80'].map((text) => ({ ...none, subnet: net(text) }));
  return containerNetwork(id, { type: 'bridge', hasNdpProxy: true, subnets, ...change });
}

function endpoint(n: number, networkId: string, change: Partial<Endpoint> = {}): Endpoint {
  const addresses = [
    { address: ip(`10.10.10.${n}`), length: 24 },
    { address: ip(`2001:db8:0:1:c000::${n}`), length: 80 },
  ];
  return { id: `e${n}`, networkId, mac: mac(n), addresses, sandbox: '/run/netns/x', isStale: false, ...change };
}

describe('networks with -o ndp-proxy=true', () => {
  let kernel: FakeKernel;

  beforeEach(() => {
    kernel = new FakeKernel();
    const eth0 = kernel.addLink({ name: 'eth0', isUp: true });
    kernel.putAddress(eth0.index, ip('192.0.2.11'), 24);
    kernel.putAddress(eth0.index, ip('2001:db8:0:1::b'), 64);
  });

  const stateOf = (networks: readonly ContainerNetwork[], endpoints: readonly Endpoint[]): DesiredState =>
    mergeStates(
      proxiedStates(
        { networks, endpoints },
        { links: [...kernel.links.values()], addresses: [...kernel.addresses.values()], mark: MARK },
      ),
    );

  const proxied = (state: DesiredState): string[] =>
    state.proxyNeighbours.map(({ device, address }) => `${device} ${address.toString()}`);

  it('are answered for on the uplink, for exactly the containers that run', () => {
    const state = stateOf(
      [network('a'), network('b', { hasNdpProxy: false })],
      [endpoint(2, 'a'), endpoint(3, 'a', { sandbox: undefined }), endpoint(4, 'b')],
    );
    assert.deepEqual(proxied(state), ['eth0 2001:db8:0:1:c000::2']);
    assert.ok(state.sysctls.some(({ path }) => path === 'net/ipv6/conf/eth0/proxy_ndp'));
  });

  it('have the kernel ready for them before the first container', () => {
    assert.equal(stateOf([network('a')], []).sysctls.length, 4);
  });

  it('leave the host as it is where their subnet is routed to it', () => {
    const subnets = [{ subnet: net('2001:db8:0:2::/64'), gateway: undefined, auxiliary: [], pool: undefined }];
    const state = stateOf([network('a', { subnets })], [endpoint(2, 'a')]);
    assert.deepEqual([state.sysctls, state.proxyNeighbours], [[], []]);
  });

  it('may have all of the prefix, as their own bridge does not count', () => {
    const bridge = kernel.addLink({ name: 'tsfb-a', kind: 'bridge', alias: MARK, isUp: true });
    kernel.putAddress(bridge.index, ip('2001:db8:0:1:c000::1'), 72);
    assert.deepEqual(proxied(stateOf([network('a')], [endpoint(2, 'a')])), ['eth0 2001:db8:0:1:c000::2']);
    const subnets = [{ subnet: net('2001:db8:0:1::/64'), gateway: undefined, auxiliary: [], pool: undefined }];
    assert.deepEqual(proxied(stateOf([network('a', { subnets })], [endpoint(2, 'a')])), ['eth0 2001:db8:0:1:c000::2']);
  });

  it('claim no entries but in their IPv6 subnets', () => {
    assert.deepEqual(proxyScope({ networks: [network('a')], endpoints: [] }).map(String), ['2001:db8:0:1:c000::/80']);
  });
});

describe('ProxyAnnouncer', () => {
  it('tells the link of addresses that are new here, each once, and of none at the start', () => {
    const kernel = new FakeKernel();
    const eth0 = kernel.addLink({ name: 'eth0', isUp: true });
    const sent: string[] = [];
    let sends = 0;
    const port = {
      send: (_link: unknown, frames: readonly Uint8Array[]) => {
        for (const frame of frames) sent.push(Buffer.from(frame.subarray(14 + 48 + 15, 14 + 64)).toString('hex'));
        assert.ok(
          frames.every((frame) => frame[14 + 44] === 0x20),
          'override',
        );
        sends++;
      },
    };
    const announcer = new ProxyAnnouncer(port, new RecordingLogger(), new FakeClock());
    const at = (...ns: readonly number[]): { device: string; address: ReturnType<typeof ip> }[] =>
      ns.map((n) => ({ device: 'eth0', address: ip(`2001:db8:0:1:c000::${n}`) }));
    announcer.follow(at(2), [eth0]);
    assert.deepEqual(sent, []);
    announcer.follow(at(2, 3), [eth0]);
    announcer.follow(at(2, 3), [eth0]);
    assert.deepEqual(sent, ['03']);
    announcer.follow(at(3), [eth0]);
    announcer.follow(at(2, 3), [eth0]);
    assert.deepEqual(sent, ['03', '02'], 'one that was elsewhere meanwhile');
    announcer.follow(at(2, 3, 4, 5), [eth0]);
    assert.deepEqual([sent.length, sends], [4, 3], 'all of a device at once');
  });

  it('says in one line what cannot be sent', () => {
    const kernel = new FakeKernel();
    const eth0 = kernel.addLink({ name: 'eth0' });
    const log = new RecordingLogger();
    const port = {
      send: () => {
        throw new Error('ENETDOWN');
      },
    };
    const announcer = new ProxyAnnouncer(port, log, new FakeClock());
    announcer.follow([], [eth0]);
    for (const n of [2, 3, 4]) announcer.follow([{ device: 'eth0', address: ip(`2001:db8::${n}`) }], [eth0]);
    assert.equal(log.lines.length, 1);
  });
});
