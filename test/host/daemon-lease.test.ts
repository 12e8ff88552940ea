import assert from 'node:assert/strict';
import { readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import type { Daemon } from '../support/daemon.js';
import { NotifySocket } from '../support/notify-socket.js';
import { NETWORK, Overlay, countLines, leaseKey } from '../support/overlay.js';
import { type Host, Rig } from '../support/rig.js';
import { waitFor } from '../support/wait.js';

const subnetOf = (daemon: Daemon): string => daemon.subnetEnv().FLANNEL_SUBNET ?? '';

async function leaseKeys(rig: Rig): Promise<string[]> {
  return (await rig.etcd.list(`${rig.etcdPrefix}/subnets/`)).map(({ key }) => key);
}

describe('lease of a daemon', () => {
  let rig: Rig;
  let host: Host;

  beforeEach(async () => {
    rig = await Rig.create({ hosts: 2 });
    host = rig.host(1);
    await rig.putConfig(NETWORK);
  });
  afterEach(() => rig.close());

  it('stays over an orderly stop, and the next start takes it again', async () => {
    const daemon = await host.startDaemon();
    const subnet = subnetOf(daemon);
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      assert.deepEqual(await daemon.stop(signal), { code: 0, signal: null }, daemon.log);
      assert.deepEqual(await leaseKeys(rig), [leaseKey(rig, subnet)]);
      await daemon.startAndWait();
      await daemon.waitForLog(/ ready /);
      assert.equal(subnetOf(daemon), subnet);
    }
    assert.deepEqual(await leaseKeys(rig), [leaseKey(rig, subnet)]);
  });

  it('stays when the daemon is killed', async () => {
    const daemon = await host.startDaemon();
    const subnet = subnetOf(daemon);
    await daemon.kill();
    await daemon.startAndWait();
    await daemon.waitForLog(/ ready /);
    assert.equal(subnetOf(daemon), subnet);
    assert.deepEqual(await leaseKeys(rig), [leaseKey(rig, subnet)]);
  });

  it('is taken anew for the subnet of subnet.env when the key is gone', async () => {
    const daemon = await host.startDaemon();
    const subnet = subnetOf(daemon);
    await daemon.stop();
    await rig.etcd.delete(leaseKey(rig, subnet));
    rmSync(daemon.stateDirectory, { recursive: true });
    await daemon.startAndWait();
    assert.equal(subnetOf(daemon), subnet);
    assert.deepEqual(await leaseKeys(rig), [leaseKey(rig, subnet)]);
  });

  it('is another one when somebody else took the subnet meanwhile', async () => {
    const daemon = await host.startDaemon();
    const subnet = subnetOf(daemon);
    await daemon.stop();
    await rig.etcd.put(leaseKey(rig, subnet), '{"PublicIP":"192.0.2.99"}');
    await daemon.startAndWait();
    await waitFor(() => subnetOf(daemon) !== subnet, { what: 'another subnet' });
    await daemon.stop();
    assert.equal((await leaseKeys(rig)).length, 2);
  });

  it('is written to the file that --subnet-file names, in a directory that is made for it', async () => {
    const file = path.join(rig.directory, 'deep/er/subnet.env');
    const daemon = host.makeDaemon({ args: [`--subnet-file=${file}`] });
    daemon.start();
    await daemon.waitForLog(/ ready /);
    assert.match(readFileSync(file, 'utf8'), /^FLANNEL_SUBNET=10\.5\.\d+\.1\/24$/m);
    assert.throws(() => daemon.subnetEnv(), { code: 'ENOENT' });
  });

  it('and device are there when the service manager is told that the daemon is ready', async () => {
    const socket = new NotifySocket(path.join(rig.directory, 'notify'));
    try {
      await rig.etcd.delete(`${rig.etcdPrefix}/config`);
      const daemon = host.makeDaemon({ env: { NOTIFY_SOCKET: socket.name } });
      daemon.start();
      await daemon.waitForLog(/network configuration missing/);
      assert.doesNotMatch(told(socket), /READY=1/);

      await rig.putConfig(NETWORK);
      const texts: string[] = [];
      await waitFor(
        () => {
          texts.push(told(socket));
          return texts.some((text) => text.includes('READY=1'));
        },
        { what: 'READY=1', intervalMs: 1 },
      );
      const key = leaseKey(rig, subnetOf(daemon));
      const device = await host.netns.ipJson(['link', 'show', 'dev', 'flannel0']);
      assert.ok((device[0]?.flags as string[]).includes('LOWER_UP'), 'somebody serves the device');
      assert.deepEqual(await leaseKeys(rig), [key]);

      await daemon.stop();
      assert.match(told(socket), /STOPPING=1/);
    } finally {
      socket.close();
    }
  });
});

