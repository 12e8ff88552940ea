import type { Program } from '../test/support/program.js';
import type { Bed } from './bed.js';
import { bisect } from './stats.js';

/** What one trial at a fixed rate showed. */
export interface Trial {
  readonly sent: number;
  readonly received: number;
  readonly seconds: number;
}

/** How the loss-free rate is searched. */
export interface SearchOptions {
  readonly flows: number;
  readonly steps: number;
  readonly trialSeconds: number;
}

/** Share of packets that may be lost at a rate that counts as loss-free. */
export const TOLERATED_LOSS = 0.001;
// A generator that reached less than this part of the rate says nothing about higher ones.
const LEAST_PACE = 0.97;
// The slowest tunnel manages 10 000 packets a second, the fastest routing below a million.
const RANGE = { low: 4_000, high: 800_000 } as const;
const PAYLOAD_BYTES = 64;
const FIRST_PORT = 7000;

/** Whether next to nothing was lost in a trial. */
export function isLossFree({ sent, received }: Trial): boolean {
  return received >= sent * (1 - TOLERATED_LOSS);
}

/** Whether a trial shows that the path carries the rate. */
export function carries(trial: Trial, rate: number): boolean {
  return isLossFree(trial) && trial.sent / trial.seconds >= rate * LEAST_PACE;
}

/**
 * The highest rate of small UDP packets, in packets per second, that arrived with next to no loss.
 *
 * @remarks Hosts and ends share the processors, so a path can hold its sender back before it loses anything: what counts
 * is the rate that was sent, not the one that was asked for.
 */
export async function lossFreeRate(bed: Bed, generator: string, options: SearchOptions): Promise<number> {
  const { flows, steps, trialSeconds } = options;
  const where = [bed.far.address, String(FIRST_PORT), String(flows)];
  const receiver = bed.far.netns.start([generator, 'receive', ...where]);
  const sender = bed.near.netns.start([generator, 'send', ...where, String(PAYLOAD_BYTES)]);
  try {
    await receiver.waitForLine(/ready/);
    let number = 0;
    const attempt = async (rate: number, seconds: number): Promise<Trial> =>
      runTrial(receiver, sender, ++number, rate, seconds);
    // Fills neighbour tables and wakes the processors up.
    await attempt(RANGE.low, 0.1);
    let highest = 0;
    const passes = async (rate: number): Promise<boolean> => {
      const trial = await attempt(rate, trialSeconds);
      if (isLossFree(trial)) highest = Math.max(highest, trial.sent / trial.seconds);
      return carries(trial, rate);
    };
    // One burst of foreign work looks like loss and would halve the result, so a failed trial has a second chance.
    await bisect({ ...RANGE, steps }, async (rate) => (await passes(rate)) || (await passes(rate)));
    return highest;
  } finally {
    await Promise.all([receiver.kill(), sender.kill()]);
  }
}

async function runTrial(
  receiver: Program,
  sender: Program,
  number: number,
  rate: number,
  seconds: number,
): Promise<Trial> {
  await ask(receiver, `${number}\n`, new RegExp(`^${number} 0$`));
  const timeoutMs = seconds * 1000 + 10_000;
  const done = await ask(
    sender,
    `${number} ${rate} ${seconds}\n`,
    new RegExp(`^${number} (\\d+) ([\\d.]+)$`),
    timeoutMs,
  );
  // What is still queued arrives within milliseconds; the count is final when it stands still.
  const count = async (): Promise<number> => Number((await ask(receiver, '?\n', new RegExp(`^${number} (\\d+)$`)))[1]);
  let received = await count();
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, 20));
    const now = await count();
    if (now === received) break;
    received = now;
  }
  return { sent: Number(done[1]), seconds: Number(done[2]), received };
}

async function ask(program: Program, text: string, answer: RegExp, timeoutMs = 5000): Promise<RegExpMatchArray> {
  const mark = program.mark();
  program.write(text);
  return program.waitForLine(answer, timeoutMs, mark);
}
