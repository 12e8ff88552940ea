import { isOverlayError } from '../errors.js';
import { ASK_MS, type AddressClaims } from './address-claims.js';
import type { PoolBlocks } from './pool-blocks.js';
import type { PoolContext } from './pool-context.js';
import type { PoolKeys } from './pool-keys.js';
import type { Holding, PoolState, Shared, Use } from './pool-state.js';
import type { PoolSweep } from './pool-sweep.js';

/** What {@link PoolVerification} is made of. */
export interface PoolVerificationParts {
  readonly state: PoolState;
  readonly keys: PoolKeys;
  readonly blocks: PoolBlocks;
  readonly sweep: PoolSweep;
  readonly claims: AddressClaims;
  readonly context: PoolContext;
}

/** Compares what this host has of a pool with etcd, and has etcd know it again; whoever calls has the turn of the pool. */
export class PoolVerification {
  readonly #state: PoolState;
  readonly #keys: PoolKeys;
  readonly #blocks: PoolBlocks;
  readonly #sweep: PoolSweep;
  readonly #claims: AddressClaims;
  readonly #context: PoolContext;

  constructor(parts: PoolVerificationParts) {
    this.#state = parts.state;
    this.#keys = parts.keys;
    this.#blocks = parts.blocks;
    this.#sweep = parts.sweep;
    this.#claims = parts.claims;
    this.#context = parts.context;
  }

  /** Everything of the pool, one after the other. */
  async run(signal: AbortSignal): Promise<void> {
    const { lease } = this.#context;
    const { generation } = lease;
    const isNew = this.#state.verifiedGeneration !== generation;
    if (!this.#state.isReleased) {
      const former = await this.#keys.join(isNew, signal);
      if (former !== undefined && this.#state.isTold) this.#context.rivalFound();
      this.#state.isTold = true;
      this.#state.isJoined = true;
    }
    if (this.#keys.suspectAtMs !== undefined) await this.#sweep.run(signal);
    for (const block of [...this.#state.blocks.values()]) {
      await this.#blocks.reread(block, signal);
      await this.#blocks.settle(block, signal);
    }
    for (const single of [...this.#state.singles.values()]) await this.#verifySingle(single, signal);
    for (const shared of [...this.#state.shared.values()]) await this.#verifyShared(shared, signal);
    for (const use of [...this.#state.uses.values()]) await this.#verifyUse(use, signal);
    if (lease.generation === generation) this.#state.verifiedGeneration = generation;
    await this.#context.save();
  }

  async #verifySingle(single: Holding, signal: AbortSignal): Promise<void> {
    const { address } = single;
    const text = address.toString();
    try {
      // Of those that are not needed any more, the key is confirmed as well: it is deleted as it is now.
      Object.assign(single, await this.#claims.claim(address, 'container', { askMs: 0, isInTurn: true }, signal));
    } catch (error) {
      if (!isOverlayError(error, 'ERR_ADDRESS_TAKEN')) throw error;
      this.#state.singles.delete(text);
    }
  }

  async #verifyShared(shared: Shared, signal: AbortSignal): Promise<void> {
    try {
      Object.assign(
        shared,
        await this.#claims.claim(shared.address, shared.kind, { askMs: ASK_MS, isInTurn: true }, signal),
      );
    } catch (error) {
      if (!isOverlayError(error, 'ERR_ADDRESS_TAKEN')) throw error;
      this.#context.log.error('a gateway or auxiliary address is a container’s', {
        address: shared.address.toString(),
        error,
      });
    }
  }

  /** A use without block or key of this host: gets a key if nobody has the address, else it is lost. */
  async #verifyUse(use: Use, signal: AbortSignal): Promise<void> {
    const { address } = use;
    const text = address.toString();
    if (this.#state.holdersOf(address).length > 0) {
      use.isLost = false;
      return;
    }
    try {
      this.#state.singles.set(text, {
        address,
        ...(await this.#claims.claim(address, 'container', { askMs: ASK_MS / 5, isInTurn: true }, signal)),
      });
      use.isLost = false;
    } catch (error) {
      if (!isOverlayError(error, 'ERR_ADDRESS_TAKEN')) throw error;
      if (use.isLost) return;
      use.isLost = true;
      this.#context.counters.lost++;
      this.#context.log.error('a container of this host has lost its address', {
        address: text,
        error,
        hint: 'stop it, or the container that has the address by now; the lease of this host had run out',
      });
    }
  }
}
