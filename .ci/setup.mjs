// Brings a clone to where demo, tests and benchmark can run: Debian packages, npm packages, addon, compiled TypeScript.
// Plain Node without dependencies, since it runs before there are any. When nothing is missing it only looks at files.
//
//   node .ci/setup.mjs [GROUP…]     groups: those of PACKAGES; base without any. Only base also builds.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { FILES_OF_BUNDLES } from './programs.mjs';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const OLDEST_NODE = [20, 19];

/** Debian package → a program it brings, as seen from a directory of PATH. Looking for the program also accepts an installation by other means. */
const PACKAGES = {
  npm: {},
  build: { 'g++': 'g++', make: 'make', python3: 'python3' },
  base: {
    'g++': 'g++',
    make: 'make',
    python3: 'python3',
    'etcd-server': 'etcd',
    'etcd-client': 'etcdctl',
    iproute2: 'ip',
    iptables: 'iptables-save',
    nftables: 'nft',
    'iputils-ping': 'ping',
    iperf3: 'iperf3',
    tcpdump: 'tcpdump',
    ethtool: 'ethtool',
    procps: 'sysctl',
    'busybox-static': 'busybox',
    openssl: 'openssl',
    systemd: 'systemd-analyze',
  },
  check: { 'clang-format': 'clang-format', 'clang-tidy': 'clang-tidy' },
  docker: { 'docker.io': 'dockerd' },
  containers: {
    podman: 'podman',
    'containernetworking-plugins': '../lib/cni/bridge',
    crun: 'crun',
    'docker-compose': 'docker-compose',
  },
  deb: { dpkg: 'dpkg-deb', binutils: 'strip', patchelf: 'patchelf' },
  arm64: { 'g++-aarch64-linux-gnu': 'aarch64-linux-gnu-g++' },
  qemu: { 'qemu-user-static': 'qemu-aarch64-static' },
  observe: { prometheus: 'promtool', chromium: 'chromium' },
};

class SetupError extends Error {}

function main(groups) {
  checkNode();
  installDebianPackages(groups);
  installNpmPackages();
  if (!groups.includes('base')) return;
  buildAddon();
  buildTypeScript();
}

function checkNode() {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if (major > OLDEST_NODE[0] || (major === OLDEST_NODE[0] && minor >= OLDEST_NODE[1])) return;
  throw new SetupError(
    `this is Node ${process.versions.node}; Node ${OLDEST_NODE.join('.')} or newer is needed: install it and run this again`,
  );
}

function installDebianPackages(groups) {
  const missing = groups.flatMap((group) => {
    const packages = PACKAGES[group];
    if (packages === undefined) {
      throw new SetupError(`there is no group ${group}; the groups are ${Object.keys(PACKAGES).join(', ')}`);
    }
    return Object.entries(packages)
      .filter(([, program]) => !isInstalled(program))
      .map(([name]) => name);
  });
  if (missing.length === 0) return;

  const install = ['install', '--no-install-recommends', '-y', ...missing];
  const isRoot = process.getuid() === 0;
  if (!isRoot || !isInstalled('apt-get')) {
    const reason = isRoot ? 'this system has no apt-get' : 'only root can install packages';
    throw new SetupError(
      `these Debian packages are missing and ${reason}: ${missing.join(' ')}\n` +
        `run:  ${isRoot ? '' : 'sudo '}apt-get update && ${isRoot ? '' : 'sudo '}apt-get ${install.join(' ')}\n` +
        'or install the programs of the same purpose with your system’s package manager',
    );
  }
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  step('reading the list of Debian packages', 'apt-get', ['update', '-q'], { env });
  withoutStartingServices(() => step(`installing ${missing.join(' ')}`, 'apt-get', ['-q', ...install], { env }));
}

/** Debian starts what it installs; etcd and Docker are wanted as programs here, not as services of this machine. */
function withoutStartingServices(action) {
  const policy = '/usr/sbin/policy-rc.d';
  const isOurs = !existsSync(policy);
  if (isOurs) writeFileSync(policy, '#!/bin/sh\nexit 101\n', { mode: 0o755 });
  try {
    action();
  } finally {
    if (isOurs) rmSync(policy);
  }
}

