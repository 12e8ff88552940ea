import type { IpAddress } from '../ip/address.js';
import type { Prefix } from '../ip/prefix.js';
import type { Revision } from '../lease/record.js';
import type { ValueCondition } from '../lease/store.js';
import { canSpread } from './address-spread.js';
import type { PoolContext } from './pool-context.js';
import type { PoolKeys } from './pool-keys.js';
import { type AddressMask, addressesIn } from './pool-layout.js';
import type { Block, PoolState } from './pool-state.js';
import { decodeBlock, encodeBlock } from './records.js';

/** Changes of others that a write may meet before it is left to the next time. */
const MAX_CONFLICTS = 8;

/** Leases blocks, writes what this host has of them, and gives them back; whoever calls has the turn of the pool. */
export class PoolBlocks {
  constructor(
    private readonly state: PoolState,
    private readonly keys: PoolKeys,
    private readonly context: PoolContext,
  ) {}

  /** Has etcd know what this host wants of a block that it has. */
  async settle(block: Block, signal: AbortSignal, without?: IpAddress): Promise<void> {
    for (let conflicts = 0; conflicts < MAX_CONFLICTS; conflicts++) {
      if (block.revision === undefined) await this.reread(block, signal);
      if (!this.state.blocks.has(block.block.toString())) return; // another host's by now
      if (await this.#write(block, this.state.wanted(block, without), signal)) return;
      await this.keys.listKeyed(signal);
      await this.reread(block, signal);
    }
  }

  /**
   * Writes a block as it was read last, or that was absent then.
   *
   * @returns false if it is not as it was read, or an address that is to be added has a key of its own.
   */
  async #write(block: Block, wanted: AddressMask, signal: AbortSignal): Promise<boolean> {
    const { host, store, lease } = this.context;
    const path = this.keys.paths.block(block.block);
    const kept = block.own & wanted;
    if (kept !== block.own) {
      block.own = kept;
      await this.context.save();
    }
    const text = encodeBlock({ host, own: wanted, used: this.state.used(block.block) & wanted });
    const { generation } = lease;
    if (block.text === text && block.own === wanted && block.generation === generation) return true;
    const { revision: before } = block;
    const conditions: readonly ValueCondition[] = [
      before === undefined ? { absent: path } : { path, revision: before },
      ...addressesIn(block.block, wanted & ~kept).map((address) => ({ noneBelow: this.keys.paths.address(address) })),
    ];
    let revision: Revision | undefined;
    try {
      const puts = [{ path, text, etcdLeaseId: this.keys.etcdLeaseId() }];
      revision = await store.transactValues({ conditions, puts }, signal);
      if (revision === undefined) {
        const current = await this.keys.read(path, signal);
        // Nobody but this host writes so, and no earlier write of it can follow: each was for an older revision.
        if (current?.text === text && current.revision !== before) ({ revision } = current);
      }
    } catch (error) {
      this.keys.suspect();
      block.revision = undefined; // to be read again
      throw error;
    }
    if (revision === undefined) return false;
    const isMore = wanted !== block.own;
    Object.assign(block, { own: wanted, text, revision, generation });
    if (isMore && this.state.blocks.has(block.block.toString())) await this.context.save();
    return true;
  }

  /** Reads a block that this host has; what etcd does not say of it is no longer this host's. */
  async reread(block: Block, signal: AbortSignal): Promise<void> {
    const entry = await this.keys.read(this.keys.paths.block(block.block), signal);
    const record = entry && decodeBlock(entry.text);
    block.revision = entry?.revision;
    block.text = entry?.text;
    const before = block.own;
    block.own &= record?.host === this.context.host ? record.own : 0n;
    if (entry !== undefined && record?.host !== this.context.host) this.state.blocks.delete(block.block.toString());
    if (block.own === before) return;
    this.state.verifiedGeneration = -1; // what is in use has to be looked after
    await this.context.save();
    this.context.changed();
  }

  /** Leases a block. @returns false if none is free. */
  async lease(signal: AbortSignal): Promise<boolean> {
    const { counters, log, clock } = this.context;
    for (let conflicts = 0; conflicts < MAX_CONFLICTS; conflicts++) {
      const taken = new Set((await this.keys.list(this.keys.paths.blocks, signal)).map(({ path }) => path));
      // The lowest one; after a conflict any other, since many hosts may have begun at the same time.
      const start = conflicts === 0 ? 0 : Math.floor(clock.random() * this.state.layout.blockCount);
      const made = this.#firstWanted(taken, start);
      if (made === undefined) return false;
      const { block } = made;
      if (await this.#write(made, this.state.wanted(made), signal)) {
        if (!(await this.#isBlockStill(made, signal))) continue;
        this.state.blocks.set(block.toString(), made);
        counters.blocksLeased++;
        log.info('leased a block of container addresses', { subnet: block.toString() });
        await this.context.save();
        return true;
      }
      await this.keys.listKeyed(signal);
    }
    return false;
  }

  /**
   * Whether the network is cut into such blocks, now that one is leased: the first host to tell what the network is may have
   * decided that meanwhile, which it does only as long as nobody has a block. One that is none is given back.
   */
  async #isBlockStill({ block, revision }: Block, signal: AbortSignal): Promise<boolean> {
    if (this.state.properties !== undefined || !canSpread(this.state.identity.range)) return true;
    try {
      await this.keys.readAgreed(signal);
    } catch (error) {
      this.keys.suspect();
      throw error;
    }
    if (this.state.layout.isBlock(block)) return true;
    await this.keys.drop(this.keys.paths.block(block), revision, signal);
    return false;
  }

  /** From an index on, and then from the beginning: a block that nobody has, if possible one not given out of before. */
  #firstWanted(taken: ReadonlySet<string>, start: number): Block | undefined {
    const { blockCount } = this.state.layout;
    const { worn } = this.state;
    let second: Block | undefined;
    for (let count = 0; count < blockCount; count++) {
      const block = this.state.layout.block((start + count) % blockCount);
      const made = newBlock(block);
      if (taken.has(this.keys.paths.block(block)) || this.state.room(made) === 0) continue;
      if (!worn.has(block.toString())) return made;
      second ??= made;
    }
    return second;
  }

  async giveBack(block: Block, signal: AbortSignal): Promise<void> {
    this.state.blocks.delete(block.block.toString());
    await this.keys.drop(this.keys.paths.block(block.block), block.revision, signal);
    this.context.counters.blocksReturned++;
  }
}

/** One that etcd has confirmed nothing of yet. */
export function newBlock(block: Prefix): Block {
  return {
    block,
    own: 0n,
    revision: undefined,
    text: undefined,
    generation: -1,
    releasedAtMs: Number.NEGATIVE_INFINITY,
  };
}