function told(socket: NotifySocket): string {
  return socket
    .receiveAll()
    .map(({ text }) => text)
    .join('\n');
}

describe('daemons that want the same subnets', () => {
  for (const free of [1, 6]) {
    it(`share out ${free} without an owner too many, and the loser gets what becomes free`, async () => {
      const rig = await Rig.create({ hosts: free + 1 });
      try {
        await rig.putConfig({ ...NETWORK, SubnetMin: '10.5.7.0', SubnetMax: `10.5.${6 + free}.0` });
        const daemons = rig.hosts.map((host) => host.makeDaemon());
        for (const daemon of daemons) daemon.start();
        const withoutLease = await waitFor(
          () => {
            const losers = daemons.filter((daemon) => / error .*code=ERR_OUT_OF_SUBNETS/.test(daemon.log));
            const winners = daemons.filter((daemon) => / ready /.test(daemon.log));
            return winners.length === free && losers[0];
          },
          { what: 'one daemon without a subnet', timeoutMs: 40_000 },
        );
        const winners = daemons.filter((daemon) => daemon !== withoutLease);
        const subnets = winners.map(subnetOf);
        assert.equal(new Set(subnets).size, free);
        assert.deepEqual((await leaseKeys(rig)).sort(), subnets.map((subnet) => leaseKey(rig, subnet)).sort());
        assert.ok(withoutLease.program.isRunning);
        assert.equal(countLines(withoutLease.log, /ERR_OUT_OF_SUBNETS/), 1, withoutLease.log);
        assert.match(withoutLease.log, /ERR_OUT_OF_SUBNETS.* hint=/);

        await winners[0]?.stop();
        await rig.etcd.delete(leaseKey(rig, subnets[0]));
        await withoutLease.waitForLog(/ ready /, 30_000);
        assert.equal(subnetOf(withoutLease), subnets[0]);
      } finally {
        await rig.close();
      }
    });
  }
});