function isInstalled(program) {
  // A user's PATH leaves out the sbin directories, where half of these programs live.
  const folders = [...(process.env.PATH ?? '').split(':'), '/usr/local/sbin', '/usr/sbin', '/sbin'];
  return folders.some((folder) => folder !== '' && existsSync(path.join(folder, program)));
}

function installNpmPackages() {
  const wanted = readJson('package-lock.json');
  const present = readJson('node_modules/.package-lock.json');
  if (present !== undefined && isSatisfied(wanted.packages, present.packages)) return;
  step('installing npm packages and building', 'npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error']);
}

/** Compares npm's record of what it installed with the lock file. */
function isSatisfied(wanted, present) {
  return Object.entries(wanted).every(([name, entry]) => {
    if (name === '') return true;
    const installed = present[name];
    // Packages for other processors and systems are optional and rightly absent.
    if (installed === undefined) return entry.optional === true;
    return installed.version === entry.version && installed.integrity === entry.integrity;
  });
}

function buildAddon() {
  const sources = ['native/binding.gyp', ...filesBelow('native/addon'), ...filesBelow('native/core')];
  const newestSource = Math.max(...sources.map((file) => statSync(path.join(root, file)).mtimeMs));
  const built = path.join(root, 'native/build/Release');
  const addons = existsSync(built) ? readdirSync(built).filter((name) => name.endsWith('.node')) : [];
  if (addons.some((name) => statSync(path.join(built, name)).mtimeMs >= newestSource)) return;
  step('building the addon', process.execPath, ['native/install.mjs', '--build']);
}

function buildTypeScript() {
  const sources = filesBelow('src').filter((file) => file.endsWith('.ts') && !file.endsWith('.d.ts'));
  const outputOf = (file) => path.join('dist', path.relative('src', file)).replace(/\.ts$/, '.js');
  const isFresh = (file) => {
    const built = statSync(path.join(root, outputOf(file)), { throwIfNoEntry: false });
    return built !== undefined && built.mtimeMs >= statSync(path.join(root, file)).mtimeMs;
  };
  const expected = new Set([...sources.map(outputOf), ...FILES_OF_BUNDLES]);
  for (const file of filesBelow('dist')) if (!expected.has(file)) rmSync(path.join(root, file));
  if (sources.every(isFresh) && FILES_OF_BUNDLES.every((file) => existsSync(path.join(root, file)))) return;
  step('compiling TypeScript', process.execPath, ['node_modules/typescript/bin/tsc', '-p', 'tsconfig.json']);
  step('compiling the status page', process.execPath, ['.ci/page.mjs']);
  step('bundling the programs', process.execPath, ['.ci/bundle.mjs']);
}

/** Paths of all files below a folder, relative to the root of the clone. */
function filesBelow(folder) {
  if (!existsSync(path.join(root, folder))) return [];
  return readdirSync(path.join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const name = path.join(folder, entry.name);
    return entry.isDirectory() ? filesBelow(name) : [name];
  });
}

function readJson(file) {
  const full = path.join(root, file);
  return existsSync(full) ? JSON.parse(readFileSync(full, 'utf8')) : undefined;
}

/** Runs a program quietly: one line when it works, all it said when it fails. */
function step(title, program, args, options = {}) {
  process.stderr.write(`setup: ${title} … `);
  const start = Date.now();
  const result = spawnSync(program, args, { cwd: root, encoding: 'utf8', maxBuffer: 1 << 28, ...options });
  if (result.status === 0) {
    process.stderr.write(`${((Date.now() - start) / 1000).toFixed(1)} s\n`);
    return;
  }
  process.stderr.write('failed\n');
  const said = `${result.stdout ?? ''}${result.stderr ?? ''}`.trim();
  const cause = result.error?.message ?? (result.signal ? `ended by ${result.signal}` : `exit code ${result.status}`);
  throw new SetupError(`${said}\ncannot go on: \`${[program, ...args].join(' ')}\`: ${cause}`);
}

try {
  const groups = process.argv.slice(2);
  main(groups.length === 0 ? ['base'] : groups);
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  process.stderr.write(`setup: ${error.message}\n`);
  process.exitCode = 1;
}
