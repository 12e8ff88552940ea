// Runs many simulated histories on all processors, or one again.
// What it is told on the command line: .ci/usage/test-simulation.txt.
//
// History n has the seed S + n. The last line is "N passed, N failed".
import { fork } from 'node:child_process';
import os from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { type History, describeFault, makeHistory } from './history.js';
import { shrink } from './shrink.js';
import { runHistory } from './simulation.js';
import type { Batch, Task } from './worker.js';

const HISTORIES_AT_ONCE = 20;

/** Failures that are told in full. */
const TOLD = 20;

const { values } = parseArgs({
  options: {
    histories: { type: 'string', default: '1000' },
    minutes: { type: 'string' },
    seed: { type: 'string', default: '1' },
    hosts: { type: 'string' },
    workers: { type: 'string', default: String(os.availableParallelism()) },
    'stop-early': { type: 'boolean', default: false },
    replay: { type: 'string' },
    verbose: { type: 'boolean', default: false },
    shrink: { type: 'boolean', default: false },
  },
});

const hosts = values.hosts === undefined ? undefined : Number(values.hosts);
process.exitCode = values.replay === undefined ? await runMany() : await replay(Number(values.replay));

async function replay(seed: number): Promise<number> {
  const history = makeHistory(seed, hosts);
  const write = (line: string): void => void process.stdout.write(`${line}\n`);
  const { violation, ms } = await runHistory(history, values.verbose ? write : undefined);
  write(describeHistory(history));
  write(violation === undefined ? `holds for ${ms} ms` : `${violation.message} (at ${violation.atMs} ms)`);
  if (violation !== undefined && values.shrink) {
    const smallest = await shrink(history, violation);
    write(`shrunk:\n${describeHistory(smallest.history)}`);
    write(`${smallest.violation?.message ?? ''} (at ${smallest.violation?.atMs ?? 0} ms)`);
    if (values.verbose) await runHistory(smallest.history, write);
  }
  write(violation === undefined ? '1 passed, 0 failed' : '0 passed, 1 failed');
  return violation === undefined ? 0 : 1;
}

function describeHistory({ seed, startsMs, stockStartsMs, members, faults }: History): string {
  const stock = stockStartsMs.length === 0 ? '' : ` and ${stockStartsMs.length} of stock flannel`;
  const head = `seed ${seed}: ${startsMs.length} hosts${stock}, ${members} etcd members`;
  return [head, ...faults.map((fault) => `  ${describeFault(fault)}`)].join('\n');
}

async function runMany(): Promise<number> {
  const firstSeed = Number(values.seed);
  const total = Number(values.histories);
  const startedMs = performance.now();
  const untilMs = values.minutes === undefined ? Infinity : startedMs + Number(values.minutes) * 60_000;
  const sums = { histories: 0, simulatedMs: 0, steps: 0, hosts: 0, faults: 0, peakRequests: 0, peakLines: 0 };
  const failures: Batch['failures'][number][] = [];
  let given = 0;
  const next = (): Task | undefined => {
    const count = Math.min(HISTORIES_AT_ONCE, total - given);
    const isOver = values['stop-early'] && failures.length > 0;
    if (count <= 0 || isOver || performance.now() >= untilMs) return undefined;
    given += count;
    return { firstSeed: firstSeed + given - count, count, hosts };
  };
  const take = (batch: Batch): void => {
    sums.histories += batch.count;
    for (const key of ['simulatedMs', 'steps', 'hosts', 'faults'] as const) sums[key] += batch[key];
    for (const key of ['peakRequests', 'peakLines'] as const) sums[key] = Math.max(sums[key], batch[key]);
    for (const failure of batch.failures) {
      failures.push(failure);
      if (failures.length > TOLD) continue;
      process.stdout.write(`${failure.text}\n${describeHistory(makeHistory(failure.seed, hosts))}\n`);
      process.stdout.write(`  again: npm run test:simulation -- --replay ${failure.seed} --shrink\n`);
    }
  };
  const workers = Math.max(1, Math.min(Number(values.workers), Math.ceil(total / HISTORIES_AT_ONCE)));
  await Promise.all(Array.from({ length: workers }, () => runWorker(next, take)));
  const seconds = (performance.now() - startedMs) / 1000;
  for (const broken of new Set(failures.map(({ invariant }) => invariant))) {
    const count = failures.filter(({ invariant }) => invariant === broken).length;
    process.stdout.write(`${broken}: ${count} failed\n`);
  }
  process.stdout.write(
    [
      `seeds ${firstSeed} to ${firstSeed + given - 1}: ${sums.histories} histories in ${seconds.toFixed(0)} s`,
      `by ${workers} processes, ${(sums.histories / seconds).toFixed(1)} a second;`,
      `${(sums.simulatedMs / 3_600_000).toFixed(1)} h simulated (${(sums.simulatedMs / 1000 / sums.histories).toFixed(0)} s each),`,
      `${(sums.hosts / sums.histories).toFixed(1)} hosts and ${(sums.faults / sums.histories).toFixed(1)} faults each;`,
      `at most ${sums.peakRequests} requests and ${sums.peakLines} log lines of a host in 10 s\n`,
    ].join(' '),
  );
  process.stdout.write(`${sums.histories - failures.length} passed, ${failures.length} failed\n`);
  return failures.length === 0 && sums.histories > 0 ? 0 : 1;
}

/** Keeps one process busy until there is nothing more to do. */
function runWorker(next: () => Task | undefined, take: (batch: Batch) => void): Promise<void> {
  const worker = fork(fileURLToPath(new URL('worker.ts', import.meta.url)), { execArgv: ['--import', 'tsx'] });
  return new Promise((resolve, reject) => {
    const go = (): void => {
      const task = next();
      if (task === undefined) worker.disconnect();
      else worker.send(task);
    };
    worker.on('message', (batch: Batch) => {
      take(batch);
      go();
    });
    worker.on('error', reject);
    worker.on('exit', (code, signal) => {
      if (code === 0) resolve();
      else reject(new Error(`a worker ended with ${code ?? signal ?? 'nothing'}`));
    });
    go();
  });
}
