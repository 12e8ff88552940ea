// Runs every test, or the parts named on the command line, and adds the parts up; the last line that it prints is
// "N passed, N failed, N skipped". Skipping is for test machines that cannot do what a test needs, so every skipped
// test is listed with its reason; in CI (CI=true) and for root, where everything is expected to run, one without a
// reason counts as failed. A test that passed at its second try is named, too, and counts as failed if nothing else
// kept the processors busy meanwhile.
//
//   node .ci/test.mjs [unit] [native] [simulation] [vm] [host] [faults]
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { compileTests } from './compile-tests.mjs';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const scratch = mkdtempSync(path.join(os.tmpdir(), 'tsflannel-totals-'));
process.on('exit', () => rmSync(scratch, { recursive: true, force: true }));

/** A share of the time in which something waited for a processor, above which a machine is not quiet. */
const QUIET_PRESSURE = 0.2;
/** Longer than any file takes on a busy machine: one that hangs costs this much and not the whole run. */
const FILE_LIMIT_MS = 12 * 60_000;
/** Host tests wait for three quarters of their time, so that two for each processor, and one, keep these busy. */
const LANES = 2 * os.availableParallelism() + 1;
/** What takes longest, the longest first, so that no lane is left with one when the others have nothing to do. */
const LONG = [
  ...['host/quick-start', 'host/routed-cluster', 'host/docker-networks', 'host/doctor-containers'],
  ...['host/routed-networks', 'host/attach', 'host/ctl-daemon', 'faults/hostile-keys', 'host/arm64'],
  ...['host/reachability', 'host/docker-plugin', 'host/removal', 'host/upgrading', 'host/container-addresses'],
  ...['host/ndp-proxy-networks', 'faults/restore', 'host/self-healing', 'host/native-tunnel', 'host/ndp-proxy'],
  ...['host/bulk', 'host/observe', 'host/two-daemons', 'host/image'],
].map((name) => `test/${name}.test.ts`);
/** Files that measure how long something takes, or a ratio of two ways. They run when nothing else does. */
const ALONE = ['down-time', 'systemd', 'reboot'].map((name) => `test/host/${name}.test.ts`);

/**
 * One mocha process for some files: its totals are left in a file by the reporter. It is the program that bin/mocha.js
 * would start: without that one in between, a file costs one start less and a signal reaches its tests.
 */
const mocha = (title, style, options, files) => {
  const name = title.replaceAll('/', '-');
  const totals = path.join(scratch, `${name}.json`);
  const config = path.join(scratch, `${name}.mocharc.json`);
  // The files are compiled.
  const { import: _, ...others } = options;
  const reporter = { reporter: '.ci/reporter.mjs', 'reporter-option': [`style=${style}`, `totals=${totals}`] };
  const spec = files.map((file) => compiled.get(file));
  writeFileSync(config, JSON.stringify({ ...others, ...reporter, extension: ['mjs'], spec }));
  const program = [process.execPath, '--enable-source-maps', 'node_modules/mocha/lib/cli/cli.js'];
  return {
    title,
    command: [...program, '--no-package', '--config', config],
    totals: () => (existsSync(totals) ? JSON.parse(readFileSync(totals, 'utf8')) : undefined),
  };
};

/** Mocha on an emulated machine, which hands out the totals of the same reporter. */
const emulated = () => {
  const totals = path.join(scratch, 'vm.json');
  return {
    title: 'vm',
    command: [process.execPath, '--import', 'tsx', 'test/vm/main.ts', '--totals', totals],
    totals: () => (existsSync(totals) ? JSON.parse(readFileSync(totals, 'utf8')) : undefined),
  };
};

/** Programs whose output ends with totals in words. */
const counting = (title, command, pattern) => ({
  title,
  command,
  totals: (output) => {
    const lines = [...output.matchAll(pattern)];
    if (lines.length === 0) return undefined;
    const sum = (index) => lines.reduce((total, line) => total + Number(line[index]), 0);
    return { passed: sum(1), failed: sum(2), skipped: [], retried: [] };
  },
});

/** The test files below a directory, relative to the clone. */
function testFiles(directory) {
  return readdirSync(path.join(root, directory), { recursive: true })
    .filter((name) => name.endsWith('.test.ts'))
    .map((name) => `${directory}/${name}`)
    .sort();
}

/** Every file of a directory in a mocha of its own. */
function filesOneByOne(directory, config) {
  const options = JSON.parse(readFileSync(path.join(root, config), 'utf8'));
  return testFiles(directory).map((file) => ({
    ...mocha(file, 'spec', options, [file]),
    isAlone: ALONE.includes(file),
  }));
}

