import { createHash, randomBytes } from 'node:crypto';
import {
  CompareResult,
  CompareTarget,
  type ICompare,
  type IKeyValue,
  type ILeaseLeasesResponse,
  type ILeaseTimeToLiveResponse,
  type IPutRequest,
  type IRangeResponse,
  type IRequestOp,
  type ITxnResponse,
} from 'etcd3/lib/rpc.js';
import { type Clock, systemClock } from '../clock.js';
import type { IpAddress } from '../ip/address.js';
import { encodeAttributes } from '../lease/attributes.js';
import type { LeaseAttributes, LeaseSubnets } from '../lease/lease.js';
import type { EtcdLeaseId, LeaseRecord, Revision, TextEntry } from '../lease/record.js';
import type {
  CreateResult,
  Expected,
  LeaseKey,
  LeaseObservation,
  LeaseSnapshot,
  ConfigHistory,
  EtcdLeaseTimes,
  OperatorStore,
  OwnLeaseStore,
  SharedValueStore,
  ValueCondition,
  ValueStore,
  ValueTransaction,
  ValuesFollowing,
  WorldStore,
  NewLease,
  StoreCounters,
  StoreHealth,
  Subscription,
  Unreserve,
  UpdateResult,
  ValueEntry,
  ValueNews,
  WriteResult,
} from '../lease/store.js';
import { formatSubnetKey } from '../lease/subnet-key.js';
import type { HistoryMark, World } from '../lease/world.js';
import type { Logger } from '../log.js';
import { Pace } from '../pace.js';
import { EtcdClient } from './client.js';
import type { EtcdDialer } from './connection.js';
import { type KeyLayout, layoutKeys, parseEndpoints } from './endpoints.js';
import { decodeEntry, toEtcdId, toEtcdLeaseId, toText } from './entries.js';
import { type FollowContext, type Following, followWorld } from './follow.js';
import { type KeyRange, prefixRange, singleKey } from './key-range.js';
import { type TlsFiles, hasTlsFiles } from './tls.js';
import { followValues } from './follow-values.js';
import { watchRange } from './watch-range.js';
import { UnusedEtcdLeases } from './unused-etcd-leases.js';

/** How to reach etcd and where in it to look; the values of the `--etcd-…` flags. */
export interface EtcdStoreOptions extends TlsFiles {
  /** Comma list. */
  readonly endpoints: string;
  readonly prefix: string;
  /** Used only together with a password. */
  readonly username?: string | undefined;
  readonly password?: string | undefined;
  readonly log: Logger;
  readonly clock?: Clock;
  /** Deadline of each request, all endpoints together. Default 5000. */
  readonly callTimeoutMs?: number;
  /** Silence after which a connection in use is probed. Default 10 000. */
  readonly pingIntervalMs?: number;
  /** How members are reached. Default: over the network. */
  readonly dial?: EtcdDialer | undefined;
  /** Gives the 63 bits of a new etcd lease's id. Default: at random. */
  readonly newEtcdLeaseId?: (() => bigint) | undefined;
}

type Put = Pick<IPutRequest, 'value' | 'lease' | 'ignore_lease' | 'ignore_value'>;

/**
 * All sides of the store on etcd v3.
 *
 * @remarks
 * *API.* As the interfaces say. Nothing is connected before the first request; that one also shows whether user and
 * password are right (`ERR_ETCD_AUTH`).
 *
 * *Repeating.* A request that timed out on one endpoint is sent to the next although it may have been carried out.
 * That is safe because each write is a transaction on the state it expects, etcd leases are granted under an id of our
 * choice, and a failed condition is checked for being our own doing: the key then carries our etcd lease or our value.
 *
 * *Limits, Errors, Counters.* See {@link EtcdClient}.
 */
export class EtcdStore implements WorldStore, OwnLeaseStore, ValueStore, SharedValueStore, OperatorStore {
  readonly #client: EtcdClient;
  readonly #keys: KeyLayout;
  readonly #context: FollowContext;
  readonly #unusedEtcdLeases: UnusedEtcdLeases;
  /** Marks of etcd leases for which was looked after what an earlier process may have left behind. */
  readonly #recovered = new Set<bigint>();
  readonly #following = new Set<Following>();
  readonly #watching = new Set<Subscription>();
  readonly #newEtcdLeaseId: () => bigint;

