import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseCommandLine } from '../../../src/config/flags.js';
import { DROP_IN_FORMS, formatDropIn } from '../../../src/docker/drop-in.js';
import { skipBecause } from '../../support/skip.js';

const ROOT = path.resolve(import.meta.dirname, '../../..');
const UNITS = path.join(ROOT, 'systemd');
/** Units of systemd itself that ours refer to. */
const SYSTEMD_UNITS = '/usr/lib/systemd/system';
const DOCKERD = '/usr/bin/dockerd -H fd://';

function systemdAnalyze(...args: readonly string[]): { readonly status: number | null; readonly output: string } {
  const { status, stdout, stderr } = spawnSync('systemd-analyze', args, { encoding: 'utf8' });
  return { status, output: `${stdout}${stderr}` };
}

describe('units', function () {
  this.timeout(30_000);
  let root: string;

  before(function () {
    if (spawnSync('systemd-analyze', ['--version']).error !== undefined) {
      skipBecause(this, 'no systemd-analyze (Debian package systemd)');
    }
  });

  beforeEach(() => {
    root = mkdtempSync(path.join(tmpdir(), 'units-'));
    const own = path.join(root, 'etc/systemd/system');
    mkdirSync(own, { recursive: true });
    for (const name of readdirSync(UNITS).filter((file) => /\.(service|path|socket)$/.test(file))) {
      copyFileSync(path.join(UNITS, name), path.join(own, name));
    }
    const docker = ['[Service]', 'Type=notify', `ExecStart=${DOCKERD}`, ''];
    writeFileSync(path.join(own, 'docker.service'), docker.join('\n'));
    const programs = ['bin/sh', 'sbin/modprobe'];
    for (const name of ['tsflanneld', 'tsflannelctl', 'mk-docker-opts', 'etcd', 'dockerd'])
      programs.push(`usr/bin/${name}`);
    for (const program of programs) {
      mkdirSync(path.dirname(path.join(root, program)), { recursive: true });
      writeFileSync(path.join(root, program), '#!/bin/sh\n');
      chmodSync(path.join(root, program), 0o755);
    }
    const isNeeded = (file: string): boolean => /\.(target|slice)$|^modprobe@\.service$/.test(path.basename(file));
    mkdirSync(path.join(root, SYSTEMD_UNITS), { recursive: true });
    for (const name of readdirSync(SYSTEMD_UNITS).filter(isNeeded)) {
      cpSync(path.join(SYSTEMD_UNITS, name), path.join(root, SYSTEMD_UNITS, name), { dereference: true });
    }
  });

  afterEach(() => {
    rmSync(root, { recursive: true });
  });

  function verify(unit: string): { readonly status: number | null; readonly output: string } {
    return systemdAnalyze('verify', `--root=${root}`, '--man=no', '--recursive-errors=yes', unit);
  }

  for (const unit of [
    'tsflanneld.service',
    'etcd-single.service',
    'tsflannel-docker.path',
    'tsflannel-docker.service',
    'tsflannel-docker-plugin.socket',
  ]) {
    it(`${unit} is accepted by systemd without a warning`, () => {
      assert.deepEqual(verify(unit), { status: 0, output: '' });
    });
  }

  for (const form of DROP_IN_FORMS) {
    it(`the Docker drop-in of the form ${form} is accepted by systemd without a warning`, () => {
      const directory = path.join(root, 'etc/systemd/system/docker.service.d');
      mkdirSync(directory);
      writeFileSync(path.join(directory, 'tsflannel.conf'), formatDropIn(form, DOCKERD));
      assert.deepEqual(verify('docker.service'), { status: 0, output: '' });
    });
  }

  it('verification notices a unit with a wrong setting, and one without its program', () => {
    const file = path.join(root, 'etc/systemd/system/tsflanneld.service');
    writeFileSync(file, readFileSync(file, 'utf8').replace('WatchdogSec=', 'WatchdogSecs='));
    assert.match(verify('tsflanneld.service').output, /Unknown key.* 'WatchdogSecs'/);
    rmSync(path.join(root, 'usr/bin/etcd'));
    assert.match(verify('etcd-single.service').output, /etcd is not executable/);
  });

  it('the daemon runs with little exposure', () => {
    const rated = systemdAnalyze('security', '--offline=yes', `--root=${root}`, '--no-pager', 'tsflanneld.service');
    const [line = '', score = ''] = /→ Overall exposure level.*?: ([\d.]+).*/.exec(rated.output) ?? [];
    process.stdout.write(`      ${line}\n`);
    // 3.1 with systemd 252; what is left is root without most of its powers, and network access as such: 0.2 of it are
    // packet sockets.
    assert.ok(Number(score) > 0 && Number(score) <= 3.1, rated.output);
  });
});

