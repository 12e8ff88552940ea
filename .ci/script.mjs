// Runs a script of package.json: `--help` tells what it does, at once; otherwise what it needs is brought here first.
// Plain Node without dependencies, since it runs before there are any.
//
//   node .ci/script.mjs NAME [ARGUMENT…]
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { TARGETS, readTarget, toolFor } from './targets.mjs';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const node = (...words) => [process.execPath, ...words];
const tsx = (file) => node('--import', 'tsx', file);
const mocha = (...words) => ['mocha', ...words];
const HOST_TESTS = ['--config', '.ci/mocharc.host.json'];
const COMPILE = [['tsc', '-p', 'tsconfig.json'], node('.ci/page.mjs'), node('.ci/bundle.mjs')];

/**
 * By name in package.json: what it does (`help`, unless a file in .ci/usage says more), the groups of .ci/setup.mjs that
 * it needs (`setup`), and the commands that do it (`run`), all of which get the arguments if they are not told which.
 */
const SCRIPTS = {
  // npm runs this one in the middle of its own installation, so that nothing can be brought before.
  prepare: { help: 'Compiles src into dist; npm ci does that by itself.', setup: [], run: COMPILE },
  prepack: {
    help: 'Builds the addon for the npm tarball, also for the other processors whose compiler is there; npm pack does that by itself.',
    setup: ['build'],
    run: () => packedTargets().map((arch) => node('.ci/prebuild.mjs', '--arch', arch)),
  },
  build: {
    help: 'Builds the addon and compiles src into dist.',
    setup: ['build'],
    run: () => [node('native/install.mjs', '--build'), ...COMPILE],
  },
  'build:native': { help: 'Builds the addon.', setup: ['build'], run: [node('native/install.mjs', '--build')] },
  'build:ts': { help: 'Compiles src into dist.', setup: ['npm'], run: COMPILE },
  'build:prebuilt': {
    help: 'Builds the addon for the npm tarball and the Debian package. --arch arm64 builds it for arm64.',
    setup: (args) => ['build', ...crossGroups(args)],
    run: [node('.ci/prebuild.mjs')],
  },
  'package:deb': {
    setup: (args) => ['build', 'deb', ...crossGroups(args)],
    run: (args) => [
      node('.ci/prebuild.mjs', '--arch', readTarget(args).arch),
      ...COMPILE,
      node('.ci/package-deb.mjs', ...args),
    ],
  },
  check: {
    help: 'Checks format, lint of TypeScript and C++, types, links and comments, one after the other.',
    setup: ['npm', 'check'],
    run: () => ['format:check', 'lint', 'lint:native', 'types', 'docs'].flatMap((name) => SCRIPTS[name].run),
  },
  format: {
    help: 'Rewrites all files in the format of the project.',
    setup: ['npm', 'check'],
    run: [['prettier', '--write', '.'], node('.ci/clang-format.mjs', '--write')],
  },
  'format:check': {
    help: 'Checks that all files have the format of the project; npm run format gives it to them.',
    setup: ['npm', 'check'],
    run: [['prettier', '--check', '--log-level', 'warn', '.'], node('.ci/clang-format.mjs')],
  },
  lint: {
    help: 'Runs eslint over all files. Arguments go to eslint.',
    setup: ['npm'],
    run: [['eslint', '-c', '.ci/eslint.config.mjs', '--max-warnings', '0', '.']],
  },
  'lint:native': {
    help: 'Runs clang-tidy over what has changed of the packet core and the addon since it last passed.',
    setup: ['npm', 'check'],
    run: [node('.ci/clang-tidy.mjs')],
  },
  types: {
    help: 'Checks the types of src, bench, test and of the status page.',
    setup: ['npm'],
    run: [
      ['tsc', '-p', 'test/tsconfig.json'],
      ['tsc', '-p', 'src/observe/page'],
    ],
  },
  docs: {
    help: 'Checks that links between pages lead somewhere and that every export has a comment.',
    setup: ['npm'],
    run: [node('.ci/check-docs.mjs')],
  },
  demo: { setup: ['base'], run: [tsx('test/support/demo.ts')] },
  bench: { setup: ['base'], run: [tsx('bench/main.ts')] },
  soak: { setup: ['base'], run: [tsx('test/soak/main.ts')] },
  test: {
    help: 'Runs every test, or these parts: unit, native, simulation, vm, host, faults.',
    setup: ['base', 'deb', 'docker', 'containers', 'observe'],
    run: [node('.ci/test.mjs')],
  },
  'test:unit': {
    help: 'Runs the tests that need no root. Arguments go to mocha.',
    setup: ['npm'],
    run: [mocha('test/unit/**/*.test.ts')],
  },
  'test:native': {
    help: 'Runs the tests of the packet core. Arguments go to make in test/native, such as FILTER=checksum.',
    setup: ['build'],
    run: [['make', '-C', 'test/native', 'check']],
  },
  'test:arm64': {
    help: 'Builds the packet core and its tests for arm64 and runs them under qemu. Arguments go to make in test/native.',
    setup: ['build', 'arm64', 'qemu'],
    run: [['make', '-C', 'test/native', 'check-arm64']],
  },
  'test:fuzz': { setup: ['build'], run: [node('.ci/fuzz.mjs')] },
  'test:flood': { setup: ['base'], run: [node('.ci/flood.mjs')] },
  'test:mutation': { setup: ['build'], run: [tsx('test/mutation/main.ts')] },
  'test:simulation': { setup: ['npm'], run: [tsx('test/simulation/main.ts')] },
  'test:host': {
    help: 'Runs the tests in network namespaces; needs root. Arguments go to mocha.',
    setup: ['base'],
    run: [mocha(...HOST_TESTS, 'test/host/**/*.test.ts')],
  },
  'test:faults': { setup: ['base'], run: [tsx('test/faults/main.ts')] },
  'test:vm': { setup: ['base'], run: [tsx('test/vm/main.ts')] },
};

