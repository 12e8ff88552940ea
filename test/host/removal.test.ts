import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { debianPackage } from '../support/debian-package.js';
import { run } from '../support/netns.js';
import { skipBecause } from '../support/skip.js';
import { MachineSwitch, SystemdMachine } from '../support/systemd-machine.js';

const ROOT = path.resolve(import.meta.dirname, '../..');
const DROP_IN = '/etc/systemd/system/docker.service.d/tsflannel.conf';
const CONFIG_KEY = '/coreos.com/network/config';

describe('removing tsflannel from a host that others depend on', function () {
  this.timeout(240_000);
  let directory: string;
  let lan: MachineSwitch;
  let machine: SystemdMachine;
  let etcdPid = '';

  before(async function () {
    const obstacle = SystemdMachine.obstacle();
    if (obstacle !== undefined) skipBecause(this, obstacle);
    if ((await run(['sh', '-c', 'command -v dockerd'], { mayFail: true })).code !== 0) {
      skipBecause(this, 'no dockerd (Debian package docker.io)');
    }
    directory = mkdtempSync(path.join(tmpdir(), 'tsflannel-removal-'));
    const deb = await debianPackage();
    lan = await MachineSwitch.create();
    machine = await SystemdMachine.start({
      prepare: 'systemctl --quiet enable docker',
      disks: ['/var/lib/docker', '/var/lib/containerd'],
      network: { switch: lan, address: '192.0.2.11/24', gateway: '192.0.2.1' },
    });
    await machine.putFile(deb, '/root/tsflannel.deb');
    await machine.putFile(await earlierPackage(), '/root/earlier.deb');
  });

  after(() => {
    (machine as SystemdMachine | undefined)?.close();
    (lan as MachineSwitch | undefined)?.close();
    if ((directory as string | undefined) !== undefined) rmSync(directory, { recursive: true });
  });

  /** A package as they were when the unit of etcd was part of it. */
  async function earlierPackage(): Promise<string> {
    const stage = path.join(directory, 'earlier');
    const units = path.join(stage, 'usr/lib/systemd/system');
    mkdirSync(units, { recursive: true });
    mkdirSync(path.join(stage, 'DEBIAN'));
    writeFileSync(
      path.join(units, 'etcd-single.service'),
      readFileSync(path.join(ROOT, 'systemd/etcd-single.service'), 'utf8'),
    );
    const control = ['Package: tsflannel', 'Version: 0.0.1', 'Architecture: all', 'Maintainer: nobody <n@example.org>'];
    writeFileSync(path.join(stage, 'DEBIAN/control'), `${control.join('\n')}\nDescription: earlier\n`);
    await run(['dpkg-deb', '--build', stage, path.join(directory, 'earlier.deb')]);
    return path.join(directory, 'earlier.deb');
  }

  const dpkg = async (...args: readonly string[]): Promise<string> =>
    (await machine.run(['dpkg', ...args], { timeoutMs: 60_000 })).stdout;

  const isThere = async (file: string): Promise<boolean> =>
    (await machine.run(['test', '-e', file], { mayFail: true })).code === 0;

  /** The same process, the same data, and started again at the next boot. */
  async function assertEtcdLives(): Promise<void> {
    assert.equal(await machine.property('etcd-single', 'ActiveState'), 'active');
    assert.equal(await machine.property('etcd-single', 'MainPID'), etcdPid);
    const { stdout } = await machine.shell(`ETCDCTL_API=3 etcdctl get ${CONFIG_KEY}; systemctl is-enabled etcd-single`);
    assert.match(stdout, /10\.5\.0\.0\/16.*\nenabled\n$/s);
  }

  async function assertDockerStarts(isInOverlay: boolean): Promise<void> {
    await machine.run(['systemctl', 'restart', 'docker'], { timeoutMs: 120_000 });
    const { stdout } = await machine.shell(
      'tr "\\0" " " </proc/$(systemctl show --property=MainPID --value docker)/cmdline',
    );
    assert.equal(/ --bip=10\.5\./.test(stdout), isInOverlay, stdout);
    assert.match(stdout, /--containerd=/, "Docker's own options are gone");
  }

  it('an update from a package that had the unit of etcd leaves that running, enabled and in the hands of the host', async () => {
    await dpkg('--install', '/root/earlier.deb');
    await machine.run(['systemctl', 'enable', '--now', 'etcd-single']);
    etcdPid = await machine.property('etcd-single', 'MainPID');
    await machine.shell(`ETCDCTL_API=3 etcdctl put ${CONFIG_KEY} '{"Network": "10.5.0.0/16"}'`);
    assert.match(
      await dpkg('--install', '/root/tsflannel.deb'),
      /etcd-single\.service is no longer part of the package/,
    );
    assert.equal(await machine.property('etcd-single', 'FragmentPath'), '/etc/systemd/system/etcd-single.service');
    await assertEtcdLives();
  });

  it('Docker is given the overlay by one command, which says what is left to do', async () => {
    await machine.run(['systemctl', 'start', 'docker'], { timeoutMs: 120_000 });
    const { stdout: before } = await machine.shell('tsflannelctl docker enable');
    assert.match(
      before,
      /^wrote .*tsflannel\.conf\nnext: systemctl enable --now tsflanneld: Docker does not start before/,
    );
    await machine.run(['systemctl', 'enable', '--now', 'tsflanneld'], { timeoutMs: 60_000 });
    const { stdout, code } = await machine.shell('tsflannelctl docker status', { mayFail: true });
    assert.match(stdout, /next: systemctl restart docker: it runs without the values of/);
    assert.equal(code, 3);
    await assertDockerStarts(true);
    await machine.shell('tsflannelctl docker status');
    assert.match(
      (await machine.shell('tsflannelctl docker enable')).stdout,
      /^Docker is set up for the overlay already\n$/,
    );
  });

  it('a clean-up leaves the files to a flanneld that has taken the host over', async () => {
    await machine.run(['systemctl', 'disable', '--now', 'tsflanneld']);
    await machine.shell(
      'cp /bin/sleep /usr/local/bin/flanneld; systemd-run --unit=flanneld /usr/local/bin/flanneld infinity',
    );
    const refused = await machine.shell('tsflannelctl cleanup --remove-files', { mayFail: true });
    assert.equal(refused.code, 5);
    assert.match(refused.stderr, /flanneld runs \(process \d+\); run systemctl stop flanneld first/);
    const { stdout } = await machine.shell('tsflannelctl cleanup --remove-files --force');
    assert.match(stdout, /left file \/run\/flannel\/subnet\.env: flanneld runs/);
    assert.ok(await isThere('/run/flannel/subnet.env'));
  });

  it('a removal undoes what Docker was given, and stops no etcd', async () => {
    const said = await dpkg('--remove', 'tsflannel');
    assert.match(said, /removed .*tsflannel\.conf: Docker takes addresses of its own/);
    assert.match(said, /etcd-single\.service and its data stay/);
    assert.ok(!(await isThere(DROP_IN)));
    assert.ok(await isThere('/run/flannel/subnet.env'));
    await assertEtcdLives();
    await assertDockerStarts(false);
  });

  it('a purge leaves the files of a flanneld that runs, and says so', async () => {
    await machine.shell('mkdir -p /var/lib/tsflannel');
    const said = await dpkg('--purge', 'tsflannel');
    for (const file of ['/run/flannel/subnet.env', '/run/docker_opts.env', '/var/lib/tsflannel']) {
      assert.ok(said.includes(`${file} stays: flanneld runs (process `), said);
      assert.ok(await isThere(file));
    }
    await assertEtcdLives();
  });

  it('a purge leaves what a drop-in of somebody else makes Docker need', async () => {
    await machine.run(['systemctl', 'stop', 'flanneld'], { mayFail: true });
    await dpkg('--install', '/root/tsflannel.deb');
    const other = '/etc/systemd/system/docker.service.d/flannel.conf';
    await machine.shell(`mkdir -p $(dirname ${other}); cat >${other}`, {
      input: '[Service]\nEnvironmentFile=/run/flannel/subnet.env\n',
    });
    const refused = await machine.shell('tsflannelctl docker enable', { mayFail: true });
    assert.match(refused.stderr, /flannel\.conf hands it \/run\/flannel\/subnet\.env already; keep that file/);
    const { stdout } = await machine.shell('tsflannelctl cleanup --remove-files');
    assert.match(stdout, /left file .*subnet\.env: .*flannel\.conf keeps Docker from starting without it/);
    assert.match(
      await dpkg('--purge', 'tsflannel'),
      /subnet\.env stays: Docker does not start without it .*flannel\.conf/,
    );
    assert.ok(await isThere('/run/flannel/subnet.env'));
    assert.ok(!(await isThere('/run/docker_opts.env')));
    assert.ok(!(await isThere('/var/lib/tsflannel')));
    await machine.shell(`rm ${other}; systemctl daemon-reload`);
    await assertEtcdLives();
  });

  it('an npm installation gives Docker the overlay and takes it away again', async () => {
    const prefix = path.join(directory, 'npm');
    await run(['npm', 'pack', ROOT, '--ignore-scripts', '--pack-destination', directory], { timeoutMs: 60_000 });
    const [tarball = ''] = readdirSync(directory).filter((file) => file.endsWith('.tgz'));
    const install = ['npm', 'install', '--global', `--prefix=${prefix}`, '--prefer-offline'];
    await run([...install, path.join(directory, tarball)], { timeoutMs: 120_000 });
    await run(['tar', '-C', prefix, '-czf', path.join(directory, 'npm.tar.gz'), '.'], { timeoutMs: 60_000 });
    await machine.putFile(path.join(directory, 'npm.tar.gz'), '/root/npm.tar.gz');
    const scripts = '/usr/local/lib/node_modules/tsflannel/systemd';
    await machine.shell(`tar -C /usr/local -xzf /root/npm.tar.gz; sh ${scripts}/install.sh`, { timeoutMs: 60_000 });

    await machine.run(['systemctl', 'enable', '--now', 'tsflanneld'], { timeoutMs: 60_000 });
    await machine.shell('/usr/local/bin/tsflannelctl docker enable --form=docker-opts --follow');
    await assertDockerStarts(true);
    assert.equal(await machine.property('tsflannel-docker.path', 'ActiveState'), 'active');
    const { stdout } = await machine.shell(`sh ${scripts}/uninstall.sh --purge`);
    assert.match(stdout, /removed .*docker\.service\.d\/tsflannel\.conf/);
    for (const file of ['/run/flannel/subnet.env', '/run/docker_opts.env', '/etc/systemd/system/tsflanneld.service']) {
      assert.ok(!(await isThere(file)), file);
    }
    await assertDockerStarts(false);
    await assertEtcdLives();
  });
});
