import type { Clock } from '../../../src/clock.js';
import type { EtcdDialer } from '../../../src/etcd/connection.js';
import { Access, type AuthOptions, OPERATOR } from './access.js';
import { SimLink } from './link.js';
import { SimMember } from './member.js';
import type { DeleteRangeRequest, Header, PutRequest, RangeRequest, TxnRequest } from './messages.js';
import type { SimLease } from './lessor.js';
import { ETCD_ERRORS, type IncomingCall, RpcError } from './protocol.js';
import { SimRandom } from './random.js';
import { type EtcdBackup, EtcdState } from './state.js';
import { type ServerStream, WatchStream } from './watch.js';

/** What a {@link SimEtcdCluster} is made of. */
export interface SimEtcdOptions {
  readonly clock: Clock;
  /** Decides ids and faults. Default 1. */
  readonly seed?: number;
  /** Targets of the members. Default one, `etcd-1:2379`. */
  readonly members?: readonly string[];
  /** Shortest TTL of a lease. Default 2, as with etcd's default election timeout. */
  readonly minTtlSeconds?: number;
  /** How often a quiet watcher that wants it hears how far it is. Default ten minutes, as etcd has it. */
  readonly progressIntervalMs?: number;
}

/** What a test sees under a key. */
export interface SimEntry {
  readonly key: string;
  readonly value: string;
  readonly createRevision: number;
  readonly modRevision: number;
  readonly version: number;
  /** Decimal, `0` for none. */
  readonly leaseId: string;
}

/** How requests fare while there is no leader. */
export interface LeaderLoss {
  /** Default `no leader`: the members know. `request timed out`: they wait in vain. */
  readonly answer?: 'no leader' | 'request timed out';
  /** How long they wait. Default 7000: etcd's 5 s and two election timeouts. */
  readonly timeoutMs?: number;
}

/** What a restore does beside bringing the data back. */
export interface RestoreOptions {
  /** Whether the cluster gets another id. Default false: it depends on names and token only, which stay as a rule. */
  readonly hasNewClusterId?: boolean;
}

const DEFAULT_MEMBER = 'etcd-1:2379';
const PROGRESS_INTERVAL_MS = 600_000;
const REQUEST_TIMEOUT_MS = 7000;

/**
 * An etcd 3.4 without sockets: its semantics at the level of gRPC calls, on an injected clock.
 *
 * @remarks
 * *API.* {@link connect} gives the dialer for a host, {@link link} its faults. What a test does behind everybody's back
 * ({@link put}, {@link restore}, …) takes effect at once. Nothing here sleeps, draws lots without the seed, or
 * touches the network; an answer without latency comes in a later turn of the event loop, never within the call.
 *
 * *Kept to the original.* `test/support/etcd-rpc-contract.ts` sends the same calls to this and to a real etcd.
 *
 * *Limits.* Leases end on the millisecond (etcd looks twice a second), watchers that are behind catch up at once (etcd:
 * ten times a second), and a compaction forgets nothing that a lagging member may still have to show.
 */
export class SimEtcdCluster {
  readonly #options: Required<SimEtcdOptions>;
  readonly #random: SimRandom;
  readonly #members = new Map<string, SimMember>();
  readonly #links = new Map<string, SimLink>();
  readonly #tokens = new Map<string, string>();
  #state: EtcdState;
  #clusterId: string;
  #index = 0;
  #term = 2;
  #leader: SimMember | undefined;
  #loss: Required<LeaderLoss> | undefined;
  #tokenCount = 0;

  constructor(options: SimEtcdOptions) {
    this.#options = {
      seed: 1,
      members: [DEFAULT_MEMBER],
      minTtlSeconds: 2,
      progressIntervalMs: PROGRESS_INTERVAL_MS,
      ...options,
    };
    this.#random = new SimRandom(`cluster ${this.#options.seed}`);
    this.#clusterId = this.#random.id();
    this.#state = this.#makeState();
    for (const target of this.#options.members) this.addMember(target);
  }

