import assert from 'node:assert/strict';
import { debianPackage } from '../support/debian-package.js';
import { skipBecause } from '../support/skip.js';
import { MachineSwitch, SystemdMachine } from '../support/systemd-machine.js';
import { waitFor } from '../support/wait.js';

/** What a start from the saved state promises: subnet.env is there so soon after the process has begun. */
const SUBNET_FILE_MS = 2000;

/** In place of Docker: it fails without its environment, and is started again as docker-ce's unit says. */
const DOCKER = {
  '/usr/local/sbin/dockerd': '#!/bin/sh\nexec sleep infinity\n',
  '/etc/systemd/system/docker.service': `[Service]
ExecStart=dockerd
Restart=always
RestartSec=2
[Unit]
StartLimitBurst=3
StartLimitIntervalSec=60
`,
};

describe('two hosts under systemd whose power is cut', function () {
  this.timeout(600_000); // systemd, twice
  let ether: MachineSwitch | undefined;
  let a: SystemdMachine;
  let b: SystemdMachine;
  const machines: SystemdMachine[] = [];
  const subnets = new Map<SystemdMachine, string>();

  before(async function () {
    const obstacle = SystemdMachine.obstacle();
    if (obstacle !== undefined) skipBecause(this, obstacle);
    const deb = await debianPackage();
    ether = await MachineSwitch.create();
    for (const address of ['192.0.2.11/24', '192.0.2.12/24']) {
      machines.push(await SystemdMachine.start({ network: { switch: ether, address, gateway: '192.0.2.1' } }));
    }
    [a, b] = machines as [SystemdMachine, SystemdMachine];
    for (const machine of machines) {
      await machine.putFile(deb, '/root/tsflannel.deb');
      await machine.run(['dpkg', '--install', '/root/tsflannel.deb'], { timeoutMs: 60_000 });
      await machine.shell('echo FLANNELD_ETCD_ENDPOINTS=http://192.0.2.11:2379 >>/etc/default/tsflanneld');
    }
    const listen = 'ETCD_LISTEN_CLIENT_URLS=http://0.0.0.0:2379\nETCD_ADVERTISE_CLIENT_URLS=http://192.0.2.11:2379\n';
    await a.shell('cat >/etc/default/etcd-single', { input: listen });
    await a.run(['cp', '/usr/share/doc/tsflannel/examples/etcd-single.service', '/etc/systemd/system/']);
    await a.run(['systemctl', 'daemon-reload']);
    await a.run(['systemctl', 'start', 'etcd-single']);
    const config = '{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}';
    await a.shell(`ETCDCTL_API=3 etcdctl put /coreos.com/network/config '${config}'`);
    for (const machine of machines) {
      await machine.run(['systemctl', 'start', 'tsflanneld'], { timeoutMs: 60_000 });
      subnets.set(machine, await subnetOf(machine));
    }
    // Until each has saved that there is the other.
    for (const machine of machines) {
      await waitFor(async () => (await machine.shell('cat /var/lib/tsflannel/peers.json')).stdout.includes('"key"'), {
        what: 'a saved peer',
        timeoutMs: 30_000,
        intervalMs: 200,
      });
    }
  });

  after(() => {
    for (const machine of machines) machine.close();
    ether?.close();
  });

  const subnetOf = async (machine: SystemdMachine): Promise<string> =>
    (await machine.shell('. /run/flannel/subnet.env; echo $FLANNEL_SUBNET')).stdout.trim();

  const powerCut = async (): Promise<void> => {
    for (const machine of machines) await machine.cutPower();
  };

  const status = (machine: SystemdMachine): Promise<string> => machine.property('tsflanneld', 'StatusText');

  /** From the begin of the process to the line about subnet.env, less what other processes took of that. */
  const subnetFileMs = async (machine: SystemdMachine): Promise<number> => {
    const { stdout } = await machine.run(['journalctl', '--output=json', '--unit=tsflanneld']);
    const lines = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, string>);
    const written = lines.find(({ MESSAGE = '' }) => MESSAGE.includes('subnet file written'));
    const startedUs = Number(await machine.property('tsflanneld', 'ExecMainStartTimestampMonotonic'));
    const elapsedMs = (Number(written?.__MONOTONIC_TIMESTAMP) - startedUs) / 1000;
    // Other work on this machine: time on the run queue, the second number of /proc/PID/schedstat, in nanoseconds.
    const pid = await machine.property('tsflanneld', 'MainPID');
    const { stdout: schedule } = await machine.run(['cat', `/proc/${pid}/schedstat`]);
    const waitedMs = Number(schedule.split(' ')[1]) / 1e6;
    process.stdout.write(`      subnet.env after ${Math.round(elapsedMs)} ms, ${Math.round(waitedMs)} without a CPU\n`);
    return elapsedMs - waitedMs;
  };

  /** Through the overlay, from the address of one device to that of the other. */
  const answers = async (from: SystemdMachine, to: SystemdMachine): Promise<boolean> => {
    const address = (subnets.get(to) ?? '').replace(/\.1\/24$/, '.0');
    return (await from.run(['ping', '-c', '1', '-W', '1', address], { mayFail: true })).code === 0;
  };

  it('keep their state where a reboot finds it and nobody else reads it', async () => {
    for (const machine of machines) {
      const { stdout } = await machine.shell('stat -c "%a %U" /var/lib/tsflannel /var/lib/tsflannel/*');
      assert.equal(stdout, `700 root\n${'600 root\n'.repeat(4)}`);
    }
  });

  it('have subnet.env within two seconds and exchange packets, without etcd', async function () {
    // Starting Node also waits for disks, which other work on this machine can draw out.
    this.retries(2);
    await powerCut();
    await Promise.all(
      machines.map((machine) => machine.run(['systemctl', 'start', 'tsflanneld'], { timeoutMs: 60_000 })),
    );
    for (const machine of machines) {
      assert.equal(await subnetOf(machine), subnets.get(machine));
      assert.equal(await status(machine), 'the lease is the saved one, etcd has not confirmed it');
      assert.match(await machine.journal('tsflanneld'), /etcd does not answer, going on with the saved state/);
    }
    await waitFor(() => answers(a, b), { what: 'an answer through the overlay' });
    assert.ok(await answers(b, a));
    for (const machine of machines) {
      const ms = await subnetFileMs(machine);
      assert.ok(ms > 0 && ms < SUBNET_FILE_MS, `subnet.env after ${ms} ms`);
    }
  });

  it('say so in status, doctor and metrics', async () => {
    const { stdout: shown } = await b.run(['tsflannelctl', 'status']);
    assert.match(shown, /saved at 20\S+Z and not yet confirmed: etcd does not answer/);
    const { stdout: found } = await b.run(['tsflannelctl', 'doctor', '--max-peers=0'], {
      mayFail: true,
      timeoutMs: 60_000,
    });
    assert.match(found, /\(saved-state\)/);
    const { stdout: metrics } = await b.shell(
      'curl -s --unix-socket /run/flannel/tsflanneld.sock http://localhost/metrics | grep ^tsflannel_saved',
    );
    assert.equal(metrics, 'tsflannel_saved_state_in_use 1\n');
  });

  it('are as before when etcd is back', async () => {
    await a.run(['systemctl', 'start', 'etcd-single']);
    for (const machine of machines) {
      await waitFor(async () => /^lease 10\.5\.\d+\.0\/24, 1 peers$/.test(await status(machine)), {
        what: 'a confirmed lease',
        timeoutMs: 30_000,
      });
      assert.equal(await subnetOf(machine), subnets.get(machine));
      assert.doesNotMatch(await machine.journal('tsflanneld'), /containers need a restart/);
    }
    assert.ok(await answers(a, b));
  });

  it('are as before when etcd is there from the beginning', async () => {
    await powerCut();
    await a.run(['systemctl', 'start', 'etcd-single', 'tsflanneld'], { timeoutMs: 60_000 });
    await b.run(['systemctl', 'start', 'tsflanneld'], { timeoutMs: 60_000 });
    for (const machine of machines) assert.equal(await subnetOf(machine), subnets.get(machine));
    await waitFor(() => answers(a, b), { what: 'an answer through the overlay' });
  });

  it('refuse a second daemon on the same state', async () => {
    const pid = await b.property('tsflanneld', 'MainPID');
    const { code, stderr } = await b.run(['tsflanneld', '--subnet-file=/run/other.env'], { mayFail: true });
    assert.equal(code, 1);
    assert.match(
      stderr,
      new RegExp(`another tsflanneld, pid ${pid}, runs on it.*give each daemon its own --state-dir`),
    );
  });

  describe('without etcd and without a saved state', () => {
    before(async () => {
      for (const [file, text] of Object.entries(DOCKER)) {
        await b.shell(`mkdir -p $(dirname ${file}); cat >${file}; chmod 755 ${file}`, { input: text });
      }
      await b.shell('systemctl daemon-reload; tsflannelctl docker enable');
      // The unit's own two minutes are too long to wait for.
      const faster = '[Service]\nTimeoutStartSec=6\n';
      await b.shell('d=/etc/systemd/system/tsflanneld.service.d; mkdir -p $d; cat >$d/test.conf', { input: faster });
      await a.run(['systemctl', 'stop', 'etcd-single']);
      await b.shell('systemctl stop tsflanneld; rm -r /var/lib/tsflannel/*');
      await b.cutPower();
    });

    it('do not wait for ever: what waits for the daemon fails after a time, and says for what', async () => {
      await b.run(['systemctl', 'start', '--no-block', 'docker']);
      await waitFor(async () => (await b.journal('docker')).includes('Failed to load environment files'), {
        what: 'Docker without its environment',
        timeoutMs: 60_000,
        intervalMs: 200,
      });
      const journal = await b.journal('tsflanneld');
      assert.match(journal, /no saved state to go on with, waiting for etcd/);
      assert.match(journal, /start operation timed out/);
    });

    it('start Docker by themselves once etcd is there', async () => {
      await a.run(['systemctl', 'start', 'etcd-single']);
      await waitFor(async () => (await b.property('docker', 'ActiveState')) === 'active', {
        what: 'Docker',
        timeoutMs: 60_000,
        intervalMs: 200,
      });
      assert.equal(await subnetOf(b), subnets.get(b));
    });
  });
});
