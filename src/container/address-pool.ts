import type { Clock } from '../clock.js';
import { OverlayError, isOverlayError } from '../errors.js';
import { IpAddress } from '../ip/address.js';
import type { MacAddress } from '../ip/mac.js';
import type { Prefix } from '../ip/prefix.js';
import type { EtcdLeaseId, Revision } from '../lease/record.js';
import type { SharedValueStore, ValueCondition, ValueEntry } from '../lease/store.js';
import type { Logger } from '../log.js';
import type { SavedPool, SavedUse } from './address-book.js';
import { inGivingOrder } from './address-order.js';
import type {
  AddressCounters,
  AddressKind,
  AddressRequest,
  LanProbe,
  NetworkProperties,
  PoolStatus,
  SeenAddress,
} from './addresses.js';
import type { HostLease } from './host-lease.js';
import { type PoolId, type PoolIdentity, parsePoolId, poolPath } from './pool-id.js';
import { type AddressMask, PoolLayout, addressesIn, maskOf } from './pool-layout.js';
import { type BlockRecord, PoolPaths, decodeBlock, decodeHolder, encodeBlock, encodeHolder } from './records.js';
import { agreeOnRecord, joinNetwork, leaveNetwork, type RecordContext } from './network-record.js';
import { Turns } from './turns.js';

/** What all pools of a host share. */
export interface PoolContext {
  readonly host: string;
  readonly store: SharedValueStore;
  readonly clock: Clock;
  readonly log: Logger;
  readonly lease: HostLease;
  readonly probe: LanProbe | undefined;
  readonly counters: { -readonly [K in keyof AddressCounters]: AddressCounters[K] };
  /** Whether this host has had a book that is lost: then etcd alone knows what it has given. */
  readonly isBookLost: boolean;
  /** Has all that is so now on disk. */
  save(): Promise<void>;
  /** Renews the etcd lease; those who ask meanwhile get the same answer. */
  renew(): Promise<void>;
  /** Something is to be told to etcd soon, or to whoever follows the status. */
  changed(): void;
}

/** An address in use: found on the network, or left to another host that asked for it. */
const SEEN_MS = 600_000;
const YIELDED_MS = 30_000;

/** The host that is asked for an address does so at once, unless it is gone. */
const ASK_MS = 5000;
const ASK_POLL_MS = 100;

/**
 * By then a write that was given up has been carried out or never will be: etcd itself gives it up after two elections and
 * five seconds (etcd `server/config/config.go`, ReqTimeout), here 7 s with its defaults.
 */
const LATE_MS = 15_000;

/** Addresses that are tried before a request is given up: so many machines of others in one range are no accident. */
const MAX_TRIES = 8;

/** Changes of others that a write may meet before it is left to the next time. */
const MAX_CONFLICTS = 8;

/** Addresses that were asked for by name and are remembered; of more than these the oldest are forgotten. */
const MAX_FIXED = 1024;

interface Block {
  readonly block: Prefix;
  /** Addresses that may be given out: at most those that etcd has, whatever write is still under way. */
  own: AddressMask;
  /** As etcd has it; undefined where it has none. */
  revision: Revision | undefined;
  text: string | undefined;
  /** Of the lease under which etcd confirmed it. */
  generation: number;
}

interface Holding {
  readonly address: IpAddress;
  revision: Revision | undefined;
  generation: number;
}

interface Shared extends Holding {
  kind: 'gateway' | 'auxiliary';
  isReleased: boolean;
}

type Use = { -readonly [K in keyof SavedUse]: SavedUse[K] };

/**
 * The part of one pool that this host has.
 *
 * ```
 *  etcd:   block 10.10.10.16/28  host A  own ▓▓▓▓▓▓░░░░░░░░░░   ▓ A gives out without asking anybody
 *          address 10.10.10.29   host B      ░ whoever comes first takes them, A by writing its block again
 * ```
 *
 * @remarks
 * *Safety.* An address is either in `own` of its block or has a key of its own, never both: each write that adds one has
 * the absence of the other as a condition. So what this host may give out follows from its own acknowledged writes, for
 * as long as its etcd lease lasts. What it is about to lose is struck out here and on disk before etcd hears of it; what
 * it is to gain counts only after etcd has acknowledged it. So an answer that is lost, or a write that is carried out
 * late, leaves this host with less than etcd says, never with more.
 *
 * *Order.* In the book first, then in the answer; the rest is told to etcd afterwards ({@link tidy}).
 *
 * *Turns.* Blocks are written one at a time. Single addresses need no turn: whoever asks for one is {@link #pending}.
 */
export class AddressPool {
  readonly identity: PoolIdentity;
  readonly layout: PoolLayout;
  readonly #paths: PoolPaths;
  readonly #turns = new Turns();
  readonly #blocks = new Map<string, Block>();
  readonly #singles = new Map<string, Holding>();
  readonly #shared = new Map<string, Shared>();
  readonly #uses = new Map<string, Use>();
  readonly #released = new Set<string>();
  readonly #fixed = new Set<string>();
  /** Asked for at this moment. */
  readonly #pending = new Set<string>();
  /** Not to be given by themselves before that time on the monotonic clock. */
  readonly #avoided = new Map<string, number>();
  readonly #seen = new Map<string, SeenAddress>();
  /** Addresses that have keys of their own, as they were listed last. */
  #keyed: ReadonlySet<string> = new Set();
  /**
   * When, on the monotonic clock, something was last written that nobody acknowledged, so that etcd may have, or get, what
   * this host does not know of.
   */
  #suspectAtMs: number | undefined = Number.NEGATIVE_INFINITY;
  #isJoined = false;
  #hasSwept = false;
  #verifiedGeneration = -1;
  #isReleased = false;
  #properties: NetworkProperties | undefined;

  constructor(
    readonly id: PoolId,
    private readonly context: PoolContext,
  ) {
    this.identity = parsePoolId(id);
    this.layout = new PoolLayout(this.identity);
    this.#paths = new PoolPaths(this.identity);
  }

