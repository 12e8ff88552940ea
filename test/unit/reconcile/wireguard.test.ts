import assert from 'node:assert/strict';
import type { WireguardPeerInfo } from '../../../src/netlink/wireguard.js';
import { readActual } from '../../../src/reconcile/actual-reader.js';
import { type DesiredState, EMPTY_STATE, type WireguardPeerSpec } from '../../../src/reconcile/desired.js';
import { DesiredIndex } from '../../../src/reconcile/desired-index.js';
import { wireguardPeerKey } from '../../../src/reconcile/kinds/wireguard-peer.js';
import { Ownership } from '../../../src/reconcile/ownership.js';
import { Reconciler } from '../../../src/reconcile/reconciler.js';
import { ip, net } from '../../support/builders.js';
import { FakeClock } from '../../support/fake-clock.js';
import { FakeKernel } from '../../support/fake-kernel.js';
import { RecordingLogger } from '../../support/recorder.js';
import { secretOf } from '../../support/wireguard-contract.js';
import { finish } from '../../support/steps.js';

const DEVICE = 'flannel-wg';
const SCOPE = { scope: [net('10.5.0.0/16')] };

function peer(n: number, changes: Partial<WireguardPeerSpec> = {}): WireguardPeerSpec {
  return {
    device: DEVICE,
    publicKey: secretOf(n).publicKey,
    presharedKey: undefined,
    endpoint: { address: ip(`192.0.2.${n}`), port: 51820 },
    keepaliveSeconds: 0,
    allowedIps: [net(`10.5.${n}.0/24`)],
    ...changes,
  };
}

function overlay(peers: readonly WireguardPeerSpec[], key = 1, listenPort = 51820, mtu = 1420): DesiredState {
  return {
    ...EMPTY_STATE,
    links: [{ kind: 'wireguard', name: DEVICE, mtu }],
    wireguard: [{ device: DEVICE, privateKey: secretOf(key), listenPort }],
    wireguardPeers: peers,
    addresses: [{ device: DEVICE, address: ip('10.5.1.0'), length: 32 }],
    routes: peers.flatMap(({ allowedIps }) =>
      allowedIps.map((destination) => ({
        destination,
        type: 'unicast',
        device: DEVICE,
        gateway: undefined,
        isOnlink: false,
      })),
    ),
  };
}

