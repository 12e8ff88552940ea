import assert from 'node:assert/strict';
import type { DaemonStatus } from '../../src/observe/status.js';
import { debianPackage } from '../support/debian-package.js';
import { DATAPATH } from '../support/kernel-overlay.js';
import { skipBecause } from '../support/skip.js';
import { MachineSwitch, SystemdMachine } from '../support/systemd-machine.js';
import { parsePing, withoutPending } from '../support/traffic.js';
import { eventually, waitFor } from '../support/wait.js';

const ADDRESSES = ['192.0.2.11', '192.0.2.12'];
const UNIT = 'tsflanneld';
/** A restart leaves the host without a daemon for at least so long. */
const PAUSE_SECONDS = 3;
/** Below that pause, and far above what a busy machine adds: what waits for a daemon takes longer. */
const WAITED_MS = 2000;
const PING_INTERVAL_MS = 10;

describe(`the kernel path (${DATAPATH}) under systemd`, function () {
  this.timeout(600_000); // systemd, twice, and the package
  let ether: MachineSwitch | undefined;
  let a: SystemdMachine;
  let b: SystemdMachine;
  const machines: SystemdMachine[] = [];
  let pings = 0;

  before(async function () {
    const obstacle = SystemdMachine.obstacle();
    if (obstacle !== undefined) skipBecause(this, obstacle);
    const deb = await debianPackage();
    ether = await MachineSwitch.create();
    for (const address of ADDRESSES) {
      const network = { switch: ether, address: `${address}/24`, gateway: '192.0.2.1' };
      machines.push(await SystemdMachine.start({ network }));
    }
    [a, b] = machines as [SystemdMachine, SystemdMachine];
    const settings = `FLANNELD_ETCD_ENDPOINTS=http://${ADDRESSES[0] ?? ''}:2379\nFLANNELD_DATAPATH=${DATAPATH}\n`;
    for (const machine of machines) {
      await machine.putFile(deb, '/root/tsflannel.deb');
      await install(machine);
      await machine.shell('cat >>/etc/default/tsflanneld', { input: settings });
      await machine.shell(`mkdir -p /etc/systemd/system/${UNIT}.service.d`);
      const pause = `[Service]\nExecStartPre=/bin/sleep ${PAUSE_SECONDS}\n`;
      await machine.shell(`cat >/etc/systemd/system/${UNIT}.service.d/pause.conf`, { input: pause });
    }
    const listen = 'ETCD_LISTEN_CLIENT_URLS=http://0.0.0.0:2379\nETCD_ADVERTISE_CLIENT_URLS=http://192.0.2.11:2379\n';
    await a.shell('cat >/etc/default/etcd-single', { input: listen });
    await a.run(['cp', '/usr/share/doc/tsflannel/examples/etcd-single.service', '/etc/systemd/system/']);
    await a.run(['systemctl', 'start', 'etcd-single']);
    await a.shell(`ETCDCTL_API=3 etcdctl put /coreos.com/network/config '{"Network": "10.5.0.0/16"}'`);
    for (const machine of machines) {
      await machine.run(['systemctl', 'daemon-reload']);
      await machine.run(['systemctl', 'start', UNIT], { timeoutMs: 60_000 });
    }
    await bothSend();
  });
  after(() => {
    for (const machine of machines) machine.close();
    ether?.close();
  });

  const install = (machine: SystemdMachine): Promise<unknown> =>
    machine.run(['dpkg', '--install', '/root/tsflannel.deb'], { timeoutMs: 60_000 });

  const statusOf = async (machine: SystemdMachine): Promise<DaemonStatus> =>
    (JSON.parse((await machine.run(['tsflannelctl', 'status', '--json'])).stdout) as { daemon: DaemonStatus }).daemon;

  const bothSend = async (): Promise<void> => {
    for (const machine of machines) {
      await eventually(
        `the kernel to send; log:\n${await machine.journal(UNIT)}`,
        async () => assert.deepEqual((await statusOf(machine)).peers[0]?.carrier, { carrier: 'kernel' }),
        { timeoutMs: 60_000, intervalMs: 200 },
      );
    }
  };

  const receivedBy = async (machine: SystemdMachine): Promise<number> =>
    (await statusOf(machine)).tunnels[0]?.kernelPath?.counters?.received.packets ?? 0;

  /** Address of its end of the overlay. */
  const overlayAddress = async (machine: SystemdMachine): Promise<string> =>
    (await machine.shell('. /run/flannel/subnet.env; echo $FLANNEL_SUBNET')).stdout.trim().replace(/\.1\/24$/, '.0');

  /** The links by which programs hang at devices, whoever of the machine has them. */
  const linksOf = async (machine: SystemdMachine): Promise<string> =>
    (await machine.shell('cat /proc/[0-9]*/fdinfo/* 2>/dev/null | grep -E "^link_type:.*(xdp|tcx)"; true')).stdout;

  /** Pings from the second machine while the first has no daemon: all are answered, and none has waited for one. */
  const goesOn = async (action: () => Promise<unknown>): Promise<void> => {
    const unit = `steady-${++pings}`;
    const before = await receivedBy(a);
    const words = ['ping', '-n', '-i', String(PING_INTERVAL_MS / 1000), await overlayAddress(a)];
    await b.run(['systemd-run', '--quiet', `--unit=${unit}`, '--setenv=LC_ALL=C', ...words]);
    const pid = await a.property(UNIT, 'MainPID');
    await action();
    await waitFor(
      async () =>
        !['0', pid].includes(await a.property(UNIT, 'MainPID')) && (await a.property(UNIT, 'ActiveState')) === 'active',
      { what: 'the next daemon', timeoutMs: 60_000, intervalMs: 200 },
    );
    await bothSend();
    await b.run(['systemctl', 'kill', '--signal=INT', unit]);
    await eventually('the summary', async () => assert.match(await b.journal(unit), /packets transmitted/));
    const { sent, received, timesMs } = withoutPending(parsePing(await b.journal(unit)), PING_INTERVAL_MS);
    assert.ok(sent > (PAUSE_SECONDS * 1000) / PING_INTERVAL_MS / 2, `only ${sent} pings`);
    assert.equal(received, sent);
    assert.ok(Math.max(...timesMs) < WAITED_MS, `${Math.max(...timesMs)} ms`);
    // The next daemon goes on with what the kernel has counted.
    assert.ok((await receivedBy(a)) >= before + received, 'it counts anew');
  };

  it('carries every packet at once while the daemon is restarted', () =>
    goesOn(() => a.run(['systemctl', 'restart', UNIT], { timeoutMs: 60_000 })));

  it('carries every packet at once while the package is updated', () => goesOn(() => install(a)));

  it('carries every packet at once when the daemon is killed', () =>
    goesOn(async () => a.run(['kill', '-KILL', await a.property(UNIT, 'MainPID')])));

  it('leaves no program that acts when the service is stopped, and is back when it is started', async () => {
    assert.notEqual(await linksOf(a), '');
    await a.run(['systemctl', 'stop', UNIT], { timeoutMs: 60_000 });
    await eventually('the programs to go', async () => assert.equal(await linksOf(a), ''));
    const { stdout: devices } = await a.run(['ip', '-o', 'link', 'show', 'type', 'tun']);
    assert.equal(devices, '');
    const { stdout: filters } = await a.run(['tc', 'filter', 'show', 'dev', 'eth0', 'ingress']);
    assert.doesNotMatch(filters, /receive_/);
    assert.doesNotMatch((await a.run(['ip', 'link', 'show', 'eth0'])).stdout, / xdp/);
    await a.run(['systemctl', 'start', UNIT], { timeoutMs: 60_000 });
    await bothSend();
    const { code } = await b.run(['ping', '-c', '3', '-W', '2', await overlayAddress(a)]);
    assert.equal(code, 0);
  });
});
