import type { History } from './history.js';
import { type Outcome, runHistory } from './simulation.js';
import type { Violation } from './violation.js';

/**
 * A history that breaks the same invariant with as few faults as removing one after the other leaves.
 *
 * @param run - how a history is run.
 */
export async function shrink(
  history: History,
  { invariant }: Violation,
  run: (history: History) => Promise<Pick<Outcome, 'violation'>> = runHistory,
): Promise<{ readonly history: History; readonly violation: Violation | undefined }> {
  let smallest = history;
  for (let index = history.faults.length - 1; index >= 0; index--) {
    const removed = history.faults[index];
    const fewer = { ...smallest, faults: smallest.faults.filter((fault) => fault !== removed) };
    const outcome = await run(fewer);
    if (outcome.violation?.invariant === invariant) smallest = fewer;
  }
  const { violation } = await run(smallest);
  return { history: smallest, violation };
}
