import { readFileSync } from 'node:fs';

/** What a process did since it began, in milliseconds. */
export interface ProcessorTime {
  /** Of all its threads, in user and kernel mode. */
  readonly runMs: number;
  /** How long its first thread was ready to run and other programs had the processor. */
  readonly starvedMs: number;
}

/** See {@link Stopwatch}; in milliseconds. */
export interface Spent {
  readonly runMs: number;
  readonly idleMs: number;
}

/** `USER_HZ` of every Linux that Node runs on. */
const TICK_MS = 10;
const NS_PER_MS = 1e6;
const NOTHING: ProcessorTime = { runMs: 0, starvedMs: 0 };

/** @returns nothing at all for a process that has ended. */
export function processorTimeOf(pid: number | undefined): ProcessorTime {
  try {
    // After the name, which may hold anything: proc_pid_stat(5), fields 14 and 15.
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
      .replace(/^.*\) /s, '')
      .split(' ');
    return { runMs: (Number(fields[11]) + Number(fields[12])) * TICK_MS, starvedMs: starvedMsOf(pid) };
  } catch {
    return NOTHING;
  }
}

/** 0 from a kernel without CONFIG_SCHED_INFO, which does not count it. */
function starvedMsOf(pid: number | undefined): number {
  try {
    // Nanoseconds on the processor, nanoseconds in the queue for it, time slices: Documentation/scheduler/sched-stats.rst.
    return Number(readFileSync(`/proc/${pid}/schedstat`, 'utf8').split(' ')[1]) / NS_PER_MS;
  } catch {
    return 0;
  }
}

/** How a process spends its time from the moment this is made: what other programs do with the processor is not counted. */
export class Stopwatch {
  readonly #startMs = performance.now();
  readonly #start: ProcessorTime;

  constructor(private readonly timeOf: () => ProcessorTime) {
    this.#start = timeOf();
  }

  /** How long it ran, and how long it waited for something else than a processor. */
  read(nowMs = performance.now()): Spent {
    const { runMs, starvedMs } = this.timeOf();
    const ranMs = runMs - this.#start.runMs;
    return { runMs: ranMs, idleMs: nowMs - this.#startMs - ranMs - (starvedMs - this.#start.starvedMs) };
  }
}
