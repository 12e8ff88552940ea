import { type OverlayError, isOverlayError } from '../errors.js';
import type { IpAddress } from '../ip/address.js';
import type { Prefix } from '../ip/prefix.js';
import type { Revision } from '../lease/record.js';
import type { ValueCondition, ValueEntry } from '../lease/store.js';
import type { AddressKind } from './addresses.js';
import type { PoolBlocks } from './pool-blocks.js';
import type { PoolContext } from './pool-context.js';
import { taken } from './pool-errors.js';
import type { PoolKeys } from './pool-keys.js';
import { addressesIn, maskOf } from './pool-layout.js';
import type { PoolState } from './pool-state.js';
import type { PoolSweep } from './pool-sweep.js';
import { type BlockRecord, decodeBlock, decodeHolder, encodeHolder } from './records.js';
import type { Turns } from '../turns.js';

/** How long the host that may give out an address is asked for it; it answers at once, unless it is gone. */
export const ASK_MS = 5000;
const ASK_POLL_MS = 100;

/** The host that may give an address out without asking, and whether it has. */
interface BlockOwner {
  readonly host: string;
  readonly isUsed: boolean;
}

/** A host tells etcd of a release soon after it has answered for it: so long it is waited for, where an address is asked for by name. */
const RELEASE_MS = 1000;

/** Changes of others that a write may meet before it is left to the next time. */
const MAX_CONFLICTS = 8;

/** What {@link AddressClaims} are made of. */
export interface AddressClaimsParts {
  readonly state: PoolState;
  readonly keys: PoolKeys;
  readonly blocks: PoolBlocks;
  readonly sweep: PoolSweep;
  readonly turns: Turns;
  readonly context: PoolContext;
}

/** Keys for single addresses: of containers, gateways and auxiliary ones. */
export class AddressClaims {
  readonly #state: PoolState;
  readonly #keys: PoolKeys;
  readonly #blocks: PoolBlocks;
  readonly #sweep: PoolSweep;
  readonly #turns: Turns;
  readonly #context: PoolContext;

  constructor(parts: AddressClaimsParts) {
    this.#state = parts.state;
    this.#keys = parts.keys;
    this.#blocks = parts.blocks;
    this.#sweep = parts.sweep;
    this.#turns = parts.turns;
    this.#context = parts.context;
  }

