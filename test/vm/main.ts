// npm run test:vm: runs tests under Debian's kernel, on an emulated machine.
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { Totals } from '../../.ci/reporter.mjs';
import { onExit } from '../support/cleanup.js';
import { bundleTests } from '../support/vm/bundle.js';
import { RESULTS, runGuest } from '../support/vm/machine.js';
import { Unavailable, machineFiles } from '../support/vm/packages.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const USAGE = new URL('../../.ci/usage/test-vm.txt', import.meta.url);
/** Below the packages, so that the bundle finds those that are not in it. */
const CACHE = path.join(ROOT, 'node_modules/.cache');
const LIMIT_MS = 10 * 60_000;

/** Host tests that also run here, where they find what a kernel for containers may lack, or another kernel. */
const HOST_TESTS = ['ipip', 'kernel-contract', 'netlink'].map((name) => `test/host/${name}.test.ts`);

/** Take as long as all others together, and run by their names only. */
const ON_DEMAND = ['docker', 'extension', 'wireguard-obstacles'].map((name) => `${name}.test.ts`);

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    options: { totals: { type: 'string' }, help: { type: 'boolean', default: false } },
    allowPositionals: true,
  });
  if (values.help) {
    process.stdout.write(readFileSync(USAGE));
    return 0;
  }
  const totals = await run(positionals.length > 0 ? positionals : allFiles());
  if (values.totals !== undefined) writeFileSync(values.totals, JSON.stringify(totals));
  return totals.failed === 0 ? 0 : 1;
}

function allFiles(): string[] {
  const own = readdirSync(path.join(ROOT, 'test/vm')).filter(
    (name) => name.endsWith('.test.ts') && !ON_DEMAND.includes(name),
  );
  return [...own.map((name) => `test/vm/${name}`), ...HOST_TESTS];
}

async function run(tests: readonly string[]): Promise<Totals> {
  mkdirSync(CACHE, { recursive: true });
  const directory = mkdtempSync(path.join(CACHE, 'tsflannel-vm-'));
  const remove = (): void => rmSync(directory, { recursive: true, force: true });
  const withdraw = onExit(remove);
  try {
    const files = machineFiles((line) => process.stdout.write(`${line}\n`));
    const results = path.join(directory, 'results');
    mkdirSync(results);
    const program = await bundleTests(tests, path.join(directory, 'bundle'), `${RESULTS}/totals.json`);
    await runGuest({
      files,
      directory,
      results,
      program,
      limitMs: LIMIT_MS,
      onOutput: (text) => process.stdout.write(text),
    });
    const file = path.join(results, 'totals.json');
    if (!existsSync(file)) throw new Error('the tests ended before they were counted, see above');
    return JSON.parse(readFileSync(file, 'utf8')) as Totals;
  } catch (error) {
    if (!(error instanceof Unavailable)) throw error;
    process.stdout.write(`skipped: ${error.message}\n`);
    return { passed: 0, failed: 0, failures: [], skipped: [{ title: 'vm', reason: error.message }], retried: [] };
  } finally {
    remove();
    withdraw();
  }
}

try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(`test:vm: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 2;
}