  /** @param isConfirmed - whether the lease under which it was saved still lasts. */
  static restore(saved: SavedPool, isConfirmed: boolean, context: PoolContext): AddressPool {
    const pool = new AddressPool(saved.id, context);
    const generation = isConfirmed ? context.lease.generation : -1;
    const unknown = { revision: undefined, generation };
    for (const { block, own } of saved.blocks) {
      if (pool.layout.isBlock(block)) pool.#blocks.set(block.toString(), { block, own, text: undefined, ...unknown });
    }
    for (const address of saved.singles) pool.#singles.set(address.toString(), { address, ...unknown });
    for (const { address, kind } of saved.shared) {
      pool.#shared.set(address.toString(), { address, kind, isReleased: false, ...unknown });
    }
    for (const use of saved.uses) pool.#uses.set(use.address.toString(), { ...use });
    for (const address of saved.released) pool.#released.add(address.toString());
    for (const address of saved.fixed) pool.#fixed.add(address.toString());
    pool.#isReleased = saved.isReleased;
    pool.#properties = saved.properties;
    pool.#isJoined = true;
    pool.#suspect();
    return pool;
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
      isReleased: this.#isReleased,
      properties: this.#properties,
      blocks: [...this.#blocks.values()].map((each) => ({ block: each.block, own: isConfirmed(each) ? each.own : 0n })),
      singles: [...this.#singles.values()].filter(isConfirmed).map(({ address }) => address),
      shared: [...this.#shared.values()]
        .filter(({ isReleased }) => !isReleased)
        .map(({ address, kind }) => ({ address, kind })),
      uses: [...this.#uses.values()].map((use) => ({ ...use })),
      released: addresses(this.#released),
      fixed: addresses(this.#fixed),
    };
  }

  get status(): PoolStatus {
    const { subnet, range } = this.identity;
    return {
      id: this.id,
      subnet,
      range,
      blocks: [...this.#blocks.values()].map(({ block }) => block),
      free: this.#free().length,
      uses: [...this.#uses.values()].map(({ isLost, ...use }) => ({
        ...use,
        state: isLost ? 'lost' : this.#isConfirmed(use.address) ? 'confirmed' : 'unconfirmed',
      })),
      shared: [...this.#shared.values()]
        .filter(({ isReleased }) => !isReleased)
        .map(({ address, kind }) => ({ address, kind })),
      seen: [...this.#seen.values()],
      isReleased: this.#isReleased,
    };
  }

  get isReleased(): boolean {
    return this.#isReleased;
  }

  /** Nothing is left to be done after a release, except for {@link leave}. */
  get isUnused(): boolean {
    return this.#isReleased && this.#uses.size === 0 && this.#pending.size === 0;
  }

  /** Enters this host into the network, as the first one or a later one, unless it is in it. */
  async join(signal: AbortSignal): Promise<void> {
    if (this.#isJoined) return;
    try {
      await this.context.renew();
      await joinNetwork(this.#records(), this.identity, { isNew: true }, signal);
    } catch (error) {
      this.#suspect();
      throw error;
    }
    this.#isJoined = true;
  }

  /** Wanted again, or no more. */
  setReleased(isReleased: boolean): void {
    this.#isReleased = isReleased;
    if (!isReleased) return;
    for (const shared of this.#shared.values()) shared.isReleased = true;
  }

  /** As `ContainerAddresses.agree`. */
  async agree(properties: NetworkProperties, signal: AbortSignal): Promise<void> {
    const known = this.#properties;
    if (known !== undefined && isSameProperties(known, properties)) return;
    await this.#ensureConfirmed(signal);
    await agreeOnRecord(this.#records(), this.identity, properties, signal);
    this.#properties = properties;
    await this.context.save();
  }

  /** Gives a container an address that nobody else in the cluster has. */
  async giveContainer({ address, mac, owner }: AddressRequest, signal: AbortSignal): Promise<IpAddress> {
    const known = [...this.#uses.values()].find((use) =>
      address === undefined ? mac !== undefined && use.mac === mac && !use.isLost : use.address.equals(address),
    );
    if (known !== undefined) return this.#giveAgain(known, mac, owner, signal);
    if (address !== undefined) return this.#giveOne(address, mac, owner, signal);
    for (let seen = 0; seen < MAX_TRIES;) {
      const next = this.#firstFree() ?? (await this.#leaseMore(signal));
      if (next === undefined) continue;
      const isGiven = await this.#whilePending(next, async () => {
        if ((await this.#probe(next)) !== undefined) return false;
        await this.#enter(next, mac, owner);
        return true;
      });
      if (isGiven) return next;
      seen++;
    }
    throw new OverlayError('ERR_OUT_OF_ADDRESSES', `cannot give an address of ${this.#name}: ${MAX_TRIES} are in use`, {
      hint: 'machines on the network answer for them: give containers a range of their own with --ip-range',
    });
  }

  /** Gives a gateway or an auxiliary address, which every host may have. */
  async giveShared(
    kind: 'gateway' | 'auxiliary',
    requested: IpAddress | undefined,
    signal: AbortSignal,
  ): Promise<IpAddress> {
    const address = requested ?? (kind === 'gateway' ? this.layout.gateway : undefined);
    if (address === undefined || !this.identity.subnet.contains(address)) {
      const what = address === undefined ? 'no address' : address.toString();
      throw this.#impossible(`${what} as ${kind} address: it is none of ${this.identity.subnet.toString()}`);
    }
    // Nobody gets these anyway.
    if (!this.layout.isUsable(address) || address.equals(this.layout.gateway)) return address;
    const text = address.toString();
    const known = this.#shared.get(text);
    if (known !== undefined && !this.#pending.has(text)) {
      known.kind = kind;
      known.isReleased = false;
      await this.context.save();
      return address;
    }
    const use = this.#uses.get(text);
    if (use !== undefined) {
      // An engine that starts asks again for what its containers have, without saying that it is for containers.
      if (kind === 'auxiliary') return this.#giveAgain(use, undefined, undefined, signal);
      throw this.#taken(address, `container ${use.owner ?? 'unknown'} of this host has it`);
    }
    return this.#whilePending(address, async () => {
      const shared: Shared = { address, kind, isReleased: false, revision: undefined, generation: -1 };
      await this.#ensureConfirmed(signal);
      this.#shared.set(text, shared);
      try {
        Object.assign(shared, await this.#claim(address, kind, { askMs: ASK_MS, isInTurn: false }, signal));
        await this.context.save();
      } catch (error) {
        this.#shared.delete(text);
        throw error;
      }
      this.context.changed();
      return address;
    });
  }

  /** Takes an address back. */
  async release(address: IpAddress): Promise<void> {
    const text = address.toString();
    const shared = this.#shared.get(text);
    const use = this.#uses.get(text);
    if (use !== undefined) {
      this.#uses.delete(text);
      this.#released.delete(text);
      this.#released.add(text);
      this.context.counters.released++;
    } else if (shared !== undefined) shared.isReleased = true;
    else return;
    try {
      await this.context.save();
    } catch (error) {
      if (use !== undefined && !this.#uses.has(text)) this.#uses.set(text, use);
      throw error;
    }
    this.context.changed();
  }

  /** Leaves an address to another host that asks for it, unless a container has it; etcd tells which. */
  async yield(address: IpAddress, signal: AbortSignal): Promise<void> {
    await this.#turns.take(async () => {
      const block = this.#blockOf(address);
      if (block === undefined) return;
      const text = address.toString();
      this.#remember(text);
      if (!this.#uses.has(text) && !this.#pending.has(text)) {
        this.#avoid(text, YIELDED_MS);
        this.context.counters.yielded++;
      }
      await this.#settle(block, signal);
    }, signal);
  }

  /** Compares all with etcd, and tells it what this host wants. */
  verify(signal: AbortSignal): Promise<void> {
    return this.#turns.take(() => this.#verify(signal), signal);
  }

  /** Tells etcd what has changed here: which addresses are given, which more are needed, what is needed no more. */
  async tidy(signal: AbortSignal): Promise<void> {
    await this.#turns.take(async () => {
      if (this.#verifiedGeneration !== this.context.lease.generation) await this.#verify(signal);
      if (this.#suspectAtMs !== undefined) await this.#sweep(signal);
      await this.#dropUnused(signal);
      for (const block of [...this.#blocks.values()]) {
        if (this.#isSpare(block)) await this.#giveBack(block, signal);
        else await this.#settle(block, signal);
      }
      if (this.#isShort()) await this.#leaseBlock(signal);
    }, signal);
  }

  /**
   * Gives up all that is left of a pool that was released.
   *
   * @returns false if it is wanted again, or something may be left for now.
   */
  async leave(signal: AbortSignal): Promise<boolean> {
    return this.#turns.take(async () => {
      const isUnused = (): boolean => this.#isReleased && this.#uses.size === 0 && this.#pending.size === 0;
      if (!isUnused()) return false;
      await this.#sweep(signal);
      await this.#dropUnused(signal);
      for (const block of [...this.#blocks.values()]) if (isUnused()) await this.#giveBack(block, signal);
      if (!isUnused()) return false;
      this.#isJoined = false;
      await leaveNetwork(this.#records(), signal);
      return isUnused() && this.#suspectAtMs === undefined;
    }, signal);
  }

  get #name(): string {
    return poolPath(this.identity).replace(/^-\//, '');
  }

  #records(): RecordContext {
    const { host, store, lease } = this.context;
    return { host, store, paths: this.#paths, name: this.#name, etcdLeaseId: lease.id };
  }

  /** Whether etcd has confirmed that this host may give the address, and that still holds. */
  #isConfirmed(address: IpAddress): boolean {
    const { lease } = this.context;
    if (!lease.isValid()) return false;
    return this.#holdersOf(address).some(({ generation }) => generation === lease.generation);
  }

  #holdersOf(address: IpAddress): readonly { readonly generation: number }[] {
    const block = this.#blockOf(address);
    const single = this.#singles.get(address.toString());
    const isOwn = block !== undefined && (block.own & maskOf(block.block, address)) !== 0n;
    return [...(isOwn ? [block] : []), ...(single === undefined ? [] : [single])];
  }

  #blockOf(address: IpAddress): Block | undefined {
    const block = this.layout.blockOf(address);
    return block && this.#blocks.get(block.toString());
  }

  /** What can be given now, in the order in which it is. */
  #free(): readonly IpAddress[] {
    const { lease } = this.context;
    if (!lease.isValid()) return [];
    const inBlocks = [...this.#blocks.values()]
      .filter(({ generation }) => generation === lease.generation)
      .flatMap(({ block, own }) => addressesIn(block, own & this.layout.givable(block)));
    const singles = [...this.#singles.values()]
      .filter(({ generation, address }) => generation === lease.generation && this.#isGivable(address))
      .map(({ address }) => address);
    return inGivingOrder(
      [...inBlocks, ...singles].filter((address) => this.#isFree(address)),
      { released: this.#released, fixed: this.#fixed },
    );
  }

  /** What can be given now and was not asked for by name before. */
  #firstFree(): IpAddress | undefined {
    const [first] = this.#free();
    return first !== undefined && this.#fixed.has(first.toString()) ? undefined : first;
  }

  #isGivable(address: IpAddress): boolean {
    const isGateway = address.equals(this.layout.gateway);
    return this.identity.range.contains(address) && this.layout.isUsable(address) && !isGateway;
  }

  #isFree(address: IpAddress): boolean {
    const text = address.toString();
    if (this.#uses.has(text) || this.#pending.has(text) || this.#shared.has(text)) return false;
    const untilMs = this.#avoided.get(text);
    if (untilMs === undefined) return true;
    if (this.context.clock.monotonicMs() < untilMs) return false;
    this.#avoided.delete(text);
    this.#seen.delete(text);
    return true;
  }

  #avoid(text: string, ms: number): void {
    this.#avoided.set(text, this.context.clock.monotonicMs() + ms);
  }

  #remember(text: string): void {
    this.#fixed.delete(text);
    this.#fixed.add(text);
    const [oldest] = this.#fixed;
    if (this.#fixed.size > MAX_FIXED && oldest !== undefined) this.#fixed.delete(oldest);
  }

  async #whilePending<T>(address: IpAddress, action: () => Promise<T>): Promise<T> {
    const text = address.toString();
    if (this.#pending.has(text)) throw this.#taken(address, 'another request for it is being answered');
    this.#pending.add(text);
    try {
      return await action();
    } finally {
      this.#pending.delete(text);
    }
  }

  async #giveAgain(
    use: Use,
    mac: MacAddress | undefined,
    owner: string | undefined,
    signal: AbortSignal,
  ): Promise<IpAddress> {
    const { address } = use;
    if (mac !== undefined && use.mac !== undefined && mac !== use.mac) {
      throw this.#taken(
        address,
        `container ${use.owner ?? 'unknown'} of this host has it, with MAC address ${use.mac}`,
      );
    }
    if (!this.#isConfirmed(address)) {
      await this.#ensureConfirmed(signal);
      if (!this.#isConfirmed(address)) await this.verify(signal);
    }
    if (use.isLost || !this.#isConfirmed(address)) {
      throw this.#taken(address, 'another host has it since the lease of this host had run out');
    }
    const isNew = (mac !== undefined && use.mac !== mac) || (owner !== undefined && use.owner !== owner);
    if (isNew) {
      use.mac = mac ?? use.mac;
      use.owner = owner ?? use.owner;
      await this.context.save();
    }
    return address;
  }

  async #giveOne(
    address: IpAddress,
    mac: MacAddress | undefined,
    owner: string | undefined,
    signal: AbortSignal,
  ): Promise<IpAddress> {
    this.#refuseUnusable(address);
    return this.#whilePending(address, async () => {
      if (!this.#isConfirmed(address)) await this.#acquire(address, signal);
      const seen = await this.#probe(address);
      if (seen !== undefined) {
        this.context.changed(); // what was acquired is given back
        throw this.#taken(address, `a machine on the network with MAC address ${seen} has it`);
      }
      await this.#enter(address, mac, owner);
      this.#remember(address.toString());
      return address;
    });
  }

  #refuseUnusable(address: IpAddress): void {
    const text = address.toString();
    const { subnet } = this.identity;
    if (!subnet.contains(address)) throw this.#impossible(`${text}: it is outside of ${subnet.toString()}`);
    if (!this.layout.isUsable(address)) {
      throw this.#impossible(`${text}: it is the network's own, or its broadcast or anycast address`);
    }
    const shared = this.#shared.get(text);
    if (shared !== undefined && !shared.isReleased) throw this.#taken(address, `it is the ${shared.kind} address`);
    const isElsewhere = [...this.#shared.values()].some(({ kind }) => kind === 'gateway');
    if (address.equals(this.layout.gateway) && !isElsewhere) throw this.#taken(address, 'it is the gateway address');
  }

  async #probe(address: IpAddress): Promise<MacAddress | undefined> {
    const { probe, counters, clock, log } = this.context;
    if (probe === undefined) return undefined;
    counters.probes++;
    const mac = await probe(this.id, address);
    if (mac === undefined) return undefined;
    counters.seen++;
    const text = address.toString();
    this.#avoid(text, SEEN_MS);
    this.#seen.set(text, { address, mac, seenAtMs: clock.wallMs() });
    log.warn('an address of containers is in use on the network, it is left out', {
      address: text,
      peer: mac,
      hint: 'give containers a range of their own with --ip-range, or the machine another address',
    });
    this.context.changed();
    return mac;
  }

  /** Writes a use down; it is answered only if that is done and the address still this host's. */
  async #enter(address: IpAddress, mac: MacAddress | undefined, owner: string | undefined): Promise<void> {
    const text = address.toString();
    this.#uses.set(text, { address, mac, owner, sinceMs: this.context.clock.wallMs(), isLost: false });
    try {
      await this.context.save();
    } catch (error) {
      this.#uses.delete(text);
      throw error;
    }
    if (!this.#isConfirmed(address)) {
      this.#uses.delete(text);
      await this.context.save();
      throw this.#unconfirmed();
    }
    this.#released.delete(text);
    this.context.counters.given++;
    this.context.changed();
  }

  /** Sees to it that what this host has is confirmed under its present lease. */
  async #ensureConfirmed(signal: AbortSignal): Promise<void> {
    const { lease } = this.context;
    const isDone = (): boolean => lease.isValid() && this.#verifiedGeneration === lease.generation;
    if (isDone()) return;
    try {
      await this.#turns.take(async () => {
        if (!lease.isValid()) await this.context.renew();
        if (!isDone()) await this.#verify(signal);
      }, signal);
    } catch (cause) {
      if (lease.isValid() || this.#blocks.size + this.#singles.size === 0) throw cause;
      throw this.#unconfirmed(cause);
    }
  }

  /**
   * Has more addresses for this host: in its blocks, in another block, or, if there is none, single ones.
   *
   * @returns one that is free, one that was asked for by name only if all is in vain; undefined if somebody was faster.
   */
  async #leaseMore(signal: AbortSignal): Promise<IpAddress | undefined> {
    try {
      await this.#ensureConfirmed(signal);
      await this.#turns.take(async () => {
        if (this.#firstFree() !== undefined) return; // whoever had the turn before has got some
        if (this.#blocks.size > 0) {
          await this.#listKeyed(signal);
          for (const block of [...this.#blocks.values()]) await this.#settle(block, signal);
          if (this.#firstFree() !== undefined) return;
        }
        if (!(await this.#leaseBlock(signal)) && !(await this.#leaseSingle(signal))) throw this.#exhausted();
      }, signal);
    } catch (cause) {
      const [left] = this.#free();
      if (left !== undefined) return left;
      if (!isOverlayError(cause, 'ERR_ETCD_UNAVAILABLE')) throw cause;
      throw new OverlayError(
        'ERR_OUT_OF_ADDRESSES',
        `cannot give an address of ${this.#name}: none is left that this host may give while etcd is away`,
        { cause, isRetryable: true, hint: 'bring etcd back, or remove a container of this host' },
      );
    }
    return this.#free()[0];
  }

  /** Leases a block. @returns false if none is free. */
  async #leaseBlock(signal: AbortSignal): Promise<boolean> {
    const { counters, log, clock } = this.context;
    for (let conflicts = 0; conflicts < MAX_CONFLICTS; conflicts++) {
      const taken = new Set((await this.#list(this.#paths.blocks, signal)).map(({ path }) => path));
      // The lowest one; after a conflict any other, since many hosts may have begun at the same time.
      const start = conflicts === 0 ? 0 : Math.floor(clock.random() * this.layout.blockCount);
      const made = this.#firstWanted(taken, start);
      if (made === undefined) return false;
      const { block } = made;
      if (await this.#write(made, this.#wanted(made), signal)) {
        this.#blocks.set(block.toString(), made);
        counters.blocksLeased++;
        log.info('leased a block of container addresses', { subnet: block.toString() });
        await this.context.save();
        return true;
      }
      await this.#listKeyed(signal);
    }
    return false;
  }

  /** The first block from an index on, and then from the beginning, that nobody has and that is of use. */
  #firstWanted(taken: ReadonlySet<string>, start: number): Block | undefined {
    const { blockCount } = this.layout;
    for (let count = 0; count < blockCount; count++) {
      const block = this.layout.block((start + count) % blockCount);
      const made = newBlock(block);
      if (!taken.has(this.#paths.block(block)) && this.#wanted(made) !== 0n) return made;
    }
    return undefined;
  }

  /** Leases one address of the range that no host gives out without asking. @returns false if there is none. */
  async #leaseSingle(signal: AbortSignal): Promise<boolean> {
    const entries = await this.#list(this.#paths.blocks, signal);
    await this.#listKeyed(signal);
    const blocks = new Map(entries.map(({ path, text }) => [path, decodeBlock(text)]));
    let conflicts = 0;
    for (const address of this.#unowned(blocks)) {
      try {
        const claimed = await this.#claim(address, 'container', { askMs: 0, isInTurn: true }, signal);
        this.#singles.set(address.toString(), { address, ...claimed });
        return true;
      } catch (error) {
        if (!isOverlayError(error, 'ERR_ADDRESS_TAKEN') || ++conflicts >= MAX_CONFLICTS) throw error;
      }
    }
    return false;
  }

  /** Addresses of the range that nobody has, as far as is known; last those that were asked for by name. */
  *#unowned(blocks: ReadonlyMap<string, BlockRecord | undefined>): Generator<IpAddress> {
    const fixed: IpAddress[] = [];
    for (let index = 0; index < this.layout.blockCount; index++) {
      const block = this.layout.block(index);
      const path = this.#paths.block(block);
      const record = blocks.get(path);
      if (record === undefined && blocks.has(path)) continue; // unreadable
      for (const address of addressesIn(block, this.layout.givable(block) & ~(record?.own ?? 0n))) {
        const text = address.toString();
        if (this.#keyed.has(text) || !this.#isFree(address)) continue;
        if (this.#fixed.has(text)) fixed.push(address);
        else yield address;
      }
    }
    yield* fixed;
  }

  /** Gets an address that was asked for by name. */
  async #acquire(address: IpAddress, signal: AbortSignal): Promise<void> {
    await this.#ensureConfirmed(signal);
    if (this.#isConfirmed(address)) return;
    const block = this.#blockOf(address);
    if (block !== undefined) {
      // It is pending, hence wanted.
      await this.#turns.take(() => this.#settle(block, signal), signal);
      if (this.#isConfirmed(address)) return;
    }
    const claimed = await this.#claim(address, 'container', { askMs: ASK_MS, isInTurn: false }, signal);
    this.#singles.set(address.toString(), { address, ...claimed });
  }

  /**
   * Writes a key for an address, on the condition that no host has it otherwise.
   *
   * @param options.askMs - how long the host is asked that may give it out without asking; 0 not at all.
   * @param options.isInTurn - whether the caller has the turn.
   * @throws {@link OverlayError} `ERR_ADDRESS_TAKEN`
   */
  async #claim(
    address: IpAddress,
    kind: AddressKind,
    { askMs, isInTurn }: { readonly askMs: number; readonly isInTurn: boolean },
    signal: AbortSignal,
  ): Promise<{ readonly revision: Revision; readonly generation: number }> {
    const { host, clock } = this.context;
    const block = this.layout.blockOf(address);
    const path = kind === 'container' ? this.#paths.container(address) : this.#paths.shared(address, host);
    const untilMs = clock.monotonicMs() + askMs;
    let asked: string | undefined;
    try {
      for (let conflicts = 0; conflicts < MAX_CONFLICTS;) {
        signal.throwIfAborted();
        const keys = await this.#list(this.#paths.address(address), signal);
        const mine = keys.find((entry) => entry.path === path && decodeHolder(entry.text)?.host === host);
        if (mine === undefined) this.#refuseHeld(address, kind, keys);
        const entry = block && (await this.#read(this.#paths.block(block), signal));
        const owner = mine === undefined && entry ? this.#ownerOf(entry, block, address) : undefined;
        if (owner === undefined) {
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
          if (owner.isUsed) throw this.#taken(address, `a container of host ${owner.host} has it`);
          if (clock.monotonicMs() >= untilMs) {
            throw this.#taken(
              address,
              `host ${owner.host} may give it to a container at any time, and does not answer`,
            );
          }
          asked ??= await this.#ask(owner.host, address, signal);
          await clock.sleep(ASK_POLL_MS, signal);
        }
      }
      throw this.#taken(address, 'others ask for it at the same time');
    } catch (error) {
      if (!isOverlayError(error, 'ERR_ADDRESS_TAKEN')) this.#suspect();
      throw error;
    } finally {
      if (asked !== undefined) void this.#withdraw(asked);
    }
  }

  #refuseHeld(address: IpAddress, kind: AddressKind, keys: readonly ValueEntry[]): void {
    const container = this.#paths.container(address);
    for (const { path, text } of keys) {
      if (kind !== 'container' && path !== container) continue; // shared with other hosts
      const holder = decodeHolder(text);
      const what = holder?.kind === 'container' ? 'a container of' : `the ${holder?.kind ?? 'unreadable'} key of`;
      throw this.#taken(address, `${what} host ${holder?.host ?? 'unknown'} has it`);
    }
  }

  /** Who may give an address out without asking; undefined if nobody. */
  #ownerOf(entry: ValueEntry, block: Prefix, address: IpAddress): { host: string; isUsed: boolean } | undefined {
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
          ? [{ absent: this.#paths.block(block) }]
          : [];
    return kind === 'container'
      ? [...atBlock, { noneBelow: this.#paths.address(address) }]
      : [...atBlock, { absent: this.#paths.container(address) }];
  }

  async #put(
    path: string,
    kind: AddressKind,
    conditions: readonly ValueCondition[],
    signal: AbortSignal,
  ): Promise<{ readonly revision: Revision; readonly generation: number } | undefined> {
    const { host, store, lease } = this.context;
    const { generation } = lease;
    const text = encodeHolder({ host, kind });
    const revision = await store.transactValues(
      { conditions, puts: [{ path, text, etcdLeaseId: this.#etcdLeaseId() }] },
      signal,
    );
    return revision === undefined ? undefined : { revision, generation };
  }

  /** Strikes an address out of the own block, so that it can have a key of its own. */
  async #shed(address: IpAddress, kind: AddressKind, signal: AbortSignal): Promise<void> {
    const block = this.#blockOf(address);
    if (block !== undefined) {
      await this.#reread(block, signal);
      await this.#settle(block, signal, kind === 'container' ? address : undefined);
    } else await this.#sweep(signal);
  }

  async #ask(owner: string, address: IpAddress, signal: AbortSignal): Promise<string> {
    const { host, store, counters } = this.context;
    const path = this.#paths.request(owner, address);
    counters.asked++;
    const text = encodeHolder({ host, kind: 'container' });
    await store.transactValues({ conditions: [], puts: [{ path, text, etcdLeaseId: this.#etcdLeaseId() }] }, signal);
    return path;
  }

  async #withdraw(request: string): Promise<void> {
    try {
      await this.context.store.transactValues({ conditions: [], deletes: [request] });
    } catch {} // it ends with the lease of this host, and whoever was asked deletes it
  }

  /** What this host wants of a block: what is given, and some more to be given without asking. */
  #wanted({ block, own }: Pick<Block, 'block' | 'own'>, without?: IpAddress): AddressMask {
    const given = this.#given(block);
    const kept = addressesIn(block, given & ~own).reduce(
      (mask, address) => (this.#keyed.has(address.toString()) ? mask & ~maskOf(block, address) : mask),
      given,
    );
    const spares = inGivingOrder(
      addressesIn(block, this.layout.givable(block) & ~kept).filter(
        (address) => this.#isFree(address) && !this.#keyed.has(address.toString()),
      ),
      { released: this.#released, fixed: this.#fixed },
    ).slice(0, this.layout.blockSize / 2);
    const wanted = spares.reduce((mask, address) => mask | maskOf(block, address), kept);
    return without === undefined ? wanted : wanted & ~maskOf(block, without);
  }

  /** Addresses of a block that containers of this host have, or are about to get. */
  #given(block: Prefix): AddressMask {
    let mask = 0n;
    for (const address of addressesIn(block, (1n << BigInt(this.layout.blockSize)) - 1n)) {
      const text = address.toString();
      if (this.#singles.has(text) || this.#shared.has(text)) continue;
      const use = this.#uses.get(text);
      if (this.#pending.has(text) || (use !== undefined && !use.isLost)) mask |= maskOf(block, address);
    }
    return mask;
  }

  #used(block: Prefix): AddressMask {
    return [...this.#uses.values()].reduce(
      (mask, { address }) => (block.contains(address) ? mask | maskOf(block, address) : mask),
      0n,
    );
  }

  /** Has etcd know what this host wants of a block that it has. */
  async #settle(block: Block, signal: AbortSignal, without?: IpAddress): Promise<void> {
    for (let conflicts = 0; conflicts < MAX_CONFLICTS; conflicts++) {
      if (block.revision === undefined) await this.#reread(block, signal);
      if (!this.#blocks.has(block.block.toString())) return; // another host's by now
      if (await this.#write(block, this.#wanted(block, without), signal)) return;
      await this.#listKeyed(signal);
      await this.#reread(block, signal);
    }
  }

  /**
   * Writes a block as it was read last, or that was absent then.
   *
   * @returns false if it is not as it was read, or an address that is to be added has a key of its own.
   */
  async #write(block: Block, wanted: AddressMask, signal: AbortSignal): Promise<boolean> {
    const { host, store, lease } = this.context;
    const path = this.#paths.block(block.block);
    const kept = block.own & wanted;
    if (kept !== block.own) {
      block.own = kept;
      await this.context.save();
    }
    const text = encodeBlock({ host, own: wanted, used: this.#used(block.block) & wanted });
    const { generation } = lease;
    if (block.text === text && block.own === wanted && block.generation === generation) return true;
    const { revision: before } = block;
    const conditions: readonly ValueCondition[] = [
      before === undefined ? { absent: path } : { path, revision: before },
      ...addressesIn(block.block, wanted & ~kept).map((address) => ({ noneBelow: this.#paths.address(address) })),
    ];
    let revision: Revision | undefined;
    try {
      const puts = [{ path, text, etcdLeaseId: this.#etcdLeaseId() }];
      revision = await store.transactValues({ conditions, puts }, signal);
      if (revision === undefined) {
        const current = await this.#read(path, signal);
        // Nobody but this host writes so, and no earlier write of it can follow: each was for an older revision.
        if (current?.text === text && current.revision !== before) ({ revision } = current);
      }
    } catch (error) {
      this.#suspect();
      block.revision = undefined; // to be read again
      throw error;
    }
    if (revision === undefined) return false;
    const isMore = wanted !== block.own;
    Object.assign(block, { own: wanted, text, revision, generation });
    if (isMore && this.#blocks.has(block.block.toString())) await this.context.save();
    return true;
  }

  /** Reads a block that this host has; what etcd does not say of it is no longer this host's. */
  async #reread(block: Block, signal: AbortSignal): Promise<void> {
    const entry = await this.#read(this.#paths.block(block.block), signal);
    const record = entry && decodeBlock(entry.text);
    block.revision = entry?.revision;
    block.text = entry?.text;
    const before = block.own;
    block.own &= record?.host === this.context.host ? record.own : 0n;
    if (entry !== undefined && record?.host !== this.context.host) this.#blocks.delete(block.block.toString());
    if (block.own === before) return;
    this.#verifiedGeneration = -1; // what is in use has to be looked after
    await this.context.save();
    this.context.changed();
  }

  async #verify(signal: AbortSignal): Promise<void> {
    const { lease } = this.context;
    const { generation } = lease;
    const isNew = this.#verifiedGeneration !== generation;
    if (!this.#isReleased) {
      await joinNetwork(this.#records(), this.identity, { isNew }, signal);
      this.#isJoined = true;
    }
    if (this.#suspectAtMs !== undefined) await this.#sweep(signal);
    for (const block of [...this.#blocks.values()]) {
      await this.#reread(block, signal);
      await this.#settle(block, signal);
    }
    for (const single of [...this.#singles.values()]) await this.#verifySingle(single, signal);
    for (const shared of [...this.#shared.values()]) await this.#verifyShared(shared, signal);
    for (const use of [...this.#uses.values()]) await this.#verifyUse(use, signal);
    if (lease.generation === generation) this.#verifiedGeneration = generation;
    await this.context.save();
  }

  async #verifySingle(single: Holding, signal: AbortSignal): Promise<void> {
    const { address } = single;
    const text = address.toString();
    try {
      // Of those that are not needed any more, the key is confirmed as well: it is deleted as it is now.
      Object.assign(single, await this.#claim(address, 'container', { askMs: 0, isInTurn: true }, signal));
    } catch (error) {
      if (!isOverlayError(error, 'ERR_ADDRESS_TAKEN')) throw error;
      this.#singles.delete(text);
    }
  }

  async #verifyShared(shared: Shared, signal: AbortSignal): Promise<void> {
    try {
      Object.assign(shared, await this.#claim(shared.address, shared.kind, { askMs: ASK_MS, isInTurn: true }, signal));
    } catch (error) {
      if (!isOverlayError(error, 'ERR_ADDRESS_TAKEN')) throw error;
      this.context.log.error('a gateway or auxiliary address is a container’s', {
        address: shared.address.toString(),
        error,
      });
    }
  }

  /** A use without block or key of this host: gets a key if nobody has the address, else it is lost. */
  async #verifyUse(use: Use, signal: AbortSignal): Promise<void> {
    const { address } = use;
    const text = address.toString();
    if (this.#holdersOf(address).length > 0) {
      use.isLost = false;
      return;
    }
    try {
      this.#singles.set(text, {
        address,
        ...(await this.#claim(address, 'container', { askMs: ASK_MS / 5, isInTurn: true }, signal)),
      });
      use.isLost = false;
    } catch (error) {
      if (!isOverlayError(error, 'ERR_ADDRESS_TAKEN')) throw error;
      if (use.isLost) return;
      use.isLost = true;
      this.context.counters.lost++;
      this.context.log.error('a container of this host has lost its address', {
        address: text,
        error,
        hint: 'stop it, or the container that has the address by now; the lease of this host had run out',
      });
    }
  }

  /** Finds what etcd has of this host that it does not know of: what a lost answer or a crash has left. */
  async #sweep(signal: AbortSignal): Promise<void> {
    const adopts = this.context.isBookLost && !this.#hasSwept;
    const suspectAtMs = this.#suspectAtMs;
    const { clock } = this.context;
    const isSettled = suspectAtMs !== undefined && clock.monotonicMs() - suspectAtMs >= LATE_MS;
    for (const entry of await this.#list(this.#paths.blocks, signal)) await this.#sweepBlock(entry, adopts, signal);
    for (const entry of await this.#listKeyed(signal)) await this.#sweepAddress(entry, adopts, signal);
    this.#hasSwept = true;
    if (isSettled && this.#suspectAtMs === suspectAtMs) this.#suspectAtMs = undefined;
  }

  #suspect(): void {
    this.#suspectAtMs = this.context.clock.monotonicMs();
  }

  async #sweepBlock({ path, text, revision }: ValueEntry, adopts: boolean, signal: AbortSignal): Promise<void> {
    const record = decodeBlock(text);
    if (record?.host !== this.context.host) return;
    const block = this.#blockAt(path);
    if (block !== undefined && this.#blocks.has(block.toString())) return;
    if (block === undefined || !adopts) {
      await this.context.store.transactValues({ conditions: [{ path, revision }], deletes: [path] }, signal);
      return;
    }
    for (const address of addressesIn(block, record.used)) this.#adopt(address);
    this.#blocks.set(block.toString(), { block, own: 0n, revision, text, generation: -1 });
  }

  async #sweepAddress({ path, text, revision }: ValueEntry, adopts: boolean, signal: AbortSignal): Promise<void> {
    const { host, store } = this.context;
    const found = this.#addressAt(path);
    if (found === undefined || decodeHolder(text)?.host !== host) return;
    const { address, holder } = found;
    const key = address.toString();
    const isContainer = holder === 'container';
    if (this.#pending.has(key) || (isContainer ? this.#singles : this.#shared).has(key)) return;
    const use = this.#uses.get(key);
    if (isContainer && (adopts || use?.isLost === false)) {
      this.#adopt(address);
      this.#singles.set(key, { address, revision, generation: -1 });
      return;
    }
    await store.transactValues({ conditions: [{ path, revision }], deletes: [path] }, signal);
  }

  /** A use that etcd alone remembers. */
  #adopt(address: IpAddress): void {
    const text = address.toString();
    if (this.#uses.has(text)) return;
    const sinceMs = this.context.clock.wallMs();
    this.#uses.set(text, { address, mac: undefined, owner: undefined, sinceMs, isLost: false });
  }

  /** Deletes the keys of single and shared addresses that nobody needs. */
  async #dropUnused(signal: AbortSignal): Promise<void> {
    for (const [text, single] of this.#singles) {
      if (this.#uses.has(text) || this.#pending.has(text)) continue;
      this.#singles.delete(text);
      await this.#drop(this.#paths.container(single.address), single.revision, signal);
    }
    for (const [text, shared] of this.#shared) {
      if (!shared.isReleased || this.#pending.has(text)) continue;
      this.#shared.delete(text);
      await this.#drop(this.#paths.shared(shared.address, this.context.host), shared.revision, signal);
    }
  }

  async #giveBack(block: Block, signal: AbortSignal): Promise<void> {
    this.#blocks.delete(block.block.toString());
    for (const texts of [this.#released, this.#fixed]) {
      for (const text of texts) if (block.block.contains(IpAddress.parse(text))) texts.delete(text);
    }
    await this.#drop(this.#paths.block(block.block), block.revision, signal);
    this.context.counters.blocksReturned++;
  }

  /** Deletes a key of this host as it was last known, if that is known; what is left is found by a sweep. */
  async #drop(path: string, revision: Revision | undefined, signal: AbortSignal): Promise<void> {
    await this.context.save(); // first: a process after a crash must not think that it still has it
    if (revision === undefined) {
      this.#suspect();
      return;
    }
    const conditions = [{ path, revision }];
    try {
      if (await this.context.store.transactValues({ conditions, deletes: [path] }, signal)) return;
    } catch (error) {
      this.#suspect();
      throw error;
    }
    this.#suspect();
  }

  /** Whether a block is empty, and so much is free in others that it is not missed. */
  #isSpare(block: Block): boolean {
    if (this.#given(block.block) !== 0n) return false;
    if (this.#isReleased) return true;
    const others = [...this.#blocks.values()].filter((each) => each !== block);
    return others.reduce((sum, each) => sum + this.#room(each), 0) >= this.layout.blockSize;
  }

  /** Addresses that could still be given in a block. */
  #room({ block }: Block): number {
    const left = this.layout.givable(block) & ~this.#given(block);
    const isLeft = (address: IpAddress): boolean => {
      const text = address.toString();
      return !this.#keyed.has(text) && !this.#fixed.has(text) && this.#isFree(address);
    };
    return addressesIn(block, left).filter((address) => isLeft(address)).length;
  }

  /** Whether so few addresses are left that another block is leased ahead of time. */
  #isShort(): boolean {
    if (this.#isReleased || this.#uses.size === 0) return false;
    const room = [...this.#blocks.values()].reduce((sum, block) => sum + this.#room(block), 0);
    return room < this.layout.blockSize / 4;
  }

  async #listKeyed(signal: AbortSignal): Promise<readonly ValueEntry[]> {
    const entries = await this.#list(this.#paths.addresses, signal);
    const texts = entries.flatMap(({ path }) => this.#addressAt(path)?.address.toString() ?? []);
    this.#keyed = new Set(texts);
    for (const text of texts) if (this.#blockOf(IpAddress.parse(text)) !== undefined) this.#remember(text);
    return entries;
  }

  #addressAt(path: string): { readonly address: IpAddress; readonly holder: string } | undefined {
    const [text = '', holder = '', ...rest] = path.slice(this.#paths.addresses.length).split('/');
    const address = IpAddress.tryParse(text);
    if (address === undefined || rest.length > 0 || !this.identity.subnet.contains(address)) return undefined;
    return { address, holder };
  }

  #blockAt(path: string): Prefix | undefined {
    const address = IpAddress.tryParse(path.slice(this.#paths.blocks.length).replace(/-\d+$/, ''));
    const block = address && this.layout.blockOf(address);
    return block !== undefined && this.#paths.block(block) === path ? block : undefined;
  }

  #list(path: string, signal: AbortSignal): Promise<readonly ValueEntry[]> {
    return this.context.store.listValues(path, signal);
  }

  async #read(path: string, signal: AbortSignal): Promise<ValueEntry | undefined> {
    return (await this.#list(path, signal)).find((entry) => entry.path === path);
  }

  #etcdLeaseId(): EtcdLeaseId {
    const { id } = this.context.lease;
    if (id === undefined) throw this.#unconfirmed();
    return id;
  }

  #taken(address: IpAddress, why: string): OverlayError {
    const what = `cannot give ${address.toString()} of ${this.#name}: ${why}`;
    return new OverlayError('ERR_ADDRESS_TAKEN', what, { hint: 'ask for another address' });
  }

  #impossible(what: string): OverlayError {
    return new OverlayError('ERR_ADDRESS_POOL', `cannot give ${what}`, {
      hint: `ask for an address of containers in ${this.identity.subnet.toString()}`,
    });
  }

  #exhausted(): OverlayError {
    const { range } = this.identity;
    return new OverlayError('ERR_OUT_OF_ADDRESSES', `cannot give an address of ${this.#name}: none is free`, {
      hint: `remove containers, or widen the range ${range.toString()}; hosts that are gone keep theirs for a day`,
    });
  }

  #unconfirmed(cause?: unknown): OverlayError {
    const what = `cannot give an address of ${this.#name}: the lease of this host has run out`;
    return new OverlayError('ERR_ADDRESSES_UNCONFIRMED', what, {
      cause,
      isRetryable: true,
      hint: 'bring etcd back; until it answers nobody knows whether another host has the address by now',
    });
  }
}

function newBlock(block: Prefix): Block {
  return { block, own: 0n, revision: undefined, text: undefined, generation: -1 };
}

function isSameProperties(a: NetworkProperties, b: NetworkProperties): boolean {
  const names = Object.keys(a);
  return names.length === Object.keys(b).length && names.every((name) => a[name] === b[name]);
}
