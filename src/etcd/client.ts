import type { IResponseHeader, IWatchCreateRequest, IWatchResponse } from 'etcd3/lib/rpc.js';
import type { Clock } from '../clock.js';
import { OverlayError, describeError } from '../errors.js';
import { RoundTripTimer, type RoundTripTimes } from '../lease/round-trips.js';
import type { StoreHealth, Subscription } from '../lease/store.js';
import type { Logger } from '../log.js';
import { RateLimitedLog } from '../rate-limited-log.js';
import {
  type Call,
  type EtcdConnection,
  type EtcdDialer,
  type EtcdService,
  type OpenService,
  type StreamMethod,
  type UnaryMethod,
  dialEtcd,
} from './connection.js';
import type { EndpointList } from './endpoints.js';
import { type Failure, authError, classifyFailure, requestError, unavailableError } from './errors.js';
import { type TlsFiles, type TlsMaterial, loadTlsMaterial } from './tls.js';

/** What an {@link EtcdClient} is made of. */
export interface EtcdClientOptions {
  readonly endpoints: EndpointList;
  readonly tlsFiles: TlsFiles;
  readonly user: { readonly name: string; readonly password: string } | undefined;
  /** For one request, all endpoints together. */
  readonly callTimeoutMs: number;
  /** Silence on a connection in use after which it is probed; etcd closes it if asked more often than every 5 s. */
  readonly pingIntervalMs: number;
  readonly clock: Clock;
  readonly log: Logger;
  /** Default {@link dialEtcd}. */
  readonly dial?: EtcdDialer | undefined;
}

/** A stream of changes that etcd has confirmed. */
export interface OpenWatch {
  /** Of the confirmation: which cluster it is and its revision at that time. */
  readonly header: IResponseHeader;
  /** Why it ended; never rejects. */
  readonly ended: Promise<Failure>;
  close(): void;
}

/** Kinds of refusal that a caller may expect and deal with. */
type Expectable = 'gone' | 'exists' | 'compacted';

type Attempt<T> = { readonly isOk: true; readonly value: T } | { readonly isOk: false; readonly failure: Failure };

/** What a log-in gave; no text if etcd has no users. Told apart by identity. */
interface Token {
  readonly text: string | undefined;
}

/** Which service of etcd is called, and until when on the monotonic clock. */
interface CallScope {
  readonly service: EtcdService;
  readonly untilMs: number;
  readonly signal?: AbortSignal | undefined;
  /** The call that asks for the token. */
  readonly isLogin?: boolean;
}

/** Different causes of one outage that are told at once. */
const MAX_CAUSES = 4;

/** etcd's default heartbeat interval: the smallest step in which the state of an election changes. */
const ELECTION_POLL_MS = 100;

/** An election takes a second or so; a cluster without a majority must not be asked by all its hosts ten times a second. */
const ELECTION_POLL_CAP_MS = 1000;

/**
 * The gRPC side of etcd: one request or stream at a time on whichever endpoint answers.
 *
 * @remarks
 * *API.* {@link call} and {@link keepAlive} for requests, {@link openWatch} for streams.
 *
 * *Design.* The connection handling of the etcd3 package is used one endpoint at a time and without its retries, its
 * circuit breakers, its log-in (which leaves connections open) and its watcher (which does not know compaction). The
 * endpoint that answered last is asked first; one that fails is redialled on its next turn, and one that hangs is left
 * by every stream at once.
 *
 * *Limits.* A request takes at most `callTimeoutMs`, shared evenly by the endpoints. Messages have no size limit, as
 * a listing may have any size.
 *
 * *Errors.* `ERR_ETCD_UNAVAILABLE` after the last endpoint, `ERR_ETCD_AUTH`, `ERR_ETCD_REQUEST`, `ERR_STORE_CLOSED`.
 *
 * *Counters.* `roundTrips`, `roundTripTimes` and `errors`.
 */
