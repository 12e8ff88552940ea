import { randomBytes } from 'node:crypto';
import {
  CompareResult,
  CompareTarget,
  type ICompare,
  type IEvent,
  type IKeyValue,
  type ILeaseTimeToLiveResponse,
  type IPutRequest,
  type IRangeResponse,
  type IRequestOp,
  type ITxnResponse,
} from 'etcd3/lib/rpc.js';
import { type Clock, systemClock } from '../clock.js';
import { OverlayError } from '../errors.js';
import { decodeAttributes, encodeAttributes } from '../lease/attributes.js';
import type { LeaseAttributes, LeaseSubnets } from '../lease/lease.js';
import type {
  BadEntry,
  CreateResult,
  Expected,
  LeaseEvent,
  LeaseObservation,
  LeaseObserver,
  LeaseRecord,
  LeaseSnapshot,
  LeaseStore,
  NewLease,
  StoreCounters,
  StoreHealth,
  Subscription,
  TextEntry,
  TtlId,
  Unreserve,
  UpdateResult,
  ValueEntry,
  ValueObserver,
  WriteResult,
} from '../lease/store.js';
import { formatSubnetKey, parseSubnetKey } from '../lease/subnet-key.js';
import type { Logger } from '../log.js';
import { EtcdClient } from './client.js';
import type { EtcdDialer } from './connection.js';
import { type KeyLayout, layoutKeys, parseEndpoints } from './endpoints.js';
import { type FollowContext, type KeyRange, followRange, prefixRange, singleKey } from './follow.js';
import { type TlsFiles, hasTlsFiles } from './tls.js';

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
}

type Put = Pick<IPutRequest, 'value' | 'lease' | 'ignore_lease' | 'ignore_value'>;

/**
 * The {@link LeaseStore} on etcd v3.
 *
 * @remarks
 * *API.* As the interface says. Nothing is connected before the first request; that one also shows whether user and
 * password are right (`ERR_ETCD_AUTH`).
 *
 * *Repeating.* A request that timed out on one endpoint is sent to the next although it may have been carried out.
 * That is safe because each write is a transaction on the state it expects, etcd leases are granted under an id of our
 * choice, and a failed condition is checked for being our own doing: the key then carries our etcd lease or our value.
 *
 * *Limits, Errors, Counters.* See {@link EtcdClient}.
 */
