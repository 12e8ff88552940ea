// Builds the Debian package from dist, the prebuilt addon, the npm packages and a Node of its own.
//
//   node .ci/package-deb.mjs [--arch x64|arm64] [DIRECTORY]
//
// Defaults: this machine's processor, and the root of the clone for the package.
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  rmdirSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { NODE, nodeRuntime } from './node-runtime.mjs';
import { productionPackages } from './production-packages.mjs';
import { TARGETS, glibcMinorOf, isElfOf, readTarget } from './targets.mjs';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const manifest = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'));
const {
  arch,
  rest: [directory = root],
} = readTarget(process.argv.slice(2));
const output = path.resolve(directory);
const architecture = TARGETS[arch].debian;
const MAINTAINER = 'tsflannel maintainers <maintainers@tsflannel.invalid>';
/** What npm packages carry for compilers, readers and browsers. */
const NOT_NEEDED = /(\.(d\.[cm]?ts|[cm]?ts|map|md|markdown|cc|h|hh|yml)|\/(CMakeLists\.txt|\.[^/]+))$/i;
const NOT_NEEDED_DIRECTORY = /\/(tests?|docs?|examples?|benchmarks?|vendor|musl_\w+|\.github|\.bin)$/;
const LICENSE = /licen[cs]e|copying|notice/i;

/** What dpkg runs, in systemd/debian. */
const MAINTAINER_SCRIPTS = ['preinst', 'postinst', 'prerm', 'postrm'];

const date = new Date(gitSeconds() * 1000);
const stage = mkdtempSync(path.join(os.tmpdir(), 'tsflannel-deb-'));
process.on('exit', () => rmSync(stage, { recursive: true, force: true }));
const lib = 'usr/lib/tsflannel';

/**
 * New objects get two halves of 2 MB. Node would let them grow to many times that when thousands of leases are read, and
 * keep it: 50 of 209 MB with 5000 peers, for no gain in time.
 */
const NODE_FLAGS = '--max-semi-space-size=2';

const packages = productionPackages(arch);
const runtime = nodeRuntime(arch);

addPrograms();
addUnits();
addDocumentation();
addControl();
const file = build();
process.stdout.write(`${path.relative(process.cwd(), file)}\n`);

