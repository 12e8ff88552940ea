import type { ValueEntry } from '../lease/store.js';
import { newBlock } from './pool-blocks.js';
import type { PoolContext } from './pool-context.js';
import type { PoolKeys } from './pool-keys.js';
import { addressesIn } from './pool-layout.js';
import type { PoolState } from './pool-state.js';
import { decodeBlock, decodeHolder } from './records.js';

/**
 * By then a write that was given up has been carried out or never will be: etcd itself gives it up after two elections and
 * five seconds (etcd `server/config/config.go`, ReqTimeout), here 7 s with its defaults.
 */
const LATE_MS = 15_000;

/** Clears up in etcd what this host has left there without knowing; or takes it up, where its book was lost. */
export class PoolSweep {
  #hasSwept = false;

  constructor(
    private readonly state: PoolState,
    private readonly keys: PoolKeys,
    private readonly context: PoolContext,
  ) {}

  /** Finds what etcd has of this host that it does not know of: what a lost answer or a crash has left. */
  async run(signal: AbortSignal): Promise<void> {
    const adopts = this.context.isBookLost && !this.#hasSwept && !this.state.isReleased;
    const suspectAtMs = this.keys.suspectAtMs;
    const { clock } = this.context;
    const isSettled = suspectAtMs !== undefined && clock.monotonicMs() - suspectAtMs >= LATE_MS;
    for (const entry of await this.keys.list(this.keys.paths.blocks, signal))
      await this.#sweepBlock(entry, adopts, signal);
    for (const entry of await this.keys.listKeyed(signal)) await this.#sweepAddress(entry, adopts, signal);
    this.#hasSwept = true;
    if (isSettled && this.keys.suspectAtMs === suspectAtMs) this.keys.suspectAtMs = undefined;
  }

  async #sweepBlock({ path, text, revision }: ValueEntry, adopts: boolean, signal: AbortSignal): Promise<void> {
    const record = decodeBlock(text);
    if (record?.host !== this.context.host) return;
    const block = this.keys.blockAt(path);
    if (block !== undefined && this.state.blocks.has(block.toString())) return;
    if (block === undefined || !adopts) {
      await this.context.store.transactValues({ conditions: [{ path, revision }], deletes: [path] }, signal);
      return;
    }
    for (const address of addressesIn(block, record.used)) this.state.adopt(address);
    this.state.blocks.set(block.toString(), { ...newBlock(block), revision, text });
  }

  async #sweepAddress({ path, text, revision }: ValueEntry, adopts: boolean, signal: AbortSignal): Promise<void> {
    const { host, store } = this.context;
    const found = this.keys.addressAt(path);
    if (found === undefined || decodeHolder(text)?.host !== host) return;
    const { address, holder } = found;
    const key = address.toString();
    const isContainer = holder === 'container';
    if (this.state.pending.has(key) || (isContainer ? this.state.singles : this.state.shared).has(key)) return;
    const use = this.state.uses.get(key);
    if (isContainer && (adopts || use?.isLost === false)) {
      this.state.adopt(address);
      this.state.singles.set(key, { address, revision, generation: -1 });
      return;
    }
    await store.transactValues({ conditions: [{ path, revision }], deletes: [path] }, signal);
  }
}
