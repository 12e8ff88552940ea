import type { TunnelStatus } from '../src/observe/status.js';
import type { Daemon } from '../test/support/daemon.js';

/**
 * System calls on the packet path so far, of all tunnels of these daemons together.
 *
 * @returns `undefined` when no daemon has a tunnel, or is not ours and has no status.
 */
export async function tunnelSystemCalls(daemons: readonly Daemon[]): Promise<number | undefined> {
  if (daemons.some(({ options }) => options.stock !== undefined)) return undefined;
  const statuses = await Promise.all(daemons.map(async (daemon) => daemon.status()));
  const tunnels = statuses.flatMap((status) => status.tunnels);
  return tunnels.length === 0 ? undefined : tunnels.reduce((sum, tunnel) => sum + countCalls(tunnel), 0);
}

function countCalls({ counters }: TunnelStatus): number {
  return counters.tunReads + counters.tunWrites + counters.socketSends + counters.socketReceives;
}