/** Directories of the parts whose tests mocha runs. */
const DIRECTORIES = { unit: 'test/unit', host: 'test/host', faults: 'test/faults' };

const PARTS = {
  unit: () => [mocha('unit', 'dot', packageJson.mocha, testFiles(DIRECTORIES.unit))],
  native: () => [
    counting(
      'native',
      ['make', '-s', `-j${os.availableParallelism()}`, '--no-print-directory', '-C', 'test/native', 'check'],
      // Each test program ends so.
      /^(?:\S+: )?(\d+) passed, (\d+) failed(?:, \d+ skipped)?$/gm,
    ),
  ],
  // The short form, as long on every machine; npm run test:simulation runs as many as are asked for.
  simulation: () => [
    counting(
      'simulation',
      [process.execPath, '--import', 'tsx', 'test/simulation/main.ts', '--histories', '1200'],
      /^(\d+) passed, (\d+) failed$/gm,
    ),
  ],
  vm: () => [emulated()],
  host: () => filesOneByOne(DIRECTORIES.host, '.ci/mocharc.host.json'),
  // The short form; npm run test:faults is the long one.
  faults: () => filesOneByOne(DIRECTORIES.faults, '.ci/mocharc.faults.json'),
};

/**
 * What runs side by side: what computes all the time, the packet core by itself, the emulated machine likewise, and then
 * what mostly waits.
 */
const STAGES = [['unit', 'simulation'], ['native'], ['vm'], ['faults', 'host']];

/** What several files of a part would otherwise make at the same time, in the same place. */
const PREPARATIONS = { host: [process.execPath, '.ci/prebuild.mjs'] };

const isStrict = process.env.CI === 'true' || process.getuid() === 0;
const chosen = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(PARTS);
const unknown = chosen.find((name) => PARTS[name] === undefined);
if (unknown !== undefined) {
  process.stderr.write(`test: there is no part ${unknown}; the parts are ${Object.keys(PARTS).join(', ')}\n`);
  process.exit(2);
}

/** Programs that run; told to end, this one waits for them, which clean up. */
const running = new Set();
/** With which code this program is to end, once it was told to. */
let endCode;
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => {
    endCode = 128 + os.constants.signals[signal];
    for (const child of running) child.kill(signal);
    if (running.size === 0) process.exit(endCode);
  });
}

const sum = { passed: 0, failed: 0, skipped: 0 };
/** What is said again at the end, where it is seen. */
const remarks = [];
/** By part: when its first job began and its last one ended. */
const spans = new Map();
const startedAt = Date.now();
/** Of {@link reapedCpuSeconds}, what has been put down to a program. */
let countedCpuSeconds = 0;

const packageJson = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'));
const compiled = await compileTests(
  root,
  chosen.filter((part) => DIRECTORIES[part] !== undefined).flatMap((part) => testFiles(DIRECTORIES[part])),
);
const jobs = chosen.flatMap((part) => PARTS[part]().map((job) => ({ ...job, part })));
for (const parts of STAGES) {
  const going = parts.filter((part) => chosen.includes(part));
  if (going.length === 0) continue;
  process.stdout.write(`\n== ${going.join(', ')} ==\n`);
  // If one fails, so do the tests that need it.
  for (const part of going) if (PREPARATIONS[part] !== undefined) await run(PREPARATIONS[part], true);
  const ofStage = going.flatMap((part) => jobs.filter((job) => job.part === part));
  await inLanes(ofStage.filter((job) => !job.isAlone).sort((a, b) => rank(a) - rank(b)));
  for (const job of ofStage.filter((each) => each.isAlone)) await inLanes([job]);
}

for (const remark of remarks) process.stdout.write(`${remark}\n`);
process.stdout.write(`\ntime: ${chosen.map(timeOf).join(', ')}; ${secondsSince(startedAt)} s in all`);
process.stdout.write(`, of the processors ${Math.round(reapedCpuSeconds())} s\n`);
process.stdout.write(`${sum.passed} passed, ${sum.failed} failed, ${sum.skipped} skipped\n`);
process.exitCode = sum.failed === 0 && sum.passed > 0 ? 0 : 1;

/** Files that {@link LONG} does not name come after those that it does. */
function rank({ title }) {
  return LONG.includes(title) ? LONG.indexOf(title) : LONG.length;
}

function secondsSince(at, now = Date.now()) {
  return Math.round((now - at) / 1000);
}

function timeOf(part) {
  const { start, end } = spans.get(part);
  return `${part} ${secondsSince(start, end)} s`;
}

