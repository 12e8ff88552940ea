import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { ctlFile } from '../support/daemon.js';
import { type Container, Rig } from '../support/rig.js';
import { assertTalking, ping, startPing } from '../support/traffic.js';
import { skipBecause } from '../support/skip.js';
import { waitFor } from '../support/wait.js';
import { secretOf } from '../support/wireguard-contract.js';
import { pairOf, published, reaches, wireguardLinks } from '../support/wireguard-hosts.js';

const NETWORK = { Network: '10.5.0.0/16' };
const DUAL = { ...NETWORK, EnableIPv6: true, IPv6Network: 'fd00:10:5::/48' };
const WIREGUARD = { Type: 'wireguard' };
const PING_INTERVAL_MS = 20;

describe('hosts with the wireguard backend', () => {
  let rig: Rig;
  let near: Container;
  let far: Container;

  before(async () => {
    rig = await Rig.create({ hosts: 3 });
    await rig.putConfig({ ...NETWORK, Backend: WIREGUARD });
    [near, far] = await pairOf(rig);
  });

  after(() => rig.close());

  it('talk through the device of flannel', async () => {
    await assertTalking(near, far);
    assert.deepEqual(await wireguardLinks(rig.host(1)), ['flannel-wg 1420']);
    assert.equal(rig.host(1).daemon?.subnetEnv().FLANNEL_MTU, '1420');
  });

  it('send nothing of a container in the clear', async () => {
    const capture = rig.host(1).netns.start(['tcpdump', '-lnni', 'eth0', 'icmp', 'or', 'udp']);
    try {
      await waitFor(() => /listening on/.test(capture.output), { what: 'tcpdump' });
      await ping(near.netns, far.address, { count: 3 });
      await waitFor(() => /UDP, length/.test(capture.output), { what: 'datagrams' });
      assert.ok(!capture.output.includes(far.address), capture.output);
    } finally {
      await capture.stop();
    }
  });

  it('refuse a subnet that no host has, instead of sending it out', async () => {
    const { output } = await ping(near.netns, '10.5.255.9', { count: 1, waitSeconds: 2 });
    assert.match(output, /Unreachable/i);
  });

  it('tell handshake and bytes of their peers', async () => {
    const keyWhenTold = async (): Promise<string | undefined> => {
      const { peers, wireguard } = (await rig.host(1).daemon?.status()) ?? {};
      const [path] = peers?.flatMap((peer) => peer.wireguard) ?? [];
      const isTold = path !== undefined && path.lastHandshakeAt !== null && path.rxBytes > 0 && path.txBytes > 0;
      return isTold ? wireguard?.publicKey : undefined;
    };
    const key = await waitFor(keyWhenTold, { what: 'the handshake in the status', timeoutMs: 30_000 });
    assert.equal((await published(rig.host(1))).BackendData?.PublicKey, key);
  });

  it('keep key and sessions over a restart', async () => {
    const { daemon } = rig.host(1);
    assert.ok(daemon);
    const before = await published(rig.host(1));
    const running = startPing(near.netns, far.address, { intervalMs: PING_INTERVAL_MS });
    await daemon.stop();
    await daemon.startAndWait();
    await ping(near.netns, far.address, { count: 3 });
    const { sent, received } = await running.stop();
    assert.ok(sent - received <= 1, `${sent - received} of ${sent} pings lost`);
    assert.deepEqual(await published(rig.host(1)), before);
  });

  it('talk with a host that was set up by hand, as flannel sets it up', async function () {
    if (spawnSync('wg', ['--version']).status !== 0) skipBecause(this, 'there is no wg (wireguard-tools)');
    const { netns, publicIp } = rig.host(3);
    const key = secretOf(77);
    const keyFile = path.join(rig.directory, 'by-hand.key');
    writeFileSync(keyFile, `${key.toBase64()}\n`, { mode: 0o600 });
    await netns.ip(['link add flannel-wg mtu 1420 type wireguard', 'addr add 10.5.200.0/32 dev flannel-wg']);
    const peers = await Promise.all(
      [rig.host(1), rig.host(2)].map(async (host) => {
        const { PublicKey = '' } = (await published(host)).BackendData ?? {};
        const subnet = (host.daemon?.subnetEnv().FLANNEL_SUBNET ?? '').replace('.1/24', '.0/24');
        return ['peer', PublicKey, 'endpoint', `${host.publicIp}:51820`, 'allowed-ips', subnet];
      }),
    );
    await netns.run(['wg', 'set', 'flannel-wg', 'private-key', keyFile, 'listen-port', '51820', ...peers.flat()]);
    await netns.ip([
      'link set flannel-wg up',
      'route add 10.5.0.0/16 dev flannel-wg scope link',
      'addr add 10.5.200.1/32 dev lo',
    ]);
    const data = { PublicKey: key.publicKey, Port: 51820 };
    await rig.etcd.put(
      `${rig.etcdPrefix}/subnets/10.5.200.0-24`,
      JSON.stringify({ PublicIP: publicIp, PublicIPv6: null, BackendType: 'wireguard', BackendData: data }),
    );
    await waitFor(() => reaches(near, '10.5.200.1'), { what: 'an answer of the host by hand', timeoutMs: 30_000 });
    for (const { address } of [near, far]) {
      const { received } = await ping(netns, address, { count: 3, source: '10.5.200.1' });
      assert.equal(received, 3);
    }
    const { stdout } = await rig.host(1).netns.run(['wg', 'show', 'flannel-wg', 'dump']);
    const row = stdout.split('\n').find((line) => line.startsWith(key.publicKey)) ?? '';
    assert.deepEqual(row.split('\t').slice(1, 4), ['(none)', `${publicIp}:51820`, '10.5.200.0/24']);
    assert.equal(stdout.split('\t')[1], (await published(rig.host(1))).BackendData?.PublicKey);
  });

  it('take a PSK, another port and another MTU while they run, and talk again', async () => {
    const psk = secretOf(42).toBase64();
    await rig.putConfig({ ...NETWORK, Backend: { ...WIREGUARD, PSK: psk, ListenPort: 4500, MTU: 1480 } });
    for (const host of [rig.host(1), rig.host(2)]) {
      await waitFor(() => host.daemon?.subnetEnv().FLANNEL_MTU === '1400', { what: 'the MTU', timeoutMs: 30_000 });
      assert.equal(host.daemon?.log.includes(psk), false);
    }
    await assertTalking(near, far);
    assert.deepEqual(await wireguardLinks(rig.host(1)), ['flannel-wg 1400']);
  });

  // A description of its own would come after everything else.
  const steps = ['vxlan', 'wireguard', 'host-gw', 'wireguard', 'udp', 'wireguard', 'ipip', 'wireguard'];
  for (const [index, to] of steps.entries()) {
    it(`change from ${steps[index - 1] ?? 'wireguard'} to ${to}, and reach each other again by themselves`, async () => {
      const running = startPing(near.netns, far.address, { intervalMs: PING_INTERVAL_MS });
      await rig.putConfig({ ...NETWORK, Backend: { Type: to } });
      for (const host of [rig.host(1), rig.host(2)]) {
        await waitFor(async () => ((await published(host)).BackendType ?? 'udp') === to, {
          what: `${host.name} to publish ${to}`,
          timeoutMs: 30_000,
        });
      }
      await assertTalking(near, far);
      const { sent, received } = await running.stop();
      console.log(`      to ${to}: ${(sent - received) * PING_INTERVAL_MS} ms of pings lost`);
    });
  }

  it('leave nothing behind after a clean-up', async () => {
    const { daemon } = rig.host(1);
    assert.ok(daemon);
    await daemon.stop();
    assert.equal((await wireguardLinks(rig.host(1))).length, 1, 'it stays at the end of the daemon');
    const { etcdEndpoints } = daemon.options;
    const flags = ['--network=10.5.0.0/16', '--force', `--etcd-endpoints=${etcdEndpoints}`];
    const places = [
      '--subnet-file',
      daemon.subnetFile,
      '--state-dir',
      daemon.stateDirectory,
      '--status-socket',
      daemon.statusSocket,
    ];
    await rig.host(1).netns.run([process.execPath, ctlFile(), 'cleanup', ...flags, ...places]);
    assert.deepEqual(await wireguardLinks(rig.host(1)), []);
  });
});

