import type { Daemon } from '../test/support/daemon.js';

const CALLS = ['tunReads', 'tunWrites', 'socketSends', 'socketReceives'] as const;

/**
 * System calls on the packet path so far, of all tunnels of these daemons together.
 *
 * @returns `undefined` when no daemon has a tunnel, or is not ours and has no status.
 */
export async function tunnelSystemCalls(daemons: readonly Daemon[]): Promise<number | undefined> {
  if (daemons.some(({ options }) => options.stock !== undefined)) return undefined;
  const counts = await Promise.all(daemons.map(async (daemon) => countCalls(await daemon.status())));
  const known = counts.filter((count) => count !== undefined);
  return known.length === 0 ? undefined : known.reduce((sum, count) => sum + count, 0);
}

/**
 * Adds up the system calls of every tunnel in a status document, wherever in it they are.
 *
 * @internal
 */
export function countCalls(status: unknown): number | undefined {
  if (typeof status !== 'object' || status === null) return undefined;
  const record = status as Readonly<Record<string, unknown>>;
  const parts = CALLS.every((call) => typeof record[call] === 'number')
    ? CALLS.map((call) => Number(record[call]))
    : Object.values(record).flatMap((value) => countCalls(value) ?? []);
  return parts.length === 0 ? undefined : parts.reduce((sum, part) => sum + part, 0);
}
