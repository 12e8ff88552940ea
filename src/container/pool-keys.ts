import { IpAddress } from '../ip/address.js';
import type { Prefix } from '../ip/prefix.js';
import type { EtcdLeaseId, Revision } from '../lease/record.js';
import type { ValueEntry } from '../lease/store.js';
import type { NetworkProperties } from './addresses.js';
import { type RecordContext, joinNetwork } from './network-record.js';
import type { PoolContext } from './pool-context.js';
import { unconfirmed } from './pool-errors.js';
import type { PoolState } from './pool-state.js';
import { PoolPaths, decodeRecord } from './records.js';

/** The keys of one pool in etcd, read and deleted; who writes them is {@link PoolBlocks} and {@link AddressClaims}. */
export class PoolKeys {
  readonly paths: PoolPaths;
  /**
   * When, on the monotonic clock, something was last written that nobody acknowledged, so that etcd may have, or get, what
   * this host does not know of.
   */
  suspectAtMs: number | undefined = Number.NEGATIVE_INFINITY;

  constructor(
    private readonly state: PoolState,
    private readonly context: PoolContext,
  ) {
    this.paths = new PoolPaths(state.identity);
  }

  /** What is needed to agree with other hosts on the network. */
  get records(): RecordContext {
    const { host, instance, store, lease } = this.context;
    return { host, instance, store, paths: this.paths, identity: this.state.identity, etcdLeaseId: lease.id };
  }

  list(path: string, signal: AbortSignal): Promise<readonly ValueEntry[]> {
    return this.context.store.listValues(path, signal);
  }

  async read(path: string, signal: AbortSignal): Promise<ValueEntry | undefined> {
    return (await this.list(path, signal)).find((entry) => entry.path === path);
  }

  async listKeyed(signal: AbortSignal): Promise<readonly ValueEntry[]> {
    const entries = await this.list(this.paths.addresses, signal);
    const texts = entries.flatMap(({ path }) => this.addressAt(path)?.address.toString() ?? []);
    this.state.keyed = new Set(texts);
    for (const text of texts) if (this.state.blockOf(IpAddress.parse(text)) !== undefined) this.state.remember(text);
    return entries;
  }

  addressAt(path: string): { readonly address: IpAddress; readonly holder: string } | undefined {
    const [text = '', holder = '', ...rest] = path.slice(this.paths.addresses.length).split('/');
    const address = IpAddress.tryParse(text);
    if (address === undefined || rest.length > 0 || !this.state.identity.subnet.contains(address)) return undefined;
    return { address, holder };
  }

  blockAt(path: string): Prefix | undefined {
    const address = IpAddress.tryParse(path.slice(this.paths.blocks.length).replace(/-\d+$/, ''));
    const block = address && this.state.layout.blockAround(address);
    return block !== undefined && this.paths.block(block) === path ? block : undefined;
  }

  /** Enters this host into the network, and takes up what its hosts have agreed on; as {@link joinNetwork}. */
  async join(isNew: boolean, signal: AbortSignal): Promise<string | undefined> {
    const { identity, properties } = this.state;
    const { former, agreed } = await joinNetwork(this.records, identity, { isNew, properties }, signal);
    if (agreed !== undefined) await this.agreeOn(agreed);
    return former;
  }

  /** Takes up what the hosts have agreed on; blocks that are none any more are looked for in etcd. */
  async agreeOn(properties: NetworkProperties): Promise<void> {
    if (!this.state.agreeOn(properties)) return;
    this.suspect();
    await this.context.save();
  }

  /** Takes up what the record says by now, if it says anything. */
  async readAgreed(signal: AbortSignal): Promise<void> {
    const entry = await this.read(this.paths.record, signal);
    const properties = entry && decodeRecord(entry.text)?.properties;
    if (properties !== undefined) await this.agreeOn(properties);
  }

  etcdLeaseId(): EtcdLeaseId {
    const { id } = this.context.lease;
    if (id === undefined) throw unconfirmed(this.state.identity);
    return id;
  }

  /** Deletes a key of this host as it was last known, if that is known; what is left is found by a sweep. */
  async drop(path: string, revision: Revision | undefined, signal: AbortSignal): Promise<void> {
    await this.context.save(); // first: a process after a crash must not think that it still has it
    if (revision === undefined) {
      this.suspect();
      return;
    }
    const conditions = [{ path, revision }];
    try {
      if (await this.context.store.transactValues({ conditions, deletes: [path] }, signal)) return;
    } catch (error) {
      this.suspect();
      throw error;
    }
    this.suspect();
  }

  suspect(): void {
    this.suspectAtMs = this.context.clock.monotonicMs();
  }
}
