import { IpAddress } from '../ip/address.js';
import type { Prefix } from '../ip/prefix.js';
import type { Revision } from '../lease/record.js';
import type { SavedPool, SavedUse } from './address-book.js';
import { inGivingOrder } from './address-order.js';
import { isSpread } from './address-spread.js';
import type { AddressUse, NetworkProperties, PoolStatus, SeenAddress } from './addresses.js';
import { ABANDONED_MS, Orphans } from './orphans.js';
import type { PoolContext } from './pool-context.js';
import { type PoolId, type PoolIdentity, parsePoolId } from './pool-id.js';
import { type AddressMask, PoolLayout, addressesIn, maskOf } from './pool-layout.js';

/** Addresses that were released, or asked for by name, and are remembered; of more than these the oldest are forgotten. */
const MAX_REMEMBERED = 1024;

/**
 * A block in which an address was released is kept for so long: neighbours remember for about that time who had it (Linux
 * asks again after 30 s on average, gc_stale_time is 60 s), and another host would begin with it.
 */
const COOL_MS = 60_000;

/** A block that this host has leased. */
export interface Block {
  readonly block: Prefix;
  /** Addresses that may be given out: at most those that etcd has, whatever write is still under way. */
  own: AddressMask;
  /** As etcd has it; undefined where it has none. */
  revision: Revision | undefined;
  text: string | undefined;
  /** Of the lease under which etcd confirmed it. */
  generation: number;
  /** On the monotonic clock, by this process. */
  releasedAtMs: number;
}

/** An address with a key of its own. */
export interface Holding {
  readonly address: IpAddress;
  revision: Revision | undefined;
  generation: number;
}

/** A gateway or an auxiliary address. */
export interface Shared extends Holding {
  kind: 'gateway' | 'auxiliary';
  isReleased: boolean;
}

/** An address that a container has. */
export type Use = { -readonly [K in keyof SavedUse]: SavedUse[K] };

/**
 * What this host knows of one pool, and what follows from that alone: which addresses it may give out by themselves, in
 * which order, and what it wants of its blocks. No I/O; time and lease are asked for, never waited for.
 */
export class PoolState {
  readonly identity: PoolIdentity;
  readonly blocks = new Map<string, Block>();
  /** Addresses of containers that are leased one by one. */
  readonly singles = new Map<string, Holding>();
  readonly shared = new Map<string, Shared>();
  readonly uses = new Map<string, Use>();
  readonly released = new Set<string>();
  readonly fixed = new Set<string>();
  /** Asked for at this moment. */
  readonly pending = new Set<string>();
  readonly orphans: Orphans;
  readonly seen = new Map<string, SeenAddress>();
  /** Addresses that have keys of their own, as they were listed last. */
  keyed: ReadonlySet<string> = new Set();
  /** Of the lease under which all was compared with etcd last. */
  verifiedGeneration = -1;
  /** Whether this process has told the network that it serves this host. */
  isTold = false;
  /** Whether this host has entered the network. */
  isJoined = false;
  /** Whether the engine has given the pool up. */
  isReleased = false;
  #properties: NetworkProperties | undefined;
  #layout: PoolLayout;
  /** Not to be given by themselves before that time on the monotonic clock. */
  readonly #avoided = new Map<string, number>();

  constructor(
    readonly id: PoolId,
    private readonly context: Pick<PoolContext, 'clock' | 'lease' | 'register'>,
  ) {
    this.identity = parsePoolId(id);
    this.orphans = new Orphans(context.clock, context.register);
    this.#layout = new PoolLayout(this.identity);
  }

  /** What the hosts of the network have agreed on, as far as is known here. */
  get properties(): NetworkProperties | undefined {
    return this.#properties;
  }

  get layout(): PoolLayout {
    return this.#layout;
  }