function addPrograms() {
  const addon = `native/prebuilds/linux-${arch}/tsflannel.node`;
  const kernelPath = 'native/prebuilds/kernel_path.bpf.o';
  for (const needed of ['dist/bin/tsflanneld.js', 'dist/observe/page/script.js', addon, kernelPath]) {
    if (!existsSync(path.join(root, needed))) throw new Error(`cannot find ${needed}: run npm run package:deb`);
  }
  copy('dist', `${lib}/dist`);
  // The programs are started by the wrappers, with the package's own Node.
  for (const program of filesBelow(path.join(stage, lib, 'dist/bin')).filter((file) => file.endsWith('.js'))) {
    writeFileSync(program, readFileSync(program, 'utf8').replace(/^#!.*\n/, ''));
  }
  for (const file of [addon, kernelPath]) copy(file, `${lib}/${file}`);
  const { name, version, description, license, type } = manifest;
  write(`${lib}/package.json`, `${JSON.stringify({ name, version, description, license, type }, undefined, 2)}\n`);
  for (const { source, place } of packages) copyPackage(source, place);
  cpSync(runtime, path.join(stage, lib, 'node'), { recursive: true });
  makeByteCode();
  for (const program of Object.keys(manifest.bin)) {
    const script = `/${lib}/${manifest.bin[program]}`;
    write(`usr/bin/${program}`, `#!/bin/sh\nexec /${lib}/node/node ${NODE_FLAGS} ${script} "$@"\n`, 0o755);
  }
}

/** That of the package's own Node, where this machine can run it; elsewhere the programs start without. */
function makeByteCode() {
  const bin = path.join(stage, lib, 'dist/bin');
  for (const file of filesBelow(bin).filter((name) => name.endsWith('.cache'))) rmSync(file);
  if (arch !== process.arch) return;
  const seeds = ['--random-seed=1', '--hash-seed=1']; // so that two builds are equal
  run(path.join(stage, lib, 'node/node'), [
    NODE_FLAGS,
    ...seeds,
    path.join(bin, 'load-program.js'),
    `/${lib}/dist/bin`,
  ]);
}

function copyPackage(source, place) {
  cpSync(source, path.join(stage, lib, place), {
    recursive: true,
    filter: (file) => {
      const inside = `/${path.relative(source, file)}`;
      // Packages inside packages come on their own.
      if (/\/node_modules$/.test(inside)) return false;
      if (lstatSync(file).isDirectory()) return !NOT_NEEDED_DIRECTORY.test(inside);
      return LICENSE.test(path.basename(inside)) || !NOT_NEEDED.test(inside);
    },
  });
}

function addUnits() {
  for (const unit of [
    'tsflanneld.service',
    'tsflannel-docker.path',
    'tsflannel-docker.service',
    'tsflannel-docker-plugin.socket',
  ])
    copy(`systemd/${unit}`, `usr/lib/systemd/system/${unit}`);
  copy('systemd/network/10-tsflannel.network', 'usr/lib/systemd/network/10-tsflannel.network');
  copy('systemd/network/10-tsflannel.link', 'usr/lib/systemd/network/10-tsflannel.link');
  copy('systemd/network/networkd-foreign-routes.conf', 'usr/lib/systemd/networkd.conf.d/tsflannel.conf');
  copy('systemd/network/networkmanager.conf', 'usr/lib/NetworkManager/conf.d/tsflannel.conf');
  copy('systemd/tsflanneld.default', 'etc/default/tsflanneld');
}

function addDocumentation() {
  const doc = 'usr/share/doc/tsflannel';
  // Not a unit of the package: the data of the whole cluster must not come and go with it.
  copy('systemd/etcd-single.service', `${doc}/examples/etcd-single.service`);
  for (const page of readdirSync(path.join(root, 'docs')).filter((name) => name.endsWith('.md')))
    copy(`docs/${page}`, `${doc}/${page}`);
  if (existsSync(path.join(root, 'README.md'))) copy('README.md', `${doc}/README.md`);
  if (existsSync(path.join(root, 'CHANGELOG.md'))) copy('CHANGELOG.md', `${doc}/CHANGELOG.md`);
  const entry = [
    `tsflannel (${debianVersion()}) unstable; urgency=medium`,
    '  * See CHANGELOG.md for what has changed.',
    ` -- ${MAINTAINER}  ${date.toUTCString().replace('GMT', '+0000')}`,
  ];
  compress(`${doc}/changelog.gz`, `${entry.join('\n\n')}\n`);
  write(`${doc}/copyright`, copyright());

  const pages = path.join(stage, 'manual');
  run(process.execPath, [path.join(root, '.ci/manual.mjs'), pages]);
  for (const page of readdirSync(pages))
    compress(`usr/share/man/man8/${page}.gz`, readFileSync(path.join(pages, page), 'utf8'));
  rmSync(pages, { recursive: true });
  run(process.execPath, [path.join(root, '.ci/completions.mjs'), stage]);
}

function copyright() {
  const licenses = packages.map(({ source }) => {
    const manifestFile = path.join(source, 'package.json');
    const { name, version, license = 'see its files' } = JSON.parse(readFileSync(manifestFile, 'utf8'));
    return ` ${name} ${version}: ${typeof license === 'string' ? license : 'see its files'}`;
  });
  return [
    'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/',
    'Upstream-Name: tsflannel',
    `Comment: Below /${lib}/node lie Node ${NODE.version}, without its symbols (see LICENSE), and libraries of GCC (see`,
    ' LICENSE.gcc). Below node_modules lie npm packages with licenses of their own:',
    ...licenses.sort(),
    '',
    'Files: *',
    `Copyright: ${date.getUTCFullYear()} The tsflannel authors`,
    `License: ${manifest.license}`,
    ' On Debian systems the text of this license is in /usr/share/common-licenses/Apache-2.0.',
    '',
  ].join('\n');
}

function addControl() {
  const files = filesBelow(stage);
  const glibc = `2.${glibcMinorOf(files.filter((file) => isElfOf(file, arch)))}`;
  const kilobytes = files.reduce((sum, name) => sum + Math.ceil(lstatSync(name).size / 1024), 0);
  const control = {
    Package: 'tsflannel',
    Version: debianVersion(),
    Architecture: architecture,
    Maintainer: MAINTAINER,
    'Installed-Size': kilobytes,
    Depends: `libc6 (>= ${glibc}), iptables | nftables`,
    Recommends: 'systemd',
    Suggests: 'docker.io | docker-ce, etcd-server, etcd-client',
    Section: 'net',
    Priority: 'optional',
    Description: [
      'container overlay network daemon, compatible with flanneld',
      ' Leases a subnet for every host from a network configured in etcd and carries',
      ' packets between the subnets, through UDP with a native packet path, through',
      ' VXLAN, IPIP or plain routes. Flags, keys in etcd, files and packets are those',
      ' of flannel, so that hosts can be switched over one after the other.',
    ].join('\n'),
  };
  const fields = Object.entries(control).map(([field, value]) => `${field}: ${value}\n`);
  write('DEBIAN/control', fields.join(''));
  write('DEBIAN/conffiles', '/etc/default/tsflanneld\n');
  for (const script of MAINTAINER_SCRIPTS) write(`DEBIAN/${script}`, maintainerScript(script), 0o755);
}

/** Lines `# INCLUDE FILE` become that file: at the end of a removal there is no other file of the package left. */
function maintainerScript(name) {
  return readText(`systemd/debian/${name}`).replaceAll(/^# INCLUDE (.+)\n/gm, (_, file) => readText(file));
}

function build() {
  normalize(stage);
  const name = `tsflannel_${debianVersion()}_${architecture}.deb`;
  mkdirSync(output, { recursive: true });
  const env = { ...process.env, SOURCE_DATE_EPOCH: String(gitSeconds()) };
  run('dpkg-deb', ['--root-owner-group', '-Zzstd', '-z9', '--build', stage, path.join(output, name)], { env });
  return path.join(output, name);
}

/** Modes as Debian wants them, and no empty directories. */
function normalize(directory) {
  chmodSync(directory, 0o755);
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const full = path.join(directory, entry.name);
    if (entry.isDirectory()) normalize(full);
    else if (entry.isFile()) chmodSync(full, isProgram(path.relative(stage, full)) ? 0o755 : 0o644);
  }
  if (directory !== stage && readdirSync(directory).length === 0) rmdirSync(directory);
}

function isProgram(name) {
  return /^usr\/bin\/|\/node\/node$|^DEBIAN\/(post|pre)/.test(name);
}

/** A version like 1.0.0-rc.1 comes before 1.0.0, which Debian writes with a tilde. */
function debianVersion() {
  return manifest.version.replace('-', '~');
}

/** Time of the last commit, so that two builds of it are equal; without git, that of package.json. */
function gitSeconds() {
  const { status, stdout } = spawnSync('git', ['log', '-1', '--format=%ct'], { cwd: root, encoding: 'utf8' });
  return status === 0 ? Number(stdout) : Math.floor(lstatSync(path.join(root, 'package.json')).mtimeMs / 1000);
}

function run(program, args, options = {}) {
  const result = spawnSync(program, args, { encoding: 'utf8', ...options });
  if (result.status === 0) return;
  const cause = result.error?.message ?? `${result.stdout}${result.stderr}`.trim();
  throw new Error(`cannot run ${program} ${args.join(' ')}: ${cause}`);
}

function filesBelow(directory) {
  const entries = readdirSync(directory, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map((entry) => path.join(entry.parentPath, entry.name));
}

function readText(name) {
  return readFileSync(path.join(root, name), 'utf8');
}

function copy(from, to) {
  mkdirSync(path.join(stage, path.dirname(to)), { recursive: true });
  cpSync(path.join(root, from), path.join(stage, to), { recursive: true });
}

function write(to, content, mode = 0o644) {
  mkdirSync(path.join(stage, path.dirname(to)), { recursive: true });
  writeFileSync(path.join(stage, to), content, { mode });
}

function compress(to, content) {
  write(to, gzipSync(content, { level: 9 }));
}
