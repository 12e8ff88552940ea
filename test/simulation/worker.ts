// Runs the histories that it is sent the seeds of, one after the other.
import { makeHistory } from './history.js';
import { runHistory } from './simulation.js';

/** What a worker is sent. */
export interface Task {
  readonly firstSeed: number;
  readonly count: number;
  readonly hosts: number | undefined;
}

/** What it answers with. */
export interface Batch {
  readonly count: number;
  readonly simulatedMs: number;
  readonly steps: number;
  readonly hosts: number;
  readonly faults: number;
  readonly peakRequests: number;
  readonly peakLines: number;
  readonly failures: readonly { readonly seed: number; readonly invariant: string; readonly text: string }[];
}

async function runBatch({ firstSeed, count, hosts }: Task): Promise<Batch> {
  const sums = { count, simulatedMs: 0, steps: 0, hosts: 0, faults: 0, peakRequests: 0, peakLines: 0 };
  const failures: { seed: number; invariant: string; text: string }[] = [];
  for (let seed = firstSeed; seed < firstSeed + count; seed++) {
    const history = makeHistory(seed, hosts);
    const { violation, ms, steps, peakRequests, peakLines } = await runHistory(history);
    sums.simulatedMs += ms;
    sums.steps += steps;
    sums.hosts += history.startsMs.length + history.stockStartsMs.length;
    sums.faults += history.faults.length;
    sums.peakRequests = Math.max(sums.peakRequests, peakRequests);
    sums.peakLines = Math.max(sums.peakLines, peakLines);
    if (violation === undefined) continue;
    failures.push({ seed, invariant: violation.invariant, text: `${violation.message} (at ${violation.atMs} ms)` });
  }
  return { ...sums, failures };
}

process.on('message', (task: Task) => {
  void runBatch(task).then((batch) => process.send?.(batch));
});
process.on('disconnect', () => process.exit());
