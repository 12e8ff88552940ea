import { OverlayError, describeError, isOverlayError } from '../errors.js';
import type { IpAddress } from '../ip/address.js';
import type { MacAddress } from '../ip/mac.js';
import type { SavedPool } from './address-book.js';
import { ASK_MS, AddressClaims } from './address-claims.js';
import { isSpread, spread, withoutSpread } from './address-spread.js';
import type { AddressRequest, NetworkProperties, PoolStatus } from './addresses.js';
import { agreeOnRecord, leaveNetwork } from './network-record.js';
import { PoolBlocks } from './pool-blocks.js';
import { ABANDONED_MS } from './orphans.js';
import type { PoolContext } from './pool-context.js';
import { exhausted, impossible, poolName, taken, unconfirmed } from './pool-errors.js';
import type { PoolId, PoolIdentity } from './pool-id.js';
import { PoolKeys } from './pool-keys.js';
import { type Block, PoolState, type Shared, type Use } from './pool-state.js';
import { PoolSweep } from './pool-sweep.js';
import { PoolVerification } from './pool-verification.js';
import { Turns } from '../turns.js';

/** An address in use: found on the network, or left to another host that asked for it. */
const SEEN_MS = 600_000;
const YIELDED_MS = 30_000;

/** One that is over and being dealt with otherwise is looked at again after that time. */
const REVIEW_MS = 1000;

/** Addresses that are tried before a request is given up: so many machines of others in one range are no accident. */
const MAX_TRIES = 8;

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
 * *Parts.* {@link PoolState} is what is known and decides, without I/O; {@link PoolBlocks} writes blocks and
 * {@link AddressClaims} keys of single addresses; {@link PoolVerification} compares all with etcd, where
 * {@link PoolSweep} finds what was left behind.
 *
 * *Turns.* Blocks are written one at a time. Single addresses need no turn: whoever asks for one is {@link PoolState.pending}.
 */
export class AddressPool {
  readonly #turns = new Turns();
  readonly #state: PoolState;
  readonly #keys: PoolKeys;
  readonly #blocks: PoolBlocks;
  readonly #sweep: PoolSweep;
  readonly #claims: AddressClaims;
  readonly #verification: PoolVerification;

