// npm run test:faults: breaks etcd, hosts and networks on purpose and counts what is lost.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { FAULTS } from './catalog.js';
import { type Row, faultTable, withTable } from './report.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const PAGE = path.join(root, 'docs/reliability.md');

const USAGE = readFileSync(new URL('../../.ci/usage/test-faults.txt', import.meta.url), 'utf8');

function main(): number {
  const { values } = parseArgs({
    options: {
      only: { type: 'string' },
      short: { type: 'boolean', default: false },
      report: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(USAGE);
    return 0;
  }
  const names = values.only?.split(',') ?? [];
  const unknown = names.find((name) => !Object.hasOwn(FAULTS, name));
  if (unknown !== undefined) throw new Error(`there is no fault ${unknown}\n\n${USAGE}`);
  if (process.getuid?.() !== 0) throw new Error('cannot make network namespaces: only root may; run it with sudo');

  const scratch = mkdtempSync(path.join(os.tmpdir(), 'tsflannel-faults-'));
  const resultsFile = path.join(scratch, 'results');
  try {
    const grep = names.length === 0 ? [] : ['--grep', `^(${names.join('|')}): `];
    const { status } = spawnSync(
      process.execPath,
      ['node_modules/mocha/bin/mocha.js', '--config', '.ci/mocharc.faults.json', 'test/faults/**/*.test.ts', ...grep],
      {
        cwd: root,
        stdio: 'inherit',
        env: { ...process.env, FAULTS_FORM: values.short ? 'short' : 'long', FAULTS_RESULTS: resultsFile },
      },
    );
    if (values.report) report(resultsFile, names.length === 0 && !values.short);
    return status ?? 1;
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

function report(resultsFile: string, isComplete: boolean): void {
  const lines = existsSync(resultsFile) ? readFileSync(resultsFile, 'utf8').trim().split('\n') : [];
  const rows = lines.map((line) => JSON.parse(line) as Row);
  const table = faultTable(rows, isComplete ? undefined : new Set(rows.map(({ id }) => id)));
  process.stdout.write(`\n${table}`);
  if (isComplete) writeFileSync(PAGE, withTable(readFileSync(PAGE, 'utf8'), table));
}

try {
  process.exitCode = main();
} catch (error) {
  process.stderr.write(`test:faults: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 2;
}
