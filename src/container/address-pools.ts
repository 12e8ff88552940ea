import { setMaxListeners } from 'node:events';
import { type Clock, backoffMs } from '../clock.js';
import { CoalescingTask } from '../coalescing-task.js';
import type { ContainerRange } from '../config/network-config.js';
import { Deadline } from '../deadline.js';
import { OverlayError, isOverlayError } from '../errors.js';
import type { Family, IpAddress } from '../ip/address.js';
import type { MacAddress } from '../ip/mac.js';
import { Prefix } from '../ip/prefix.js';
import type { SharedValueStore, Subscription } from '../lease/store.js';
import type { World } from '../lease/world.js';
import type { Logger } from '../log.js';
import { RateLimitedLog } from '../rate-limited-log.js';
import type { TextFiles } from '../sys/text-files.js';
import { AddressBook, type SavedAddresses } from './address-book.js';
import { AddressPool } from './address-pool.js';
import {
  type AddressCounters,
  type AddressRequest,
  type AddressStatus,
  type ContainerAddresses,
  type GivenPool,
  type InterfaceRegister,
  type LanProbe,
  type NetworkProperties,
  type PoolRequest,
  REQUEST_TIMEOUT_MS,
} from './addresses.js';
import { HostAccount } from './host-account.js';
import { HostLease } from './host-lease.js';
import type { HostPlace } from './host-place.js';
import { foundNetwork } from './network-record.js';
import { dropChoice, refuseOverlay } from './network-overlap.js';
import type { PoolContext } from './pool-context.js';
import { type PoolId, type PoolIdentity, formatPoolId, parsePoolId, poolPath } from './pool-id.js';
import { PoolLayout } from './pool-layout.js';
import {
  CHOICE_PATH,
  PoolPaths,
  RECORDS_PATH,
  decodeRecord,
  isHostId,
  parsePoolPath,
  parseRequestPath,
  requestsPath,
} from './records.js';
import { Turns } from '../turns.js';

/** What {@link AddressPools} are made of. */
export interface AddressPoolsOptions {
  /** Stands for this host in etcd, whatever its addresses are: 1…64 letters, digits, `_`, `.`, `:` and `-`. */
  readonly host: string;
  /** What this host is called, for people. Default {@link host}. */
  readonly hostName?: string | undefined;
  /** Of the keys, so that a book of another cluster is told apart. */
  readonly etcdPrefix: string;
  readonly store: SharedValueStore;
  readonly clock: Clock;
  readonly log: Logger;
  readonly files: TextFiles;
  /** Where it is written down who has which address. */
  readonly file: string;
  /** Undefined asks nobody on the network. */
  readonly probe?: LanProbe | undefined;
  /** What is known of interfaces, as soon as it is; without it no address is taken back by itself. */
  readonly register?: () => InterfaceRegister | undefined;
  /** After which an address without an interface is taken back by itself. Default 600. */
  readonly orphanSeconds?: number | undefined;
  /** Where new networks come from, as the network configuration says now. */
  readonly range: (family: Family) => ContainerRange | undefined;
  /** The networks of the overlay, likewise. Default none. */
  readonly overlay?: (() => readonly Prefix[]) | undefined;
  /** Where this host is, for those that send to its containers; default nowhere. */
  readonly place?: (() => HostPlace | undefined) | undefined;
  /** After which addresses of a host that is gone come free. Default 86 400, as for subnets. */
  readonly ttlSeconds?: number | undefined;
}

/** One day, as flannel's leases have. */
const TTL_SECONDS = 86_400;

/** Ten minutes: an engine that is held up for as long has to start the container again. */
const ORPHAN_SECONDS = 600;

/**
 * How often all is compared with etcd, which somebody may have restored, wiped or edited, and the lease is renewed: at
 * least three times before it ends.
 */
const VERIFY_MS = 60_000;