export class EtcdStore implements LeaseStore {
  readonly #client: EtcdClient;
  readonly #keys: KeyLayout;
  readonly #context: FollowContext;

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
    this.#context = { client: this.#client, clock, log, counters: { watchRestarts: 0, compactions: 0 } };
  }

  async readConfig(signal?: AbortSignal): Promise<TextEntry | undefined> {
    const [entry] = (await this.#range(singleKey(this.#keys.config), signal)).kvs;
    return entry && toText(entry);
  }

  followConfig(onEntry: (entry: TextEntry | undefined) => void): Subscription {
    return followRange(this.#context, singleKey(this.#keys.config), {
      onSnapshot: ([entry]) => onEntry(entry && toText(entry)),
      onEvents: (events) => {
        const last = events.at(-1);
        if (last !== undefined) onEntry(isDelete(last) ? undefined : toText(last.kv));
      },
    });
  }

  writeConfig(text: string, expected: Expected, signal?: AbortSignal): Promise<WriteResult> {
    return this.#write(this.#keys.config, text, expected, undefined, signal);
  }

  /**
   * Earlier versions of the configuration, newest first: each is asked for at the revision before its successor.
   *
   * @returns with why there are no earlier ones: `first` if the oldest was created there, `compacted` if etcd has
   * forgotten what was before.
   */
  async configHistory(
    limit: number,
    signal?: AbortSignal,
  ): Promise<{ readonly versions: readonly TextEntry[]; readonly end: 'limit' | 'first' | 'compacted' }> {
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

  followLeases(observer: LeaseObserver): Subscription {
    return followRange(this.#context, prefixRange(this.#keys.subnets), {
      onSnapshot: (entries, revision) => observer.onSnapshot(this.#toSnapshot(entries, revision)),
      onEvents: (events) => observer.onEvents(events.map((event) => this.#toEvent(event))),
    });
  }

  followLease(key: string, onObservation: (observation: LeaseObservation) => void): Subscription {
    return followRange(this.#context, singleKey(this.#keys.subnets + key), {
      onSnapshot: ([entry], revision) => onObservation(this.#observe(entry, revision)),
      onEvents: (events) => {
        for (const event of events) {
          onObservation(this.#observe(isDelete(event) ? undefined : event.kv, event.kv.mod_revision));
        }
      },
    });
  }

  async createLease(lease: NewLease, signal?: AbortSignal): Promise<CreateResult> {
    const { subnets, attributes, ttlSeconds, replacing } = lease;
    const key = this.#keys.subnets + formatSubnetKey(subnets);
    const replacedKey = replacing === undefined ? undefined : this.#keys.subnets + replacing.key;
    const ttlId = ttlSeconds === undefined ? undefined : await this.grantTtl(ttlSeconds, signal);
    const value = Buffer.from(encodeAttributes(attributes));
    const put = { value, lease: toEtcdId(ttlId) };
    const everything = prefixRange(this.#keys.subnets);
    const compare =
      replacing === undefined || replacedKey === undefined
        ? [isAbsent(this.#guardOf(subnets))]
        : [isAt(replacedKey, replacing.revision), ...(replacedKey === key ? [] : [isAbsent(singleKey(key))])];
    const response = await this.#transact(
      compare,
      [
        ...(replacedKey === undefined || replacedKey === key ? [] : [deleteOp(replacedKey)]),
        putOp(key, put),
        { request_range: { key: everything.key, range_end: everything.rangeEnd } },
      ],
      key,
      signal,
    );
    if (response.succeeded) {
      await this.#release(replacing?.ttlId, signal);
      const listing = response.responses.at(-1)?.response_range.kvs ?? [];
      return this.#created(key, this.#toSnapshot(listing, response.header.revision));
    }
    const current = currentOf(response);
    if (current !== undefined && isOurs(current, ttlId, value)) {
      return this.#created(key, await this.listLeases(signal));
    }
    await this.#release(ttlId, signal);
    return { outcome: 'taken' };
  }

  async adoptLease(
    lease: LeaseRecord,
    attributes: LeaseAttributes,
    ttlSeconds: number,
    signal?: AbortSignal,
  ): Promise<UpdateResult> {
    if (lease.isReservation) return this.publishLease(lease, attributes, signal);
    const ttlId = await this.grantTtl(ttlSeconds, signal);
    return this.#rewrite(lease, Buffer.from(encodeAttributes(attributes)), ttlId, signal);
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
    return this.#updated(response, lease.ttlId, value);
  }

  async deleteLease(lease: LeaseRecord, signal?: AbortSignal): Promise<'deleted' | 'changed'> {
    const key = this.#keys.subnets + lease.key;
    const response = await this.#transact([isAt(key, lease.revision)], [deleteOp(key)], key, signal);
    if (!response.succeeded && currentOf(response) !== undefined) return 'changed';
    await this.#release(lease.ttlId, signal);
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
    const ttlId = await this.grantTtl(how.ttlSeconds, signal);
    const value = Buffer.from(encodeAttributes(lease.attributes));
    return (await this.#rewrite(lease, value, ttlId, signal)).outcome === 'updated' ? 'done' : 'changed';
  }

  async grantTtl(ttlSeconds: number, signal?: AbortSignal): Promise<TtlId> {
    // Positive 63 bits, as etcd wants them; chosen here so that a repeated grant does not leave a second lease behind.
    const id = (randomBytes(8).readBigUInt64BE() & 0x7fff_ffff_ffff_ffffn) | 1n;
    await this.#client.callUnless('exists', 'Lease', 'leaseGrant', { ID: id.toString(), TTL: ttlSeconds }, signal);
    return id.toString(16) as TtlId;
  }

  async keepAlive(ttlId: TtlId, signal?: AbortSignal): Promise<number | undefined> {
    const seconds = await this.#client.keepAlive(toEtcdId(ttlId), signal);
    return seconds > 0 ? seconds : undefined;
  }

  async remainingTtl(ttlId: TtlId, signal?: AbortSignal): Promise<number | undefined> {
    const { TTL } = await this.#timeToLive(ttlId, false, signal);
    return Number(TTL) < 0 ? undefined : Number(TTL);
  }

  async releaseTtl(ttlId: TtlId, signal?: AbortSignal): Promise<'released' | 'in-use'> {
    const { keys } = await this.#timeToLive(ttlId, true, signal);
    if (keys.length > 0) return 'in-use';
    await this.#client.callUnless('gone', 'Lease', 'leaseRevoke', { ID: toEtcdId(ttlId) }, signal);
    return 'released';
  }

  async listValues(pathPrefix: string, signal?: AbortSignal): Promise<readonly ValueEntry[]> {
    const { kvs } = await this.#range(prefixRange(this.#valueKey(pathPrefix)), signal);
    return kvs.map((entry) => this.#toValue(entry));
  }

  followValues(pathPrefix: string, observer: ValueObserver): Subscription {
    return followRange(this.#context, prefixRange(this.#valueKey(pathPrefix)), {
      onSnapshot: (entries) => observer.onSnapshot(entries.map((entry) => this.#toValue(entry))),
      onEvents: (events) => {
        for (const event of events) {
          const value = this.#toValue(event.kv);
          observer.onChange(value.path, isDelete(event) ? undefined : value);
        }
      },
    });
  }

  putValue(
    path: string,
    text: string,
    options: {
      readonly expected?: Expected;
      readonly ttlId?: TtlId | undefined;
      readonly signal?: AbortSignal;
    } = {},
  ): Promise<WriteResult> {
    return this.#write(this.#valueKey(path), text, options.expected ?? 'any', options.ttlId, options.signal);
  }

  async deleteValue(
    path: string,
    options: { readonly expected?: Expected; readonly signal?: AbortSignal } = {},
  ): Promise<boolean> {
    const key = this.#valueKey(path);
    const compare = [isPresent(key), ...toCompare(key, options.expected ?? 'any')];
    return (await this.#transact(compare, [deleteOp(key)], key, options.signal)).succeeded;
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
    this.#client.close();
    return Promise.resolve();
  }

  /** Puts under an existing key of one's own with another etcd lease, or none; the former one is given up after that. */
  async #rewrite(
    lease: LeaseRecord,
    value: Buffer,
    ttlId: TtlId | undefined,
    signal: AbortSignal | undefined,
  ): Promise<UpdateResult> {
    const key = this.#keys.subnets + lease.key;
    const put = { value, lease: toEtcdId(ttlId) };
    const response = await this.#transact([isAt(key, lease.revision)], [putOp(key, put), readOp(key)], key, signal);
    const result = this.#updated(response, ttlId, value);
    await this.#release(result.outcome === 'updated' ? lease.ttlId : ttlId, signal);
    return result;
  }

  /** Failure is no harm: an etcd lease without keys ends by itself. */
  async #release(ttlId: TtlId | undefined, signal: AbortSignal | undefined): Promise<void> {
    if (ttlId === undefined) return;
    try {
      await this.releaseTtl(ttlId, signal);
    } catch (error) {
      signal?.throwIfAborted();
      this.#context.log.debug('an unused etcd lease stays until it ends', { etcdLeaseId: ttlId, error });
    }
  }

  #created(key: string, snapshot: LeaseSnapshot): CreateResult {
    const name = key.slice(this.#keys.subnets.length);
    const lease = snapshot.leases.find((each) => each.key === name);
    return lease === undefined ? { outcome: 'taken' } : { outcome: 'created', lease, snapshot };
  }

  #updated(response: ITxnResponse, ttlId: TtlId | undefined, value: Buffer): UpdateResult {
    const current = currentOf(response);
    const now = this.#observe(current, response.header.revision);
    const isDone = response.succeeded || (current !== undefined && isOurs(current, ttlId, value));
    return isDone && now.lease !== undefined ? { outcome: 'updated', lease: now.lease } : { outcome: 'changed', now };
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
    ttlId: TtlId | undefined,
    signal: AbortSignal | undefined,
  ): Promise<WriteResult> {
    const value = Buffer.from(text);
    const put = putOp(key, { value, lease: toEtcdId(ttlId) });
    const response = await this.#transact(toCompare(key, expected), [put, readOp(key)], key, signal);
    const current = currentOf(response);
    // Without an etcd lease, nothing tells our first try from another host that created the same text.
    const canTell = expected !== 'absent' || ttlId !== undefined;
    if (response.succeeded || (canTell && current !== undefined && isOurs(current, ttlId, value))) {
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
    ttlId: TtlId,
    withKeys: boolean,
    signal: AbortSignal | undefined,
  ): Promise<Pick<ILeaseTimeToLiveResponse, 'TTL' | 'keys'>> {
    const request = { ID: toEtcdId(ttlId), keys: withKeys };
    const answer = await this.#client.callUnless<ILeaseTimeToLiveResponse>(
      'gone',
      'Lease',
      'leaseTimeToLive',
      request,
      signal,
    );
    return answer ?? { TTL: '-1', keys: [] };
  }

  #toSnapshot(entries: readonly IKeyValue[], revision: string): LeaseSnapshot {
    const observations = entries.map((entry) => this.#observe(entry, revision));
    return {
      revision,
      leases: observations.flatMap(({ lease }) => lease ?? []),
      bad: observations.flatMap(({ bad }) => bad ?? []),
    };
  }

  #toEvent(event: IEvent): LeaseEvent {
    const revision = event.kv.mod_revision;
    if (isDelete(event)) return { kind: 'delete', key: this.#nameOf(event.kv), revision };
    const { lease, bad } = this.#observe(event.kv, revision);
    if (lease !== undefined) return { kind: 'put', lease };
    if (bad !== undefined) return { kind: 'bad', entry: bad };
    throw new TypeError('an entry is either a lease or bad');
  }

  #observe(entry: IKeyValue | undefined, revision: string): LeaseObservation {
    if (entry === undefined) return { revision, lease: undefined, bad: undefined };
    const key = this.#nameOf(entry);
    let subnets: LeaseSubnets | undefined;
    try {
      subnets = parseSubnetKey(key);
      const lease: LeaseRecord = {
        ...subnets,
        key,
        attributes: decodeAttributes(entry.value.toString()),
        revision: entry.mod_revision,
        ttlId: toTtlId(entry.lease),
        isReservation: entry.lease === '0',
      };
      return { revision: entry.mod_revision, lease, bad: undefined };
    } catch (error) {
      if (!(error instanceof OverlayError)) throw error;
      const bad: BadEntry = { key, revision: entry.mod_revision, error, subnets };
      return { revision: entry.mod_revision, lease: undefined, bad };
    }
  }

  #nameOf(entry: IKeyValue): string {
    return entry.key.toString().slice(this.#keys.subnets.length);
  }

  #valueKey(path: string): string {
    return this.#keys.own + path;
  }

  #toValue(entry: IKeyValue): ValueEntry {
    return { ...toText(entry), path: entry.key.toString().slice(this.#keys.own.length) };
  }
}

function toText(entry: IKeyValue): TextEntry {
  return { text: entry.value.toString(), revision: entry.mod_revision };
}

/** The enumeration arrives under the names of the protocol file, in capitals, whatever the package's types say. */
function isDelete(event: IEvent): boolean {
  return event.type.toUpperCase() === 'DELETE';
}

function toTtlId(etcdId: string): TtlId | undefined {
  return etcdId === '0' ? undefined : (BigInt(etcdId).toString(16) as TtlId);
}

function toEtcdId(ttlId: TtlId | undefined): string {
  return ttlId === undefined ? '0' : BigInt(`0x${ttlId}`).toString();
}

/** Whether what lies under a key is what an earlier, unanswered try of the same request would have left there. */
function isOurs(current: IKeyValue, ttlId: TtlId | undefined, value: Buffer): boolean {
  return current.lease === toEtcdId(ttlId) && current.value.equals(value);
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