/** Runs jobs side by side. A single one is shown as it goes, of several each when it has ended. */
async function inLanes(jobs) {
  const isSingle = jobs.length === 1;
  const waiting = [...jobs];
  const lane = async () => {
    for (let job = waiting.shift(); job !== undefined; job = waiting.shift()) {
      const before = { at: Date.now(), waitedUs: cpuWaitUs() };
      spans.set(job.part, { start: before.at, ...spans.get(job.part) });
      const { output, code, cpuSeconds } = await run(job.command, isSingle);
      const seconds = (Date.now() - before.at) / 1000;
      spans.set(job.part, { ...spans.get(job.part), end: Date.now() });
      if (!isSingle) process.stdout.write(output);
      if (jobs.length > 1 || job.isAlone) {
        process.stdout.write(`${job.title}: ${seconds.toFixed(1)} s, processor ${cpuSeconds.toFixed(1)} s\n`);
      }
      addUp(job, output, code, (cpuWaitUs() - before.waitedUs) / (seconds * 1e6) < QUIET_PRESSURE);
    }
  };
  await Promise.all(Array.from({ length: Math.min(LANES, jobs.length) }, lane));
}

function addUp(job, output, code, isQuiet) {
  const totals = job.totals(output);
  if (totals === undefined) {
    remarks.push(`${job.title}: ended with code ${code} before it counted its tests`);
    sum.failed += 1;
    return;
  }
  for (const title of totals.failures ?? []) remarks.push(`failed: ${title} (${job.title})`);
  for (const skip of totals.skipped) remarks.push(`skipped: ${skip.title} (${skip.reason ?? 'no reason given'})`);
  for (const retry of totals.retried) {
    const weight = isQuiet ? 'counted as failed: nothing else kept the processors busy' : 'on busy processors';
    remarks.push(`failed once, passed then: ${retry.title}: ${retry.error} (${weight})`);
  }
  const unnamed = isStrict ? totals.skipped.filter((skip) => skip.reason === undefined).length : 0;
  sum.passed += totals.passed - (isQuiet ? totals.retried.length : 0);
  // A job that fails although all its tests passed (a crash at the end, a file that cannot be loaded) still failed.
  sum.failed += totals.failed === 0 && code !== 0 ? 1 : totals.failed;
  sum.failed += unnamed + (isQuiet ? totals.retried.length : 0);
  sum.skipped += totals.skipped.length - unnamed;
}

/** For how long something has waited for a processor since the machine started: "some" of Linux's PSI; NaN without it. */
function cpuWaitUs() {
  if (!existsSync('/proc/pressure/cpu')) return Number.NaN;
  return Number(/^some .* total=(\d+)$/m.exec(readFileSync('/proc/pressure/cpu', 'utf8'))?.[1]);
}

/** What the programs that have ended so far took of the processors, with all that they started and waited for. */
function reapedCpuSeconds() {
  // proc_pid_stat(5): cutime and cstime, in ticks of 10 ms. A name may hold spaces; the state comes after its bracket.
  const fields = readFileSync('/proc/self/stat', 'utf8')
    .replace(/^.*\) /s, '')
    .split(' ');
  return (Number(fields[13]) + Number(fields[14])) / 100;
}

/** Runs a program and keeps its output, which is shown as it comes if wanted. */
function run([program, ...args], isShown) {
  return new Promise((resolve) => {
    const child = spawn(program, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
    running.add(child);
    child.stdout.setEncoding('utf8');
    child.stderr.setEncoding('utf8');
    let output = '';
    const take = (chunk) => {
      if (isShown) process.stdout.write(chunk);
      output += chunk;
    };
    child.stdout.on('data', take);
    child.stderr.on('data', take);
    const limit = setTimeout(() => {
      take(`took longer than ${FILE_LIMIT_MS / 60_000} minutes, so it was ended\n`);
      child.kill('SIGTERM');
      setTimeout(() => child.kill('SIGKILL'), 20_000).unref();
    }, FILE_LIMIT_MS);
    let cpuSeconds = 0;
    const end = (code) => {
      clearTimeout(limit);
      running.delete(child);
      if (endCode === undefined) resolve({ output, code, cpuSeconds });
      else if (running.size === 0) process.exit(endCode);
    };
    // Right after the one child that was waited for.
    child.on('exit', () => {
      cpuSeconds = reapedCpuSeconds() - countedCpuSeconds;
      countedCpuSeconds += cpuSeconds;
    });
    child.on('error', (error) => end(error.message));
    child.on('close', (code, signal) => end(code ?? signal));
  });
}
