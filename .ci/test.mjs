// Runs every test there is, one part after the other, and closes with one line of totals.
//
//   node .ci/test.mjs [PART…]     parts: unit, native, simulation, host, faults (default: all)
//
// A skip must name its reason. Where every test is expected to run (CI, or root), a skip without one is a failure, so
// that a test cannot disappear unnoticed.
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const scratch = mkdtempSync(path.join(os.tmpdir(), 'tsflannel-totals-'));
process.on('exit', () => rmSync(scratch, { recursive: true, force: true }));

const mocha = (part, style, args) => {
  const totals = path.join(scratch, `${part}.json`);
  const options = ['--reporter', '.ci/reporter.mjs', '--reporter-option', `style=${style}`];
  return {
    title: part,
    command: [
      process.execPath,
      'node_modules/mocha/bin/mocha.js',
      ...args,
      ...options,
      '--reporter-option',
      `totals=${totals}`,
    ],
    totals: () => (existsSync(totals) ? JSON.parse(readFileSync(totals, 'utf8')) : undefined),
  };
};

const PARTS = {
  unit: () => mocha('unit', 'dot', ['test/unit/**/*.test.ts']),
  native: () => ({
    title: 'native',
    command: ['make', '-s', `-j${os.cpus().length}`, '--no-print-directory', '-C', 'test/native', 'check'],
    // Each test program ends with "N passed, N failed".
    totals: (output) => {
      const lines = [...output.matchAll(/^(?:\S+: )?(\d+) passed, (\d+) failed(?:, \d+ skipped)?$/gm)];
      if (lines.length === 0) return undefined;
      const sum = (index) => lines.reduce((total, line) => total + Number(line[index]), 0);
      return { passed: sum(1), failed: sum(2), skipped: [] };
    },
  }),
  // The short form; npm run test:simulation runs as many as are asked for.
  simulation: () => ({
    title: 'simulation',
    command: [process.execPath, '--import', 'tsx', 'test/simulation/main.ts', '--histories', '4000', '--minutes', '1'],
    totals: (output) => {
      const [, passed, failed] = /^(\d+) passed, (\d+) failed$/m.exec(output) ?? [];
      return passed === undefined ? undefined : { passed: Number(passed), failed: Number(failed), skipped: [] };
    },
  }),
  host: () => mocha('host', 'spec', ['--config', '.ci/mocharc.host.json', 'test/host/**/*.test.ts']),
  // The short form; npm run test:faults is the long one.
  faults: () => mocha('faults', 'spec', ['--config', '.ci/mocharc.faults.json', 'test/faults/**/*.test.ts']),
};

const isStrict = process.env.CI === 'true' || process.getuid() === 0;
const chosen = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(PARTS);
const sum = { passed: 0, failed: 0, skipped: 0 };

for (const name of chosen) {
  const part = PARTS[name]?.();
  if (part === undefined) {
    process.stderr.write(`test: there is no part ${name}; the parts are ${Object.keys(PARTS).join(', ')}\n`);
    process.exit(2);
  }
  process.stdout.write(`\n== ${part.title} ==\n`);
  const { output, code } = await run(part.command);
  const totals = part.totals(output);
  if (totals === undefined) {
    process.stdout.write(`${part.title}: ended with code ${code} before it counted its tests\n`);
    sum.failed += 1;
    continue;
  }
  const unnamed = totals.skipped.filter((skip) => skip.reason === undefined);
  for (const skip of totals.skipped)
    process.stdout.write(`skipped: ${skip.title} (${skip.reason ?? 'no reason given'})\n`);
  if (isStrict && unnamed.length > 0)
    process.stdout.write(`${part.title}: ${unnamed.length} skipped without a reason\n`);
  sum.passed += totals.passed;
  // A part that fails although all its tests passed (a crash at the end, a file that cannot be loaded) still failed.
  sum.failed += totals.failed === 0 && code !== 0 ? 1 : totals.failed;
  sum.failed += isStrict ? unnamed.length : 0;
  sum.skipped += totals.skipped.length - (isStrict ? unnamed.length : 0);
}

process.stdout.write(`\n${sum.passed} passed, ${sum.failed} failed, ${sum.skipped} skipped\n`);
process.exitCode = sum.failed === 0 && sum.passed > 0 ? 0 : 1;

/** Runs a program with its output shown as it comes and also kept. */
function run([program, ...args]) {
  return new Promise((resolve) => {
    const child = spawn(program, args, { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] });
    let output = '';
    child.stdout.on('data', (chunk) => {
      process.stdout.write(chunk);
      output += chunk;
    });
    child.on('error', (error) => resolve({ output, code: error.message }));
    child.on('close', (code, signal) => resolve({ output, code: code ?? signal }));
  });
}
