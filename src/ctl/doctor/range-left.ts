import { isSpread } from '../../container/address-spread.js';
import { type ClusterNetwork, networkTitle } from '../../container/cluster-networks.js';
import { PoolLayout } from '../../container/pool-layout.js';
import { IpAddress } from '../../ip/address.js';
import { Prefix } from '../../ip/prefix.js';
import type { AddressPoolStatus } from '../../observe/container-status.js';

/** How much of a range one host can still give to containers that ask for no address of their own. */
export interface RangeLeft {
  /** In its own blocks, and in blocks that no host has leased. */
  readonly left: number;
  /** In the whole range. */
  readonly all: number;
}

/** Whether a network of the cluster is what the addresses of a pool belong to. */
export function isOf(network: ClusterNetwork, pool: Pick<AddressPoolStatus, 'network' | 'subnet'>): boolean {
  return networkTitle(network) === pool.network && network.subnet.toString() === pool.subnet;
}

/** @param network - of the cluster, to which the pool belongs. */
export function rangeLeft(pool: AddressPoolStatus, network: ClusterNetwork): RangeLeft {
  const { blocks, addresses, subnet, record } = network;
  const layout = new PoolLayout({ subnet, range: Prefix.parse(pool.range) }, isSpread(record?.properties));
  const leased = new Set(blocks.filter(({ block }) => layout.isBlock(block)).map(({ block }) => block.toString()));
  const ends = [subnet.address, subnet.last].filter((each) => !layout.isUsable(each));
  const never = [...ends, layout.gateway].map((each) => each.toString());
  const taken = [
    ...addresses.map(({ address }) => address.toString()),
    ...pool.shared,
    ...pool.seen.map(({ address }) => address),
  ];
  const count = (texts: readonly string[], isCounted: (block: string) => boolean): number =>
    [...new Set(texts)].filter((text) => {
      const block = layout.blockOf(IpAddress.parse(text))?.toString();
      return block !== undefined && isCounted(block);
    }).length;
  const { blockCount, blockSize } = layout;
  return {
    left: pool.free + (blockCount - leased.size) * blockSize - count([...never, ...taken], (each) => !leased.has(each)),
    all: blockCount * blockSize - count(never, () => true),
  };
}