describe('WireGuard devices of the reconciler', () => {
  let kernel: FakeKernel;
  let clock: FakeClock;
  let log: RecordingLogger;
  let reconciler: Reconciler;

  const start = (): Reconciler =>
    new Reconciler({
      kernel,
      clock,
      logger: log,
      instance: 'a',
      tunnels: { open: () => Promise.reject(new Error('none')), workers: 0, disabledOffloads: [] },
    });

  beforeEach(() => {
    kernel = new FakeKernel();
    clock = new FakeClock();
    log = new RecordingLogger();
    kernel.addLink({ name: 'eth0', isUp: true });
    reconciler = start();
  });

  afterEach(async () => {
    await reconciler.close();
    assert.equal(clock.pending, 0, 'a timer is left over');
  });

  const reach = async (state: DesiredState): Promise<void> => {
    reconciler.setDesired(state, SCOPE);
    await clock.advance(500);
    assert.ok(reconciler.status.isConverged, JSON.stringify(reconciler.status));
  };

  const index = (): number => kernel.getLink(DEVICE)?.index ?? assert.fail(`no ${DEVICE}`);

  const peerInfo = (n: number): WireguardPeerInfo | undefined =>
    kernel.wireguardPeers.get(`${index()} ${secretOf(n).publicKey}`);

  const endpointOf = (n: number): string => {
    const { endpoint } = peerInfo(n) ?? {};
    return `${String(endpoint?.address)} ${String(endpoint?.port)}`;
  };

  /** Kinds and verbs of what is done from now on, by {@link done}. */
  const forget = (): void => {
    kernel.applied.length = 0;
  };
  const done = (): string[] => kernel.applied.map(({ kind, verb }) => `${kind} ${verb}`);

  it('makes the device before its peers, and its peers before the routes to them', async () => {
    await reach(overlay([peer(2), peer(3)]));
    const order = done().filter((one, at, all) => all.indexOf(one) === at);
    assert.deepEqual(order, [
      'link add',
      'address replace',
      'link set',
      'wireguard set',
      'wireguard-peer replace',
      'route add',
    ]);
    assert.equal(kernel.wireguard.get(index())?.listenPort, 51820);
    assert.equal(endpointOf(2), '192.0.2.2 51820');
  });

  it('does nothing where all is as desired, also after a restart', async () => {
    await reach(overlay([peer(2, { presharedKey: secretOf(7), keepaliveSeconds: 25 })]));
    forget();
    await reconciler.close();
    reconciler = start();
    await reach(overlay([peer(2, { presharedKey: secretOf(7), keepaliveSeconds: 25 })]));
    await clock.advance(120_000);
    assert.deepEqual(done(), []);
  });

  it('takes over the device of a flanneld that has the same key, without taking anything away', async () => {
    const device = kernel.addLink({ name: DEVICE, kind: 'wireguard', mtu: 1420, isUp: true });
    kernel.setWireguard(device.index, { publicKey: secretOf(1).publicKey, listenPort: 51820 });
    kernel.putWireguardPeer({ ...peer(2), index: device.index });
    kernel.touchWireguardPeer(device.index, secretOf(2).publicKey, { lastHandshakeMs: 5 });
    forget();
    await reach(overlay([peer(2), peer(3)]));
    assert.equal(index(), device.index);
    assert.equal(peerInfo(2)?.lastHandshakeMs, 5);
    assert.deepEqual(done().sort(), [
      'address replace',
      'link set',
      'route add',
      'route add',
      'wireguard-peer replace',
    ]);
  });

  for (const [what, state, expected] of [
    ['the key', overlay([peer(2)], 9), ['wireguard set']],
    ['the port', overlay([peer(2)], 1, 4000), ['wireguard set']],
    ['the MTU', overlay([peer(2)], 1, 51820, 1300), ['link set']],
    ['the preshared key', overlay([peer(2, { presharedKey: secretOf(7) })]), ['wireguard-peer replace']],
    ['the keep-alive', overlay([peer(2, { keepaliveSeconds: 25 })]), ['wireguard-peer replace']],
  ] as const) {
    it(`changes ${what} in place`, async () => {
      await reach(overlay([peer(2)]));
      forget();
      await reach(state);
      assert.deepEqual(done(), expected);
      await clock.advance(120_000);
      assert.deepEqual(done(), expected, 'once');
    });
  }

  it('removes a peer after its route', async () => {
    await reach(overlay([peer(2), peer(3)]));
    forget();
    await reach(overlay([peer(3)]));
    assert.deepEqual(done(), ['route del', 'wireguard-peer del']);
    assert.equal(peerInfo(2), undefined);
  });

  it('lets a subnet pass from one peer to another', async () => {
    await reach(overlay([peer(2), peer(3, { allowedIps: [net('10.5.3.0/24'), net('10.5.4.0/24')] })]));
    await reach(overlay([peer(2, { allowedIps: [net('10.5.2.0/24'), net('10.5.4.0/24')] }), peer(3)]));
    const allowed = (n: number): string => (peerInfo(n)?.allowedIps ?? []).map(String).join(' ');
    assert.deepEqual([allowed(2), allowed(3)], ['10.5.2.0/24 10.5.4.0/24', '10.5.3.0/24']);
    forget();
    await clock.advance(120_000);
    assert.deepEqual(done(), []);
  });

  it('lets two peers change their subnets with each other', async () => {
    await reach(overlay([peer(2), peer(3)]));
    const [a, b] = [[net('10.5.3.0/24')], [net('10.5.2.0/24')]];
    await reach(overlay([peer(2, { allowedIps: a }), peer(3, { allowedIps: b })]));
    assert.deepEqual([peerInfo(2)?.allowedIps, peerInfo(3)?.allowedIps], [a, b]);
  });

  describe('the endpoint of a peer', () => {
    const elsewhere = { endpoint: { address: ip('198.51.100.7'), port: 40_000 } };

    it('stays where the peer was heard last, whatever else changes', async () => {
      await reach(overlay([peer(2)]));
      kernel.touchWireguardPeer(index(), secretOf(2).publicKey, elsewhere);
      await clock.advance(120_000);
      assert.equal(endpointOf(2), '198.51.100.7 40000');
      await reach(overlay([peer(2, { keepaliveSeconds: 25 })]));
      assert.equal(peerInfo(2)?.keepaliveSeconds, 25);
      assert.equal(endpointOf(2), '198.51.100.7 40000');
    });

    it('is that of the lease as soon as this names another one', async () => {
      await reach(overlay([peer(2)]));
      kernel.touchWireguardPeer(index(), secretOf(2).publicKey, elsewhere);
      await clock.advance(60_000);
      await reach(overlay([peer(2, { endpoint: { address: ip('192.0.2.22'), port: 51820 } })]));
      assert.equal(endpointOf(2), '192.0.2.22 51820');
    });

    it('is that of the lease after a start, when nobody knows what was set', async () => {
      await reach(overlay([peer(2)]));
      kernel.touchWireguardPeer(index(), secretOf(2).publicKey, elsewhere);
      await reconciler.close();
      reconciler = start();
      await reach(overlay([peer(2)]));
      assert.equal(endpointOf(2), '192.0.2.2 51820');
    });

    it('is that of the lease where the device had to be made again', async () => {
      await reach(overlay([peer(2)]));
      kernel.touchWireguardPeer(index(), secretOf(2).publicKey, elsewhere);
      await clock.advance(60_000);
      kernel.delLink(index());
      await clock.advance(5000);
      assert.equal(endpointOf(2), '192.0.2.2 51820');
    });
  });

  it('remembers where it had the kernel look for peers as long as their device is there', async () => {
    kernel.addLink({ name: DEVICE, kind: 'wireguard' });
    const desired = new DesiredIndex();
    finish(desired.update(overlay([peer(2)])));
    const ownership = new Ownership({ instance: 'a', scope: [], staleDevices: [] }, desired);
    const { endpoint, publicKey } = peer(2);
    const former = await readActual(kernel, desired, ownership);
    const key = wireguardPeerKey(DEVICE, publicKey);
    former.setEndpoints.set(key, { ...endpoint, index: index() });
    former.setEndpoints.set(wireguardPeerKey('flannel-wg-v6', publicKey), { ...endpoint, index: index() + 1 });
    const { setEndpoints } = await readActual(kernel, desired, ownership, former);
    assert.deepEqual([...setEndpoints.keys()], [key]);
  });

  it('does not take the device of somebody else for its own because of what it was set to before', async () => {
    await reach(overlay([peer(2)]));
    kernel.delLink(index());
    const other = kernel.addLink({ name: DEVICE, kind: 'wireguard', mtu: 1420, isUp: true });
    kernel.setWireguard(other.index, { publicKey: secretOf(1).publicKey, listenPort: 51820 });
    kernel.putWireguardPeer({
      ...peer(2),
      index: other.index,
      endpoint: { address: ip('198.51.100.7'), port: 1 },
    });
    await clock.advance(5000);
    assert.equal(index(), other.index);
    assert.deepEqual(String(peerInfo(2)?.endpoint?.address), '192.0.2.2');
  });

  it('heals what somebody else changed, at the latest with the next list', async () => {
    await reach(overlay([peer(2), peer(3)]));
    kernel.delWireguardPeer(index(), secretOf(2).publicKey);
    kernel.putWireguardPeer({ ...peer(9), index: index() });
    kernel.setWireguard(index(), { publicKey: secretOf(8).publicKey, listenPort: 1 });
    await clock.advance(31_000);
    assert.equal(endpointOf(2), '192.0.2.2 51820');
    assert.equal(peerInfo(9), undefined);
    assert.deepEqual(kernel.wireguard.get(index())?.publicKey, secretOf(1).publicKey);
    const kinds = log.find(/^reverted a change/, 'warn').map(({ fields }) => fields.kind);
    assert.deepEqual(kinds.sort(), ['wireguard', 'wireguard-peer']);
  });

  it('removes its device with everything on it, and leaves those of others alone', async () => {
    await reach(overlay([peer(2)]));
    kernel.addLink({ name: 'wg0', kind: 'wireguard' });
    kernel.addLink({ name: 'flannel-wg-v6', kind: 'wireguard', alias: 'tsflannel:b' });
    forget();
    await reach(EMPTY_STATE);
    assert.equal(kernel.getLink(DEVICE), undefined);
    assert.deepEqual(done(), ['link del']);
    assert.ok(kernel.getLink('wg0') && kernel.getLink('flannel-wg-v6'));
  });

  it('says which port is taken, and tries again', async () => {
    kernel.refuse = ({ kind }) => (kind === 'wireguard' ? 'EADDRINUSE' : undefined);
    reconciler.setDesired(overlay([peer(2)]), SCOPE);
    await clock.advance(500);
    assert.deepEqual(
      reconciler.status.failures.map(({ key }) => key),
      ['wireguard flannel-wg'],
    );
    kernel.refuse = () => undefined;
    await clock.advance(60_000);
    assert.ok(reconciler.status.isConverged);
  });

  it('tells no secret to the log', async () => {
    kernel.refuse = ({ kind }) => (kind.startsWith('wireguard') ? 'EINVAL' : undefined);
    reconciler.setDesired(overlay([peer(2, { presharedKey: secretOf(7) })]), SCOPE);
    await clock.advance(10_000);
    const all = JSON.stringify(log.lines) + JSON.stringify(reconciler.status);
    for (const secret of [secretOf(1), secretOf(7)]) assert.ok(!all.includes(secret.toBase64()));
    assert.ok(log.find(/could not be changed/).length > 0);
  });
});
