import type { ContainerAddresses } from '../../container/addresses.js';
import { type PoolId, parsePoolId } from '../../container/pool-id.js';
import type { IpAddress } from '../../ip/address.js';
import type { Prefix } from '../../ip/prefix.js';
import type { NetworkSubnet } from './network.js';
import type { PluginState } from './state.js';

/** Far more than the networks of one host; beyond that the one that is the least likely to be taken is forgotten. */
const MAX_POOLS = 1024;

/**
 * Who on this host has which pool. A pool is a subnet of a network of the cluster: all networks of this host with that
 * subnet and name share it, Docker's as well as those for attachments. It is left when the last one of them is gone, and
 * Docker, which may use it under a driver of its own, has given it back.
 */
export class PoolClaims {
  constructor(
    private readonly state: PluginState,
    private readonly addresses: Pick<ContainerAddresses, 'releaseAddress' | 'releasePool'>,
  ) {}

  /** Docker was given the pool. */
  async note(id: PoolId): Promise<void> {
    await this.state.change((before) => {
      const others = before.pools.filter((each) => each !== id);
      return { ...before, pools: [...others, id].slice(-MAX_POOLS) };
    });
  }

  /**
   * Which pool a new network with that subnet has; undefined if Docker was given none.
   *
   * @remarks Docker tells a new network its subnets and not the pools that it asked for before, and two pools of
   * different names can have the same subnet: it is the newest one, which then stands behind all others.
   */
  poolFor(subnet: Prefix): PoolId | undefined {
    return this.state.contents.pools.findLast((id) => parsePoolId(id).subnet.equals(subnet));
  }

  /** Pools in the order in which new networks take them, last first, after one has taken some. */
  afterTaking(pools: readonly PoolId[], subnets: readonly NetworkSubnet[]): readonly PoolId[] {
    const isTaken = (id: PoolId): boolean => subnets.some(({ pool }) => pool === id);
    return [...pools.filter(isTaken), ...pools.filter((id) => !isTaken(id))];
  }

  /** Docker gives the pool back. */
  async giveBack(id: PoolId): Promise<void> {
    if (!this.hasNetwork(id)) await this.addresses.releasePool(id);
    await this.state.change((before) =>
      before.pools.includes(id) ? { ...before, pools: before.pools.filter((each) => each !== id) } : before,
    );
  }

  /** Leaves a pool that Docker has not asked for, unless a network has it. */
  async leave(id: PoolId): Promise<void> {
    if (!this.hasNetwork(id) && !this.isDockers(id)) await this.addresses.releasePool(id);
  }

  /** Takes an address back, unless it is a gateway or an auxiliary address of a network that is still there. */
  async releaseAddress(id: PoolId, address: IpAddress): Promise<void> {
    if (!this.isShared(id, address)) await this.addresses.releaseAddress(id, address);
  }

  /**
   * After a network is gone: leaves what nobody else on this host has. Where Docker has the pool, it may have asked for
   * the same addresses, and gives them back itself.
   */
  async releaseSubnets(subnets: readonly NetworkSubnet[]): Promise<void> {
    await this.releaseHostAddresses(subnets);
    for (const { pool, gateway, auxiliary } of subnets) {
      if (pool === undefined || this.isDockers(pool)) continue;
      for (const address of gateway === undefined ? auxiliary : [gateway, ...auxiliary]) {
        await this.releaseAddress(pool, address);
      }
      await this.leave(pool);
    }
  }

  /** Gives up what this host had itself in networks that are gone, unless another one has the same. */
  async releaseHostAddresses(subnets: readonly NetworkSubnet[]): Promise<void> {
    for (const { pool, host } of subnets) {
      if (pool === undefined || host === undefined) continue;
      const isKept = this.subnetsOn(pool).some((each) => each.host?.equals(host) === true);
      if (!isKept) await this.addresses.releaseAddress(pool, host);
    }
  }

  /** Whether a network of this host has the pool. */
  hasNetwork(id: PoolId): boolean {
    return this.subnetsOn(id).length > 0;
  }

  /** Whether it is the gateway or an auxiliary address of a network of this host. */
  isShared(id: PoolId, address: IpAddress): boolean {
    return this.subnetsOn(id).some(
      ({ gateway, auxiliary }) => gateway?.equals(address) === true || auxiliary.some((each) => each.equals(address)),
    );
  }

  private isDockers(id: PoolId): boolean {
    return this.state.contents.pools.includes(id);
  }

  private subnetsOn(id: PoolId): readonly NetworkSubnet[] {
    return this.state.contents.networks.flatMap(({ subnets }) => subnets.filter(({ pool }) => pool === id));
  }
}
