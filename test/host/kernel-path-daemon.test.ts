import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import type { DaemonStatus } from '../../src/observe/status.js';
import { ctlFile, daemonFile } from '../support/daemon.js';
import { DescriptorKeepers } from '../support/descriptor-keeper.js';
import { BUILD_TIMEOUT_MS, buildKernelPath, kernelPathCommand } from '../support/kernel-path.js';
import { NETWORK, Overlay, leaseKey } from '../support/overlay.js';
import { BULK_BYTES, SIZES, carriesEverything, eventuallySends, groOf, xdpOf } from '../support/kernel-overlay.js';
import { type Host, Rig } from '../support/rig.js';
import { ping, tcpTransfer } from '../support/traffic.js';
import { eventually } from '../support/wait.js';

describe('daemons with the kernel path', function () {
  this.timeout(BUILD_TIMEOUT_MS);
  let overlay: Overlay | undefined;
  let rig: Rig | undefined;
  const keepers = new DescriptorKeepers();

  before(async function () {
    await buildKernelPath(this);
  });
  afterEach(async () => {
    await overlay?.close();
    await rig?.close();
    keepers.close();
    [overlay, rig] = [undefined, undefined];
  });

  /** Starts a host with each of these, and waits until each kernel path sends to every other one. */
  const start = async (datapaths: readonly string[], options: { isKept?: boolean } = {}): Promise<Overlay> => {
    const started = await Overlay.create({
      hosts: datapaths.length,
      args: (host) => ['--datapath', datapaths[host - 1] ?? 'auto'],
      ...(options.isKept === true && { keeper: keepers.make }),
    });
    overlay = started;
    const kernels = datapaths.flatMap((datapath, index) => (/kernel|auto/.test(datapath) ? [index + 1] : []));
    for (const host of kernels) await eventuallySends(started, host, kernels.length - 1);
    return started;
  };

  const carried = (status: DaemonStatus): { readonly sent: number; readonly received: number } => {
    const counters = status.tunnels[0]?.kernelPath?.counters;
    return { sent: counters?.sent.bytes ?? 0, received: counters?.received.bytes ?? 0 };
  };

  const announcedBy = async (from: Overlay, host: number): Promise<unknown> => {
    const entry = await from.rig.etcd.get(leaseKey(from.rig, from.daemon(host).subnetEnv().FLANNEL_SUBNET));
    return (JSON.parse(entry?.value ?? '{}') as { BackendData?: unknown }).BackendData;
  };

  it('carry everything whole by their kernels, and tell so', async () => {
    const both = await start(['kernel', 'kernel']);
    await carriesEverything(both);
    const status = await both.daemon(1).status();
    const { sent, received } = carried(status);
    assert.ok(sent > BULK_BYTES && received > BULK_BYTES, `${sent} sent, ${received} received`);
    const { txBytes = 0, rxBytes = 0 } = status.tunnels[0]?.counters ?? {};
    assert.ok(txBytes > BULK_BYTES && rxBytes > BULK_BYTES, 'the tunnel’s counters lack it');
    assert.ok((status.peers[0]?.traffic?.rxBytes ?? 0) > BULK_BYTES, 'the peer’s counters lack it');
    // The history adds the two, so the device must not have counted what the programs took.
    assert.ok((status.devices[0]?.txBytes ?? 0) < BULK_BYTES && (status.devices[0]?.rxBytes ?? 0) < BULK_BYTES);
    assert.equal(await groOf(both.rig.host(1)), 'on');
    assert.equal(await announcedBy(both, 1), 'kernel-path-1');
    assert.match(await both.daemon(1).get('/metrics'), /^tsflannel_peers_by_carrier\{carrier="kernel"\} 1$/m);
  });

  it('leave what streams to the tunnel, and only that, unless they are told otherwise', async () => {
    const both = await start(['auto', 'auto']);
    const before = await both.daemon(1).status();
    await carriesEverything(both);
    const { tunnels, peers } = await both.daemon(1).status();
    const counters = tunnels[0]?.kernelPath?.counters;
    assert.ok(counters !== null && counters !== undefined);
    assert.ok(counters['send-bulk'].bytes > BULK_BYTES / 8, inspect(counters));
    assert.ok(counters['receive-tunnel'].bytes > BULK_BYTES / 8, inspect(counters));
    assert.ok(counters.sent.packets > SIZES.length && counters.received.packets > SIZES.length, inspect(counters));
    assert.equal(tunnels[0]?.kernelPath?.receiver, 'tc');
    assert.deepEqual(peers[0]?.carrier, { carrier: 'kernel' });
    const carriedByTunnel = (status: DaemonStatus): number => {
      const { counters: all, kernelPath } = status.tunnels[0] ?? {};
      return (all?.txPackets ?? 0) - (kernelPath?.counters?.sent.packets ?? 0);
    };
    const now = await both.daemon(1).status();
    const [near, far] = [both.container(1), both.container(2)];
    assert.equal((await ping(near.netns, far.address, { count: 300, intervalMs: 2 })).received, 300);
    assert.equal(carriedByTunnel(await both.daemon(1).status()), carriedByTunnel(now));
    assert.ok(carriedByTunnel(now) > carriedByTunnel(before));
  });

  it('carry everything whole to and from hosts that do not announce it', async () => {
    const three = await start(['auto', 'native', 'portable']);
    await carriesEverything(three);
    const { peers, tunnels } = await three.daemon(1).status();
    assert.deepEqual(
      peers.map(({ carrier }) => carrier),
      Array.from({ length: 2 }, () => ({ carrier: 'tunnel', because: 'not-announced' })),
    );
    assert.equal(tunnels[0]?.kernelPath?.counters?.sent.packets, 0);
    assert.deepEqual([await announcedBy(three, 2), await announcedBy(three, 3)], [undefined, undefined]);
  });

  for (const datapath of ['kernel', 'auto']) {
    it(`lose no packet when one with ${datapath} is restarted or killed, and neither does what the kernel counts`, async () => {
      const both = await start([datapath, datapath], { isKept: true });
      const daemon = both.daemon(1);
      for (const end of ['stop', 'kill'] as const) {
        const before = carried(await daemon.status());
        await both.withoutLoss(async () => {
          await daemon[end]();
          const [near, far] = [both.container(1), both.container(2)];
          await tcpTransfer(near.netns, far.netns, far.address, { bytes: BULK_BYTES });
          await daemon.startAndWait();
          await daemon.waitUntilReady();
        });
        await eventuallySends(both, 1, 1);
        // Where a tunnel was killed, the kernel takes what streams after two seconds.
        assert.ok(carried(await daemon.status()).sent >= before.sent + BULK_BYTES / 2, `after ${end}`);
        assert.equal(await announcedBy(both, 1), 'kernel-path-1');
      }
    });
  }

  it('take everything along when the service is stopped for good', async () => {
    const both = await start(['kernel', 'kernel'], { isKept: true });
    const host = both.rig.host(1);
    await both.daemon(1).stop();
    assert.ok((await xdpOf(host)) !== undefined, 'it is gone although the descriptors are kept');
    keepers.all[0]?.drop();
    await eventually('the programs to go', async () => assert.equal(await xdpOf(host), undefined));
    assert.deepEqual(await host.netns.ipJson(['link', 'show', 'type', 'tun']), []);
    // Without TCX, before Linux 6.6, one filter stays, which does nothing where nothing is marked.
    const { stdout: filters } = await host.netns.run(['tc', 'filter', 'show', 'dev', 'eth0', 'ingress']);
    for (const filter of filters.split('\n').filter((line) => line.includes(' handle ')))
      assert.match(filter, / tsflannel .* name deliver /);
    const { directory } = both.daemon(1).options;
    const files = ['--state-dir', path.join(directory, 'state'), '--subnet-file', both.daemon(1).subnetFile];
    const cleanup = await host.netns.run([
      ...[process.execPath, ctlFile(), 'cleanup', ...files, '--network=10.5.0.0/16'],
      ...['--status-socket', path.join(directory, 'none.sock'), `--etcd-endpoints=${both.rig.etcd.endpoint}`],
    ]);
    assert.match(cleanup.stdout, /receive offload of eth0/);
    assert.equal(await groOf(host), 'off');
  });

  it('leave nothing behind without a service manager that keeps descriptors', async () => {
    const both = await start(['kernel', 'kernel']);
    const host = both.rig.host(1);
    await both.daemon(1).stop();
    assert.equal(await xdpOf(host), undefined);
    assert.equal(await groOf(host), 'off');
  });

  it('withdraw it, and lose nothing, when the next run is to use the native tunnel alone', async () => {
    const both = await start(['kernel', 'kernel'], { isKept: true });
    const host = both.rig.host(1);
    const daemon = both.daemon(1);
    await both.withoutLoss(async () => {
      await daemon.stop();
      await daemon.startAndWait(['--datapath=native']);
      await eventually('the programs to go', async () => assert.equal(await xdpOf(host), undefined));
    });
    assert.equal(await announcedBy(both, 1), undefined);
    assert.equal(await groOf(host), 'off');
    assert.deepEqual(
      keepers.all[0]?.names.filter((name) => name.startsWith('bpf')),
      [],
    );
    await carriesEverything(both);
    assert.deepEqual((await both.daemon(2).status()).peers[0]?.carrier, {
      carrier: 'tunnel',
      because: 'not-announced',
    });
  });

  /** One daemon that cannot have it, and one with the native tunnel; packets flow between the two all the same. */
  const carriesWithout = async (reason: string, near: Host): Promise<void> => {
    const daemon = near.daemon;
    assert.ok(daemon !== undefined && rig !== undefined);
    const far = rig.host(2);
    await far.startDaemon({ args: ['--datapath=native'] });
    const [source, target] = [await near.addContainer(), await far.addContainer()];
    await eventually('the first packet', async () =>
      assert.equal((await ping(source.netns, target.address, { count: 1, waitSeconds: 1 })).received, 1),
    );
    await tcpTransfer(source.netns, target.netns, target.address, { bytes: BULK_BYTES });
    const { peers, tunnels } = await daemon.status();
    assert.equal(tunnels[0]?.kernelPath?.refused?.reason, reason);
    assert.deepEqual(peers[0]?.carrier, { carrier: 'tunnel', because: 'not-announced' });
    assert.equal(daemon.log.match(/no kernel path, the tunnel carries everything/g)?.length, 1);
    const entry = await rig.etcd.get(leaseKey(rig, daemon.subnetEnv().FLANNEL_SUBNET));
    assert.ok(!/BackendData/.test(entry?.value ?? ''), 'it is announced all the same');
  };

  it('leave the uplink to another program, and say so', async () => {
    rig = await Rig.create({ hosts: 2 });
    await rig.putConfig(NETWORK);
    const near = rig.host(1);
    await near.netns.ip(['address add 192.0.2.111/24 dev eth0']);
    const other = near.netns.start(
      kernelPathCommand('carrier', ['other0', 'eth0', '192.0.2.111', '10.6.1.0/24', 'xdp']),
    );
    await other.waitForLine(/^ready$/);
    const before = await xdpOf(near);
    await near.startDaemon({ args: ['--datapath=kernel'] });
    await carriesWithout('foreign-program', near);
    assert.deepEqual(await xdpOf(near), before);
  });

  it('go on without the right to load programs', async () => {
    rig = await Rig.create({ hosts: 2 });
    await rig.putConfig(NETWORK);
    const near = rig.host(1);
    const directory = path.join(rig.directory, near.name);
    const script = path.join(rig.directory, 'start');
    const capabilities = '-all,+net_admin,+net_raw,+net_bind_service,+sys_nice';
    const command = `setpriv --bounding-set=${capabilities} ${process.execPath} ${daemonFile()}`;
    writeFileSync(script, `#!/bin/sh\nexec ${command} "$@"\n`, { mode: 0o755 });
    const files = [`--state-dir=${directory}/state`, `--status-socket=${directory}/status.sock`];
    await near.startDaemon({ stock: script, args: [...files, '--datapath=kernel'] });
    await carriesWithout('not-permitted', near);
  });

  it('do without it behind a bridge', async () => {
    rig = await Rig.create({ hosts: 2 });
    await rig.putConfig(NETWORK);
    const near = rig.host(1);
    await near.netns.ip([
      'link add br9 type bridge',
      'link set eth0 master br9',
      `address del ${near.publicIp}/24 dev eth0`,
      'link set br9 up',
      `address add ${near.publicIp}/24 dev br9`,
      'route add default via 192.0.2.1',
    ]);
    await near.startDaemon({ args: ['--datapath=kernel'] });
    await carriesWithout('uplink-kind', near);
  });
});

function inspect(value: unknown): string {
  return JSON.stringify(value);
}
