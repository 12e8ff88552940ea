import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { debianPackage } from '../support/debian-package.js';
import { run } from '../support/netns.js';
import { skipBecause } from '../support/skip.js';
import { SystemdMachine } from '../support/systemd-machine.js';
import { waitFor } from '../support/wait.js';

/** A network in which the daemon has an interface, a default route and somebody who answers. */
const UPLINK = `
ip link add eth0 type veth peer name peer0
ip link set peer0 up
ip link set eth0 up
ip address add 192.0.2.11/24 dev eth0
ip route add default via 192.0.2.1
`;

/** How long the overlay may be without packets while the daemon is restarted, where nothing else runs. */
const MAX_GAP_MS = 1000;

/** The same where other work draws everything out: so many times what the program takes to tell its version. */
const MAX_GAP_STARTS = 6;

const REPOSITORY = path.resolve(import.meta.dirname, '../..');

/** Where Docker finds the plugin. */
const SECOND_SOCKET = '/run/docker/plugins/tsflannel-ipvlan.sock';
const SOCKETS = `/run/docker/plugins/tsflannel.sock ${SECOND_SOCKET}`;

const PACKAGED_NODE = '/usr/lib/tsflannel/node/node';

describe('the Debian package under systemd', function () {
  this.timeout(240_000);
  let machine: SystemdMachine;

  before(async function () {
    const obstacle = SystemdMachine.obstacle();
    if (obstacle !== undefined) skipBecause(this, obstacle);
    const deb = await debianPackage();
    machine = await SystemdMachine.start({ prepare: UPLINK });
    await machine.putFile(deb, '/root/tsflannel.deb');
  });

  after(() => {
    (machine as SystemdMachine | undefined)?.close();
  });

  it('is installed, and neither enabled nor started by that', async () => {
    await machine.run(['dpkg', '--install', '/root/tsflannel.deb'], { timeoutMs: 60_000 });
    const { stdout } = await machine.shell('tsflanneld --version 2>&1; systemctl is-enabled tsflanneld; true');
    assert.match(stdout, /^v\d+\.\d+\.\d+\ndisabled\n$/);
    assert.equal(await machine.property('tsflanneld', 'ActiveState'), 'inactive');
  });

  it('is ready once it has a lease, and has told Docker by then', async () => {
    await machine.shell('cp /usr/share/doc/tsflannel/examples/etcd-single.service /etc/systemd/system/');
    await machine.run(['systemctl', 'start', 'etcd-single']);
    const config = '{"Network": "10.5.0.0/16"}';
    await machine.shell(`ETCDCTL_API=3 etcdctl put /coreos.com/network/config '${config}'`);
    await machine.run(['systemctl', 'enable', '--now', 'tsflanneld'], { timeoutMs: 30_000, mayFail: true });
    const journal = await machine.journal('tsflanneld');
    assert.equal(await machine.property('tsflanneld', 'ActiveState'), 'active', journal);
    assert.notEqual(await machine.property('tsflanneld', 'StatusText'), '', journal);
    const { stdout } = await machine.shell(
      '. /run/flannel/subnet.env; . /run/docker_opts.env; echo "$FLANNEL_SUBNET"; echo $DOCKER_OPTS',
    );
    const [subnet = '', options = ''] = stdout.trim().split('\n');
    assert.match(subnet, /^10\.5\.\d+\.1\/24$/, journal);
    assert.equal(options, `--bip=${subnet} --ip-masq=false --mtu=1472`);
  });

  it('gives the journal the priority of each line, and no second clock', async () => {
    await machine.run(['tsflannelctl', 'log-level', 'debug']);
    await machine.run(['tsflannelctl', 'log-level', 'info']);
    const { stdout: all } = await machine.shell('journalctl --unit=tsflanneld --output=cat');
    assert.match(all, /^info {2}ready subnet=/m);
    assert.match(all, /^info {2}log level changed from=info to=debug$/m);
    await machine.shell(
      'systemd-run --quiet --wait --collect --unit=wrong --setenv=FLANNELD_DATAPATH=magic tsflanneld; true',
    );
    const { stdout: wrong } = await machine.shell('journalctl --unit=wrong --priority=warning --output=cat');
    assert.match(wrong, /^tsflanneld: cannot use the value "magic" for FLANNELD_DATAPATH/m);
    const { stdout: entries } = await machine.shell('journalctl --unit=tsflanneld --output=json');
    for (const line of entries.trim().split('\n')) {
      const { PRIORITY, MESSAGE } = JSON.parse(line) as { PRIORITY: string; MESSAGE: string };
      const level = /^(error|warn|info|debug) /.exec(MESSAGE)?.[1];
      if (level !== undefined) assert.equal(PRIORITY, { error: '3', warn: '4', info: '6', debug: '7' }[level], line);
      assert.doesNotMatch(MESSAGE, /^<\d>|^\d\d:\d\d:/);
    }
  });

  it('works with nothing but the powers that the unit leaves it', async () => {
    const pid = await machine.property('tsflanneld', 'MainPID');
    assert.equal((await machine.run(['readlink', `/proc/${pid}/exe`])).stdout.trim(), PACKAGED_NODE);
    const { stdout: status } = await machine.run(['cat', `/proc/${pid}/status`]);
    // CAP_NET_ADMIN is bit 12, CAP_NET_RAW bit 13, CAP_SYS_NICE bit 23, CAP_BPF bit 39; 2: a filter of system calls is in force.
    assert.match(status, /^CapEff:\t0000008000803000$/m);
    assert.match(status, /^NoNewPrivs:\t1$/m);
    assert.match(status, /^Seccomp:\t2$/m);
    const { stdout: rules } = await machine.shell('iptables-save -t nat | grep -c FLANNEL-POSTRTG');
    assert.ok(Number(rules) > 1, 'the masquerade rules are missing');
    // Nice value and scheduling policy (SCHED_RR is 2) in proc_pid_stat(5).
    const { stdout: threads } = await machine.shell(`awk '$2 ~ /tunnel/ {print $19, $41}' /proc/${pid}/task/*/stat`);
    assert.match(threads, /^(-20 0|-?\d+ 2)$/m, 'the threads that carry packets do not run ahead of others');
    const { stdout: device } = await machine.shell('ip -details link show flannel0');
    assert.match(device, /numqueues 2 /, 'the program that chooses between two queues was refused');
    const journal = await machine.journal('tsflanneld');
    assert.doesNotMatch(journal, /EPERM|EROFS|EACCES|not permitted|portable tunnel/, journal);
  });

  it('keeps device, address and route over a restart, without a gap for packets', async () => {
    const peer = '10.5.200.0';
    const value = '{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"udp"}';
    await machine.shell(`ETCDCTL_API=3 etcdctl put /coreos.com/network/subnets/${peer}-24 '${value}'`);
    const state = async (): Promise<string> =>
      (
        await machine.shell(
          'cat /sys/class/net/flannel0/ifindex; ip -4 -o address show flannel0; ip route show dev flannel0',
        )
      ).stdout;
    const device = await state();
    assert.ok(
      Number(await machine.property('tsflanneld', 'NFileDescriptorStore')) >= 2,
      'nothing is in the descriptor store',
    );
    // 200 packets a second into the overlay; what leaves the host is counted on the other end of the wire.
    await machine.shell('ip neigh replace 192.0.2.1 lladdr 02:00:00:00:00:01 dev eth0');
    const gap = machine.run(['timeout', '12', PACKAGED_NODE, '-e', MEASURE], { timeoutMs: 30_000 });
    await waitFor(async () => (await sentPackets()) > 100, { what: 'packets on the wire' });
    const before = await machine.property('tsflanneld', 'MainPID');
    await machine.run(['systemctl', 'restart', 'tsflanneld'], { timeoutMs: 30_000 });
    assert.notEqual(await machine.property('tsflanneld', 'MainPID'), before);
    const { stdout } = await gap;
    const startedAtMs = performance.now();
    await machine.run(['tsflanneld', '--version']);
    const startMs = Math.round(performance.now() - startedAtMs);
    process.stdout.write(`      longest time without a packet: ${stdout.trim()} ms; a start takes ${startMs} ms\n`);
    assert.ok(Number(stdout) > 0 && Number(stdout) < Math.max(MAX_GAP_MS, MAX_GAP_STARTS * startMs), stdout);
    assert.equal(await state(), device);
  });

  it('is started again when it is killed', async () => {
    const pid = await machine.property('tsflanneld', 'MainPID');
    await machine.run(['kill', '-KILL', pid]);
    await successorOf(pid);
  });

  it('is started again when it hangs', async () => {
    // The unit's own 30 s are too long to wait for; a stopped process takes no SIGABRT either.
    const faster = '[Service]\nWatchdogSec=2\nTimeoutAbortSec=1\n';
    await machine.shell('mkdir -p /etc/systemd/system/tsflanneld.service.d');
    await machine.shell('cat >/etc/systemd/system/tsflanneld.service.d/test.conf', { input: faster });
    await machine.shell('systemctl daemon-reload; systemctl restart tsflanneld');
    const pid = await machine.property('tsflanneld', 'MainPID');
    await machine.run(['sleep', '4']);
    assert.equal(await machine.property('tsflanneld', 'MainPID'), pid, 'a healthy daemon did not feed the watchdog');
    await machine.run(['kill', '-STOP', pid]);
    await successorOf(pid);
    assert.match(await machine.journal('tsflanneld'), /Watchdog timeout/);
    await machine.shell('rm -r /etc/systemd/system/tsflanneld.service.d; systemctl daemon-reload');
  });

  it('gets the socket of the Docker plugin from systemd, as the doctor and the manual say', async () => {
    const socketFindings = async (): Promise<readonly { readonly command: string }[]> => {
      const { stdout } = await machine.run(['tsflannelctl', 'doctor', '--json', '--max-peers=0'], { mayFail: true });
      const { findings } = JSON.parse(stdout) as { findings: { readonly check: string; readonly command: string }[] };
      return findings.filter(({ check }) => check === 'plugin-socket');
    };
    await machine.shell("echo 'FLANNELD_DOCKER_PLUGIN=true' >>/etc/default/tsflanneld; systemctl restart tsflanneld");
    const [finding] = await socketFindings();
    assert.ok(finding !== undefined, 'the doctor finds nothing');
    const page = readFileSync(new URL('../../docs/docker-networks.md', import.meta.url), 'utf8');
    const [, written = ''] = /```sh\n(systemctl [^`]*tsflannel-docker-plugin[^`]*)```/.exec(page) ?? [];
    assert.equal(written.trim().split('\n').join(' && '), finding.command);
    // Why it stops the daemon first.
    const socket = 'tsflannel-docker-plugin.socket';
    const early = await machine.run(['systemctl', 'start', socket], { mayFail: true });
    assert.notEqual(early.code, 0, 'systemd opens a socket for a service that runs');
    await machine.shell(finding.command, { timeoutMs: 60_000 });
    assert.deepEqual(await socketFindings(), []);
    assert.equal(await machine.property(socket, 'ActiveState'), 'active');
  });

  it('opens at an update a socket that this has brought, and starts the daemon again', async () => {
    await goBack();
    await install();
    assert.match(await secondAnswer(), /"IpamDriver"/);
    await machine.shell('systemctl start tsflanneld; tsflannelctl status', { timeoutMs: 60_000 });
  });

  it('leaves sockets alone at an update that are all there, and restarts the daemon', async () => {
    const inodes = async (): Promise<string> => (await machine.shell(`stat --format=%i ${SOCKETS}`)).stdout;
    const [before, pid] = [await inodes(), await machine.property('tsflanneld', 'MainPID')];
    await install();
    await successorOf(pid);
    assert.equal(await inodes(), before);
  });

  it('starts no daemon at an update that did not run', async () => {
    await goBack();
    await machine.run(['systemctl', 'stop', 'tsflanneld']);
    await install();
    assert.equal((await machine.shell(`stat --format=%F ${SOCKETS}`)).stdout, 'socket\nsocket\n');
    assert.equal(await machine.property('tsflanneld', 'ActiveState'), 'inactive');
  });

  it('opens such a socket with install.sh as well', async () => {
    const { stdout: units } = await run(['sh', '-c', 'tar --create --directory="$0" systemd | base64', REPOSITORY]);
    await machine.shell('mkdir -p /opt/tsflannel; ln -sf /usr/lib/tsflannel/dist /opt/tsflannel/');
    await machine.shell('base64 -d | tar --extract --directory=/opt/tsflannel', { input: units });
    await goBack();
    await machine.shell(`NODE=${PACKAGED_NODE} sh /opt/tsflannel/systemd/install.sh`, { timeoutMs: 60_000 });
    assert.match(await secondAnswer(), /"IpamDriver"/);
    await machine.shell('systemctl start tsflanneld; sh /opt/tsflannel/systemd/uninstall.sh; rm -r /opt/tsflannel', {
      timeoutMs: 60_000,
    });
  });

  it('leaves nothing behind when it is purged, except what is not its own', async () => {
    await machine.run(['dpkg', '--purge', 'tsflannel'], { timeoutMs: 60_000 });
    const places = '/etc /usr/bin /usr/lib/tsflannel /usr/lib/systemd /usr/share /var/lib/tsflannel';
    const { stdout } = await machine.shell(
      `find ${places} -name '*tsflannel*' 2>/dev/null; ls -d /run/flannel /run/docker_opts.env 2>/dev/null; true`,
    );
    assert.equal(stdout, '');
    assert.equal(await machine.property('etcd-single', 'ActiveState'), 'active');
    const { stdout: failed } = await machine.run(['systemctl', '--failed', '--plain', '--no-legend']);
    assert.doesNotMatch(failed, /tsflannel|etcd-single/);
  });

  function install(): Promise<unknown> {
    return machine.run(['dpkg', '--install', '/root/tsflannel.deb'], { timeoutMs: 60_000 });
  }

  /** Units as they were when there was one socket. */
  function goBack(): Promise<unknown> {
    return machine.shell(
      `systemctl stop tsflannel-docker-plugin.socket tsflanneld
      sed -i /tsflannel-ipvlan/d /usr/lib/systemd/system/tsflannel-docker-plugin.socket
      systemctl daemon-reload
      systemctl start tsflannel-docker-plugin.socket && systemctl start tsflanneld && test ! -e ${SECOND_SOCKET}`,
      { timeoutMs: 60_000 },
    );
  }

  /** What the second socket says to Docker. */
  async function secondAnswer(): Promise<string> {
    const script = `require('node:http').request({ socketPath: '${SECOND_SOCKET}',
      path: '/Plugin.Activate', method: 'POST' }, (answer) => answer.pipe(process.stdout)).end()`;
    return (await machine.run([PACKAGED_NODE, '-e', script], { timeoutMs: 60_000 })).stdout;
  }

  async function successorOf(pid: string): Promise<void> {
    await waitFor(
      async () =>
        (await machine.property('tsflanneld', 'MainPID')) !== pid &&
        (await machine.property('tsflanneld', 'ActiveState')) === 'active',
      { what: 'the next daemon', timeoutMs: 20_000, intervalMs: 200 },
    );
  }

  async function sentPackets(): Promise<number> {
    return Number((await machine.run(['cat', '/sys/class/net/peer0/statistics/rx_packets'])).stdout);
  }
});

/**
 * Sends into the overlay every 5 ms for ten seconds and prints the longest time in which nothing arrived at the other
 * end of the wire.
 */
const MEASURE = `
const { createSocket } = require('node:dgram');
const { readFileSync } = require('node:fs');
const socket = createSocket('udp4');
socket.on('error', () => {});
const arrived = () => Number(readFileSync('/sys/class/net/peer0/statistics/rx_packets', 'utf8'));
let last = arrived(), lastAt = performance.now(), gap = 0;
const timer = setInterval(() => {
  socket.send('x'.repeat(100), 9, '10.5.200.9', () => {});
  const now = performance.now(), count = arrived();
  gap = Math.max(gap, now - lastAt);
  if (count > last) { last = count; lastAt = now; }
}, 5);
setTimeout(() => { clearInterval(timer); socket.close(); console.log(Math.round(gap)); }, 10_000);
`;
