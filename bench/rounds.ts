import type { LinkModel } from '../test/support/rig.js';
import type { Case } from './cases.js';
import { watchCpu, type CpuUse } from './cpu.js';

/** One case on one link model in one round: a fresh set of namespaces and daemons. */
export interface Cell {
  readonly round: number;
  readonly link: LinkModel;
  readonly case: Case;
}

/**
 * The order of a run: within a round every case once per link model, and every other round in reverse, so that what
 * drifts (temperature, memory, neighbours on the machine) meets all cases alike.
 */
export function schedule(cases: readonly Case[], links: readonly LinkModel[], rounds: number): Cell[] {
  return Array.from({ length: rounds }, (_, index) => index + 1).flatMap((round) => {
    const cells = links.flatMap((link) => cases.map((entry) => ({ round, link, case: entry })));
    return round % 2 === 0 ? cells.reverse() : cells;
  });
}

/** A result with what else the machine did while it came about. */
export interface Observed<T> {
  readonly value: T;
  readonly cpu: CpuUse;
  readonly tries: number;
}

/** Above this share of foreign work or stolen time a result is tried again. */
export const DISTURBANCE_LIMIT = 0.04;

/** How much of the machine was not at our disposal. */
export function disturbance({ foreignShare, stealShare }: CpuUse): number {
  return Math.max(foreignShare, stealShare);
}

/**
 * Measures until the machine was quiet meanwhile, a few times at most, and gives the least disturbed result.
 *
 * @param watch - for tests.
 */
export async function undisturbed<T>(
  measure: () => Promise<T>,
  mostTries: number,
  watch: () => () => CpuUse = watchCpu,
): Promise<Observed<T>> {
  let best: Observed<T> | undefined;
  for (let tries = 1; ; tries++) {
    const finish = watch();
    const value = await measure();
    const cpu = finish();
    if (best === undefined || disturbance(cpu) < disturbance(best.cpu)) best = { value, cpu, tries };
    if (disturbance(best.cpu) <= DISTURBANCE_LIMIT || tries >= mostTries) return { ...best, tries };
  }
}