export class EtcdClient {
  readonly #options: EtcdClientOptions;
  readonly #endpoints: readonly Endpoint[];
  readonly #closing = new AbortController();
  readonly #healthCallbacks = new Set<(health: StoreHealth) => void>();
  readonly #errors = new Map<string, number>();
  #tls: TlsMaterial | undefined;
  #preferred = 0;
  #token: Token | undefined;
  #health: StoreHealth = { isConnected: false, endpoint: undefined, error: undefined };
  readonly #roundTripTimer = new RoundTripTimer();
  #failuresSinceAnswer = 0;
  readonly #complaints: RateLimitedLog;
  /** Why etcd did not answer, as far as it was told since it answered last. */
  readonly #causes = new Set<string>();
  readonly #defects: RateLimitedLog;

  /** @throws {@link OverlayError} `ERR_TLS_FILE` */
  constructor(options: EtcdClientOptions) {
    const { endpoints, pingIntervalMs, callTimeoutMs: pingTimeoutMs, dial = dialEtcd } = options;
    this.#options = options;
    this.#complaints = new RateLimitedLog(options.clock);
    this.#defects = new RateLimitedLog(options.clock);
    this.#tls = endpoints.isTls ? loadTlsMaterial(options.tlsFiles) : undefined;
    this.#endpoints = endpoints.targets.map(
      (target) => new Endpoint(target, () => dial(target, { tls: this.#tls, pingIntervalMs, pingTimeoutMs })),
    );
  }

  get health(): StoreHealth {
    return this.#health;
  }

  get roundTrips(): number {
    return this.#roundTripTimer.count;
  }

  get roundTripTimes(): RoundTripTimes {
    return this.#roundTripTimer.times;
  }

  get errors(): Readonly<Record<string, number>> {
    return Object.fromEntries(this.#errors);
  }

  get isClosed(): boolean {
    return this.#closing.signal.aborted;
  }

  /** Calls back on every transition between connected and not. */
  onHealth(callback: (health: StoreHealth) => void): Subscription {
    this.#healthCallbacks.add(callback);
    return { close: () => this.#healthCallbacks.delete(callback) };
  }

  /** One request and its answer. */
  async call<T>(service: EtcdService, method: string, request: unknown, signal?: AbortSignal): Promise<T> {
    return (await this.#request(undefined, (endpoint, untilMs) =>
      this.#unary(endpoint, { service, untilMs, signal }, method, request),
    )) as T;
  }

  /** Like {@link call}, but undefined if etcd refuses in the way that is expected. */
  async callUnless<T>(
    expected: Expectable,
    service: EtcdService,
    method: string,
    request: unknown,
    signal?: AbortSignal,
  ): Promise<T | undefined> {
    return (await this.#request(expected, (endpoint, untilMs) =>
      this.#unary(endpoint, { service, untilMs, signal }, method, request),
    )) as T | undefined;
  }

  /** Keeps an etcd lease alive once. @returns the seconds it has now, 0 if there is no such lease. */
  async keepAlive(id: string, signal?: AbortSignal): Promise<number> {
    const answer = await this.#request(undefined, (endpoint, untilMs) =>
      this.#keepAlive(endpoint, { service: 'Lease', untilMs, signal }, id),
    );
    return Number(answer);
  }

  /**
   * Opens a stream of changes on some endpoint.
   *
   * @param onResponse - called for each response after the confirmation, except the one that ends the stream, and not
   * after `close()`. If it throws, that is logged and the stream ends, so that what was missed is asked for again.
   * @param signal - gives up waiting for the confirmation; afterwards only `close()` ends the stream.
   */
  async openWatch(
    request: IWatchCreateRequest,
    onResponse: (response: IWatchResponse) => void,
    signal: AbortSignal,
  ): Promise<OpenWatch> {
    return (await this.#request(undefined, (endpoint, untilMs) =>
      this.#watch(endpoint, { service: 'Watch', untilMs, signal }, request, onResponse),
    )) as OpenWatch;
  }

