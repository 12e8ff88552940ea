import assert from 'node:assert/strict';
import type { WireguardPeerInfo } from '../../../src/netlink/wireguard.js';
import { ip, net } from '../../support/builders.js';
import { FakeClock } from '../../support/fake-clock.js';
import { routeInfo } from '../../support/fake-kernel.js';
import { canReach, obstacle } from '../../support/reach.js';
import { SimFlannel } from '../../support/sim-flannel.js';
import { SUBNET_FILE, TestDaemon } from '../../support/test-daemon.js';
import { secretOf } from '../../support/wireguard-contract.js';

const OVERLAY = net('10.5.0.0/16');

interface Pair {
  readonly from: TestDaemon;
  readonly to: TestDaemon;
}

/** What is broken by hand on one side of a pair that works, and what is said about it. */
const BROKEN: Readonly<Record<string, Readonly<Record<string, readonly [(pair: Pair) => void, RegExp]>>>> = {
  vxlan: {
    'no route': [({ from }) => from.host.forgetRoutes(OVERLAY), /sends to 192\.0\.2\.1, which host2 does not have/],
    'no neighbour entry': [({ from }) => from.host.kernel.neighbours.clear(), /does not know the MAC/],
    'no forwarding entry': [({ from }) => from.host.kernel.fdb.clear(), /does not know where/],
    'no device at the peer': [({ to }) => remove(to, 'flannel.1'), /no device for VNI 1/],
    'another address at the peer': [({ to }) => to.host.renumber(ip('192.0.2.99')), /which host2 does not have/],
    'another address at the sender': [({ from }) => from.host.renumber(ip('192.0.2.99')), /which it does not have/],
    'a route away at the peer': [({ to }) => routeAway(to), /host2 sends it on by 10\.5\./],
    'no subnet file at the peer': [({ to }) => to.host.files.texts.delete(SUBNET_FILE), /host2 has no subnet/],
  },
  wireguard: {
    'no route': [({ from }) => from.host.forgetRoutes(OVERLAY), /sends to 192\.0\.2\.1, which host2 does not have/],
    'no peer': [({ from }) => from.host.kernel.wireguardPeers.clear(), /host1 has no peer for/],
    'no device at the peer': [({ to }) => remove(to, 'flannel-wg'), /host2 does not listen on port 51820/],
    'another port at the peer': [({ to }) => setWireguard(to, { listenPort: 1 }), /does not listen on port 51820/],
    'another key at the peer': [({ to }) => setWireguard(to, { key: 9 }), /host2 has another key/],
    'another key at the sender': [({ from }) => setWireguard(from, { key: 9 }), /does not know the key of host1/],
    'a stranger at the peer': [({ to }) => to.host.kernel.wireguardPeers.clear(), /does not know the key of host1/],
    'another PSK at the peer': [({ to }) => touchPeers(to, { presharedKey: secretOf(7) }), /another preshared key/],
    'no subnet at the peer': [({ to }) => touchPeers(to, { allowedIps: [] }), /does not allow host1 its subnet/],
    'another address at the peer': [({ to }) => to.host.renumber(ip('192.0.2.99')), /which host2 does not have/],
  },
  'host-gw': {
    'no route': [({ from }) => from.host.forgetRoutes(OVERLAY), /sends to 192\.0\.2\.1, which host2 does not have/],
    'another address at the peer': [({ to }) => to.host.renumber(ip('192.0.2.99')), /which host2 does not have/],
  },
  udp: {
    'no route': [({ from }) => from.host.forgetRoutes(OVERLAY), /sends to 192\.0\.2\.1, which host2 does not have/],
    'no device at the sender': [({ from }) => remove(from, 'flannel0'), /sends to 192\.0\.2\.1, which/],
    'nobody who listens': [({ to }) => void to.host.tunnels[0]?.close(), /does not listen on port 8285/],
    'no peer in the table': [({ from }) => forgetPeers(from), /no peer for/],
    'no sender in the table': [({ to }) => forgetPeers(to), /drops it: source-unknown/],
    'another address at the peer': [({ to }) => to.host.renumber(ip('192.0.2.99')), /which host2 does not have/],
  },
};

function remove({ host }: TestDaemon, device: string): void {
  const link = host.kernel.getLink(device);
  assert.ok(link, device);
  host.kernel.delLink(link.index);
}

function setWireguard(
  { host: { kernel } }: TestDaemon,
  { key, listenPort = 51820 }: { readonly key?: number; readonly listenPort?: number },
): void {
  for (const { index, publicKey } of [...kernel.wireguard.values()]) {
    kernel.setWireguard(index, { publicKey: key === undefined ? publicKey : secretOf(key).publicKey, listenPort });
  }
}

function touchPeers({ host: { kernel } }: TestDaemon, change: Partial<WireguardPeerInfo>): void {
  for (const { index, publicKey } of [...kernel.wireguardPeers.values()]) {
    kernel.touchWireguardPeer(index, publicKey, change);
  }
}

function routeAway({ host, subnet }: TestDaemon): void {
  const index = host.kernel.getLink('eth0')?.index ?? 0;
  host.kernel.putRoute(routeInfo(net(subnet ?? ''), { index, gateway: ip('192.0.2.1') }), 'add');
}

function forgetPeers({ host }: TestDaemon): void {
  const [tunnel] = host.tunnels;
  assert.ok(tunnel);
  tunnel.update({ ...tunnel.spec, peers: [] });
}

describe('canReach', () => {
  for (const [type, faults] of Object.entries(BROKEN)) {
    for (const [name, [breakIt, reason]] of Object.entries(faults)) {
      it(`notices with ${type}: ${name}`, async () => {
        const clock = new FakeClock();
        const cluster = new SimFlannel(clock);
        cluster.configure(JSON.stringify({ Network: '10.5.0.0/16', Backend: { Type: type } }));
        const [from, to] = [1, 2].map((number) => new TestDaemon({ clock, cluster, number }));
        assert.ok(from && to);
        const started = Promise.all([from.start(), to.start()]);
        await clock.advance(3000);
        await started;
        assert.ok(canReach(from.host, to.host));
        breakIt({ from, to });
        assert.match(obstacle(from.host, to.host) ?? '', reason);
        await clock.advance(30_000);
        const stopped = Promise.all([from.stop(), to.stop()]);
        await clock.advance(6000);
        await stopped;
      });
    }
  }
});
