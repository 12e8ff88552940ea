import type { Command, Outcome } from './decide.js';
import { type Revision, isAfter } from './record.js';
import { formatSubnetKey } from './subnet-key.js';
import type { World } from './world.js';

/** Refusals in a row after which what is in the way should have been told, nearly three seconds with their pauses. */
const MANY_REFUSALS = 7;

/**
 * Whether the outcome of a command cannot be if the world that it was decided on is true: under the key lies what was
 * written before the newest change of that world, and the world has it otherwise or not at all; or nothing is found in
 * the way, and the same is refused again and again.
 *
 * @remarks A store that was restored, which nothing told from the one that was known, may answer like that. What was
 * written later is no contradiction: the world has only not told of it yet.
 * @param refusals - in a row, before this one.
 */
export function contradicts(world: World, command: Command, outcome: Outcome, refusals: number): boolean {
  const obstacle = findObstacle(command, outcome);
  if (obstacle === undefined) return false;
  if (obstacle === 'unknown') return refusals + 1 >= MANY_REFUSALS;
  if (isAfter(obstacle.revision, world.revision)) return false;
  return (world.leases.get(obstacle.key) ?? world.bad.get(obstacle.key))?.revision !== obstacle.revision;
}

/** What was in the way of a command that was refused; undefined if it was not. */
function findObstacle(
  command: Command,
  outcome: Outcome,
): { readonly key: string; readonly revision: Revision } | 'unknown' | undefined {
  if (outcome.kind === 'create' && command.kind === 'create') {
    const { result } = outcome;
    if (result.outcome === 'created') return undefined;
    return result.revision === undefined
      ? 'unknown'
      : { key: formatSubnetKey(command.subnets), revision: result.revision };
  }
  if (outcome.kind !== 'reuse' && outcome.kind !== 'publish') return undefined;
  const { result } = outcome;
  return result.outcome === 'updated' ? undefined : (result.now.lease ?? result.now.bad ?? 'unknown');
}