  /** @throws {@link OverlayError} `ERR_ETCD_ENDPOINT`, `ERR_TLS_FILE` */
  constructor(options: EtcdStoreOptions) {
    const { log, clock = systemClock, username = '', password = '' } = options;
    this.#keys = layoutKeys(options.prefix);
    this.#client = new EtcdClient({
      endpoints: parseEndpoints(options.endpoints, hasTlsFiles(options)),
      tlsFiles: options,
      user: username === '' || password === '' ? undefined : { name: username, password },
      callTimeoutMs: options.callTimeoutMs ?? 5000,
      pingIntervalMs: options.pingIntervalMs ?? 10_000,
      dial: options.dial,
      clock,
      log,
    });
    const counters = { watchRestarts: 0, compactions: 0 };
    this.#context = { client: this.#client, keys: this.#keys, clock, log, counters, written: undefined };
    this.#newEtcdLeaseId = options.newEtcdLeaseId ?? randomEtcdLeaseId;
    this.#unusedEtcdLeases = new UnusedEtcdLeases((etcdLeaseId) => this.revokeEtcdLease(etcdLeaseId), clock, log);
    this.#client.onHealth(({ isConnected }) => {
      if (isConnected) void this.#unusedEtcdLeases.sweep();
    });
  }

  async readConfig(signal?: AbortSignal): Promise<TextEntry | undefined> {
    const [entry] = (await this.#range(singleKey(this.#keys.config), signal)).kvs;
    return entry && toText(entry);
  }

  followWorld(onWorld: (world: World) => void, since?: HistoryMark): Subscription {
    const following = followWorld(this.#context, onWorld, since);
    this.#following.add(following);
    return {
      close: () => {
        this.#following.delete(following);
        following.close();
      },
    };
  }

  distrust(world: World): void {
    for (const following of this.#following) following.distrust(world);
  }

  writeConfig(text: string, expected: Expected, signal?: AbortSignal): Promise<WriteResult> {
    return this.#write(this.#keys.config, text, expected, undefined, signal);
  }

  /** Each version is asked for at the revision before its successor. */
  async configHistory(limit: number, signal?: AbortSignal): Promise<ConfigHistory> {
    const { key } = singleKey(this.#keys.config);
    const versions: TextEntry[] = [];
    let revision = '0'; // now
    while (versions.length < limit) {
      const request = { key, revision };
      const answer = await this.#client.callUnless<IRangeResponse>('compacted', 'KV', 'range', request, signal);
      if (answer === undefined) return { versions, end: 'compacted' };
      const [entry] = answer.kvs;
      if (entry === undefined) return { versions, end: 'first' };
      versions.push(toText(entry));
      if (entry.mod_revision === entry.create_revision) return { versions, end: 'first' };
      revision = (BigInt(entry.mod_revision) - 1n).toString();
    }
    return { versions, end: 'limit' };
  }

  async listLeases(signal?: AbortSignal): Promise<LeaseSnapshot> {
    const { kvs, header } = await this.#range(prefixRange(this.#keys.subnets), signal);
    return this.#toSnapshot(kvs, header.revision);
  }

  async createLease(lease: NewLease, signal?: AbortSignal): Promise<CreateResult> {
    const { subnets, attributes, ttlSeconds, replacing } = lease;
    const key = this.#keys.subnets + formatSubnetKey(subnets);
    const replacedKey = replacing === undefined ? undefined : this.#keys.subnets + replacing.key;
    const value = Buffer.from(encodeAttributes(attributes));
    const everything = prefixRange(this.#keys.subnets);
    const compare =
      replacing === undefined || replacedKey === undefined
        ? [isAbsent(this.#guardOf(subnets))]
        : [isAt(replacedKey, replacing.revision), ...(replacedKey === key ? [] : [isAbsent(singleKey(key))])];
    return this.#withNewTtl(ttlSeconds, attributes.publicIp, signal, async (etcdLeaseId) => {
      const success = [
        ...(replacedKey === undefined || replacedKey === key ? [] : [deleteOp(replacedKey)]),
        putOp(key, { value, lease: toEtcdId(etcdLeaseId) }),
        { request_range: { key: everything.key, range_end: everything.rangeEnd } },
      ];
      const response = await this.#freeing(replacing?.etcdLeaseId, () => this.#transact(compare, success, key, signal));
      if (response.succeeded) {
        await this.#release(replacing?.etcdLeaseId, signal);
        const listing = response.responses.at(-1)?.response_range.kvs ?? [];
        return this.#created(key, await this.#toSnapshot(listing, response.header.revision), response);
      }
      const current = currentOf(response);
      if (current !== undefined && isOurs(current, etcdLeaseId, value)) {
        return this.#created(key, await this.listLeases(signal), response);
      }
      await this.#release(etcdLeaseId, signal);
      return { outcome: 'taken', revision: current?.mod_revision };
    });
  }

  async reuseLease(
    lease: LeaseRecord,
    attributes: LeaseAttributes,
    ttlSeconds: number,
    signal?: AbortSignal,
  ): Promise<UpdateResult> {
    if (lease.isReservation) return this.publishLease(lease, attributes, signal);
    const value = Buffer.from(encodeAttributes(attributes));
    return this.#withNewTtl(ttlSeconds, attributes.publicIp, signal, (etcdLeaseId) =>
      this.#rewrite(lease, value, etcdLeaseId, signal),
    );
  }

  async publishLease(lease: LeaseRecord, attributes: LeaseAttributes, signal?: AbortSignal): Promise<UpdateResult> {
    const value = Buffer.from(encodeAttributes(attributes));
    const key = this.#keys.subnets + lease.key;
    const response = await this.#transact(
      [isAt(key, lease.revision)],
      [putOp(key, { value, ignore_lease: true }), readOp(key)],
      key,
      signal,
    );
    return this.#updated(response, lease.etcdLeaseId, value);
  }

  async deleteLease(lease: LeaseKey, signal?: AbortSignal): Promise<'deleted' | 'changed'> {
    const key = this.#keys.subnets + lease.key;
    const response = await this.#freeing(lease.etcdLeaseId, () =>
      this.#transact([isAt(key, lease.revision)], [deleteOp(key)], key, signal),
    );
    if (!response.succeeded && currentOf(response) !== undefined) return 'changed';
    await this.#release(lease.etcdLeaseId, signal);
    return 'deleted';
  }

  async reserve(
    subnets: LeaseSubnets,
    attributes: LeaseAttributes,
    existing: LeaseRecord | undefined,
    signal?: AbortSignal,
  ): Promise<UpdateResult> {
    const value = Buffer.from(encodeAttributes(attributes));
    if (existing !== undefined) return this.#rewrite(existing, value, undefined, signal);
    const key = this.#keys.subnets + formatSubnetKey(subnets);
    const response = await this.#transact(
      [isAbsent(this.#guardOf(subnets))],
      [putOp(key, { value }), readOp(key)],
      key,
      signal,
    );
    return this.#updated(response, undefined, value);
  }

  async unreserve(lease: LeaseRecord, how: Unreserve, signal?: AbortSignal): Promise<'done' | 'changed'> {
    if (how === 'delete') return (await this.deleteLease(lease, signal)) === 'deleted' ? 'done' : 'changed';
    const value = Buffer.from(encodeAttributes(lease.attributes));
    return this.#withNewTtl(how.ttlSeconds, lease.attributes.publicIp, signal, async (etcdLeaseId) =>
      (await this.#rewrite(lease, value, etcdLeaseId, signal)).outcome === 'updated' ? 'done' : 'changed',
    );
  }

  async grantTtl(ttlSeconds: number, signal?: AbortSignal): Promise<EtcdLeaseId> {
    return this.#grant(this.#newEtcdLeaseId(), ttlSeconds, signal);
  }

  async #grant(id: bigint, ttlSeconds: number, signal: AbortSignal | undefined): Promise<EtcdLeaseId> {
    await this.#unusedEtcdLeases.sweep();
    const etcdLeaseId = id.toString(16) as EtcdLeaseId;
    try {
      await this.#client.callUnless('exists', 'Lease', 'leaseGrant', { ID: id.toString(), TTL: ttlSeconds }, signal);
    } catch (error) {
      this.#unusedEtcdLeases.add(etcdLeaseId); // it may have been granted all the same
      throw error;
    }
    return etcdLeaseId;
  }

  async keepAlive(etcdLeaseId: EtcdLeaseId, signal?: AbortSignal): Promise<number | undefined> {
    const seconds = await this.#client.keepAlive(toEtcdId(etcdLeaseId), signal);
    void this.#unusedEtcdLeases.sweep();
    return seconds > 0 ? seconds : undefined;
  }

  async remainingTtl(etcdLeaseId: EtcdLeaseId, signal?: AbortSignal): Promise<number | undefined> {
    return (await this.etcdLeaseTimes(etcdLeaseId, signal))?.remainingSeconds;
  }

  async etcdLeaseTimes(etcdLeaseId: EtcdLeaseId, signal?: AbortSignal): Promise<EtcdLeaseTimes | undefined> {
    const { TTL, grantedTTL } = await this.#timeToLive(etcdLeaseId, false, signal);
    return Number(TTL) < 0 ? undefined : { remainingSeconds: Number(TTL), grantedSeconds: Number(grantedTTL) };
  }

  async revokeEtcdLease(etcdLeaseId: EtcdLeaseId, signal?: AbortSignal): Promise<'released' | 'in-use'> {
    const { keys } = await this.#timeToLive(etcdLeaseId, true, signal);
    if (keys.length > 0) return 'in-use';
    await this.#client.callUnless('gone', 'Lease', 'leaseRevoke', { ID: toEtcdId(etcdLeaseId) }, signal);
    return 'released';
  }

  discardEtcdLease(etcdLeaseId: EtcdLeaseId): void {
    this.#unusedEtcdLeases.add(etcdLeaseId);
  }

  async listValues(pathPrefix: string, signal?: AbortSignal): Promise<readonly ValueEntry[]> {
    const { kvs } = await this.#range(prefixRange(this.#valueKey(pathPrefix)), signal);
    return kvs.map((entry) => this.#toValue(entry));
  }

  async putValue(
    path: string,
    text: string,
    options: {
      readonly expected?: Expected;
      readonly etcdLeaseId?: EtcdLeaseId | undefined;
      readonly signal?: AbortSignal;
    } = {},
  ): Promise<WriteResult> {
    const { expected = 'any', etcdLeaseId, signal } = options;
    const result = await this.#write(this.#valueKey(path), text, expected, etcdLeaseId, signal);
    void this.#unusedEtcdLeases.sweep(); // the value may have been the last one attached to an etcd lease that is no longer needed
    return result;
  }

  async deleteValue(
    path: string,
    options: { readonly expected?: Expected; readonly signal?: AbortSignal } = {},
  ): Promise<boolean> {
    const key = this.#valueKey(path);
    const compare = [isPresent(key), ...toCompare(key, options.expected ?? 'any')];
    return (await this.#transact(compare, [deleteOp(key)], key, options.signal)).succeeded;
  }

  async transactValues(transaction: ValueTransaction, signal?: AbortSignal): Promise<Revision | undefined> {
    const { conditions, puts = [], deletes = [] } = transaction;
    const compare = conditions.map((condition) => this.#toCondition(condition));
    const success = [
      ...puts.map(({ path, text, etcdLeaseId }) =>
        putOp(this.#valueKey(path), { value: Buffer.from(text), lease: toEtcdId(etcdLeaseId) }),
      ),
      ...deletes.map((path) => deleteOp(this.#valueKey(path))),
    ];
    const response = await this.#client.call<ITxnResponse>('KV', 'txn', { compare, success, failure: [] }, signal);
    return response.succeeded ? response.header.revision : undefined;
  }

  watchValues(pathPrefix: string, onChange: () => void): Subscription {
    const watch = watchRange(this.#context, prefixRange(this.#valueKey(pathPrefix)), onChange);
    this.#watching.add(watch);
    return {
      close: () => {
        this.#watching.delete(watch);
        watch.close();
      },
    };
  }

  followValues(pathPrefix: string, onNews: (news: ValueNews) => void): ValuesFollowing {
    const following = followValues(this.#context, {
      range: prefixRange(this.#valueKey(pathPrefix)),
      toPath: (key) => this.#toPath(key),
      toValue: (entry) => this.#toValue(entry),
      onNews,
    });
    this.#watching.add(following);
    return {
      relist: () => following.relist(),
      close: () => {
        this.#watching.delete(following);
        following.close();
      },
    };
  }

  get health(): StoreHealth {
    return this.#client.health;
  }

  onHealth(callback: (health: StoreHealth) => void): Subscription {
    return this.#client.onHealth(callback);
  }

  counters(): StoreCounters {
    const { roundTrips, roundTripTimes, errors } = this.#client;
    return { roundTrips, roundTripTimes, errors, ...this.#context.counters };
  }

  networkChanged(): void {
    this.#client.reconnect('the network of this host has changed');
  }

  close(): Promise<void> {
    this.#unusedEtcdLeases.close();
    for (const following of [...this.#following, ...this.#watching]) following.close();
    this.#client.close();
    return Promise.resolve();
  }

  /** Puts under an existing key of one's own with another etcd lease, or none; the former one is given up after that. */
  async #rewrite(
    lease: LeaseRecord,
    value: Buffer,
    etcdLeaseId: EtcdLeaseId | undefined,
    signal: AbortSignal | undefined,
  ): Promise<UpdateResult> {
    const key = this.#keys.subnets + lease.key;
    const put = { value, lease: toEtcdId(etcdLeaseId) };
    const response = await this.#freeing(lease.etcdLeaseId, () =>
      this.#transact([isAt(key, lease.revision)], [putOp(key, put), readOp(key)], key, signal),
    );
    const result = this.#updated(response, etcdLeaseId, value);
    await this.#release(result.outcome === 'updated' ? lease.etcdLeaseId : etcdLeaseId, signal);
    return result;
  }

  /** An etcd lease whose id carries the mark of the host with that address, so that what a crash leaves behind is recognised. */
  async #grantFor(publicIp: IpAddress, ttlSeconds: number, signal: AbortSignal | undefined): Promise<EtcdLeaseId> {
    if (publicIp.isUnspecified) return this.grantTtl(ttlSeconds, signal);
    const mark = markOf(`${this.#keys.subnets} ${publicIp.toString()}`);
    await this.#releaseFormer(mark, signal);
    return this.#grant((mark << 32n) | (this.#newEtcdLeaseId() & 0xffff_ffffn), ttlSeconds, signal);
  }

  /** Has the etcd leases of an earlier process of the host revoked once no key is attached to them; looks for them once. */
  async #releaseFormer(mark: bigint, signal: AbortSignal | undefined): Promise<void> {
    if (this.#recovered.has(mark)) return;
    try {
      const { leases } = await this.#client.call<ILeaseLeasesResponse>('Lease', 'leaseLeases', {}, signal);
      const former = leases.filter(({ ID }) => BigInt(ID) >> 32n === mark);
      for (const { ID } of former) this.#unusedEtcdLeases.add(BigInt(ID).toString(16) as EtcdLeaseId);
      this.#recovered.add(mark);
    } catch (error) {
      signal?.throwIfAborted();
      this.#context.log.debug('etcd leases of an earlier process are looked for again later', { error });
    }
  }

  /** Runs a write with a new etcd lease; one that may have come to nothing is revoked later. */
  async #withNewTtl<T>(
    ttlSeconds: number | undefined,
    owner: IpAddress,
    signal: AbortSignal | undefined,
    write: (etcdLeaseId: EtcdLeaseId | undefined) => Promise<T>,
  ): Promise<T> {
    if (ttlSeconds === undefined) return write(undefined);
    const etcdLeaseId = await this.#grantFor(owner, ttlSeconds, signal);
    try {
      return await write(etcdLeaseId);
    } catch (error) {
      this.#unusedEtcdLeases.add(etcdLeaseId);
      throw error;
    }
  }

  /** Runs a write that leaves nothing attached to an etcd lease, which it may have done although its answer is lost. */
  async #freeing<T>(etcdLeaseId: EtcdLeaseId | undefined, write: () => Promise<T>): Promise<T> {
    try {
      return await write();
    } catch (error) {
      if (etcdLeaseId !== undefined) this.#unusedEtcdLeases.add(etcdLeaseId);
      throw error;
    }
  }

  /** Revokes an etcd lease, later if it cannot be done now. */
  async #release(etcdLeaseId: EtcdLeaseId | undefined, signal: AbortSignal | undefined): Promise<void> {
    if (etcdLeaseId === undefined) return;
    try {
      if ((await this.revokeEtcdLease(etcdLeaseId, signal)) === 'released') return;
    } catch {} // it is tried again
    this.#unusedEtcdLeases.add(etcdLeaseId);
  }

  #created(key: string, snapshot: LeaseSnapshot, answer: ITxnResponse): CreateResult {
    const name = key.slice(this.#keys.subnets.length);
    const lease = snapshot.leases.find((each) => each.key === name);
    if (lease !== undefined) this.#noteWritten(lease, answer);
    return lease === undefined ? { outcome: 'taken', revision: undefined } : { outcome: 'created', lease, snapshot };
  }

  #updated(response: ITxnResponse, etcdLeaseId: EtcdLeaseId | undefined, value: Buffer): UpdateResult {
    const current = currentOf(response);
    const now = this.#observe(current, response.header.revision);
    // By this request or by an earlier try of it whose answer was lost.
    const isDone = current !== undefined && isOurs(current, etcdLeaseId, value);
    if (!isDone || now.lease === undefined) return { outcome: 'changed', now };
    this.#noteWritten(now.lease, response);
    return { outcome: 'updated', lease: now.lease };
  }

  #noteWritten({ key, revision, createdAt, etcdLeaseId }: LeaseRecord, { header }: ITxnResponse): void {
    this.#context.written = { clusterId: header.cluster_id, leaseKey: key, revision, createdAt, etcdLeaseId };
  }

  /** Every key that names this IPv4 subnet: alone, or followed by `&` and any IPv6 subnet. */
  #guardOf({ subnet }: LeaseSubnets): KeyRange {
    const name = this.#keys.subnets + formatSubnetKey({ subnet, ipv6Subnet: undefined });
    return { key: Buffer.from(name), rangeEnd: prefixRange(`${name}&`).rangeEnd };
  }

  async #write(
    key: string,
    text: string,
    expected: Expected,
    etcdLeaseId: EtcdLeaseId | undefined,
    signal: AbortSignal | undefined,
  ): Promise<WriteResult> {
    const value = Buffer.from(text);
    const put = putOp(key, { value, lease: toEtcdId(etcdLeaseId) });
    const response = await this.#transact(toCompare(key, expected), [put, readOp(key)], key, signal);
    const current = currentOf(response);
    // Without an etcd lease, nothing tells our first try from another host that created the same text.
    const canTell = expected !== 'absent' || etcdLeaseId !== undefined;
    if (response.succeeded || (canTell && current !== undefined && isOurs(current, etcdLeaseId, value))) {
      return { outcome: 'written', revision: current?.mod_revision ?? response.header.revision };
    }
    return { outcome: 'conflict', current: current && toText(current) };
  }

  #range(range: KeyRange, signal: AbortSignal | undefined): Promise<IRangeResponse> {
    return this.#client.call('KV', 'range', { key: range.key, range_end: range.rangeEnd }, signal);
  }

  /** One transaction; if its conditions do not hold, the answer tells what is under the key. */
  #transact(
    compare: readonly ICompare[],
    success: readonly IRequestOp[],
    key: string,
    signal: AbortSignal | undefined,
  ): Promise<ITxnResponse> {
    return this.#client.call('KV', 'txn', { compare, success, failure: [readOp(key)] }, signal);
  }

  async #timeToLive(
    etcdLeaseId: EtcdLeaseId,
    withKeys: boolean,
    signal: AbortSignal | undefined,
  ): Promise<Pick<ILeaseTimeToLiveResponse, 'TTL' | 'grantedTTL' | 'keys'>> {
    const request = { ID: toEtcdId(etcdLeaseId), keys: withKeys };
    const answer = await this.#client.callUnless<ILeaseTimeToLiveResponse>(
      'gone',
      'Lease',
      'leaseTimeToLive',
      request,
      signal,
    );
    return answer ?? { TTL: '-1', grantedTTL: '0', keys: [] };
  }

  async #toSnapshot(entries: readonly IKeyValue[], revision: string): Promise<LeaseSnapshot> {
    const pace = new Pace(this.#context.clock);
    const observations: LeaseObservation[] = [];
    for (const entry of entries) {
      observations.push(this.#observe(entry, revision));
      if (pace.isOver) await pace.rest();
    }
    return {
      revision,
      leases: observations.flatMap(({ lease }) => lease ?? []),
      bad: observations.flatMap(({ bad }) => bad ?? []),
    };
  }

  #observe(entry: IKeyValue | undefined, revision: string): LeaseObservation {
    if (entry === undefined) return { revision, lease: undefined, bad: undefined };
    return { revision: entry.mod_revision, ...decodeEntry(this.#nameOf(entry), entry) };
  }

  #nameOf(entry: IKeyValue): string {
    return entry.key.toString().slice(this.#keys.subnets.length);
  }

  #toCondition(condition: ValueCondition): ICompare {
    if ('path' in condition) return isAt(this.#valueKey(condition.path), condition.revision);
    if ('absent' in condition) return isAbsent(singleKey(this.#valueKey(condition.absent)));
    return isAbsent(prefixRange(this.#valueKey(condition.noneBelow)));
  }

  #valueKey(path: string): string {
    return this.#keys.own + path;
  }

  #toPath(key: Buffer): string {
    return key.toString().slice(this.#keys.own.length);
  }

  #toValue(entry: IKeyValue): ValueEntry {
    return {
      ...toText(entry),
      path: this.#toPath(entry.key),
      etcdLeaseId: toEtcdLeaseId(entry.lease),
    };
  }
}

/** 31 bits that stand for a host, the upper half of the ids of its etcd leases. */
function markOf(owner: string): bigint {
  return BigInt(createHash('sha256').update(owner).digest().readUInt32BE() >>> 1);
}

/** Positive 63 bits, as etcd wants them; chosen here so that a repeated grant does not leave a second lease behind. */
function randomEtcdLeaseId(): bigint {
  return (randomBytes(8).readBigUInt64BE() & 0x7fff_ffff_ffff_ffffn) | 1n;
}

/** Whether what lies under a key is what an earlier, unanswered try of the same request would have left there. */
function isOurs(current: IKeyValue, etcdLeaseId: EtcdLeaseId | undefined, value: Buffer): boolean {
  return current.lease === toEtcdId(etcdLeaseId) && current.value.equals(value);
}

/** The key's entry after a transaction: read last in either branch. */
function currentOf(response: ITxnResponse): IKeyValue | undefined {
  return response.responses.at(-1)?.response_range.kvs[0];
}

function isAbsent(range: KeyRange): ICompare {
  return { ...toRange(range), target: CompareTarget.Version, result: CompareResult.Equal, version: 0 };
}

function isPresent(key: string): ICompare {
  return { key: Buffer.from(key), target: CompareTarget.Version, result: CompareResult.Greater, version: 0 };
}

function isAt(key: string, revision: string): ICompare {
  return { key: Buffer.from(key), target: CompareTarget.Mod, result: CompareResult.Equal, mod_revision: revision };
}

function toCompare(key: string, expected: Expected): readonly ICompare[] {
  if (expected === 'any') return [];
  return [expected === 'absent' ? isAbsent(singleKey(key)) : isAt(key, expected.revision)];
}

function toRange({ key, rangeEnd }: KeyRange): Pick<ICompare, 'key' | 'range_end'> {
  return rangeEnd === undefined ? { key } : { key, range_end: rangeEnd };
}

function putOp(key: string, put: Put): IRequestOp {
  return { request_put: { key: Buffer.from(key), ...put } };
}

function readOp(key: string): IRequestOp {
  return { request_range: { key: Buffer.from(key) } };
}

function deleteOp(key: string): IRequestOp {
  return { request_delete_range: { key: Buffer.from(key) } };
}