  /** Gives up every connection; streams and the next requests make new ones. */
  reconnect(detail: string): void {
    if (this.isClosed) return;
    for (const endpoint of this.#endpoints) endpoint.reset(detail);
  }

  /** Ends all calls, streams and connections. Idempotent. */
  close(): void {
    if (this.isClosed) return;
    this.#closing.abort(closedError());
    this.#healthCallbacks.clear();
    for (const endpoint of this.#endpoints) endpoint.reset('the client was closed');
  }

  /**
   * Asks the endpoints in turn, the preferred one first; again from the start, as long as there is time, if one of them
   * is alive but in want of a leader: an election takes a second or so.
   */
  async #request<T>(
    expected: Expectable | undefined,
    attempt: (endpoint: Endpoint, untilMs: number) => Promise<Attempt<T>>,
  ): Promise<T | undefined> {
    const { clock, callTimeoutMs, endpoints, user } = this.#options;
    const shareMs = callTimeoutMs / this.#endpoints.length;
    const deadlineMs = clock.monotonicMs() + callTimeoutMs;
    let detail = '';
    let rounds = 0;
    for (let isElecting = true; isElecting;) {
      isElecting = false;
      for (const endpoint of this.#inTurn()) {
        const startMs = clock.monotonicMs();
        const untilMs = Math.min(startMs + shareMs, deadlineMs);
        if (untilMs <= startMs) break;
        let result = await attempt(endpoint, untilMs);
        if (!result.isOk && isTokenFailure(result.failure) && user !== undefined) {
          result = await attempt(endpoint, untilMs);
        }
        const tookMs = clock.monotonicMs() - startMs;
        if (result.isOk) {
          this.#noteAnswer(endpoint, tookMs);
          return result.value;
        }
        const { failure } = result;
        if (failure.kind !== 'endpoint') {
          this.#noteAnswer(endpoint, tookMs);
          if (failure.kind === expected) return undefined;
          const error = failure.kind === 'final' ? failure.error : refusalError(failure);
          this.#bump(error.code);
          throw error;
        }
        this.#leave(endpoint, failure.detail);
        const isAlive = isServerMessage(failure.detail);
        isElecting ||= isAlive;
        if (detail === '' || isAlive) detail = failure.detail;
      }
      const pauseMs = Math.min(ELECTION_POLL_CAP_MS, ELECTION_POLL_MS * 2 ** rounds++);
      if (clock.monotonicMs() + pauseMs >= deadlineMs) break;
      if (isElecting) await clock.sleep(pauseMs, this.#closing.signal);
    }
    this.#closing.signal.throwIfAborted();
    const error = unavailableError(detail, endpoints);
    this.#noteLost(error);
    throw error;
  }

  /** The endpoints, the preferred one first. */
  #inTurn(): readonly Endpoint[] {
    return [...this.#endpoints.slice(this.#preferred), ...this.#endpoints.slice(0, this.#preferred)];
  }

  #unary(endpoint: Endpoint, scope: CallScope, method: string, request: unknown): Promise<Attempt<unknown>> {
    return this.#run(endpoint, scope, ({ stub, metadata }, finish) => {
      const call = (stub as Record<string, UnaryMethod>)[method];
      if (call === undefined) throw new TypeError(`etcd has no method ${scope.service}.${method}`);
      return call.call(stub, request, metadata, {}, (error, response) => {
        finish(error === null ? { isOk: true, value: response } : { isOk: false, failure: classifyFailure(error) });
      });
    });
  }

  #keepAlive(endpoint: Endpoint, scope: CallScope, id: string): Promise<Attempt<number>> {
    return this.#run(endpoint, scope, ({ stub, metadata }, finish) => {
      const { leaseKeepAlive } = stub as { leaseKeepAlive: StreamMethod<{ ID: string }, { TTL: string }> };
      const stream = leaseKeepAlive.call(stub, metadata, {});
      stream.on('data', ({ TTL }) => {
        finish({ isOk: true, value: Number(TTL) });
        this.#guard(() => stream.cancel());
      });
      stream.on('error', (error) => finish({ isOk: false, failure: classifyFailure(error) }));
      stream.on('end', () => finish({ isOk: false, failure: { kind: 'endpoint', detail: 'the stream ended early' } }));
      stream.write({ ID: id });
      return stream;
    });
  }

  #watch(
    endpoint: Endpoint,
    scope: CallScope,
    request: IWatchCreateRequest,
    onResponse: (response: IWatchResponse) => void,
  ): Promise<Attempt<OpenWatch>> {
    let end: (failure: Failure) => void = () => {};
    const ended = new Promise<Failure>((resolve) => (end = resolve));
    return this.#run(endpoint, scope, ({ stub, metadata }, finish) => {
      const { watch } = stub as { watch: StreamMethod<object, IWatchResponse> };
      const stream = watch.call(stub, metadata, {});
      let isOver = false;
      const stop = (failure: Failure): void => {
        if (isOver) return;
        isOver = true;
        endpoint.streams.delete(abandon);
        finish({ isOk: false, failure });
        end(failure);
        this.#guard(() => stream.cancel());
      };
      const abandon = (detail: string): void => stop({ kind: 'endpoint', detail });
      const close = (): void => abandon('the stream was closed');
      endpoint.streams.add(abandon);
      stream.on('data', (response) => {
        if (isOver) return;
        const isProcessed = this.#guard(() => {
          if (response.canceled) stop(this.#classifyCancel(response));
          else if (response.created) finish({ isOk: true, value: { header: response.header, ended, close } });
          else onResponse(response);
        });
        if (!isProcessed) abandon('a response was not processed');
      });
      stream.on('error', (error) => stop(classifyFailure(error)));
      stream.on('end', () => abandon('etcd ended the stream'));
      try {
        stream.write({ create_request: request });
      } catch (error) {
        abandon(describeError(error));
      }
      return { cancel: close };
    });
  }

  #classifyCancel(response: IWatchResponse): Failure {
    if (BigInt(response.compact_revision) > 0n) return { kind: 'compacted', detail: response.cancel_reason };
    const failure = classifyFailure({ code: 0, details: response.cancel_reason });
    // etcd 3.4 calls an outdated token "permission denied" here; a fresh one shows which of the two it was.
    const mayBeToken = failure.kind === 'final' && /permission denied/.test(response.cancel_reason);
    return mayBeToken && this.#options.user !== undefined ? { kind: 'token', detail: response.cancel_reason } : failure;
  }

  /** Opens a service on an endpoint, logs in if need be, and runs one call to its end. */
  async #run<T>(
    endpoint: Endpoint,
    scope: CallScope,
    start: (opened: OpenService, finish: (result: Attempt<T>) => void) => Call,
  ): Promise<Attempt<T>> {
    this.#closing.signal.throwIfAborted();
    let opened: OpenService;
    try {
      opened = await endpoint.open(scope.service);
    } catch (error) {
      // Another call has just closed the connection that was being opened.
      return { isOk: false, failure: { kind: 'endpoint', detail: describeError(error) } };
    }
    // The wish for a member that has a leader.
    opened.metadata.set('hasleader', 'true');
    if (this.#options.user === undefined || scope.isLogin === true) return this.#settle(endpoint, scope, opened, start);
    if (this.#token === undefined) {
      // Each endpoint asks for itself: one that hangs must not hold up calls to the others.
      endpoint.login ??= this.#logIn(endpoint, scope.untilMs).finally(() => (endpoint.login = undefined));
      const login = await endpoint.login;
      if (!login.isOk) return login;
    }
    const token = this.#token;
    if (token?.text !== undefined) opened.metadata.set('token', token.text);
    const result = await this.#settle(endpoint, scope, opened, start);
    // Unless another call has got a fresh one meanwhile.
    if (!result.isOk && isTokenFailure(result.failure) && this.#token === token) this.#token = undefined;
    return result;
  }

  async #logIn(endpoint: Endpoint, untilMs: number): Promise<Attempt<undefined>> {
    const { name, password } = this.#options.user ?? { name: '', password: '' };
    const scope: CallScope = { service: 'Auth', untilMs, isLogin: true };
    const answer = await this.#unary(endpoint, scope, 'authenticate', { name, password });
    if (answer.isOk) {
      this.#token = { text: (answer.value as { token: string }).token };
    } else if (answer.failure.kind === 'no-auth') {
      this.#options.log.warn('etcd has no authentication, user and password are not used');
      this.#token = { text: undefined };
    } else if (answer.failure.kind === 'token') {
      const error = authError(answer.failure.detail, 'check the auth store of etcd');
      return { isOk: false, failure: { kind: 'final', error } };
    } else {
      return answer;
    }
    return { isOk: true, value: undefined };
  }

  /** Runs one call to its end: answer, time-out, or an aborted signal, whichever is first. */
  #settle<T>(
    endpoint: Endpoint,
    { untilMs, signal }: CallScope,
    opened: OpenService,
    start: (opened: OpenService, finish: (result: Attempt<T>) => void) => Call,
  ): Promise<Attempt<T>> {
    const signals = signal === undefined ? [this.#closing.signal] : [signal, this.#closing.signal];
    const timeoutMs = Math.max(0, untilMs - this.#options.clock.monotonicMs());
    return new Promise((resolve, reject) => {
      const aborted = signals.find((each) => each.aborted);
      if (aborted !== undefined) {
        reject(aborted.reason as Error);
        return;
      }
      let isDone = false;
      let cancel = (): void => {};
      const done = (settle: () => void): void => {
        if (isDone) return;
        isDone = true;
        cancelTimer();
        for (const each of signals) each.removeEventListener('abort', onAbort);
        settle();
      };
      const onAbort = (): void =>
        done(() => {
          reject(signals.find((each) => each.aborted)?.reason as Error);
          cancel();
        });
      const cancelTimer = this.#options.clock.after(timeoutMs, () =>
        done(() => {
          resolve({
            isOk: false,
            failure: { kind: 'endpoint', detail: `${endpoint.target} did not answer in ${Math.round(timeoutMs)} ms` },
          });
          cancel();
        }),
      );
      for (const each of signals) each.addEventListener('abort', onAbort);
      try {
        const call = start(opened, (result) => done(() => resolve(result)));
        cancel = () => this.#guard(() => call.cancel());
      } catch (error) {
        // Another call has just closed this connection; grpc-js throws then instead of answering.
        done(() => resolve({ isOk: false, failure: { kind: 'endpoint', detail: describeError(error) } }));
      }
    });
  }

  /** Turns away from an endpoint that failed. One that answered with an error of its own keeps connection and rank. */
  #leave(endpoint: Endpoint, detail: string): void {
    this.#bump('ERR_ETCD_UNAVAILABLE');
    if (isServerMessage(detail) || this.isClosed) return;
    const index = this.#endpoints.indexOf(endpoint);
    if (this.#preferred === index) this.#preferred = (index + 1) % this.#endpoints.length;
    this.#reloadTls();
    endpoint.reset(detail);
  }

  /** Certificates are replaced on disk while the daemon runs; a failed connection is the time to look. */
  #reloadTls(): void {
    if (this.#tls === undefined) return;
    try {
      this.#tls = loadTlsMaterial(this.#options.tlsFiles);
    } catch (error) {
      this.#bump('ERR_TLS_FILE');
      this.#options.log.debug('certificate files are unreadable, the former ones are used', { error });
    }
  }

  #noteAnswer(endpoint: Endpoint, tookMs: number): void {
    this.#roundTripTimer.add(tookMs / 1000);
    this.#preferred = this.#endpoints.indexOf(endpoint);
    const before = this.#health;
    if (before.isConnected && before.endpoint === endpoint.target) return;
    this.#health = { isConnected: true, endpoint: endpoint.target, error: undefined };
    if (before.isConnected) {
      this.#options.log.info('etcd endpoint changed', { from: before.endpoint, to: endpoint.target });
      return;
    }
    const message = before.error === undefined ? 'etcd connected' : 'etcd is back';
    const count = this.#failuresSinceAnswer === 0 ? undefined : this.#failuresSinceAnswer;
    this.#options.log.info(message, { endpoint: endpoint.target, count });
    this.#failuresSinceAnswer = 0;
    this.#causes.clear();
    this.#announce();
  }

  #noteLost(error: OverlayError): void {
    this.#failuresSinceAnswer++;
    const before = this.#health;
    const isTransition = before.isConnected || before.error === undefined;
    this.#health = { isConnected: false, endpoint: undefined, error };
    // First nobody listens, then the certificate is wrong: what is to be done changes with the cause.
    const isNewCause = !this.#causes.has(error.message) && this.#causes.size < MAX_CAUSES;
    if (isNewCause) this.#complaints.reset();
    this.#complaints.tell(() => {
      this.#causes.add(error.message);
      this.#options.log.warn(isTransition ? 'etcd lost' : 'etcd still away', {
        count: this.#failuresSinceAnswer,
        error,
      });
    });
    if (isTransition) this.#announce();
  }

  #announce(): void {
    for (const callback of [...this.#healthCallbacks]) this.#guard(() => callback(this.#health));
  }

  /** Runs what a stream, a timer or a signal calls, where nobody would catch. @returns whether it did not throw. */
  #guard(action: () => void): boolean {
    try {
      action();
      return true;
    } catch (error) {
      this.#defects.tell((count) => {
        this.#options.log.error('a message from etcd was not processed', { count, error });
      });
      return false;
    }
  }

  #bump(code: string): void {
    this.#errors.set(code, (this.#errors.get(code) ?? 0) + 1);
  }
}