function crossGroups(args) {
  const { arch } = readTarget(args);
  return arch === process.arch ? [] : [arch];
}

/** This machine's processor, and those that a compiler is installed for. */
function packedTargets() {
  const hasCompiler = (arch) => spawnSync(toolFor(arch, 'g++'), ['--version'], { stdio: 'ignore' }).status === 0;
  return Object.keys(TARGETS).filter((arch) => arch === process.arch || hasCompiler(arch));
}

function helpOf(name) {
  const file = path.join(root, '.ci/usage', `${name.replace(':', '-')}.txt`);
  if (existsSync(file)) return readFileSync(file, 'utf8');
  return `usage: npm run ${name} [-- ARGUMENT…]\n\n${SCRIPTS[name].help}\n`;
}

/** @returns the exit code of the first command that fails, else 0. */
async function main(name, args) {
  const script = SCRIPTS[name];
  if (script === undefined) throw new Error(`there is no script ${name}: see package.json`);
  if (args.includes('--help') || args.includes('-h')) {
    process.stdout.write(helpOf(name));
    return 0;
  }
  const groups = typeof script.setup === 'function' ? script.setup(args) : script.setup;
  const preparation = groups.length === 0 ? [] : [node('.ci/setup.mjs', ...groups)];
  const commands = typeof script.run === 'function' ? script.run(args) : script.run.map((words) => [...words, ...args]);
  for (const command of [...preparation, ...commands]) {
    const code = await run(command);
    if (code !== 0) return code;
  }
  return 0;
}

/** A signal ends the command, which tidies up, and by that this process. */
function run([program, ...args]) {
  const PATH = `${path.join(root, 'node_modules/.bin')}:${process.env.PATH ?? ''}`;
  const child = spawn(program, args, { cwd: root, stdio: 'inherit', env: { ...process.env, PATH } });
  // Ctrl-C reaches the whole group; the others only who is named.
  const forward = (signal) => signal === 'SIGINT' || child.kill(signal);
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'];
  for (const signal of signals) process.on(signal, forward);
  return new Promise((resolve, reject) => {
    child.on('error', (error) => reject(new Error(`cannot run ${program}: ${error.message}: run npm ci first`)));
    child.on('close', (code) => {
      for (const signal of signals) process.off(signal, forward);
      resolve(code ?? 1);
    });
  });
}

try {
  const [name = '', ...args] = process.argv.slice(2);
  process.exitCode = await main(name, args);
} catch (error) {
  process.stderr.write(`${error.message}\n`);
  process.exitCode = 2;
}
