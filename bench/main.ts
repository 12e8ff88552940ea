// npm run bench: how fast each way to carry packets is on this machine, and what it costs.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { drawCharts, type Chart } from './charts.js';
import { measureControlPlane } from './control.js';
import { measureMicro } from './micro.js';
import { readOptions, USAGE, UsageError, type PathOptions } from './options.js';
import { measurePaths } from './path.js';
import type { RunRecord } from './record.js';
import { measureStart } from './start.js';
import { markdownReport, microTable, terminalReport, terminalTable } from './report.js';

const root = fileURLToPath(new URL('..', import.meta.url));

async function main(args: string[]): Promise<void> {
  const options = readOptions(args, process.env.FLANNELD);
  if (options.mode === 'help') {
    process.stdout.write(USAGE);
    return;
  }
  if (options.mode === 'micro') {
    const results = await measureMicro();
    process.stdout.write(
      options.isJson ? `${JSON.stringify(results, null, 2)}\n` : `${terminalTable(microTable(results))}\n`,
    );
    return;
  }
  if (options.mode === 'report') {
    const record = JSON.parse(readFileSync(options.file, 'utf8')) as RunRecord;
    process.stdout.write(terminalReport(record));
    writeManualPage(record, await drawCharts(record));
    return;
  }
  if (process.getuid?.() !== 0) throw new Error('cannot make network namespaces: only root may; run it with sudo');
  if (options.mode === 'control') {
    const start = await measureStart();
    const control = await measureControlPlane(options.peers);
    const raw = { start: start.raw, control: control.raw };
    const text = options.isJson
      ? JSON.stringify(raw, null, 2)
      : [start.table, control.table].map(terminalTable).join('\n');
    process.stdout.write(`${text}\n`);
    return;
  }
  const command = ['npm run bench', ...(args.length > 0 ? ['--', ...args] : [])].join(' ');
  const record = await measurePaths(options, command, (soFar) => {
    if (options.hasFiles) writeRecord(soFar);
  });
  process.stdout.write(options.isJson ? `${JSON.stringify(record, null, 2)}\n` : terminalReport(record));
  if (options.hasFiles) await writeReport(record, options);
  if (record.samples.length === 0 || record.failures.length > 0) process.exitCode = 1;
}

/** Raw record, report and charts in a directory of their own; a complete run also becomes the page in the manual. */
async function writeReport(record: RunRecord, options: PathOptions): Promise<void> {
  const directory = writeRecord(record);
  const charts = await drawCharts(record);
  writeFileSync(path.join(directory, 'report.md'), markdownReport(record, charts));
  for (const { file, svg } of charts) writeFileSync(path.join(directory, file), svg);
  process.stderr.write(`report, charts and raw record: ${path.relative(process.cwd(), directory)}\n`);
  if (isComplete(record, options)) writeManualPage(record, charts);
}

/** Writes what was measured where `npm run bench -- report` finds it, and gives the directory. */
function writeRecord(record: RunRecord): string {
  const name = `${record.startedAt.slice(0, 16).replace(':', '')}-${record.machine.kernel}`;
  const directory = path.join(root, 'bench/results', name);
  mkdirSync(directory, { recursive: true });
  writeFileSync(path.join(directory, 'record.json'), `${JSON.stringify(record)}\n`);
  return directory;
}

function writeManualPage(record: RunRecord, charts: readonly Chart[]): void {
  mkdirSync(path.join(root, 'docs/performance'), { recursive: true });
  const linked = charts.map((chart) => ({ ...chart, file: `performance/${chart.file}` }));
  writeFileSync(path.join(root, 'docs/performance.md'), markdownReport(record, linked));
  for (const { file, svg } of charts) writeFileSync(path.join(root, 'docs/performance', file), svg);
  process.stderr.write('docs/performance.md shows this run now\n');
}

function isComplete(record: RunRecord, { cases }: PathOptions): boolean {
  const isWhole = cases.some(({ scope }) => scope === 'offload') && cases.some(({ name }) => name === 'portable');
  return !record.isQuick && isWhole && record.links.length === 2 && record.rounds >= 5 && record.failures.length === 0;
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  const isUsage = error instanceof UsageError;
  process.stderr.write(
    `bench: ${error instanceof Error ? error.message : String(error)}\n${isUsage ? `\n${USAGE}` : ''}`,
  );
  process.exitCode = isUsage ? 2 : 1;
}
