// Makes sure that the addon is there: takes a prebuilt one, keeps a built one that is up to date, or builds it; and that
// the programs of the kernel path are, and byte code of the programs.
// Plain Node without dependencies, since npm runs it while it installs them.
//
//   node native/install.mjs            npm's install script: never fails, since the daemon can run without the addon
//   node native/install.mjs --build    builds if anything changed, and fails if that does not work
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, realpathSync, statSync, utimesSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const nativeDir = path.dirname(fileURLToPath(import.meta.url));
const addonName = 'tsflannel.node';
const built = path.join(nativeDir, 'build', 'Release', addonName);
const prebuilt = path.join(nativeDir, 'prebuilds', `${process.platform}-${process.arch}`, addonName);
/** What a build needs, and the Debian package that brings it. */
const TOOLS = { [process.env.CXX?.split(' ')[0] || 'g++']: 'g++', make: 'make', python3: 'python3' };
const OUTPUT_LINES = 30;

const isForced = process.argv.includes('--build');
if (process.argv.includes('--help'))
  console.log('usage: npm run install     builds addon and kernel path, unless they are there');
else process.exitCode = [main(), compileKernelPath(), makeByteCode()].every(Boolean) || !isForced ? 0 : 1;

/** @returns whether there is an addon that can be loaded. */
function main() {
  if (process.platform !== 'linux') return fail('the packet path needs Linux', 'nothing was built');
  if (!isForced && isLoadable(prebuilt)) return true;
  if (isUpToDate() && isLoadable(built)) return true;
  const missing = Object.keys(TOOLS).filter((tool) => !isOnPath(tool));
  if (missing.length > 0) {
    const packages = missing.map((tool) => TOOLS[tool]).join(' ');
    return fail(
      `the native packet path was not built: ${missing.join(', ')} not found; the slower portable one will be used`,
      `to build it: apt-get install ${packages}, then npm rebuild tsflannel`,
    );
  }
  return build();
}

/** @returns false if they could not be compiled; without clang there is nothing that could fail. */
function compileKernelPath() {
  if (!isForced && existsSync(path.join(nativeDir, 'prebuilds', 'kernel_path.bpf.o'))) return true;
  return spawnSync(process.execPath, [path.join(nativeDir, 'bpf', 'compile.mjs')], { stdio: 'inherit' }).status === 0;
}

/** For this Node, of programs that npm has brought; a clone has none yet. Without it they start later, and that is all. */
function makeByteCode() {
  const program = path.join(nativeDir, '../dist/bin/load-program.js');
  if (!existsSync(program)) return true;
  return spawnSync(process.execPath, [program], { stdio: 'inherit' }).status === 0;
}

function build() {
  const [command, ...leading] = findNodeGyp();
  if (command === undefined) {
    return fail(
      'the native packet path was not built: node-gyp not found; the slower portable one will be used',
      'to build it: install npm, which brings node-gyp, then npm rebuild tsflannel',
    );
  }
  // Headers beside the running Node spare node-gyp the download and are sure to fit.
  const prefix = path.resolve(path.dirname(process.execPath), '..');
  const hasHeaders = existsSync(path.join(prefix, 'include', 'node', 'node_api.h'));
  const nodedir = process.env.npm_config_nodedir === undefined && hasHeaders ? [`--nodedir=${prefix}`] : [];
  const options = [`--directory=${nativeDir}`, '--loglevel=error', ...nodedir];
  const env = { ...process.env, MAKEFLAGS: process.env.MAKEFLAGS ?? `-j${availableParallelism()}` };
  const start = (step) =>
    spawnSync(command, [...leading, step, ...options], { encoding: 'utf8', maxBuffer: 1 << 28, env });
  // Not "rebuild": make knows what changed.
  let run = start('configure');
  if (run.status === 0) run = start('build');
  if (run.status === 0 && isLoadable(built)) {
    // make leaves the file alone when nothing that matters changed; it is up to date all the same.
    utimesSync(built, new Date(), new Date());
    return true;
  }
  const output = `${run.stdout ?? ''}${run.stderr ?? ''}${run.error?.message ?? ''}`.trimEnd();
  console.error(output.split('\n').slice(-OUTPUT_LINES).join('\n'));
  return fail(
    'the native packet path could not be built, see above; the slower portable one will be used',
    'to try again: npm rebuild tsflannel',
  );
}

function fail(what, remedy) {
  console.error(`tsflannel: ${what}\ntsflannel: ${remedy}`);
  return false;
}

/** npm names its own node-gyp to the scripts it runs; elsewhere look on the path and inside the npm beside Node. */
function findNodeGyp() {
  const fromNpm = process.env.npm_config_node_gyp;
  if (fromNpm !== undefined && existsSync(fromNpm)) return [process.execPath, fromNpm];
  if (isOnPath('node-gyp')) return ['node-gyp'];
  const npm = findOnPath('npm');
  const roots = [path.resolve(path.dirname(process.execPath), '..', 'lib', 'node_modules', 'npm')];
  if (npm !== undefined) roots.unshift(path.resolve(path.dirname(realpathSync(npm)), '..'));
  const script = roots
    .map((root) => path.join(root, 'node_modules', 'node-gyp', 'bin', 'node-gyp.js'))
    .find(existsSync);
  return script === undefined ? [] : [process.execPath, script];
}

function isUpToDate() {
  if (!existsSync(built)) return false;
  const builtMs = statSync(built).mtimeMs;
  const sources = ['addon', 'core'].flatMap((name) =>
    readdirSync(path.join(nativeDir, name), { recursive: true }).map((file) => path.join(nativeDir, name, file)),
  );
  return [path.join(nativeDir, 'binding.gyp'), ...sources].every((file) => statSync(file).mtimeMs <= builtMs);
}

/** Loads it in a process of its own: a broken addon must not take the installation down with it. */
function isLoadable(file) {
  if (!existsSync(file)) return false;
  const script = `require(${JSON.stringify(file)})`;
  return spawnSync(process.execPath, ['-e', script], { stdio: 'ignore' }).status === 0;
}

function isOnPath(program) {
  return findOnPath(program) !== undefined;
}

function findOnPath(program) {
  if (path.isAbsolute(program)) return existsSync(program) ? program : undefined;
  return (process.env.PATH ?? '')
    .split(path.delimiter)
    .map((directory) => path.join(directory, program))
    .find((file) => existsSync(file));
}