  constructor(
    id: PoolId,
    private readonly context: PoolContext,
  ) {
    this.#state = new PoolState(id, context);
    this.#keys = new PoolKeys(this.#state, context);
    this.#blocks = new PoolBlocks(this.#state, this.#keys, context);
    this.#sweep = new PoolSweep(this.#state, this.#keys, context);
    const parts = { state: this.#state, keys: this.#keys, blocks: this.#blocks, sweep: this.#sweep };
    this.#claims = new AddressClaims({ ...parts, turns: this.#turns, context });
    this.#verification = new PoolVerification({ ...parts, claims: this.#claims, context });
  }

  /** @param isConfirmed - whether the lease under which it was saved still lasts. */
  static restore(saved: SavedPool, isConfirmed: boolean, context: PoolContext): AddressPool {
    const pool = new AddressPool(saved.id, context);
    pool.#state.restore(saved, isConfirmed);
    pool.#state.isJoined = true;
    pool.#keys.suspect();
    return pool;
  }

  get id(): PoolId {
    return this.#state.id;
  }

  get identity(): PoolIdentity {
    return this.#state.identity;
  }

  /** What is to be written down. */
  save(): SavedPool {
    return this.#state.save();
  }

  get status(): PoolStatus {
    return this.#state.status;
  }

  /** Addresses that containers of this host have. */
  get uses(): Iterable<Use> {
    return this.#state.uses.values();
  }

  get isReleased(): boolean {
    return this.#state.isReleased;
  }

  /** Nothing is left to be done after a release, except for {@link leave}. */
  get isUnused(): boolean {
    return this.#state.isUnused;
  }

  /** Enters this host into the network, as the first one or a later one, unless it is in it. */
  async join(signal: AbortSignal): Promise<void> {
    if (this.#state.isJoined) return;
    try {
      await this.context.renew();
      await this.#keys.join(true, signal);
    } catch (error) {
      this.#keys.suspect();
      throw error;
    }
    this.#state.isJoined = true;
  }

  /** Wanted again, or no more. */
  setReleased(isReleased: boolean): void {
    this.#state.isReleased = isReleased;
    if (!isReleased) return;
    for (const shared of this.#state.shared.values()) shared.isReleased = true;
  }

  /** As `ContainerAddresses.agree`. */
  async agree(properties: NetworkProperties, signal: AbortSignal): Promise<void> {
    const known = this.#state.properties;
    if (known !== undefined && isSameProperties(withoutSpread(known), properties)) return;
    await this.#ensureConfirmed(signal);
    await this.#turns.take(async () => {
      const isFirst = !isSpread(known) && isSpread(spread(properties, this.identity.range));
      // Of an earlier network with that subnet: it could not be cut otherwise.
      if (isFirst) for (const block of this.#state.blocks.values()) await this.#giveBackEmpty(block, signal);
      await this.#keys.agreeOn(await agreeOnRecord(this.#keys.records, this.identity, properties, signal));
      await this.context.save();
    }, signal);
  }

  /** Gives a container an address that nobody else in the cluster has. */
  async giveContainer(request: AddressRequest, signal: AbortSignal): Promise<IpAddress> {
    const { address, mac } = request;
    const known = [...this.#state.uses.values()].find((use) =>
      address === undefined ? isAskers(use, request) && !use.isLost : use.address.equals(address),
    );
    if (known !== undefined) {
      const isAbandoned = isOther(known, mac) && (this.#state.orphans.ageMs(known) ?? 0) >= ABANDONED_MS;
      if (!isAbandoned) return this.#giveAgain(known, request, signal);
      await this.#takeBackOrphan(known);
    }
    if (address !== undefined) return this.#giveOne(address, request, signal);
    for (let seen = 0; seen < MAX_TRIES;) {
      const next = this.#state.firstFree() ?? (await this.#leaseMore(signal));
      if (next === undefined) continue;
      const isGiven = await this.#whilePending(next, async () => {
        if ((await this.#probe(next)) !== undefined) return false;
        await this.#enter(next, request, signal);
        return true;
      });
      if (isGiven) return next;
      seen++;
    }
    throw new OverlayError(
      'ERR_OUT_OF_ADDRESSES',
      `cannot give an address of ${poolName(this.identity)}: ${MAX_TRIES} are in use`,
      {
        hint: 'machines on the network answer for them: give containers a range of their own with --ip-range',
      },
    );
  }

  /** Gives a gateway or an auxiliary address, which every host may have. */
  async giveShared(
    kind: 'gateway' | 'auxiliary',
    requested: IpAddress | undefined,
    signal: AbortSignal,
  ): Promise<IpAddress> {
    const address = requested ?? (kind === 'gateway' ? this.#state.layout.gateway : undefined);
    if (address === undefined || !this.identity.subnet.contains(address)) {
      const what = address === undefined ? 'no address' : address.toString();
      throw impossible(this.identity, `${what} as ${kind} address: it is none of ${this.identity.subnet.toString()}`);
    }
    // Nobody gets these anyway.
    if (!this.#state.layout.isUsable(address) || address.equals(this.#state.layout.gateway)) return address;
    const text = address.toString();
    const known = this.#state.shared.get(text);
    if (known !== undefined && !this.#state.pending.has(text)) {
      known.kind = kind;
      known.isReleased = false;
      await this.context.save();
      return address;
    }
    const use = this.#state.uses.get(text);
    if (use !== undefined) {
      // An engine that starts asks again for what its containers have, without saying that it is for containers.
      if (kind === 'auxiliary') return this.#giveAgain(use, { mac: undefined, owner: undefined }, signal);
      throw taken(this.identity, address, `container ${use.owner ?? 'unknown'} of this host has it`);
    }
    return this.#whilePending(address, async () => {
      const shared: Shared = { address, kind, isReleased: false, revision: undefined, generation: -1 };
      await this.#ensureConfirmed(signal);
      this.#state.shared.set(text, shared);
      try {
        Object.assign(shared, await this.#claims.claim(address, kind, { askMs: ASK_MS, isInTurn: false }, signal));
        await this.context.save();
      } catch (error) {
        this.#state.shared.delete(text);
        throw error;
      }
      this.context.changed();
      return address;
    });
  }

  /** Takes an address back, unless an interface in a container has it. */
  async release(address: IpAddress): Promise<void> {
    const text = address.toString();
    const shared = this.#state.shared.get(text);
    const use = this.#state.uses.get(text);
    if (use !== undefined) {
      if (this.#interfaceOf(use) === 'joined') this.context.kept(address);
      else await this.#takeBack(use);
    } else if (shared !== undefined) {
      shared.isReleased = true;
      await this.context.save();
      this.context.changed();
    }
  }

  /** As `ContainerAddresses.freeAddress`. */
  async free(address: IpAddress, isForced: boolean): Promise<string | undefined> {
    const use = this.#state.uses.get(address.toString());
    if (use === undefined) return 'no container of this host was given it';
    let why = this.#whyKept(use, isForced);
    if (why === undefined && !isForced) {
      why = (await this.#whoAnswers(address)) ?? this.#whyKept(use, isForced); // which may have changed meanwhile
    }
    if (why !== undefined) return why;
    await this.#takeBackOrphan(use);
    return undefined;
  }

  /**
   * Takes notice of which addresses have an interface.
   *
   * @returns in how many milliseconds one of them may be taken back by itself; infinite if they all have one.
   */
  review(): number {
    const { orphans, uses } = this.#state;
    orphans.review(uses.values());
    const ages = [...uses.values()].map((use) => orphans.ageMs(use) ?? Number.NEGATIVE_INFINITY);
    return Math.max(REVIEW_MS, this.context.orphanMs - Math.max(Number.NEGATIVE_INFINITY, ...ages));
  }

  /** Takes back what has had no interface for too long. */
  async releaseOrphans(): Promise<readonly IpAddress[]> {
    const { orphans, uses, pending } = this.#state;
    const released: IpAddress[] = [];
    for (const use of [...uses.values()]) {
      const isOver = (orphans.ageMs(use) ?? 0) >= this.context.orphanMs && !pending.has(use.address.toString());
      if (!isOver) continue;
      await this.#takeBackOrphan(use);
      released.push(use.address);
    }
    return released;
  }

  isGiven(address: IpAddress, mac: MacAddress | undefined): boolean {
    const text = address.toString();
    const use = this.#state.uses.get(text);
    return use === undefined ? this.#state.shared.get(text)?.isReleased === false : !isOther(use, mac);
  }

  /** Leaves an address to another host that asks for it, unless a container has it; etcd tells which. */
  async yield(address: IpAddress, signal: AbortSignal): Promise<void> {
    await this.#turns.take(async () => {
      const block = this.#state.blockOf(address);
      if (block === undefined) return;
      const text = address.toString();
      this.#state.remember(text);
      if (!this.#state.uses.has(text) && !this.#state.pending.has(text)) {
        this.#state.avoid(text, YIELDED_MS);
        this.context.counters.yielded++;
      }
      await this.#blocks.settle(block, signal);
    }, signal);
  }

  /** Compares all with etcd, and tells it what this host wants. */
  verify(signal: AbortSignal): Promise<void> {
    return this.#turns.take(() => this.#verification.run(signal), signal);
  }

  /** Nothing that etcd said before is known to be so any more; it may also have what was given up long ago. */
  distrust(): void {
    this.#keys.suspect();
    this.#state.isTold = false; // an earlier process of this host may be in it
  }

  /** Tells etcd what has changed here: which addresses are given, which more are needed, what is needed no more. */
  async tidy(signal: AbortSignal): Promise<void> {
    await this.#turns.take(async () => {
      if (this.#state.verifiedGeneration !== this.context.lease.generation) await this.#verification.run(signal);
      if (this.#keys.suspectAtMs !== undefined) await this.#sweep.run(signal);
      await this.#claims.dropUnused(signal);
      for (const block of [...this.#state.blocks.values()]) {
        if (this.#state.isSpare(block)) await this.#blocks.giveBack(block, signal);
        else await this.#blocks.settle(block, signal);
      }
      if (this.#state.isShort()) await this.#blocks.lease(signal);
    }, signal);
  }

  /**
   * Gives up all that is left of a pool that was released.
   *
   * @returns false if it is wanted again, or something may be left for now.
   */
  async leave(signal: AbortSignal): Promise<boolean> {
    return this.#turns.take(async () => {
      const isUnused = (): boolean => this.isUnused;
      if (!isUnused()) return false;
      await this.#sweep.run(signal);
      await this.#claims.dropUnused(signal);
      for (const block of [...this.#state.blocks.values()]) if (isUnused()) await this.#blocks.giveBack(block, signal);
      if (!isUnused()) return false;
      this.#state.isJoined = false;
      this.#state.isTold = false;
      await leaveNetwork(this.#keys.records, signal);
      return isUnused() && this.#keys.suspectAtMs === undefined;
    }, signal);
  }

  async #giveBackEmpty(block: Block, signal: AbortSignal): Promise<void> {
    if (this.#state.given(block.block) === 0n) await this.#blocks.giveBack(block, signal);
  }

  async #whilePending<T>(address: IpAddress, action: () => Promise<T>): Promise<T> {
    const text = address.toString();
    if (this.#state.pending.has(text)) throw taken(this.identity, address, 'another request for it is being answered');
    this.#state.pending.add(text);
    try {
      return await action();
    } finally {
      this.#state.pending.delete(text);
    }
  }

  #interfaceOf({ address, mac }: Use): 'joined' | 'made' | undefined {
    return this.context.register()?.interfaceOf(address, mac);
  }

  async #takeBack(use: Use): Promise<void> {
    const { address, mac } = use;
    const text = address.toString();
    this.#state.release(address);
    this.context.counters.released++;
    try {
      await this.context.save();
    } catch (error) {
      if (!this.#state.uses.has(text)) this.#state.uses.set(text, use);
      throw error;
    }
    await this.context.register()?.forget(address, mac);
    this.context.changed();
  }

  async #takeBackOrphan(use: Use): Promise<void> {
    await this.#takeBack(use);
    this.context.counters.orphaned++;
  }

  /** What is against freeing an address; undefined if nothing is known. */
  #whyKept(use: Use, isForced: boolean): string | undefined {
    const found = this.#interfaceOf(use);
    if (found === 'joined') return 'an interface in a container or a namespace has it';
    if (isForced) return undefined;
    if (found === 'made') return 'an interface was made for it, which Docker gives back when it starts the next time';
    const ageMs = this.#state.orphans.ageMs(use);
    const owner = use.owner ?? 'a container';
    if (ageMs === undefined) return `it was given to ${owner}, and nobody can tell whether that has it still`;
    if (ageMs >= ABANDONED_MS) return undefined;
    return `it was given to ${owner}, which may be about to get it: wait for ${ABANDONED_MS / 1000} s`;
  }

  async #whoAnswers(address: IpAddress): Promise<string | undefined> {
    try {
      const mac = await this.context.probe?.(this.id, address);
      return mac === undefined ? undefined : `a machine on the network with MAC address ${mac} answers for it`;
    } catch (error) {
      return describeError(error);
    }
  }

  async #giveAgain(
    use: Use,
    { mac, owner, register }: Pick<AddressRequest, 'mac' | 'owner' | 'register'>,
    signal: AbortSignal,
  ): Promise<IpAddress> {
    const { address } = use;
    if (isOther(use, mac)) {
      throw taken(
        this.identity,
        address,
        `container ${use.owner ?? 'unknown'} of this host has it, with MAC address ${use.mac ?? ''}`,
      );
    }
    this.#state.orphans.renew(use);
    if (!this.#state.isConfirmed(address)) {
      await this.#ensureConfirmed(signal);
      if (!this.#state.isConfirmed(address)) await this.verify(signal);
    }
    if (use.isLost || !this.#state.isConfirmed(address)) {
      throw taken(this.identity, address, 'another host has it since the lease of this host had run out');
    }
    const now = { mac: mac ?? use.mac, owner: owner ?? use.owner, register: register ?? use.register };
    if (now.mac !== use.mac || now.owner !== use.owner || now.register !== use.register) {
      Object.assign(use, now);
      await this.context.save();
      this.context.changed();
    }
    return address;
  }

  async #giveOne(address: IpAddress, request: AddressRequest, signal: AbortSignal): Promise<IpAddress> {
    this.#refuseUnusable(address);
    return this.#whilePending(address, async () => {
      if (!this.#state.isConfirmed(address)) await this.#acquire(address, signal);
      const seen = await this.#probe(address);
      if (seen !== undefined) {
        this.context.changed(); // what was acquired is given back
        throw taken(this.identity, address, `a machine on the network with MAC address ${seen} has it`);
      }
      await this.#enter(address, request, signal);
      this.#state.remember(address.toString());
      return address;
    });
  }

  #refuseUnusable(address: IpAddress): void {
    const text = address.toString();
    const { subnet } = this.identity;
    if (!subnet.contains(address)) throw impossible(this.identity, `${text}: it is outside of ${subnet.toString()}`);
    if (!this.#state.layout.isUsable(address)) {
      throw impossible(this.identity, `${text}: it is the network's own, or its broadcast or anycast address`);
    }
    const shared = this.#state.shared.get(text);
    if (shared !== undefined && !shared.isReleased)
      throw taken(this.identity, address, `it is the ${shared.kind} address`);
    const isElsewhere = [...this.#state.shared.values()].some(({ kind }) => kind === 'gateway');
    if (address.equals(this.#state.layout.gateway) && !isElsewhere)
      throw taken(this.identity, address, 'it is the gateway address');
  }

  async #probe(address: IpAddress): Promise<MacAddress | undefined> {
    const { probe, counters, clock, log } = this.context;
    if (probe === undefined) return undefined;
    counters.probes++;
    const mac = await probe(this.id, address);
    if (mac === undefined) return undefined;
    counters.seen++;
    const text = address.toString();
    this.#state.avoid(text, SEEN_MS);
    this.#state.seen.set(text, { address, mac, seenAtMs: clock.wallMs() });
    log.warn('an address of containers is in use on the network, it is left out', {
      address: text,
      peer: mac,
      hint: 'give containers a range of their own with --ip-range, or the machine another address',
    });
    this.context.changed();
    return mac;
  }

  /** Writes a use down; it is answered only if that is done, the address still this host's, and somebody waits for it. */
  async #enter(address: IpAddress, { mac, owner, register }: AddressRequest, signal: AbortSignal): Promise<void> {
    const text = address.toString();
    const sinceMs = this.context.clock.wallMs();
    this.#state.uses.set(text, { address, mac, owner, sinceMs, isLost: false, register });
    try {
      await this.context.save();
    } catch (error) {
      this.#state.uses.delete(text);
      throw error;
    }
    if (signal.aborted || !this.#state.isConfirmed(address)) {
      this.#state.uses.delete(text);
      await this.context.save();
      signal.throwIfAborted();
      throw unconfirmed(this.identity);
    }
    this.#state.released.delete(text);
    this.context.counters.given++;
    this.context.changed();
  }

  /** Sees to it that what this host has is confirmed under its present lease. */
  async #ensureConfirmed(signal: AbortSignal): Promise<void> {
    const { lease } = this.context;
    const isDone = (): boolean => lease.isValid() && this.#state.verifiedGeneration === lease.generation;
    if (isDone()) return;
    try {
      await this.#turns.take(async () => {
        if (!lease.isValid()) await this.context.renew();
        if (!isDone()) await this.#verification.run(signal);
      }, signal);
    } catch (cause) {
      if (lease.isValid() || this.#state.blocks.size + this.#state.singles.size === 0) throw cause;
      throw unconfirmed(this.identity, cause);
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
        if (this.#state.firstFree() !== undefined) return; // whoever had the turn before has got some
        if (this.#state.blocks.size > 0) {
          await this.#keys.listKeyed(signal);
          for (const block of [...this.#state.blocks.values()]) await this.#blocks.settle(block, signal);
          if (this.#state.firstFree() !== undefined) return;
        }
        if (!(await this.#blocks.lease(signal)) && !(await this.#claims.leaseSingle(signal)))
          throw exhausted(this.identity);
      }, signal);
    } catch (cause) {
      const [left] = this.#state.free();
      if (left !== undefined) return left;
      if (!isOverlayError(cause, 'ERR_ETCD_UNAVAILABLE')) throw cause;
      throw new OverlayError(
        'ERR_OUT_OF_ADDRESSES',
        `cannot give an address of ${poolName(this.identity)}: none is left that this host may give while etcd is away`,
        { cause, isRetryable: true, hint: 'bring etcd back, or remove a container of this host' },
      );
    }
    return this.#state.free()[0];
  }

  /** Gets an address that was asked for by name. */
  async #acquire(address: IpAddress, signal: AbortSignal): Promise<void> {
    await this.#ensureConfirmed(signal);
    if (this.#state.isConfirmed(address)) return;
    const block = this.#state.blockOf(address);
    if (block !== undefined) {
      // It is pending, hence wanted.
      await this.#turns.take(() => this.#blocks.settle(block, signal), signal);
      if (this.#state.isConfirmed(address)) return;
    }
    const claimed = await this.#claims.claim(address, 'container', { askMs: ASK_MS, isInTurn: false }, signal);
    this.#state.singles.set(address.toString(), { address, ...claimed });
  }
}

/** Whether a use is known to be of the interface that an address is asked for: by its MAC address, or whose it is. */
function isAskers(use: Use, { mac, owner }: Pick<AddressRequest, 'mac' | 'owner'>): boolean {
  if (mac !== undefined || use.mac !== undefined) return use.mac === mac;
  return owner !== undefined && use.owner === owner;
}

/** Whether a use is of another interface than the one with that MAC address. */
function isOther(use: Use, mac: MacAddress | undefined): boolean {
  return mac !== undefined && use.mac !== undefined && mac !== use.mac;
}

function isSameProperties(a: NetworkProperties, b: NetworkProperties): boolean {
  const names = Object.keys(a);
  return names.length === Object.keys(b).length && names.every((name) => a[name] === b[name]);
}
