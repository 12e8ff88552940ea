import { readdirSync, readFileSync } from 'node:fs';
import os from 'node:os';

/** Processor time between two moments. */
export interface CpuUse {
  readonly wallSeconds: number;
  /** Busy time of the whole machine less that of foreign processes. */
  readonly ownSeconds: number;
  /** Share of all processors' time used by processes that are not ours. */
  readonly foreignShare: number;
  /** Share that the hypervisor gave to others. */
  readonly stealShare: number;
}

interface Snapshot {
  readonly atMs: number;
  readonly busy: number;
  readonly steal: number;
  readonly foreign: number;
}

// USER_HZ, fixed at 100 in the ABI of every Linux architecture that Node runs on.
const TICKS_PER_SECOND = 100;

/**
 * Starts measuring what the processors do.
 *
 * @returns a function that ends it. What counts as ours is this process with all its descendants, and the kernel's
 * threads, which work for whoever sends packets.
 */
export function watchCpu(): () => CpuUse {
  const before = snapshot();
  return () => {
    const after = snapshot();
    const wallSeconds = (after.atMs - before.atMs) / 1000;
    const capacity = wallSeconds * os.cpus().length;
    const busy = after.busy - before.busy;
    // A process that ends while the list is read is missed or counted twice, so the sum is held to what is possible.
    const foreign = Math.min(Math.max(0, after.foreign - before.foreign), busy);
    return {
      wallSeconds,
      ownSeconds: busy - foreign,
      foreignShare: foreign / capacity,
      stealShare: (after.steal - before.steal) / capacity,
    };
  };
}

function snapshot(): Snapshot {
  const { busy, steal } = parseMachine(readFileSync('/proc/stat', 'utf8'));
  const processes = readdirSync('/proc').flatMap((name) => (/^\d+$/.test(name) ? readProcess(name) : []));
  return { atMs: performance.now(), busy, steal, foreign: foreignSeconds(processes, process.pid) };
}

/**
 * Busy and stolen seconds since boot from the first line of `/proc/stat`.
 *
 * @internal
 */
export function parseMachine(text: string): { busy: number; steal: number } {
  const fields = (/^cpu +(.*)$/m.exec(text)?.[1] ?? '').split(' ').map(Number);
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0, steal = 0] = fields;
  return { busy: (user + nice + system + irq + softirq) / TICKS_PER_SECOND, steal: steal / TICKS_PER_SECOND };
}

/**
 * What counts of a process.
 *
 * @internal
 */
export interface ProcessTime {
  readonly pid: number;
  readonly parent: number;
  /** Its own time and that of children it has waited for. */
  readonly seconds: number;
}

/**
 * Time of all processes that are neither the given one, nor its descendants, nor kernel threads.
 *
 * @internal
 */
export function foreignSeconds(processes: readonly ProcessTime[], own: number): number {
  const parents = new Map(processes.map(({ pid, parent }) => [pid, parent]));
  // 2 is kthreadd, the parent of every kernel thread.
  const belongs = (pid: number): boolean => {
    for (let at: number | undefined = pid; at !== undefined && at > 1; at = parents.get(at)) {
      if (at === own || at === 2) return true;
    }
    return false;
  };
  return processes.reduce((sum, entry) => (belongs(entry.pid) ? sum : sum + entry.seconds), 0);
}

function readProcess(pid: string): ProcessTime[] {
  try {
    return [parseProcess(readFileSync(`/proc/${pid}/stat`, 'utf8'))];
  } catch (error) {
    // It ended since the directory was read; its time is in its parent's.
    if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) return [];
    throw error;
  }
}

/**
 * Reads `/proc/<pid>/stat`; the command name, in parentheses, may hold spaces and parentheses.
 *
 * @internal
 */
export function parseProcess(text: string): ProcessTime {
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  // Fields 14 to 17 of proc(5): utime, stime, cutime, cstime; the first after the name is field 3.
  const ticks = fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0);
  return { pid: Number.parseInt(text), parent: Number(fields[1]), seconds: ticks / TICKS_PER_SECOND };
}