describe('hosts with the wireguard backend in dual stack', () => {
  let rig: Rig;
  let near: Container;
  let far: Container;

  before(async () => {
    rig = await Rig.create({ hosts: 2, hasIpv6: true });
    for (const host of rig.hosts) await host.netns.run(['sysctl', '-qw', 'net.ipv6.conf.all.forwarding=1']);
    await rig.putConfig({ ...DUAL, Backend: WIREGUARD });
    [near, far] = await pairOf(rig);
  });

  after(() => rig.close());

  for (const [mode, devices] of [
    ['separate', ['flannel-wg 1420', 'flannel-wg-v6 1420']],
    ['ipv6', ['flannel-wg 1420']],
    ['ipv4', ['flannel-wg 1420']],
    ['auto', ['flannel-wg 1420']],
  ] as const) {
    it(`talk over IPv4 and IPv6 in mode ${mode}`, async () => {
      await rig.putConfig({ ...DUAL, Backend: { ...WIREGUARD, Mode: mode } });
      for (const host of rig.hosts) {
        await waitFor(async () => isDeepStrictEqual(await wireguardLinks(host), devices), {
          what: devices.join(),
          timeoutMs: 30_000,
        });
      }
      await assertTalking(near, far);
      await waitFor(() => reaches(near, far.address6), { what: 'an answer over IPv6' });
      await waitFor(() => reaches(far, near.address6), { what: 'an answer over IPv6' });
    });
  }
});