  /**
   * Takes up what the hosts have agreed on. Blocks that are none by that are let go; what is in use in them is to be leased
   * one by one.
   *
   * @returns whether there were such blocks.
   */
  agreeOn(properties: NetworkProperties): boolean {
    const layout = new PoolLayout(this.identity, isSpread(properties));
    this.#properties = properties;
    if (layout.isSpread === this.#layout.isSpread) return false;
    this.#layout = layout;
    if (this.blocks.size === 0) return false;
    this.blocks.clear();
    this.verifiedGeneration = -1;
    return true;
  }

  /**
   * Takes up what an earlier process wrote down.
   *
   * @param isConfirmed - whether the lease under which it was saved still lasts.
   */
  restore(saved: SavedPool, isConfirmed: boolean): void {
    const generation = isConfirmed ? this.context.lease.generation : -1;
    const unknown = { revision: undefined, generation };
    if (saved.properties !== undefined) this.agreeOn(saved.properties);
    for (const { block, own } of saved.blocks) {
      if (this.layout.isBlock(block))
        this.blocks.set(block.toString(), {
          block,
          own,
          text: undefined,
          releasedAtMs: Number.NEGATIVE_INFINITY,
          ...unknown,
        });
    }
    for (const address of saved.singles) this.singles.set(address.toString(), { address, ...unknown });
    for (const { address, kind } of saved.shared) {
      this.shared.set(address.toString(), { address, kind, isReleased: false, ...unknown });
    }
    for (const use of saved.uses) this.uses.set(use.address.toString(), { ...use });
    for (const address of saved.released) this.released.add(address.toString());
    for (const address of saved.fixed) this.fixed.add(address.toString());
    this.isReleased = saved.isReleased;
  }

  /** What is to be written down. */
  save(): SavedPool {
    const { lease } = this.context;
    // What was confirmed under an earlier lease of this process is not under the one that is written down with it.
    const isConfirmed = ({ generation }: { readonly generation: number }): boolean => generation === lease.generation;
    const addresses = (texts: Iterable<string>): readonly IpAddress[] =>
      [...texts].map((text) => IpAddress.parse(text));
    return {
      id: this.id,
      isReleased: this.isReleased,
      properties: this.properties,
      blocks: [...this.blocks.values()].map((each) => ({ block: each.block, own: isConfirmed(each) ? each.own : 0n })),
      singles: [...this.singles.values()].filter(isConfirmed).map(({ address }) => address),
      shared: [...this.shared.values()]
        .filter(({ isReleased }) => !isReleased)
        .map(({ address, kind }) => ({ address, kind })),
      uses: [...this.uses.values()].map((use) => ({ ...use })),
      released: addresses(this.released),
      fixed: addresses(this.fixed),
    };
  }

  get status(): PoolStatus {
    const { subnet, range } = this.identity;
    return {
      id: this.id,
      subnet,
      range,
      blocks: [...this.blocks.values()].map(({ block }) => block),
      free: this.free().length,
      uses: [...this.uses.values()].map((use) => this.#describe(use)),
      shared: [...this.shared.values()]
        .filter(({ isReleased }) => !isReleased)
        .map(({ address, kind }) => ({ address, kind })),
      seen: [...this.seen.values()],
      isReleased: this.isReleased,
    };
  }

  #describe(use: Use): AddressUse {
    const { address, mac, owner, sinceMs, isLost } = use;
    const state = isLost ? 'lost' : this.isConfirmed(address) ? 'confirmed' : 'unconfirmed';
    const ageMs = this.orphans.ageMs(use) ?? 0;
    const abandonedSinceMs = ageMs < ABANDONED_MS ? undefined : this.context.clock.wallMs() - ageMs;
    return { address, mac, owner, sinceMs, state, abandonedSinceMs };
  }

  /** Nothing is left to be done after a release, except for leaving the network. */
  get isUnused(): boolean {
    return this.isReleased && this.uses.size === 0 && this.pending.size === 0;
  }

  /** Whether etcd has confirmed that this host may give the address, and that still holds. */
  isConfirmed(address: IpAddress): boolean {
    const { lease } = this.context;
    if (!lease.isValid()) return false;
    return this.holdersOf(address).some(({ generation }) => generation === lease.generation);
  }

  holdersOf(address: IpAddress): readonly { readonly generation: number }[] {
    const block = this.blockOf(address);
    const single = this.singles.get(address.toString());
    const isOwn = block !== undefined && (block.own & maskOf(block.block, address)) !== 0n;
    return [...(isOwn ? [block] : []), ...(single === undefined ? [] : [single])];
  }

  blockOf(address: IpAddress): Block | undefined {
    const block = this.layout.blockOf(address);
    return block && this.blocks.get(block.toString());
  }

  /** What can be given now, in the order in which it is. */
  free(): readonly IpAddress[] {
    const { lease } = this.context;
    if (!lease.isValid()) return [];
    const inBlocks = [...this.blocks.values()]
      .filter(({ generation }) => generation === lease.generation)
      .flatMap(({ block, own }) => addressesIn(block, own & this.layout.givable(block)));
    const singles = [...this.singles.values()]
      .filter(({ generation, address }) => generation === lease.generation && this.#isGivable(address))
      .map(({ address }) => address);
    return inGivingOrder(
      [...inBlocks, ...singles].filter((address) => this.isFree(address)),
      { released: this.released, fixed: this.fixed },
    );
  }

  /** What can be given now and was not asked for by name before. */
  firstFree(): IpAddress | undefined {
    const [first] = this.free();
    return first !== undefined && this.fixed.has(first.toString()) ? undefined : first;
  }

  #isGivable(address: IpAddress): boolean {
    const isGateway = address.equals(this.layout.gateway);
    return this.identity.range.contains(address) && this.layout.isUsable(address) && !isGateway;
  }

  isFree(address: IpAddress): boolean {
    const text = address.toString();
    if (this.uses.has(text) || this.pending.has(text) || this.shared.has(text)) return false;
    const untilMs = this.#avoided.get(text);
    if (untilMs === undefined) return true;
    if (this.context.clock.monotonicMs() < untilMs) return false;
    this.#avoided.delete(text);
    this.seen.delete(text);
    return true;
  }

  avoid(text: string, ms: number): void {
    this.#avoided.set(text, this.context.clock.monotonicMs() + ms);
  }

  remember(text: string): void {
    addLast(this.fixed, text);
  }

  /** What this host wants of a block: what is given, and some more to be given without asking. */
  wanted({ block, own }: Pick<Block, 'block' | 'own'>, without?: IpAddress): AddressMask {
    const given = this.given(block);
    const kept = addressesIn(block, given & ~own).reduce(
      (mask, address) => (this.keyed.has(address.toString()) ? mask & ~maskOf(block, address) : mask),
      given,
    );
    const spares = inGivingOrder(
      addressesIn(block, this.layout.givable(block) & ~kept).filter(
        (address) => this.isFree(address) && !this.keyed.has(address.toString()),
      ),
      { released: this.released, fixed: this.fixed },
    ).slice(0, this.layout.blockSize / 2);
    const wanted = spares.reduce((mask, address) => mask | maskOf(block, address), kept);
    return without === undefined ? wanted : wanted & ~maskOf(block, without);
  }

  /** Ends a use of this host. */
  release(address: IpAddress): void {
    const text = address.toString();
    this.uses.delete(text);
    addLast(this.released, text);
    const block = this.blockOf(address);
    if (block !== undefined) block.releasedAtMs = this.context.clock.monotonicMs();
  }

  /** Blocks, leased or not, of which this host remembers released addresses. */
  get worn(): ReadonlySet<string> {
    return new Set([...this.released].map((text) => String(this.layout.blockOf(IpAddress.parse(text)))));
  }

  /** Addresses of a block that containers of this host have, or are about to get. */
  given(block: Prefix): AddressMask {
    let mask = 0n;
    for (const address of addressesIn(block, (1n << BigInt(this.layout.blockSize)) - 1n)) {
      const text = address.toString();
      if (this.singles.has(text) || this.shared.has(text)) continue;
      const use = this.uses.get(text);
      if (this.pending.has(text) || (use !== undefined && !use.isLost)) mask |= maskOf(block, address);
    }
    return mask;
  }

  used(block: Prefix): AddressMask {
    return [...this.uses.values()].reduce(
      (mask, { address }) => (block.contains(address) ? mask | maskOf(block, address) : mask),
      0n,
    );
  }

  /** Whether a block is empty, and so much is free in others that it is not missed. */
  isSpare(block: Block): boolean {
    if (this.given(block.block) !== 0n) return false;
    if (this.isReleased) return true;
    if (this.context.clock.monotonicMs() - block.releasedAtMs < COOL_MS) return false;
    const others = [...this.blocks.values()].filter((each) => each !== block);
    return others.reduce((sum, each) => sum + this.room(each), 0) >= this.layout.blockSize;
  }

  /** Addresses that could still be given in a block. */
  room({ block }: Block): number {
    const left = this.layout.givable(block) & ~this.given(block);
    const isLeft = (address: IpAddress): boolean => {
      const text = address.toString();
      return !this.keyed.has(text) && !this.fixed.has(text) && this.isFree(address);
    };
    return addressesIn(block, left).filter((address) => isLeft(address)).length;
  }

  /** Whether so few addresses are left that another block is leased ahead of time. */
  isShort(): boolean {
    if (this.isReleased || this.uses.size === 0) return false;
    const room = [...this.blocks.values()].reduce((sum, block) => sum + this.room(block), 0);
    return room < this.layout.blockSize / 4;
  }

  /** A use that etcd alone remembers. */
  adopt(address: IpAddress): void {
    const text = address.toString();
    if (this.uses.has(text)) return;
    const sinceMs = this.context.clock.wallMs();
    this.uses.set(text, { address, mac: undefined, owner: undefined, sinceMs, isLost: false, register: undefined });
  }
}

/** Adds a text behind all others, of which there are not too many. */
function addLast(texts: Set<string>, text: string): void {
  texts.delete(text);
  texts.add(text);
  const [oldest] = texts;
  if (texts.size > MAX_REMEMBERED && oldest !== undefined) texts.delete(oldest);
}