/** How often the etcd lease of a host is renewed while it is up and etcd answers. */
export function renewalSeconds(ttlSeconds: number): number {
  return Math.min(VERIFY_MS / 1000, ttlSeconds / 3);
}

/** Several changes within that time are told to etcd together. */
const TIDY_DELAY_MS = 50;

/** Networks that could not be left yet are looked at again. */
const LEAVE_MS = 5000;

const RETRY_BASE_MS = 500;
const RETRY_CAP_MS = 30_000;

/** A host that is away at the wrong moment does not hold the others up for longer. */
const UPKEEP_TIMEOUT_MS = 30_000;

/** The end of the lease is written down when it has moved by so much. */
const REFRESH_MS = 3_600_000;

/** Docker repeats a request without a pool as long as the answer overlaps something on the host, and it does so at once. */
const REPEAT_MS = 2000;

/**
 * How long after a start nothing is given before etcd was asked: an operator may have given what is in the book to other
 * hosts meanwhile. Not for ever, since containers start while etcd is away; a network that comes up takes a few seconds.
 */
const FIRST_LOOK_MS = 5000;

const RIVAL_HINT =
  'copied machines need a machine id of their own (systemd-machine-id-setup), or one of them --host-id';

/** Choices of other hosts that a choice may meet. */
const MAX_CONFLICTS = 8;

/** Addresses that a line of the log names. */
const MAX_TOLD = 20;

/** Subnets of a range that are looked at; more are in use in no cluster. */
const MAX_CANDIDATES = 1n << 16n;

/**
 * Gives out addresses of container networks on this host, in agreement with all other hosts.
 *
 * @remarks
 * *API.* {@link ContainerAddresses}. {@link open} reads the book, {@link close} ends all but keeps what is leased.
 *
 * *Upkeep.* After each change, and once a minute: the lease is renewed, all that this host has is compared with etcd and
 * told to it, and other hosts that ask for addresses are answered. Whatever fails is tried again with growing delays, and
 * told once a minute. After a start nothing is given before the first run, unless etcd stays silent ({@link FIRST_LOOK_MS}).
 *
 * *Limits.* One timer, one watch, one run of upkeep at a time; each call ends within {@link REQUEST_TIMEOUT_MS}.
 */
export class AddressPools implements ContainerAddresses {
  readonly #options: AddressPoolsOptions;
  readonly #lease: HostLease;
  readonly #book: AddressBook;
  readonly #context: PoolContext;
  readonly #pools = new Map<string, AddressPool>();
  readonly #turns = new Turns();
  readonly #callbacks = new Set<() => void>();
  readonly #upkeep: CoalescingTask;
  readonly #reviewing: CoalescingTask;
  readonly #account: HostAccount;
  readonly #closing = new AbortController();
  readonly #complaints: RateLimitedLog;
  readonly #kept: RateLimitedLog;
  readonly #subscriptions: Subscription[] = [];
  /** Until etcd has been asked about what the book says, or has had its time. */
  readonly #firstLook: Promise<void>;
  #endFirstLook = (): void => {};
  #renewing: Promise<void> | undefined;
  #verifyAtMs: number;
  #failures = 0;
  /** When another process was last found to serve a host of this name. */
  #rivalAtMs = Number.NEGATIVE_INFINITY;
  #savedExpiryMs = 0;
  /** Of etcd, as the world has it. */
  #epoch = 0;
  /** What is still to be looked for in etcd: networks of which it alone knows that this host is in them. */
  #unknown: 'none' | 'wanted' | 'stale';
  /** The last pool that was chosen here, so that the next one is another one. */
  #lastChosen: { readonly subnet: Prefix; readonly atMs: number; readonly name: string | undefined } | undefined;