  get clock(): Clock {
    return this.#options.clock;
  }

  get clusterId(): string {
    return this.#clusterId;
  }

  get revision(): number {
    return this.#state.revision;
  }

  get members(): readonly SimMember[] {
    return [...this.#members.values()];
  }

  /** A comma list for `--etcd-endpoints`. */
  get endpoints(): string {
    return this.members.map(({ target }) => `http://${target}`).join();
  }

  /** The way of one host to the members; made when first asked for. */
  link(host: string): SimLink {
    const known = this.#links.get(host);
    if (known !== undefined) return known;
    const link = new SimLink(host, this, new SimRandom(`${host} ${this.#options.seed}`));
    this.#links.set(host, link);
    return link;
  }

  /** The dialer of one host, by way of its {@link link}. */
  connect(host: string): EtcdDialer {
    return this.link(host).dial;
  }

  /** Requests sent by each host, by method as `KV.range`. */
  get requests(): Readonly<Record<string, Readonly<Record<string, number>>>> {
    return Object.fromEntries([...this.#links].map(([host, link]) => [host, link.requests]));
  }

  // Data, as another client would change it.

  put(key: string, value: string, leaseId = '0'): void {
    const request = { key: Buffer.from(key), value: Buffer.from(value), lease: leaseId };
    this.#apply(() =>
      this.#state.put({ ...request, prev_kv: false, ignore_value: false, ignore_lease: false }, OPERATOR),
    );
  }

  /** @returns whether it was there. */
  delete(key: string): boolean {
    const before = this.revision;
    const request = { key: Buffer.from(key), range_end: Buffer.alloc(0), prev_kv: false };
    this.#apply(() => this.#state.deleteRange(request, OPERATOR));
    return this.revision > before;
  }

  get(key: string): SimEntry | undefined {
    return this.list(key).find((entry) => entry.key === key);
  }

  /** Entries whose key begins so, in the order of keys. */
  list(prefix = ''): readonly SimEntry[] {
    const from = Buffer.from(prefix).toString('latin1');
    return this.#state.mvcc
      .list({ from, to: undefined })
      .filter(({ key }) => key.startsWith(from))
      .map((entry) => ({
        ...entry,
        key: Buffer.from(entry.key, 'latin1').toString(),
        value: entry.value.toString(),
      }));
  }

  /** Forgets the history before a revision; default before the present one. */
  compact(revision = this.revision): void {
    this.#apply(() => this.#state.mvcc.compact(revision));
  }

  // Leases.

  get leases(): readonly SimLease[] {
    return this.#state.lessor.leases;
  }

  /** Leases that no key is attached to. */
  orphanLeases(): readonly SimLease[] {
    return this.leases.filter(({ id }) => this.#state.keysOf(id).length === 0);
  }

  /** Makes a lease. @returns its id in decimal. */
  grantLease(ttlSeconds: number): string {
    return this.#apply(() => this.#state.lessor.grant('0', ttlSeconds)).id;
  }

  /** Ends a lease with all its keys. */
  revokeLease(id: string): void {
    this.#apply(() => this.#state.expire(id));
  }

  // Disasters.

  /** What the cluster has on disk; a later change does not show in it. */
  backup(): EtcdBackup {
    return this.#state.backup();
  }

  /** Puts a backup in place of everything: every member starts anew from it and all leases get their full time. */
  restore(backup: EtcdBackup, options: RestoreOptions = {}): void {
    this.#replace(backup, options);
  }

  /** Starts every member anew without any data, at revision 1. */
  wipe(options: RestoreOptions = {}): void {
    this.#replace(undefined, options);
  }

  /** Raises or disarms the alarm for a full disk: nothing can be put, and no lease granted. */
  setFull(isFull: boolean): void {
    this.#state.isFull = isFull;
  }

  /** Enables authentication with these users, or disables it; tokens given before are void. */
  setAuth(users: AuthOptions | undefined): void {
    this.#state.access = users && new Access(users);
    this.invalidateTokens();
  }

  /** What a restart of a member, or a long silence, does to tokens of the simple kind. */
  invalidateTokens(): void {
    this.#tokens.clear();
  }

  // Members.

  /** A new member that has everything. */
  addMember(target: string): SimMember {
    const member = new SimMember(target, this.#random.id(), this.clock, this.#commit, (...applied) =>
      this.#onApplied(...applied),
    );
    this.#members.set(target, member);
    this.#elect();
    return member;
  }

  member(target: string): SimMember {
    const member = this.#members.get(target);
    if (member === undefined) throw new Error(`there is no member ${target}`);
    return member;
  }

  /** Ends a member: its connections are reset. */
  stopMember(target: string): void {
    const member = this.member(target);
    member.isRunning = false;
    this.#restartConnections(member);
    this.#elect();
  }

  startMember(target: string): void {
    const member = this.member(target);
    if (member.isRunning) return;
    member.isRunning = true;
    member.reset(this.#commit);
    this.#elect();
  }

  /** Freezes a member or lets it go on: connections stay open and nothing is answered. */
  setPaused(target: string, isPaused: boolean): void {
    const member = this.member(target);
    member.isPaused = isPaused;
    this.#rejoin(member);
    if (!isPaused) for (const link of this.#links.values()) link.flush();
  }

  /** Cuts a member off from the others, or lets it back. */
  setIsolated(target: string, isIsolated: boolean): void {
    const member = this.member(target);
    member.isIsolated = isIsolated;
    this.#rejoin(member);
    if (isIsolated) this.#dropLeaderStreams(member);
  }

  /** Makes a member that much later than the others; it catches up when set to 0. `Infinity` stops it where it is. */
  setLag(target: string, lagMs: number): void {
    const member = this.member(target);
    member.lagMs = lagMs;
    if (lagMs === 0) this.#rejoin(member);
  }

  /** No leader until {@link electLeader}; no lease ends meanwhile. */
  loseLeader({ answer = 'no leader', timeoutMs = REQUEST_TIMEOUT_MS }: LeaderLoss = {}): void {
    this.#loss = { answer, timeoutMs };
    this.#elect();
  }

  /** A new leader, which gives every lease its full time again. */
  electLeader(): void {
    this.#loss = undefined;
    this.#leader = undefined;
    this.#elect();
  }

  /** Ends every timer. */
  close(): void {
    this.#state.lessor.stop();
    for (const link of this.#links.values()) link.reset();
  }

  // What a link brings.

  /** @internal */
  findMember(target: string): SimMember | undefined {
    return this.#members.get(target);
  }

  /** Answers a call, possibly later. @internal */
  serve(member: SimMember, call: IncomingCall, request: unknown, reply: (answer: object | RpcError) => void): void {
    const answer = (make: () => object): void => {
      try {
        const response = make();
        reply({ ...response, header: this.#header(member, response) });
      } catch (error) {
        if (!(error instanceof RpcError)) throw error;
        reply(error);
      }
    };
    const isLocal = call.method === 'range' && (request as RangeRequest).serializable;
    if (!this.#hasLeader(member)) {
      if (call.metadata.get('hasleader') === 'true' && this.#knowsLoss(member)) {
        reply(ETCD_ERRORS.noLeader());
        return;
      }
      if (!isLocal) {
        this.clock.after(this.#loss?.timeoutMs ?? REQUEST_TIMEOUT_MS, () => reply(ETCD_ERRORS.timedOut()));
        return;
      }
    }
    if (isLocal) {
      answer(() => this.#state.range(request as RangeRequest, this.#userOf(call), member.revision));
    } else if (call.method === 'range') {
      member.whenApplied(this.#index, () =>
        answer(() => this.#state.range(request as RangeRequest, this.#userOf(call), member.revision)),
      );
    } else {
      let response: object | undefined;
      let refusal: unknown;
      try {
        response = this.#apply(() => this.#carryOut(call, request));
      } catch (error) {
        refusal = error;
      }
      member.whenApplied(this.#index, () =>
        answer(() => {
          if (response === undefined) throw refusal;
          return response;
        }),
      );
    }
  }

  /** Takes a stream. @param end - sends a status, which is the end of the stream. @internal */
  openStream(
    member: SimMember,
    call: IncomingCall,
    send: (response: object) => void,
    end: (error: RpcError) => void,
  ): ServerStream {
    if (!this.#hasLeader(member) && this.#knowsLoss(member)) {
      end(ETCD_ERRORS.noLeader());
      return { receive: () => {}, close: () => {} };
    }
    if (call.method === 'leaseKeepAlive') {
      return {
        receive: (message) => {
          const { ID } = message as { ID: string };
          if (!this.#hasLeader(member)) return;
          const TTL = this.#state.lessor.renew(ID);
          send({ header: this.#fullHeader(member, member.revision), ID, TTL });
        },
        close: () => {},
      };
    }
    const stream = new WatchStream({
      mvcc: this.#state.mvcc,
      clock: this.clock,
      progressIntervalMs: this.#options.progressIntervalMs,
      applied: () => member.revision,
      header: (revision) => this.#fullHeader(member, revision),
      assertMayRead: (span) => this.#state.access?.assertMay(this.#userOf(call), 'read', span),
      send,
    });
    member.watches.add(stream);
    return {
      receive: (message) => stream.receive(message),
      close: () => {
        member.watches.delete(stream);
        stream.close();
      },
    };
  }

  #carryOut(call: IncomingCall, request: unknown): object {
    const { lessor } = this.#state;
    const revision = (): { readonly header: Header } => ({ header: { revision: this.revision } });
    switch (call.method) {
      case 'put':
        return this.#state.put(request as PutRequest, this.#userOf(call));
      case 'deleteRange':
        return this.#state.deleteRange(request as DeleteRangeRequest, this.#userOf(call));
      case 'txn':
        return this.#state.txn(request as TxnRequest, this.#userOf(call));
      case 'compact':
        this.#userOf(call);
        this.#state.mvcc.compact(Number((request as { revision: string }).revision));
        return revision();
      case 'leaseGrant': {
        const { ID, TTL } = request as { ID: string; TTL: string };
        this.#userOf(call);
        if (this.#state.isFull) throw ETCD_ERRORS.noSpace();
        const lease = lessor.grant(ID, Number(TTL));
        return { ...revision(), ID: lease.id, TTL: lease.ttlSeconds };
      }
      case 'leaseRevoke':
        this.#state.revoke((request as { ID: string }).ID, this.#userOf(call));
        return revision();
      case 'leaseTimeToLive': {
        const { ID, keys } = request as { ID: string; keys: boolean };
        const lease = lessor.get(ID);
        return {
          ...revision(),
          ID,
          TTL: lessor.remainingSeconds(ID),
          grantedTTL: lease?.ttlSeconds ?? 0,
          keys: keys ? this.#state.keysOf(ID).map((key) => Buffer.from(key, 'latin1')) : [],
        };
      }
      case 'leaseLeases': {
        const byEnd = [...lessor.leases].sort((a, b) => a.expiresAtMs - b.expiresAtMs);
        return { ...revision(), leases: byEnd.map(({ id }) => ({ ID: id })) };
      }
      case 'authenticate': {
        const { name, password } = request as { name: string; password: string };
        if (this.#state.access === undefined) throw ETCD_ERRORS.authNotEnabled();
        this.#state.access.logIn(name, password);
        const token = `${this.#random.id()}.${++this.#tokenCount}`;
        this.#tokens.set(token, name);
        return { ...revision(), token };
      }
      default:
        throw new RpcError(12, `unknown method ${call.method} for service etcdserverpb.${call.service}`);
    }
  }

  /** Who calls, if that matters and is known. @throws {@link RpcError} */
  #userOf({ metadata }: IncomingCall): string | undefined {
    const token = metadata.get('token');
    if (this.#state.access === undefined || token === undefined) return undefined;
    const user = this.#tokens.get(token);
    if (user === undefined) throw ETCD_ERRORS.invalidToken();
    return user;
  }

  /** Changes the state, which is an entry of the raft log for each member to apply. */
  #apply<T>(change: () => T): T {
    const result = change();
    this.#index++;
    for (const member of this.#members.values()) member.learn(this.#commit);
    return result;
  }

  get #commit(): { readonly index: number; readonly revision: number } {
    return { index: this.#index, revision: this.#state.revision };
  }

  #onApplied(member: SimMember, before: number, now: number): void {
    const changes = this.#state.mvcc.changesBetween(before, now);
    for (let revision = before + 1; revision <= now; revision++) {
      const together = changes.filter((change) => change.revision === revision);
      for (const watch of [...member.watches]) watch.notify(together, revision);
    }
  }

  #makeState(backup?: EtcdBackup): EtcdState {
    const expire = (id: string): void => this.#apply(() => this.#state.expire(id));
    return new EtcdState(this.clock, this.#options.minTtlSeconds, expire, backup);
  }

  #replace(backup: EtcdBackup | undefined, { hasNewClusterId = false }: RestoreOptions): void {
    this.#state.lessor.stop();
    this.#state = this.#makeState(backup);
    if (hasNewClusterId) this.#clusterId = this.#random.id();
    this.#index++;
    this.#term = 2;
    this.invalidateTokens();
    for (const member of this.#members.values()) {
      this.#restartConnections(member);
      member.reset(this.#commit);
    }
    if (!this.#hasQuorum()) this.#state.lessor.stop();
  }

  /** Lets a member that is back among the others catch up. */
  #rejoin(member: SimMember): void {
    if (member.isVoting && Number.isFinite(member.lagMs)) member.catchUp(this.#commit);
    this.#elect();
  }

  #hasQuorum(): boolean {
    const voting = this.members.filter(({ isVoting }) => isVoting).length;
    return this.#loss === undefined && 2 * voting > this.#members.size;
  }

  #hasLeader(member: SimMember): boolean {
    return this.#leader !== undefined && !member.isIsolated;
  }

  #knowsLoss(member: SimMember): boolean {
    return member.isIsolated || this.#loss?.answer !== 'request timed out';
  }

  /** Sees to it that there is a leader exactly if there can be one. */
  #elect(): void {
    const hadLeader = this.#leader !== undefined;
    if (this.#leader?.isVoting !== true || !this.#hasQuorum()) this.#leader = undefined;
    if (this.#leader === undefined && this.#hasQuorum()) {
      this.#leader = this.members.find(({ isVoting }) => isVoting);
      this.#term++;
      this.#state.lessor.startAgain();
    } else if (hadLeader && this.#leader === undefined) {
      this.#state.lessor.stop();
      for (const member of this.#members.values()) if (this.#knowsLoss(member)) this.#dropLeaderStreams(member);
    }
  }

  #dropLeaderStreams(member: SimMember): void {
    for (const link of this.#links.values()) link.endStreams(member, ETCD_ERRORS.noLeader());
  }

  #restartConnections(member: SimMember): void {
    for (const link of this.#links.values()) link.resetMember(member);
  }

  #header(member: SimMember, response: object): Header {
    const { header } = response as { readonly header: Header };
    return this.#fullHeader(member, header.revision);
  }

  #fullHeader(member: SimMember, revision: number): Header {
    return { cluster_id: this.#clusterId, member_id: member.id, revision, raft_term: String(this.#term) };
  }
}