  /**
   * Writes a key for an address, on the condition that no host has it otherwise.
   *
   * @param options.askMs - how long the host is asked that may give it out without asking; 0 not at all.
   * @param options.isInTurn - whether the caller has the turn.
   * @throws {@link OverlayError} `ERR_ADDRESS_TAKEN`
   */
  async claim(
    address: IpAddress,
    kind: AddressKind,
    { askMs, isInTurn }: { readonly askMs: number; readonly isInTurn: boolean },
    signal: AbortSignal,
  ): Promise<{ readonly revision: Revision; readonly generation: number }> {
    const { host, clock } = this.#context;
    const block = this.#state.layout.blockOf(address);
    const path = kind === 'container' ? this.#keys.paths.container(address) : this.#keys.paths.shared(address, host);
    const untilMs = clock.monotonicMs() + askMs;
    const freeByMs = clock.monotonicMs() + (isInTurn ? 0 : Math.min(askMs, RELEASE_MS));
    let asked: string | undefined;
    try {
      for (let conflicts = 0; conflicts < MAX_CONFLICTS;) {
        signal.throwIfAborted();
        const keys = await this.#keys.list(this.#keys.paths.address(address), signal);
        const mine = keys.find((entry) => entry.path === path && decodeHolder(entry.text)?.host === host);
        const entry = block && (await this.#keys.read(this.#keys.paths.block(block), signal));
        const owner = mine === undefined && entry ? this.#ownerOf(entry, block, address) : undefined;
        const refusal = mine === undefined ? this.#refusalOf(address, kind, keys, owner) : undefined;
        if (refusal !== undefined) {
          if (clock.monotonicMs() >= freeByMs) throw refusal;
          await clock.sleep(ASK_POLL_MS, signal);
        } else if (owner === undefined) {
          // One that an earlier try has left is written again, so that nothing that is still under way can delete it.
          const conditions = mine
            ? [{ path, revision: mine.revision }]
            : this.#conditionsFor(address, kind, block, entry);
          const made = await this.#put(path, kind, conditions, signal);
          if (made !== undefined) return made;
          conflicts++;
        } else if (owner.host === host) {
          const shed = (): Promise<void> => this.#shed(address, kind, signal);
          await (isInTurn ? shed() : this.#turns.take(shed, signal));
          conflicts++;
        } else {
          if (clock.monotonicMs() >= untilMs) {
            throw taken(
              this.#state.identity,
              address,
              `host ${owner.host} may give it to a container at any time, and does not answer`,
            );
          }
          asked ??= await this.#ask(owner.host, address, signal);
          await clock.sleep(ASK_POLL_MS, signal);
        }
      }
      throw taken(this.#state.identity, address, 'others ask for it at the same time');
    } catch (error) {
      if (!isOverlayError(error, 'ERR_ADDRESS_TAKEN')) this.#keys.suspect();
      throw error;
    } finally {
      if (asked !== undefined) void this.#withdraw(asked);
    }
  }

  /** Leases one address of the range that no host gives out without asking. @returns false if there is none. */
  async leaseSingle(signal: AbortSignal): Promise<boolean> {
    const entries = await this.#keys.list(this.#keys.paths.blocks, signal);
    await this.#keys.listKeyed(signal);
    const blocks = new Map(entries.map(({ path, text }) => [path, decodeBlock(text)]));
    let conflicts = 0;
    for (const address of this.#unowned(blocks)) {
      try {
        const claimed = await this.claim(address, 'container', { askMs: 0, isInTurn: true }, signal);
        this.#state.singles.set(address.toString(), { address, ...claimed });
        return true;
      } catch (error) {
        if (!isOverlayError(error, 'ERR_ADDRESS_TAKEN') || ++conflicts >= MAX_CONFLICTS) throw error;
      }
    }
    return false;
  }

  /** Deletes the keys of single and shared addresses that nobody needs. */
  async dropUnused(signal: AbortSignal): Promise<void> {
    for (const [text, single] of this.#state.singles) {
      if (this.#state.uses.has(text) || this.#state.pending.has(text)) continue;
      this.#state.singles.delete(text);
      await this.#keys.drop(this.#keys.paths.container(single.address), single.revision, signal);
    }
    for (const [text, shared] of this.#state.shared) {
      if (!shared.isReleased || this.#state.pending.has(text)) continue;
      this.#state.shared.delete(text);
      await this.#keys.drop(this.#keys.paths.shared(shared.address, this.#context.host), shared.revision, signal);
    }
  }

  /** Why another host has the address; undefined if none has. */
  #refusalOf(
    address: IpAddress,
    kind: AddressKind,
    keys: readonly ValueEntry[],
    owner: BlockOwner | undefined,
  ): OverlayError | undefined {
    const container = this.#keys.paths.container(address);
    for (const { path, text } of keys) {
      if (kind !== 'container' && path !== container) continue; // shared with other hosts
      const holder = decodeHolder(text);
      const what = holder?.kind === 'container' ? 'a container of' : `the ${holder?.kind ?? 'unreadable'} key of`;
      return taken(this.#state.identity, address, `${what} host ${holder?.host ?? 'unknown'} has it`);
    }
    if (owner?.isUsed !== true || owner.host === this.#context.host) return undefined;
    return taken(this.#state.identity, address, `a container of host ${owner.host} has it`);
  }

  /** Who may give an address out without asking; undefined if nobody. */
  #ownerOf(entry: ValueEntry, block: Prefix, address: IpAddress): BlockOwner | undefined {
    const record = decodeBlock(entry.text);
    if (record === undefined) return { host: `unknown, in the unreadable key ${entry.path}`, isUsed: true };
    const mask = maskOf(block, address);
    return (record.own & mask) === 0n ? undefined : { host: record.host, isUsed: (record.used & mask) !== 0n };
  }

  #conditionsFor(
    address: IpAddress,
    kind: AddressKind,
    block: Prefix | undefined,
    entry: ValueEntry | undefined,
  ): readonly ValueCondition[] {
    const atBlock: readonly ValueCondition[] =
      entry !== undefined
        ? [{ path: entry.path, revision: entry.revision }]
        : block !== undefined
          ? [{ absent: this.#keys.paths.block(block) }]
          : [];
    return kind === 'container'
      ? [...atBlock, { noneBelow: this.#keys.paths.address(address) }]
      : [...atBlock, { absent: this.#keys.paths.container(address) }];
  }

  async #put(
    path: string,
    kind: AddressKind,
    conditions: readonly ValueCondition[],
    signal: AbortSignal,
  ): Promise<{ readonly revision: Revision; readonly generation: number } | undefined> {
    const { host, store, lease } = this.#context;
    const { generation } = lease;
    const text = encodeHolder({ host, kind });
    const revision = await store.transactValues(
      { conditions, puts: [{ path, text, etcdLeaseId: this.#keys.etcdLeaseId() }] },
      signal,
    );
    return revision === undefined ? undefined : { revision, generation };
  }

  /** Strikes an address out of the own block, so that it can have a key of its own. */
  async #shed(address: IpAddress, kind: AddressKind, signal: AbortSignal): Promise<void> {
    const block = this.#state.blockOf(address);
    if (block !== undefined) {
      await this.#blocks.reread(block, signal);
      await this.#blocks.settle(block, signal, kind === 'container' ? address : undefined);
    } else await this.#sweep.run(signal);
  }

  async #ask(owner: string, address: IpAddress, signal: AbortSignal): Promise<string> {
    const { host, store, counters } = this.#context;
    const path = this.#keys.paths.request(owner, address);
    counters.asked++;
    const text = encodeHolder({ host, kind: 'container' });
    await store.transactValues(
      { conditions: [], puts: [{ path, text, etcdLeaseId: this.#keys.etcdLeaseId() }] },
      signal,
    );
    return path;
  }

  async #withdraw(request: string): Promise<void> {
    try {
      await this.#context.store.transactValues({ conditions: [], deletes: [request] });
    } catch {} // it ends with the lease of this host, and whoever was asked deletes it
  }

  /** Addresses of the range that nobody has, as far as is known; last those that were asked for by name. */
  *#unowned(blocks: ReadonlyMap<string, BlockRecord | undefined>): Generator<IpAddress> {
    const fixed: IpAddress[] = [];
    for (let index = 0; index < this.#state.layout.blockCount; index++) {
      const block = this.#state.layout.block(index);
      const path = this.#keys.paths.block(block);
      const record = blocks.get(path);
      if (record === undefined && blocks.has(path)) continue; // unreadable
      for (const address of addressesIn(block, this.#state.layout.givable(block) & ~(record?.own ?? 0n))) {
        const text = address.toString();
        if (this.#state.keyed.has(text) || !this.#state.isFree(address)) continue;
        if (this.#state.fixed.has(text)) fixed.push(address);
        else yield address;
      }
    }
    yield* fixed;
  }
}
