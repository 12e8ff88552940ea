import assert from 'node:assert/strict';
import { decodeAttributes } from '../../../src/lease/attributes.js';
import { parseWireguardPublicKey } from '../../../src/ip/wireguard-key.js';
import type { FakeHost } from '../../support/fake-host.js';
import type { FakeClock } from '../../support/fake-clock.js';
import { canReach } from '../../support/reach.js';
import type { SimFlannel } from '../../support/sim-flannel.js';
import { TestCluster, assertReach, networkOf } from '../../support/test-cluster.js';
import type { TestDaemon } from '../../support/test-daemon.js';
import { secretOf } from '../../support/wireguard-contract.js';
import { finish } from '../../support/steps.js';

const KEY_FILE = '/run/flannel/wgkey';

describe('Daemon with wireguard', () => {
  let hosts: TestCluster;
  let clock: FakeClock;
  let cluster: SimFlannel;

  beforeEach(() => {
    hosts = new TestCluster();
    ({ clock, etcd: cluster } = hosts);
  });

  afterEach(() => hosts.close());

  const host = (number: number): TestDaemon => hosts.add(number);
  const start = (...started: readonly TestDaemon[]): Promise<void> => hosts.start(started);

  const peersOf = ({ kernel }: FakeHost): string[] =>
    [...kernel.wireguardPeers.values()].map(
      ({ publicKey, allowedIps, endpoint }) =>
        `${publicKey} ${allowedIps.map(String).join()} ${String(endpoint?.address)}`,
    );

  it('makes a key, tells it to the others, and has them as peers', async () => {
    cluster.configure(networkOf('wireguard'));
    const [a, b] = [host(1), host(2)];
    await start(a, b);
    assert.deepEqual(finish(a.daemon.status()).notReadyBecause, []);
    const key = finish(a.daemon.status()).wireguard?.publicKey ?? assert.fail('no key');
    assert.equal(
      hosts.leaseOf(a),
      `{"PublicIP":"192.0.2.2","PublicIPv6":null,"BackendType":"wireguard","BackendData":{"PublicKey":"${key}","Port":51820}}`,
    );
    assert.ok(parseWireguardPublicKey(key));
    assert.deepEqual(peersOf(b.host), [`${key} ${String(a.subnet)} 192.0.2.2`]);
    assertReach(a, b);
  });

  it('keeps its key over a restart, and its peers their sessions', async () => {
    cluster.configure(networkOf('wireguard'));
    const [a, b] = [host(1), host(2)];
    await start(a, b);
    const before = hosts.leaseOf(a);
    const changes = a.host.kernel.applied.length;
    a.kill();
    await clock.advance(5000);
    await start(a);
    assert.equal(hosts.leaseOf(a), before);
    assert.equal(a.host.kernel.applied.length, changes, 'nothing was done to the kernel');
  });

  it('has its own address and key exchanged with those of peers when they change them', async () => {
    cluster.configure(networkOf('wireguard'));
    const [a, b] = [host(1), host(2)];
    await start(a, b);
    a.host.secretFiles.texts.set(KEY_FILE, secretOf(5).toBase64());
    await clock.advance(35_000);
    assert.equal(
      (decodeAttributes(hosts.leaseOf(a)).backendData as { PublicKey?: string }).PublicKey,
      secretOf(5).publicKey,
    );
    assert.deepEqual(peersOf(b.host), [`${secretOf(5).publicKey} ${String(a.subnet)} 192.0.2.2`]);
    assertReach(a, b);
  });

  for (const other of ['udp', 'vxlan', 'host-gw', 'ipip'] as const) {
    it(`changes from ${other} and back while it runs`, async () => {
      cluster.configure(networkOf(other));
      const [a, b] = [host(1), host(2)];
      await start(a, b);
      assert.equal(a.host.secretFiles.texts.size, 0, 'no key before one is needed');
      cluster.configure(networkOf('wireguard'));
      await clock.advance(5000);
      assert.deepEqual(finish(a.daemon.status()).notReadyBecause, []);
      assertReach(a, b);
      assert.equal(decodeAttributes(hosts.leaseOf(a)).backendType, 'wireguard');
      await clock.advance(20_000);
      assert.equal(finish(a.daemon.status()).peers[0]?.wireguard.length, 1);
      cluster.configure(networkOf(other));
      await clock.advance(60_000);
      assertReach(a, b);
      assert.equal(a.host.kernel.getLink('flannel-wg'), undefined, 'the device goes with the last that may use it');
      assert.deepEqual(finish(a.daemon.status()).wireguard, null);
      assert.deepEqual(
        finish(a.daemon.status()).peers.map(({ wireguard }) => wireguard),
        [[]],
      );
    });
  }

  it('changes port, PSK and MTU while it runs, and keeps the device', async () => {
    cluster.configure(networkOf('wireguard'));
    const [a, b] = [host(1), host(2)];
    await start(a, b);
    const before = a.host.kernel.getLink('flannel-wg')?.index;
    cluster.configure(networkOf('wireguard', { ListenPort: 4000, MTU: 1400, PSK: secretOf(9).toBase64() }));
    await clock.advance(5000);
    const link = a.host.kernel.getLink('flannel-wg');
    assert.deepEqual([link?.index, link?.mtu], [before, 1320]);
    const [peer] = [...b.host.kernel.wireguardPeers.values()];
    assert.deepEqual([peer?.endpoint?.port, peer?.presharedKey?.equals(secretOf(9))], [4000, true]);
    assert.match(a.host.files.texts.get('/run/flannel/subnet.env') ?? '', /^FLANNEL_MTU=1320$/m);
  });

  it('goes on with what it has where its key file is spoilt, and says what is wrong', async () => {
    cluster.configure(networkOf('vxlan'));
    const [a, b] = [host(1), host(2)];
    await start(a, b);
    a.host.secretFiles.texts.set(KEY_FILE, 'spoilt');
    cluster.configure(networkOf('wireguard'));
    await clock.advance(5000);
    assert.match(finish(a.daemon.status()).notReadyBecause.join(), /wgkey: it does not hold a private key/);
    assert.equal(a.host.secretFiles.texts.get(KEY_FILE), 'spoilt');
    assert.equal(decodeAttributes(hosts.leaseOf(a)).backendType, 'vxlan');
    assert.ok(canReach(b.host, a.host), 'others reach it the way that its lease names');
    const skipped = finish(b.daemon.status()).peers[0]?.skipped;
    assert.equal(skipped, null);
    a.host.secretFiles.texts.delete(KEY_FILE);
    await clock.advance(120_000);
    assert.deepEqual(finish(a.daemon.status()).notReadyBecause, []);
    assertReach(a, b);
  });

  it('shows handshake, bytes and place of each peer', async () => {
    cluster.configure(networkOf('wireguard'));
    const [a, b] = [host(1), host(2)];
    await start(a, b);
    const { kernel } = a.host;
    const [peer] = [...kernel.wireguardPeers.values()];
    assert.ok(peer);
    kernel.touchWireguardPeer(peer.index, peer.publicKey, { txBytes: 148 });
    await clock.advance(11_000);
    const { publicKey } = peer;
    const found = (): unknown => finish(a.daemon.status()).peers[0]?.wireguard;
    const common = { device: 'flannel-wg', publicKey, endpoint: '192.0.2.3:51820' };
    assert.deepEqual(found(), [{ ...common, lastHandshakeAt: null, rxBytes: 0, txBytes: 148 }]);
    kernel.touchWireguardPeer(peer.index, publicKey, { lastHandshakeMs: 1_700_000_000_000, rxBytes: 92, txBytes: 300 });
    await clock.advance(11_000);
    const lastHandshakeAt = '2023-11-14T22:13:20.000Z';
    assert.deepEqual(found(), [{ ...common, lastHandshakeAt, rxBytes: 92, txBytes: 300 }]);
    assert.deepEqual(finish(a.daemon.status()).wireguard?.devices, [
      { name: 'flannel-wg', listenPort: 51820, peers: 1 },
    ]);
    assert.equal(finish(a.daemon.status()).wireguard?.keyFile, KEY_FILE);
  });

  it('writes neither key to the log nor to the status nor to the saved state', async () => {
    cluster.configure(networkOf('wireguard', { PSK: secretOf(9).toBase64() }));
    const [a, b] = [host(1), host(2)];
    a.host.secretFiles.texts.set(KEY_FILE, secretOf(5).toBase64());
    await start(a, b);
    await clock.advance(31_000);
    const told = JSON.stringify([a.log.lines, finish(a.daemon.status())]);
    assert.ok(!told.includes(secretOf(5).toBase64()) && !told.includes(secretOf(9).toBase64()));
    const saved = [...a.host.files.texts].filter(([, text]) => text.includes(secretOf(5).toBase64()));
    assert.deepEqual(saved, []);
  });
});