/** Connections to one member, dialled when first used and after each reset. */
class Endpoint {
  /** Streams that run over it, each by the function that makes it end. */
  readonly streams = new Set<(detail: string) => void>();
  /** The log-in that is under way. */
  login: Promise<Attempt<undefined>> | undefined;
  #connection: EtcdConnection | undefined;

  constructor(
    readonly target: string,
    private readonly dial: () => EtcdConnection,
  ) {}

  async open(service: EtcdService): Promise<OpenService> {
    this.#connection ??= this.dial();
    return this.#connection.open(service);
  }

  reset(detail: string): void {
    for (const abandon of [...this.streams]) abandon(detail);
    this.#connection?.close();
    this.#connection = undefined;
  }
}

function refusalError(failure: Exclude<Failure, { kind: 'final' }>): OverlayError {
  if (failure.kind === 'token') return authError(failure.detail, 'check --etcd-username and the role of that user');
  if (failure.kind === 'no-user') {
    return authError(
      failure.detail,
      'set --etcd-username and --etcd-password-file: this etcd has authentication enabled',
    );
  }
  return requestError(failure.detail, false, undefined);
}

/** Whether a new log-in may help: the token is outdated, or authentication was enabled after the last log-in. */
function isTokenFailure({ kind }: Failure): boolean {
  return kind === 'token' || kind === 'no-user';
}

/** Whether the text comes from etcd itself, so that the way to it works. */
function isServerMessage(detail: string): boolean {
  return detail.startsWith('etcdserver:');
}

function closedError(): OverlayError {
  return new OverlayError('ERR_STORE_CLOSED', 'cannot use etcd: the store was closed');
}
