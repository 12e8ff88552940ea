// Builds what goes into the npm tarball and the Debian package: the addon, native/prebuilds/linux-<arch>/tsflannel.node,
// and the programs of the kernel path, which are the same for every processor.
//
//   node .ci/prebuild.mjs [--arch x64|arm64]     default: this machine's
//
// The addon differs from the one that is built on a host: the C++ library is linked in, so that only the C library has to fit,
// and it carries no symbols. Built in a directory of its own, to leave the developer's build alone.
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, realpathSync, renameSync, rmSync, statSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { glibcMinorOf, isElfOf, readTarget, toolFor } from './targets.mjs';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const native = path.join(root, 'native');
const SOURCES = ['binding.gyp', 'addon', 'core'];
const { arch } = readTarget(process.argv.slice(2));
/** Below node_modules, so that the build finds node-addon-api; it stays for the next run of make. */
const work = path.join(root, 'node_modules', '.cache', `tsflannel-prebuild-${arch}`);
const target = path.join(native, 'prebuilds', `linux-${arch}`, 'tsflannel.node');

const newestSource = Math.max(...SOURCES.flatMap((name) => filesBelow(path.join(native, name))).map(modified));
const self = fileURLToPath(import.meta.url);
if (!existsSync(target) || modified(target) < Math.max(newestSource, modified(self)) || !isUsable(target)) build();
compileKernelPath();
process.stdout.write(`${path.relative(root, target)}: needs glibc 2.${glibcMinorOf([target])} or newer\n`);

function build() {
  mkdirSync(work, { recursive: true });
  for (const name of SOURCES) {
    rmSync(path.join(work, name), { recursive: true, force: true });
    cpSync(path.join(native, name), path.join(work, name), { recursive: true, preserveTimestamps: true });
  }
  const prefix = path.resolve(path.dirname(process.execPath), '..');
  const hasHeaders = existsSync(path.join(prefix, 'include', 'node', 'node_api.h'));
  const nodedir = process.env.npm_config_nodedir === undefined && hasHeaders ? [`--nodedir=${prefix}`] : [];
  const env = {
    ...process.env,
    ...(arch === process.arch ? {} : { CC: toolFor(arch, 'gcc'), CXX: toolFor(arch, 'g++'), AR: toolFor(arch, 'ar') }),
    LDFLAGS: `${process.env.LDFLAGS ?? ''} -static-libstdc++ -static-libgcc -Wl,-s`,
    MAKEFLAGS: process.env.MAKEFLAGS ?? `-j${availableParallelism()}`,
  };
  for (const step of ['configure', 'build']) {
    const args = [nodeGyp(), step, `--directory=${work}`, `--arch=${arch}`, '--loglevel=error', ...nodedir];
    const result = spawnSync(process.execPath, args, { encoding: 'utf8', maxBuffer: 1 << 28, env });
    if (result.status === 0) continue;
    process.stderr.write(`${result.stdout}${result.stderr}`);
    throw new Error(`cannot build the addon: node-gyp ${step} ended with ${result.status}, see above`);
  }
  const built = path.join(work, 'build', 'Release', 'tsflannel.node');
  if (!isUsable(built)) throw new Error(`cannot use ${built}: it is not for ${arch}, or Node does not load it`);
  mkdirSync(path.dirname(target), { recursive: true });
  cpSync(built, `${target}.new`);
  renameSync(`${target}.new`, target);
}

function compileKernelPath() {
  const { status } = spawnSync(process.execPath, [path.join(native, 'bpf', 'compile.mjs'), '--required'], {
    stdio: 'inherit',
  });
  if (status !== 0) throw new Error('cannot make the package without the kernel path, see above');
}

/** npm names its own to the scripts that it runs; otherwise it lies in the npm beside Node or on the path. */
function nodeGyp() {
  const named = process.env.npm_config_node_gyp;
  if (named !== undefined && existsSync(named)) return named;
  const beside = path.resolve(path.dirname(process.execPath), '..', 'lib', 'node_modules', 'npm');
  const onPath = (process.env.PATH ?? '').split(':').map((directory) => path.join(directory, 'npm'));
  const npms = [beside, ...onPath.filter(existsSync).map((npm) => path.resolve(path.dirname(realpathSync(npm)), '..'))];
  const found = npms.map((npm) => path.join(npm, 'node_modules/node-gyp/bin/node-gyp.js')).find(existsSync);
  if (found === undefined) throw new Error('cannot find node-gyp: run this with `npm run build:prebuilt`');
  return found;
}

/** Loads it in a process of its own, as it is going to be loaded on a host; for another processor only looks at it. */
function isUsable(file) {
  if (arch !== process.arch) return isElfOf(file, arch);
  return spawnSync(process.execPath, ['-e', `require(${JSON.stringify(file)})`], { stdio: 'ignore' }).status === 0;
}

function filesBelow(name) {
  if (!statSync(name).isDirectory()) return [name];
  return readdirSync(name, { recursive: true }).map((file) => path.join(name, file));
}

function modified(file) {
  return statSync(file).mtimeMs;
}