  private constructor(options: AddressPoolsOptions, saved: SavedAddresses | undefined) {
    const {
      host,
      store,
      clock,
      log,
      probe,
      files,
      file,
      ttlSeconds = TTL_SECONDS,
      orphanSeconds = ORPHAN_SECONDS,
    } = options;
    this.#options = options;
    setMaxListeners(0, this.#closing.signal); // one for each request under way
    this.#lease = new HostLease({ store, clock, ttlSeconds });
    this.#book = new AddressBook(file, files, () => this.#content());
    this.#complaints = new RateLimitedLog(clock);
    this.#kept = new RateLimitedLog(clock);
    this.#verifyAtMs = clock.monotonicMs();
    this.#unknown = saved === undefined ? 'wanted' : 'none';
    this.#upkeep = new CoalescingTask(clock, () => this.#keepUp());
    this.#reviewing = new CoalescingTask(clock, () => this.#releaseOrphans());
    this.#firstLook = new Promise((resolve) => {
      const cancel = clock.after(FIRST_LOOK_MS, resolve);
      this.#endFirstLook = () => {
        cancel();
        resolve();
      };
    });
    this.#account = new HostAccount({
      host,
      hostName: options.hostName ?? host,
      store,
      clock,
      log,
      lease: this.#lease,
      place: options.place ?? (() => undefined),
      networks: () => [...this.#pools.values()],
    });
    this.#context = {
      host,
      instance: Math.floor(clock.random() * 2 ** 48).toString(16),
      store,
      clock,
      log,
      probe,
      register: options.register ?? (() => undefined),
      orphanMs: orphanSeconds * 1000,
      lease: this.#lease,
      isBookLost: saved === undefined,
      counters: newCounters(),
      save: () => this.#save(),
      renew: () => this.#renew(),
      kept: (address) => this.#noteKept(address),
      rivalFound: () => this.#noteRival(),
      changed: () => this.#changed(),
    };
    const isConfirmed = saved?.lease !== undefined && this.#lease.restore(saved.lease);
    for (const pool of saved?.pools ?? []) {
      this.#pools.set(pool.id, AddressPool.restore(pool, isConfirmed, this.#context));
    }
  }

  /**
   * Goes on where an earlier process ended.
   *
   * @throws {@link OverlayError} `ERR_ADDRESS_POOL` if the host cannot be called so.
   */
  static async open(options: AddressPoolsOptions): Promise<AddressPools> {
    const { host, store } = options;
    if (!isHostId(host)) throw new OverlayError('ERR_ADDRESS_POOL', `cannot call a host ${JSON.stringify(host)}`);
    const pools = new AddressPools(options, await readBook(options));
    pools.#subscriptions.push(
      store.watchValues(requestsPath(host), () => pools.#upkeep.schedule(0)),
      store.onHealth(({ isConnected }) => {
        if (isConnected) pools.#upkeep.schedule(0);
      }),
    );
    pools.#upkeep.schedule(0);
    return pools;
  }

  async requestPool(request: PoolRequest): Promise<GivenPool> {
    return this.#answer(async (signal) => {
      const { pool, range, name, family } = request;
      if (pool === undefined) return this.#choosePool(name, family, signal);
      if (pool.family !== family) {
        throw new OverlayError('ERR_ADDRESS_POOL', `cannot use ${pool.toString()} as a pool of IPv${family}`, {
          hint: 'give --subnet and --ip-range of one family',
        });
      }
      const identity = { name, subnet: pool, range: range ?? pool };
      return this.#turns.take(() => this.#enter(identity, signal), signal);
    });
  }

  async releasePool(id: PoolId): Promise<void> {
    parsePoolId(id);
    const pool = this.#pools.get(id);
    if (pool === undefined) return;
    pool.setReleased(true);
    await this.#save();
    this.#changed();
  }

  async requestAddress(id: PoolId, request: AddressRequest, asker?: AbortSignal): Promise<IpAddress> {
    return this.#answer(async (signal) => {
      await this.#firstLook;
      signal.throwIfAborted();
      const pool = this.#find(id);
      const { kind, address } = request;
      const given =
        kind === 'container' ? await pool.giveContainer(request, signal) : await pool.giveShared(kind, address, signal);
      if (pool.isReleased) {
        pool.setReleased(false);
        await this.#save();
      }
      return given;
    }, asker);
  }

  async releaseAddress(id: PoolId, address: IpAddress): Promise<void> {
    parsePoolId(id);
    await this.#pools.get(id)?.release(address);
  }

  async freeAddress(id: PoolId, address: IpAddress, isForced: boolean): Promise<string | undefined> {
    return this.#answer(async () => {
      const why = await this.#find(id).free(address, isForced);
      if (why === undefined) {
        this.#options.log.info('freed an address that no container had', { address: address.toString() });
      }
      return why;
    });
  }

  isGiven(address: IpAddress, mac: MacAddress | undefined): boolean {
    return [...this.#pools.values()].some((pool) => pool.isGiven(address, mac));
  }

  review(): void {
    const nextMs = Math.min(...[...this.#pools.values()].map((pool) => pool.review()));
    if (Number.isFinite(nextMs)) this.#reviewing.schedule(nextMs);
  }

  /** Takes notice of this host being somewhere else, as {@link AddressPoolsOptions.place} says. */
  moved(): void {
    if (this.#pools.size > 0) this.#account.moved();
  }

  async agree(id: PoolId, properties: NetworkProperties): Promise<void> {
    return this.#answer((signal) => this.#find(id).agree(properties, signal));
  }

  status(): AddressStatus {
    return {
      pools: [...this.#pools.values()].map((pool) => pool.status),
      expiresAtMs: this.#lease.expiresAtMs,
      isConfirmed: this.#lease.isValid(),
      counters: { ...this.#context.counters },
    };
  }

  onChange(callback: () => void): Subscription {
    this.#callbacks.add(callback);
    return { close: () => this.#callbacks.delete(callback) };
  }

  /**
   * Takes notice of the history that etcd has now. After another one (wiped, restored, another cluster) nothing is given
   * out, and nothing counts as confirmed, until all that this host has was told to etcd again, which begins at once. The
   * book says so before: a process that follows may find etcd away.
   */
  observe({ epoch }: Pick<World, 'epoch'>): void {
    if (epoch === this.#epoch) return;
    this.#epoch = epoch;
    this.#lease.distrust();
    for (const pool of this.#pools.values()) pool.distrust();
    if (this.#unknown === 'none') this.#unknown = 'stale';
    if (this.#pools.size > 0) {
      this.#save().catch((error: unknown) => {
        this.#options.log.warn('the book of container addresses does not tell yet that etcd has another history', {
          error,
        });
      });
    }
    this.#account.distrust();
    this.#upkeep.schedule(0);
  }

  /** Ends; what is leased stays, and is written down. Idempotent. */
  async close(): Promise<void> {
    this.#closing.abort(new OverlayError('ERR_STORE_CLOSED', 'cannot give addresses of containers: it was closed'));
    this.#endFirstLook();
    for (const subscription of this.#subscriptions.splice(0)) subscription.close();
    await Promise.all([this.#upkeep.close(), this.#reviewing.close()]);
    await this.#account.close();
  }

  #find(id: PoolId): AddressPool {
    const { name, subnet } = parsePoolId(id);
    const pool = this.#pools.get(id);
    if (pool !== undefined) return pool;
    const what = `cannot give an address of ${poolPath({ name, subnet })}: this host is not in that network`;
    throw new OverlayError('ERR_ADDRESS_POOL', what, { hint: 'remove the network and create it again' });
  }

  /** Runs a request within the time that whoever asked waits; what comes later is undone by whoever does it. */
  async #answer<T>(action: (signal: AbortSignal) => Promise<T>, asker?: AbortSignal): Promise<T> {
    const { counters } = this.#context;
    this.#refuseRival();
    const deadline = new Deadline(this.#options.clock, REQUEST_TIMEOUT_MS, this.#closing.signal, asker);
    try {
      return await Promise.race([action(deadline.signal), whenAborted(deadline.signal)]);
    } catch (error) {
      counters.refused++;
      if (error !== deadline.signal.reason || isOverlayError(error)) throw error;
      if (this.#book.isWriting) throw this.#book.slow(REQUEST_TIMEOUT_MS, error);
      throw new OverlayError('ERR_ETCD_UNAVAILABLE', `cannot get an answer from etcd within ${REQUEST_TIMEOUT_MS} ms`, {
        cause: error,
        isRetryable: true,
        hint: 'check that etcd runs and is not overloaded',
      });
    } finally {
      deadline.clear();
    }
  }

  get #verifyMs(): number {
    return renewalSeconds(this.#options.ttlSeconds ?? TTL_SECONDS) * 1000;
  }

  #noteRival(): void {
    const { clock, host, log } = this.#options;
    this.#rivalAtMs = clock.monotonicMs();
    log.error('another host gives addresses of containers under the id of this one', { kind: host, hint: RIVAL_HINT });
  }

  #noteKept(address: IpAddress): void {
    this.#kept.tell((count) => {
      this.#options.log.warn('an address was released that an interface in a container has, it stays', {
        address: address.toString(),
        count,
      });
    });
  }

  /** Each of the two finds the other one whenever it looks; once one of them is gone, that ends. */
  #refuseRival(): void {
    const { clock, host } = this.#options;
    if (clock.monotonicMs() - this.#rivalAtMs >= 3 * this.#verifyMs) return;
    this.#context.counters.refused++;
    throw new OverlayError(
      'ERR_HOST_ID_TAKEN',
      `cannot give addresses of containers: another host is called ${host} too`,
      {
        hint: RIVAL_HINT,
      },
    );
  }

  async #enter(identity: PoolIdentity, signal: AbortSignal): Promise<GivenPool> {
    const id = formatPoolId(identity);
    if (!this.#pools.has(id)) refuseOverlay(identity.subnet, this.#options.overlay?.() ?? []);
    const rival = [...this.#pools.values()].find(
      (pool) => pool.id !== id && poolPath(pool.identity) === poolPath(identity),
    );
    if (rival !== undefined) {
      const there = rival.identity.range.toString();
      const what = `cannot use ${identity.subnet.toString()} with the range ${identity.range.toString()}`;
      throw new OverlayError('ERR_NETWORK_DIFFERS', `${what}: this host has it with the range ${there}`, {
        hint: 'use the same --ip-range, or a name of its own for each with --ipam-opt network=NAME',
      });
    }
    return this.#add(id, async (pool) => pool.join(signal));
  }

  /** Has a pool that this host is in; one that it could not enter is left by upkeep, whatever etcd has done meanwhile. */
  async #add(id: PoolId, enter: (pool: AddressPool) => Promise<void>): Promise<GivenPool> {
    const known = this.#pools.get(id);
    const pool = known ?? new AddressPool(id, this.#context);
    const wasReleased = known?.isReleased ?? true;
    this.#pools.set(id, pool);
    pool.setReleased(false);
    try {
      await enter(pool);
      await this.#save();
    } catch (error) {
      pool.setReleased(wasReleased);
      this.#changed();
      throw error;
    }
    this.#changed();
    if (known === undefined) this.#account.moved();
    return givenPool(id, pool.identity);
  }

  /** A pool that nobody named: of the network with that name, if there is one, else a new one. */
  #choosePool(name: string | undefined, family: Family, signal: AbortSignal): Promise<GivenPool> {
    return this.#turns.take(async () => {
      for (let conflicts = 0; conflicts < MAX_CONFLICTS; conflicts++) {
        const given = await this.#tryChoosePool(name, family, signal);
        if (given !== undefined) return given;
      }
      throw new OverlayError('ERR_CONFLICT', `cannot choose a subnet of IPv${family}: other hosts do so all the time`, {
        isRetryable: true,
        hint: 'try again',
      });
    }, signal);
  }

  /** @returns undefined if another host has chosen one meanwhile, of that name or of that subnet. */
  async #tryChoosePool(name: string | undefined, family: Family, signal: AbortSignal): Promise<GivenPool | undefined> {
    const { store, clock } = this.#options;
    const [choice] = await store.listValues(CHOICE_PATH, signal);
    const entries = await store.listValues(RECORDS_PATH, signal);
    const records = entries.flatMap(({ path, text }) => {
      const pool = parsePoolPath(path.slice(RECORDS_PATH.length));
      const record = decodeRecord(text);
      return pool === undefined ? [] : { ...pool, range: record?.range ?? pool.subnet };
    });
    const sameName = records.find((each) => name !== undefined && each.name === name && each.subnet.family === family);
    if (sameName !== undefined) {
      this.#refuseRepetition(sameName);
      this.#lastChosen = { subnet: sameName.subnet, atMs: clock.monotonicMs(), name };
      return this.#enter(sameName, signal);
    }
    await this.#renew();
    const identities = [...records, ...[...this.#pools.values()].map(({ identity }) => identity)];
    const taken = [...identities.map(({ subnet }) => subnet), ...(this.#options.overlay?.() ?? [])];
    const [subnet] = this.#candidates(family, taken);
    if (subnet === undefined) {
      throw new OverlayError('ERR_OUT_OF_ADDRESSES', `cannot choose a subnet of IPv${family}: all are in use`, {
        hint: 'give --subnet, remove networks, or give ContainerNetworks a larger range',
      });
    }
    const identity = { name, subnet, range: subnet };
    const paths = new PoolPaths(identity);
    const { host, instance } = this.#context;
    const context = { host, instance, store, paths, identity, etcdLeaseId: this.#lease.id };
    if (!(await foundNetwork(context, identity, choice, signal))) return undefined;
    this.#lastChosen = { subnet, atMs: clock.monotonicMs(), name };
    return this.#add(formatPoolId(identity), (pool) => pool.join(signal));
  }

  /** The same answer at once would make Docker ask for ever. */
  #refuseRepetition({ name, subnet }: Pick<PoolIdentity, 'name' | 'subnet'>): void {
    const last = this.#lastChosen;
    const isRepeated =
      last !== undefined &&
      last.name === name &&
      last.subnet.equals(subnet) &&
      this.#options.clock.monotonicMs() - last.atMs < REPEAT_MS;
    if (!isRepeated) return;
    const what = `cannot use ${subnet.toString()}, which the network ${name ?? ''} has`;
    throw new OverlayError('ERR_ADDRESS_POOL', `${what}: it overlaps a network of this host`, {
      hint: 'remove that network from this host, or give the new one another name',
    });
  }

  /** Subnets that overlap none of those taken, beginning after the last one that was chosen. */
  *#candidates(family: Family, taken: readonly Prefix[]): Generator<Prefix> {
    const range = this.#options.range(family);
    if (range === undefined) {
      throw new OverlayError('ERR_ADDRESS_POOL', `cannot choose a subnet of IPv${family}: there is no range for them`, {
        hint: 'give --subnet, or ContainerNetworks in the network configuration',
      });
    }
    const { network, subnetLen } = range;
    const count = 1n << BigInt(subnetLen - network.length);
    const size = network.size / count;
    const last = this.#lastChosen?.subnet;
    const start =
      last !== undefined && network.covers(last) ? (last.address.value - network.address.value) / size + 1n : 0n;
    for (let index = 0n; index < count && index < MAX_CANDIDATES; index++) {
      const subnet = Prefix.of(network.address.add(((start + index) % count) * size), subnetLen);
      if (!taken.some((each) => each.overlaps(subnet))) yield subnet;
    }
  }

  #content(): SavedAddresses {
    const { host, etcdPrefix } = this.#options;
    return {
      host,
      etcdPrefix,
      lease: this.#lease.save(),
      pools: [...this.#pools.values()].map((pool) => pool.save()),
    };
  }

  async #save(): Promise<void> {
    const expiresAtMs = this.#lease.expiresAtMs ?? 0;
    await this.#book.save();
    this.#savedExpiryMs = expiresAtMs;
  }

  #renew(): Promise<void> {
    this.#renewing ??= this.#lease.renew(this.#closing.signal).finally(() => (this.#renewing = undefined));
    return this.#renewing;
  }

  #changed(): void {
    this.#upkeep.schedule(TIDY_DELAY_MS);
    this.review();
    for (const callback of this.#callbacks) {
      try {
        callback();
      } catch (error) {
        this.#options.log.error('a change of container addresses was not processed', { error });
      }
    }
  }

  /** Takes back what no container has had for long. */
  async #releaseOrphans(): Promise<void> {
    const { log } = this.#options;
    try {
      for (const pool of this.#pools.values()) {
        const released = await pool.releaseOrphans();
        if (released.length === 0) continue;
        log.warn('took back addresses that no container has had for long', {
          subnet: pool.identity.subnet.toString(),
          address: released.slice(0, MAX_TOLD).join(' '),
          count: released.length,
        });
      }
      this.review();
    } catch (error) {
      this.#complaints.tell((count) => {
        log.warn('addresses that no container has cannot be taken back, trying again', { count, error });
      });
      this.#reviewing.schedule(RETRY_CAP_MS);
    }
  }

  async #keepUp(): Promise<void> {
    const { clock, log } = this.#options;
    const deadline = new Deadline(clock, UPKEEP_TIMEOUT_MS, this.#closing.signal);
    try {
      await this.#keepUpOnce(deadline.signal);
      this.#endFirstLook();
      this.#failures = 0;
      this.#complaints.reset();
      const isLeaving = [...this.#pools.values()].some((pool) => pool.isUnused);
      if (this.#pools.size > 0) {
        this.#upkeep.schedule(isLeaving ? LEAVE_MS : Math.max(0, this.#verifyAtMs - clock.monotonicMs()));
      }
    } catch (error) {
      if (this.#closing.signal.aborted) return;
      // The client of etcd has told already that it is away.
      if (!isOverlayError(error, 'ERR_ETCD_UNAVAILABLE')) {
        this.#complaints.tell((count) => {
          log.warn('addresses of containers are not in agreement with etcd', { count, error });
        });
      }
      this.#upkeep.schedule(backoffMs(++this.#failures, RETRY_BASE_MS, RETRY_CAP_MS, () => clock.random()));
    } finally {
      deadline.clear();
      if (this.#pools.size > 0) this.#account.changed();
    }
  }

  async #keepUpOnce(signal: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    if (this.#unknown !== 'none') await this.#recover(signal);
    if (this.#pools.size === 0) return;
    const isDue = clock.monotonicMs() >= this.#verifyAtMs;
    if (isDue || !this.#lease.isValid()) await this.#renew();
    await this.#answerRequests(signal);
    let failure: unknown;
    for (const pool of this.#pools.values()) {
      try {
        if (isDue) await pool.verify(signal);
        await pool.tidy(signal);
        if (pool.isUnused && (await pool.leave(signal))) await this.#forget(pool);
      } catch (error) {
        failure ??= error;
      }
    }
    if (failure !== undefined) throw failure as Error;
    if (isDue) {
      this.#verifyAtMs = clock.monotonicMs() + this.#verifyMs;
      this.#account.distrust();
    }
    if (Math.abs((this.#lease.expiresAtMs ?? 0) - this.#savedExpiryMs) >= REFRESH_MS) await this.#save();
    if (this.#pools.size === 0) await this.#turns.take(() => this.#giveUpLease(signal), signal);
  }

  /** Of a host in no network; in its turn, as a network that is entered meanwhile would be attached to it, and go with it. */
  async #giveUpLease(signal: AbortSignal): Promise<void> {
    const { store } = this.#options;
    const { id } = this.#lease;
    if (this.#pools.size > 0 || id === undefined) return;
    await this.#account.clear(signal);
    await dropChoice(store, id, signal);
    this.#lease.forget();
    await this.#save();
    store.discardEtcdLease(id);
  }

  async #forget(pool: AddressPool): Promise<void> {
    await this.#turns.take(async () => {
      if (!pool.isUnused) {
        this.#verifyAtMs = this.#options.clock.monotonicMs(); // wanted again meanwhile: it is entered anew
        return;
      }
      this.#pools.delete(pool.id);
      await this.#save();
    }, this.#closing.signal);
  }

  /** Leaves addresses to other hosts that ask for them; whoever asked sees it by the block. */
  async #answerRequests(signal: AbortSignal): Promise<void> {
    const { host, store } = this.#options;
    for (const { path } of await store.listValues(requestsPath(host), signal)) {
      const request = parseRequestPath(host, path);
      const pool =
        request && [...this.#pools.values()].find(({ identity }) => poolPath(identity) === poolPath(request));
      if (pool !== undefined && request !== undefined) await pool.yield(request.address, signal);
      await store.transactValues({ conditions: [], deletes: [path] }, signal);
    }
  }

  /**
   * The networks of which etcd alone knows that this host is in them: without a book they are taken up; in another history
   * they are of the past, and left.
   */
  async #recover(signal: AbortSignal): Promise<void> {
    const { host, store, log } = this.#options;
    const unknown = this.#unknown;
    for (const { path, text } of await store.listValues(RECORDS_PATH, signal)) {
      const network = parsePoolPath(path.slice(RECORDS_PATH.length));
      const range = decodeRecord(text)?.range;
      if (network === undefined || range === undefined || !network.subnet.covers(range)) continue;
      const own = new PoolPaths(network).host(host);
      if (!(await store.listValues(own, signal)).some((entry) => entry.path === own)) continue;
      const id = formatPoolId({ ...network, range });
      if (this.#pools.has(id)) continue;
      const pool = new AddressPool(id, this.#context);
      pool.setReleased(unknown === 'stale');
      this.#pools.set(id, pool);
      if (unknown === 'wanted')
        log.warn('the book of container addresses is lost, what etcd knows is used', {
          subnet: network.subnet.toString(),
        });
    }
    if (this.#unknown === unknown) this.#unknown = 'none';
  }
}

/** What was written down for this host in this cluster. */
async function readBook({
  file,
  files,
  host,
  etcdPrefix,
  log,
}: AddressPoolsOptions): Promise<SavedAddresses | undefined> {
  try {
    const saved = await AddressBook.read(file, files);
    if (saved === undefined || (saved.host === host && saved.etcdPrefix === etcdPrefix)) return saved;
    log.warn('the book of container addresses is another host’s or another cluster’s, it is not used', { file });
  } catch (error) {
    log.warn('the book of container addresses cannot be used', { file, error });
  }
  return undefined;
}

function whenAborted(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    const giveUp = (): void => reject(signal.reason as Error);
    if (signal.aborted) giveUp();
    else signal.addEventListener('abort', giveUp, { once: true });
  });
}

function givenPool(id: PoolId, identity: PoolIdentity): GivenPool {
  const { subnet } = identity;
  return { id, subnet, gateway: { address: new PoolLayout(identity).gateway, length: subnet.length } };
}

function newCounters(): { -readonly [K in keyof AddressCounters]: AddressCounters[K] } {
  return {
    given: 0,
    released: 0,
    refused: 0,
    blocksLeased: 0,
    blocksReturned: 0,
    asked: 0,
    yielded: 0,
    probes: 0,
    seen: 0,
    lost: 0,
    orphaned: 0,
  };
}
