import { type PoolId, parsePoolId } from '../../container/pool-id.js';
import type { Prefix } from '../../ip/prefix.js';
import type { PluginState } from './state.js';

/** Far more than the networks of one host; beyond that the oldest one that no network has is forgotten. */
const MAX_POOLS = 1024;

/**
 * Which pool a network has. Docker tells a new network its subnets and not the pools that it asked for before, and two
 * pools of different names can have the same subnet: a network gets the newest one that no other network has.
 */
export class PoolClaims {
  constructor(private readonly state: PluginState) {}

  /** Docker was given the pool. */
  async note(id: PoolId): Promise<void> {
    await this.state.change((before) => {
      const others = before.pools.filter((each) => each !== id);
      return { ...before, pools: [...others, id].slice(-MAX_POOLS) };
    });
  }

  /** Docker has given the pool back. */
  async forget(id: PoolId): Promise<void> {
    await this.state.change((before) =>
      before.pools.includes(id) ? { ...before, pools: before.pools.filter((each) => each !== id) } : before,
    );
  }

  /** The pool for a network with that subnet; undefined if Docker was given none. */
  poolFor(networkId: string, subnet: Prefix): PoolId | undefined {
    const { networks, pools } = this.state.contents;
    const taken = new Set(
      networks.filter(({ id }) => id !== networkId).flatMap(({ subnets }) => subnets.map(({ pool }) => pool)),
    );
    return pools.findLast((id) => !taken.has(id) && parsePoolId(id).subnet.equals(subnet));
  }
}