describe('default settings', () => {
  const assignments = (text: string): Record<string, string> => {
    const lines = text.split('\n').filter((line) => /^#?[A-Z][A-Z_]*=/.test(line));
    return Object.fromEntries(
      lines.map((line) => line.replace(/^#/, '').split(/=(.*)/s).slice(0, 2) as [string, string]),
    );
  };

  it('name variables that the daemon knows, including those that are commented out', () => {
    const environment = assignments(readFileSync(path.join(UNITS, 'tsflanneld.default'), 'utf8'));
    assert.ok(Object.keys(environment).length >= 4);
    const parsed = parseCommandLine([], environment);
    assert.equal(parsed.kind, 'run');
    assert.deepEqual([parsed.warnings, parsed.options.ipMasq, parsed.options.iface], [[], true, ['eth0']]);
  });
});

describe('install.sh', function () {
  this.timeout(30_000);
  let directory: string;
  let packageRoot: string;
  let destination: string;

  beforeEach(() => {
    directory = mkdtempSync(path.join(tmpdir(), 'install-'));
    packageRoot = path.join(directory, 'package');
    destination = path.join(directory, 'root');
    cpSync(UNITS, path.join(packageRoot, 'systemd'), { recursive: true });
    mkdirSync(path.join(packageRoot, 'dist/bin'), { recursive: true });
    writeFileSync(path.join(packageRoot, 'dist/bin/tsflanneld.js'), '');
  });

  afterEach(() => {
    rmSync(directory, { recursive: true });
  });

  function script(name: string, args: readonly string[] = [], environment: Readonly<Record<string, string>> = {}) {
    const env = { ...process.env, DESTDIR: destination, NODE: process.execPath, ...environment };
    const result = spawnSync('sh', [path.join(packageRoot, 'systemd', name), ...args], { encoding: 'utf8', env });
    return { status: result.status, output: `${result.stdout}${result.stderr}` };
  }

  const filesBelow = (from: string): string[] => {
    if (!existsSync(from)) return [];
    const entries = readdirSync(from, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
    return entries.map((entry) => `/${path.relative(from, path.join(entry.parentPath, entry.name))}`).sort();
  };
  const read = (file: string): string => readFileSync(path.join(destination, file), 'utf8');

  const EVERYTHING = [
    '/etc/NetworkManager/conf.d/tsflannel.conf',
    '/etc/default/tsflanneld',
    '/etc/systemd/network/10-tsflannel.link',
    '/etc/systemd/network/10-tsflannel.network',
    '/etc/systemd/networkd.conf.d/tsflannel.conf',
    '/etc/systemd/system/tsflannel-docker-plugin.socket',
    '/etc/systemd/system/tsflannel-docker.path',
    '/etc/systemd/system/tsflannel-docker.service',
    '/etc/systemd/system/tsflanneld.service',
  ];

  it('installs units that start the programs beside it', () => {
    assert.equal(script('install.sh').status, 0);
    assert.deepEqual(filesBelow(destination), EVERYTHING);
    const unit = read('/etc/systemd/system/tsflanneld.service');
    const program = (name: string): string => `${process.execPath} ${packageRoot}/dist/bin/${name}.js`;
    assert.ok(unit.includes(`\nExecStart=${program('tsflanneld')} $TSFLANNELD_OPTS\n`), unit);
    assert.ok(unit.includes(`\nExecStartPost=-+${program('mk-docker-opts')} -c `), unit);
    const follower = read('/etc/systemd/system/tsflannel-docker.service');
    assert.ok(follower.includes(`\nExecStart=${program('tsflannelctl')} docker follow `), follower);
  });

  it('can be run again, keeping the settings and replacing the rest', () => {
    assert.equal(script('install.sh').status, 0);
    const before = filesBelow(destination);
    writeFileSync(path.join(destination, '/etc/default/tsflanneld'), 'FLANNELD_IP_MASQ=false\n');
    writeFileSync(path.join(destination, '/etc/systemd/system/tsflanneld.service'), 'of an old version\n');
    assert.equal(script('install.sh').status, 0);
    assert.deepEqual(filesBelow(destination), before);
    assert.equal(read('/etc/default/tsflanneld'), 'FLANNELD_IP_MASQ=false\n');
    assert.match(read('/etc/systemd/system/tsflanneld.service'), /Type=notify/);
  });

  it('says what is wrong and writes nothing', () => {
    const old = path.join(directory, 'old-node');
    writeFileSync(old, '#!/bin/sh\n[ "$1" = --version ] && echo v18.19.0\nexit 1\n', { mode: 0o755 });
    const cases: [string[], Record<string, string>, number, RegExp][] = [
      [['--other'], {}, 2, /^Usage: install\.sh/],
      [[], { NODE: '/nonexistent/node' }, 1, /cannot find node: install Node 20\.19 or newer/],
      [[], { NODE: old }, 1, /which is Node v18\.19\.0: Node 20\.19 or newer is needed/],
    ];
    // The unit hides /tmp. Only where this installation lies there, since otherwise it would be carried out.
    if (packageRoot.startsWith('/tmp/')) {
      cases.push([[], { DESTDIR: '' }, 1, /the service does not see home and temporary directories/]);
    }
    for (const [args, environment, status, message] of cases) {
      const result = script('install.sh', args, environment);
      assert.equal(result.status, status, result.output);
      assert.match(result.output, message);
    }
    rmSync(path.join(packageRoot, 'dist'), { recursive: true });
    assert.match(script('install.sh').output, /tsflanneld\.js: run 'npm run build' first/);
    assert.deepEqual(filesBelow(destination), []);
  });

  const put = (file: string, text: string): void => {
    mkdirSync(path.join(destination, path.dirname(file)), { recursive: true });
    writeFileSync(path.join(destination, file), text);
  };

  it('is undone by uninstall.sh, which leaves the settings unless told otherwise', () => {
    assert.equal(script('install.sh').status, 0);
    for (const file of ['/run/flannel/subnet.env', '/run/flannel/tsflanneld/config.json', '/run/docker_opts.env']) {
      put(file, '');
    }
    put('/var/lib/tsflannel/state.json', '');
    const written = filesBelow(destination).filter((file) => /^\/(run|var)\//.test(file));
    assert.equal(script('uninstall.sh').status, 0);
    assert.deepEqual(filesBelow(destination), ['/etc/default/tsflanneld', ...written]);
    assert.equal(script('uninstall.sh', ['--purge']).status, 0);
    assert.equal(script('uninstall.sh', ['--purge']).status, 0);
    assert.deepEqual(filesBelow(destination), []);
    assert.equal(script('uninstall.sh', ['--all']).status, 2);
  });

  it('is undone without the etcd of this host, which may be that of a whole cluster', () => {
    const unit = '/etc/systemd/system/etcd-single.service';
    const data = '/var/lib/private/etcd-single/member/snap/db';
    for (const file of [unit, data]) put(file, '');
    assert.equal(script('install.sh').status, 0);
    assert.match(script('uninstall.sh', ['--purge']).output, /etcd-single\.service and its data stay: .* of all hosts/);
    assert.deepEqual(filesBelow(destination), [unit, data]);
  });

  it('is undone together with docker enable, but keeps what somebody else lets Docker read', () => {
    const dropIns = '/etc/systemd/system/docker.service.d';
    put(`${dropIns}/tsflannel.conf`, formatDropIn('subnet-env', DOCKERD));
    put(`${dropIns}/flannel.conf`, '[Service]\nEnvironmentFile=/run/flannel/subnet.env\n');
    for (const file of ['/run/flannel/subnet.env', '/run/docker_opts.env']) put(file, '');
    const { output } = script('uninstall.sh', ['--purge']);
    assert.match(output, /removed .*tsflannel\.conf: Docker takes addresses of its own/);
    assert.match(output, /subnet\.env stays: Docker does not start without it .*flannel\.conf/);
    assert.deepEqual(filesBelow(destination), [`${dropIns}/flannel.conf`, '/run/flannel/subnet.env']);
  });

  it('is undone with a drop-in that somebody copied from an example, whose text is kept', () => {
    const dropIn = '/etc/systemd/system/docker.service.d/tsflannel.conf';
    put(dropIn, `# To use it:  ${dropIn}\n[Service]\nEnvironmentFile=/run/flannel/subnet.env\n`);
    script('uninstall.sh');
    assert.deepEqual(filesBelow(destination), [`${dropIn}.saved`]);
    put(dropIn, '[Service]\nNice=1\n');
    script('uninstall.sh');
    assert.deepEqual(filesBelow(destination), [dropIn, `${dropIn}.saved`]);
  });
});