describe('disturbed leases', () => {
  let overlay: Overlay;

  before(async () => {
    // A kernel that receives is announced in the lease, which changes it once more after the start.
    overlay = await Overlay.create({ args: () => ['--datapath=native'] });
  });
  after(() => overlay.close());

  it('are told once and change nothing when a key or value is malformed, and when it goes again', async () => {
    const { etcd, etcdPrefix } = overlay.rig;
    const daemon = overlay.daemon(1);
    const mark = daemon.program.mark();
    const peerKey = leaseKey(overlay.rig, subnetOf(overlay.daemon(2)));
    const bad: [string, string][] = [
      ['nonsense', '{"PublicIP":"192.0.2.50"}'],
      ['10.5.300.0-24', '{"PublicIP":"192.0.2.50"}'],
      ['10.5.77.0-24', 'not JSON'],
      ['10.5.78.0-24', '{"PublicIP":"192.0.2"}'],
      ['10.5.80.0-24/deeper', '[]'],
      ['', 'x'],
    ];
    await overlay.withoutLoss(async () => {
      for (const [key, value] of bad) await etcd.put(`${etcdPrefix}/subnets/${key}`, value);
      await waitFor(async () => (await daemon.status()).peerSet.badKeyCount === bad.length, { what: 'every bad key' });
      for (const [key] of bad) await etcd.delete(`${etcdPrefix}/subnets/${key}`);
      await etcd.put(`${etcdPrefix}/subnets/10.5.90.0-24`, '{"PublicIP":"192.0.2.90"}');
      await daemon.waitForLog(/peer joined subnet=10\.5\.90\.0\/24/, 10_000, mark);
      await etcd.delete(`${etcdPrefix}/subnets/10.5.90.0-24`);
      await daemon.waitForLog(/peer left subnet=10\.5\.90\.0\/24/, 10_000, mark);
    });
    const log = daemon.log.slice(mark);
    const told = countLines(log, /unreadable and skipped kind=unreadable count=\d+ detail=/);
    assert.ok(told >= 1 && told <= bad.length, log);
    assert.equal(countLines(log, /peer (left|joined|changed)/), 2, log);
    assert.ok((await leaseKeys(overlay.rig)).includes(peerKey));
  });

  it('keep a peer whose value becomes unreadable', async () => {
    const { etcd } = overlay.rig;
    const daemon = overlay.daemon(1);
    const mark = daemon.program.mark();
    const peerKey = leaseKey(overlay.rig, subnetOf(overlay.daemon(2)));
    await overlay.withoutLoss(async () => {
      await etcd.ctl(['put', '--ignore-lease', '--', peerKey, 'garbage']);
      await daemon.waitForLog(/unreadable and skipped/, 10_000, mark);
      // Its owner writes it anew.
      await waitFor(async () => (await etcd.get(peerKey))?.value.includes('PublicIP'), { what: 'a readable lease' });
    });
    assert.equal(countLines(daemon.log.slice(mark), /peer left/), 0);
  });

  it('are taken again without an interruption when the key is deleted by hand', async () => {
    const { etcd } = overlay.rig;
    const daemon = overlay.daemon(1);
    const mark = daemon.program.mark();
    const subnet = subnetOf(daemon);
    await overlay.withoutLoss(async () => {
      await etcd.delete(leaseKey(overlay.rig, subnet));
      await daemon.waitForLog(/lease acquired/, 10_000, mark);
    });
    assert.equal(subnetOf(daemon), subnet);
    assert.ok((await leaseKeys(overlay.rig)).includes(leaseKey(overlay.rig, subnet)));
    assert.match(daemon.log.slice(mark), /warn {2}own lease was deleted /);
  });

  it('are replaced by another subnet, loudly, when another host has taken the own one', async () => {
    const { etcd } = overlay.rig;
    const daemon = overlay.daemon(1);
    const mark = daemon.program.mark();
    const subnet = subnetOf(daemon);
    await etcd.put(leaseKey(overlay.rig, subnet), '{"PublicIP":"192.0.2.77"}');
    await waitFor(() => subnetOf(daemon) !== subnet, { what: 'another subnet in subnet.env' });
    for (const line of [
      /error own subnet was taken by another host /,
      /error own subnet is another one now from=\S+ to=\S+ hint=/,
      /warn {2}containers need a restart of Docker /,
    ]) {
      await daemon.waitForLog(line, 10_000, mark);
    }
    assert.equal((await etcd.get(leaseKey(overlay.rig, subnet)))?.value, '{"PublicIP":"192.0.2.77"}');
    const network = subnetOf(daemon).replace(/\.1\/24$/, '.0/32');
    await waitFor(
      async () => {
        const [device] = await overlay.rig.host(1).netns.ipJson(['-4', 'address', 'show', 'dev', 'flannel0']);
        const addresses = device?.addr_info as { local: string; prefixlen: number }[];
        return addresses.length === 1 && `${addresses[0]?.local}/${addresses[0]?.prefixlen}` === network;
      },
      { what: `only ${network} on flannel0` },
    );
  });
});
