import type {
  Call,
  CallError,
  CallMetadata,
  DialSettings,
  EtcdConnection,
  EtcdDialer,
  EtcdService,
  OpenService,
} from '../../../src/etcd/connection.js';
import type { Clock } from '../../../src/clock.js';
import { later } from '../later.js';
import type { SimMember } from './member.js';
import { type IncomingCall, type MethodDefinition, RpcError, methodsOf } from './protocol.js';
import type { SimRandom } from './random.js';
import type { ServerStream } from './watch.js';

/** `request`: from host to member; `answer`: back. */
export type Direction = 'request' | 'answer';

/** What goes wrong by chance in one direction. */
export interface LinkFaults {
  /** Shortest and longest time a message takes. Messages overtake each other, except within a stream. */
  readonly latencyMs: readonly [number, number];
  /** Probability that a message is lost and its call waits in vain; streams of changes lose none. */
  readonly loss: number;
  /** Probability that the connection is reset instead of carrying a message. */
  readonly reset: number;
}

/** What becomes of a message: `hold` keeps it, and what follows it in a stream, until {@link SimLink.release}. */
export type Fate = 'pass' | 'lose' | 'reset' | 'hold';

/** A message on its way. */
export interface Passing {
  readonly direction: Direction;
  /** As `KV.range`. */
  readonly method: string;
  readonly target: string;
  /** The decoded message. */
  readonly message: unknown;
}

/** `hang`: nothing passes and nobody is told; `refuse`: connections are reset and new ones refused. */
export type Partition = 'hang' | 'refuse';

const NO_FAULTS: LinkFaults = { latencyMs: [0, 0], loss: 0, reset: 0 };
const DIRECTIONS: readonly Direction[] = ['request', 'answer'];

/** gRPC status codes by number (grpc `doc/statuscodes.md`). */
const CANCELLED = 1;
const INTERNAL = 13;
const UNAVAILABLE = 14;

/** A message that waits. */
interface Held {
  readonly call?: SimCall;
  readonly arrive: () => void;
}

/** What a link needs of the cluster that it leads to. */
export interface LinkedCluster {
  readonly clock: Clock;
  findMember(target: string): SimMember | undefined;
  /** Answers a call, possibly later. */
  serve(member: SimMember, call: IncomingCall, request: unknown, reply: (answer: object | RpcError) => void): void;
  /** Begins a stream; the first of its messages comes after that. */
  openStream(
    member: SimMember,
    call: IncomingCall,
    send: (response: object) => void,
    end: (error: RpcError) => void,
  ): ServerStream;
}

/**
 * The way of one host to the members of a {@link LinkedCluster}, and what goes wrong on it.
 *
 * @remarks What is sent into a partition that hangs arrives when it heals, as TCP sends again, even if the caller has
 * given up meanwhile: a write may be carried out late. A connection on which nothing is heard fails after the probe
 * that {@link DialSettings} ask for.
 */
export class SimLink {
  readonly dial: EtcdDialer = (target, settings) => new SimConnection(this, target, settings);
  /** Decides about each message before chance does, and may change the data as another host would. */
  intercept: ((passing: Passing) => Fate) | undefined;
  readonly #faults: Record<Direction, LinkFaults> = { request: NO_FAULTS, answer: NO_FAULTS };
  readonly #requests: Record<string, number> = {};
  readonly #sessions = new Set<Session>();
  readonly #partitions = new Map<string, Partition>();
  #held: Held[] = [];
  #onHold: Held[] = [];
  /** What a paused process will do first; undefined while it runs. */
  #whilePaused: (() => void)[] | undefined;

  /** @internal */
  constructor(
    readonly host: string,
    readonly cluster: LinkedCluster,
    readonly random: SimRandom,
  ) {}

  /** Requests sent, carried out or not, by method as `KV.range`; of streams, their messages. */
  get requests(): Readonly<Record<string, number>> {
    return { ...this.#requests };
  }

  /** All of {@link requests} together. */
  get requestCount(): number {
    return Object.values(this.#requests).reduce((sum, count) => sum + count, 0);
  }

  /** Calls that have not ended, streams included. */
  get callCount(): number {
    return [...this.#sessions].reduce((sum, { calls }) => sum + calls.size, 0);
  }

  /** Streams that are open. */
  get streamCount(): number {
    return [...this.#sessions].flatMap(({ calls }) => [...calls]).filter(({ isStream }) => isStream).length;
  }

  /** Changes what goes wrong by chance from now on. */
  setFaults(direction: Direction | 'both', faults: Partial<LinkFaults>): void {
    for (const each of DIRECTIONS) {
      if (direction === 'both' || direction === each) this.#faults[each] = { ...this.#faults[each], ...faults };
    }
  }

  /** Cuts the host off: from one member or all, in one direction or both (`refuse` is always both). */
  partition(how: Partition, options: { readonly target?: string; readonly direction?: Direction } = {}): void {
    const { target = '*', direction } = options;
    for (const each of DIRECTIONS) {
      if (how === 'refuse' || direction === undefined || direction === each) {
        this.#partitions.set(`${each} ${target}`, how);
      }
    }
    if (how === 'refuse') this.reset(options.target);
  }

  /** Ends every partition; what waited arrives. */
  heal(): void {
    this.#partitions.clear();
    this.flush();
  }

  /** Ends connections with an error that the host sees at once. */
  reset(target?: string): void {
    for (const session of [...this.#sessions]) {
      if (target === undefined || session.target === target) this.atHost(() => session.drop('read ECONNRESET'));
    }
  }

  /** Stops the host's process or lets it go on: meanwhile it takes nothing in and does not notice the time. */
  setPaused(isPaused: boolean): void {
    const waiting = this.#whilePaused;
    this.#whilePaused = isPaused ? (waiting ?? []) : undefined;
    if (!isPaused) for (const each of waiting ?? []) later(each);
  }

  /** Ends every connection as the end of the host's process does, which hears nothing of it any more. */
  abandon(): void {
    this.#whilePaused = undefined;
    for (const session of [...this.#sessions]) session.abandon();
  }

  /** Does something in the host's process. @internal */
  atHost(action: () => void): void {
    if (this.#whilePaused === undefined) action();
    else this.#whilePaused.push(action);
  }

  /** Makes the streams that are open now carry nothing more, while probes and other calls go on. */
  freezeStreams(): void {
    for (const { calls } of this.#sessions) for (const call of calls) call.isFrozen ||= call.isStream;
  }

  /** Lets go what {@link intercept} has held. */
  release(): void {
    const held = this.#onHold;
    this.#onHold = [];
    for (const { arrive } of held) arrive();
  }

  /** Delivers what nothing holds up any more. @internal */
  flush(): void {
    const held = this.#held;
    this.#held = [];
    for (const { arrive } of held) arrive();
  }

  /** The member has ended: its connections are gone, which a host sees unless it is cut off. @internal */
  resetMember(member: SimMember): void {
    for (const session of [...this.#sessions]) {
      if (session.target !== member.target) continue;
      session.closeStreams();
      this.carry(session, 'answer', undefined, () => session.drop('read ECONNRESET'));
    }
  }

  /** The member ends its streams with that status. @internal */
  endStreams(member: SimMember, error: RpcError): void {
    for (const session of this.#sessions) {
      if (session.target !== member.target) continue;
      for (const call of session.calls) if (call.isStream) session.fail(call, error);
    }
  }

  /** @internal */
  track(session: Session): void {
    this.#sessions.add(session);
  }

  /** @internal */
  forget(session: Session): void {
    this.#sessions.delete(session);
  }

  /** @internal */
  isRefused(target: string): boolean {
    return this.#partitionOf('request', target) === 'refuse';
  }

  /** Counts a request and sends it. @internal */
  send(session: Session, call: SimCall, message: unknown, arrive: () => void): void {
    this.#requests[call.method] = (this.#requests[call.method] ?? 0) + 1;
    this.#submit(session, 'request', call, message, arrive);
  }

  /** Sends an answer. @internal */
  answer(session: Session, call: SimCall, message: unknown, arrive: () => void): void {
    this.#submit(session, 'answer', call, message, arrive);
  }

  /** Carries a message without chance having a say, in the order of its stream. @internal */
  carry(session: Session, direction: Direction, call: SimCall | undefined, arrive: () => void): void {
    const [min, max] = this.#faults[direction].latencyMs;
    const { clock } = this.cluster;
    const nowMs = clock.monotonicMs();
    let atMs = max > 0 ? nowMs + this.random.between(min, max) : nowMs;
    if (call?.isStream === true) {
      atMs = Math.max(atMs, call.lastAtMs[direction]);
      call.lastAtMs[direction] = atMs;
    }
    const attempt = (): void => {
      if (this.#isHeldUp(direction, session.target)) this.#held.push({ arrive: attempt });
      else if (direction === 'answer') this.atHost(arrive);
      else arrive();
    };
    if (atMs > nowMs) clock.after(atMs - nowMs, attempt);
    else if (direction === 'request') queueMicrotask(attempt);
    else later(attempt);
  }

  #submit(session: Session, direction: Direction, call: SimCall, message: unknown, arrive: () => void): void {
    const { method, isFrozen } = call;
    if (isFrozen) return;
    const { loss, reset } = this.#faults[direction];
    const fate = this.intercept?.({ direction, method, target: session.target, message }) ?? 'pass';
    if (fate === 'reset' || (fate === 'pass' && this.random.chance(reset))) {
      this.carry(session, direction, undefined, () => session.drop('read ECONNRESET'));
    } else if (fate === 'lose' || (fate === 'pass' && method !== 'Watch.watch' && this.random.chance(loss))) {
      // TCP never lets a message overtake one that was lost.
      call.isFrozen = call.isStream;
    } else if (fate === 'hold' || (call.isStream && this.#onHold.some((held) => held.call === call))) {
      this.#onHold.push({ call, arrive: () => this.carry(session, direction, call, arrive) });
    } else {
      this.carry(session, direction, call, arrive);
    }
  }

  #isHeldUp(direction: Direction, target: string): boolean {
    if (this.cluster.findMember(target)?.isPaused === true) return true;
    return this.#partitionOf(direction, target) === 'hang';
  }

  #partitionOf(direction: Direction, target: string): Partition | undefined {
    return this.#partitions.get(`${direction} ${target}`) ?? this.#partitions.get(`${direction} *`);
  }
}

/** A call as the host's side knows it. */
class SimCall {
  isOver = false;
  isFrozen = false;
  /** When the last message of a stream arrives. */
  readonly lastAtMs: Record<Direction, number> = { request: 0, answer: 0 };
  /** The member's side of a stream. */
  server: ServerStream | undefined;

  constructor(
    readonly method: string,
    readonly isStream: boolean,
    /** Tells the caller the end. */
    readonly onError: (error: CallError) => void,
  ) {}
}

/** One TCP connection, made when a call needs it. */
class Session {
  readonly calls = new Set<SimCall>();
  #epoch: number | undefined;
  #isGone = false;
  #cancelPing: (() => void) | undefined;

  constructor(
    readonly link: SimLink,
    readonly target: string,
    private readonly settings: DialSettings,
    private readonly onGone: () => void,
  ) {
    link.track(this);
  }

  add(call: SimCall): void {
    this.calls.add(call);
    this.#armPing();
  }

  /** Takes a call off; its caller has been told. */
  end(call: SimCall): void {
    call.isOver = true;
    this.calls.delete(call);
    if (this.calls.size > 0) return;
    this.#cancelPing?.();
    this.#cancelPing = undefined;
  }

  /** Brings a request to the member, or the caller the news that there is none. */
  deliver(call: SimCall, proceed: (member: SimMember) => void): void {
    const member = this.link.cluster.findMember(this.target);
    if (this.#isGone || (call.isOver && this.#epoch === undefined)) return;
    if (member?.isRunning !== true || this.link.isRefused(this.target)) {
      const detail = `No connection established. Last error: connect ECONNREFUSED ${this.target}`;
      this.link.carry(this, 'answer', undefined, () => this.drop(detail));
      return;
    }
    this.#epoch ??= member.epoch;
    if (this.#epoch === member.epoch) proceed(member);
    else this.link.carry(this, 'answer', undefined, () => this.drop('read ECONNRESET'));
  }

  /** Whether what a member says now still comes from the one that the session was made with. */
  isWith(member: SimMember): boolean {
    return !this.#isGone && this.#epoch === member.epoch && member.isRunning;
  }

  /** Sends a status that ends a call. */
  fail(call: SimCall, { code, details }: RpcError): void {
    this.link.answer(this, call, { code, details }, () => {
      if (call.isOver) return;
      this.end(call);
      call.server?.close();
      call.onError({ code, details });
    });
  }

  closeStreams(): void {
    for (const { server } of this.calls) server?.close();
  }

  /** The connection is over, and so is every call on it. */
  drop(details: string): void {
    if (this.#isGone) return;
    this.#isGone = true;
    this.closeStreams();
    this.link.forget(this);
    this.onGone();
    for (const call of [...this.calls]) {
      this.end(call);
      call.onError({ code: UNAVAILABLE, details });
    }
  }

  /** The process that made the connection is gone. */
  abandon(): void {
    this.#isGone = true;
    this.#cancelPing?.();
    this.closeStreams();
    this.link.forget(this);
    for (const call of this.calls) call.isOver = true;
    this.calls.clear();
  }

  /** As grpc-js: a probe after each silence, while there are calls. */
  #armPing(): void {
    const { clock } = this.link.cluster;
    this.#cancelPing ??= clock.after(this.settings.pingIntervalMs, () => {
      this.#cancelPing = clock.after(this.settings.pingTimeoutMs, () =>
        this.link.atHost(() => this.drop('Connection dropped')),
      );
      const pong = (): void => {
        if (this.#isGone || this.calls.size === 0) return;
        this.#cancelPing?.();
        this.#cancelPing = undefined;
        this.#armPing();
      };
      this.link.carry(this, 'request', undefined, () => {
        const member = this.link.cluster.findMember(this.target);
        const isKnown = member?.isRunning === true && (this.#epoch === undefined || this.#epoch === member.epoch);
        this.link.carry(this, 'answer', undefined, isKnown ? pong : () => this.drop('read ECONNRESET'));
      });
    });
  }
}

/** The host's side of the connection to one member. */
class SimConnection implements EtcdConnection {
  #session: Session | undefined;
  #isClosed = false;

  constructor(
    private readonly link: SimLink,
    private readonly target: string,
    private readonly settings: DialSettings,
  ) {}

  open(service: EtcdService): Promise<OpenService> {
    if (this.#isClosed) return Promise.reject(new Error('Tried to call a closed client'));
    const metadata = new SimMetadata();
    const stub = Object.fromEntries(
      methodsOf(service).map((method) => [
        method.originalName,
        method.requestStream
          ? (values: SimMetadata) => this.#stream(service, method, values)
          : (request: unknown, values: SimMetadata, _options: object, callback: UnaryCallback) =>
              this.#unary(service, method, request, values, callback),
      ]),
    );
    return Promise.resolve({ stub, metadata });
  }

  /** As with grpc-js, single requests that are under way may still be answered. */
  close(): void {
    this.#isClosed = true;
    const session = this.#session;
    if (session === undefined) return;
    for (const call of [...session.calls]) {
      if (!call.isStream) continue;
      session.end(call);
      call.server?.close();
    }
  }

  #unary(
    service: EtcdService,
    method: MethodDefinition,
    request: unknown,
    metadata: SimMetadata,
    callback: UnaryCallback,
  ): Call {
    const session = this.#connect();
    const call = new SimCall(`${service}.${method.originalName}`, false, (error) => callback(error, undefined));
    session.add(call);
    const message = encode(call, session, () => method.requestDeserialize(method.requestSerialize(request)));
    if (message === undefined) return { cancel: () => {} };
    const incoming = { service, method: method.originalName, metadata: metadata.values };
    const { link } = this;
    link.send(session, call, message, () =>
      session.deliver(call, (member) => {
        link.cluster.serve(member, incoming, message, (answer) => {
          if (!session.isWith(member)) return;
          if (answer instanceof RpcError) {
            session.fail(call, answer);
            return;
          }
          const response = method.responseDeserialize(method.responseSerialize(answer));
          link.answer(session, call, response, () => {
            if (call.isOver) return;
            session.end(call);
            callback(null, response);
          });
        });
      }),
    );
    return { cancel: () => cancel(session, call) };
  }

  #stream(service: EtcdService, method: MethodDefinition, metadata: SimMetadata): SimStream {
    const session = this.#connect();
    const { link } = this;
    const incoming = { service, method: method.originalName, metadata: metadata.values };
    const stream = new SimStream(
      (request) => {
        if (call.isOver) return;
        const message = encode(call, session, () => method.requestDeserialize(method.requestSerialize(request)));
        if (message === undefined) return;
        link.send(session, call, message, () =>
          session.deliver(call, (member) => {
            if (call.isOver) return;
            call.server ??= link.cluster.openStream(
              member,
              incoming,
              (answer) => {
                const response = method.responseDeserialize(method.responseSerialize(answer));
                link.answer(session, call, response, () => {
                  if (!call.isOver) stream.emit('data', response);
                });
              },
              (error) => session.fail(call, error),
            );
            call.server.receive(message);
          }),
        );
      },
      () => cancel(session, call),
    );
    const call = new SimCall(`${service}.${method.originalName}`, true, (error) => stream.emit('error', error));
    session.add(call);
    return stream;
  }

  #connect(): Session {
    if (this.#isClosed) throw new Error('Channel has been closed');
    return (this.#session ??= new Session(this.link, this.target, this.settings, () => (this.#session = undefined)));
  }
}

type UnaryCallback = (error: CallError | null, response: unknown) => void;

/** What a stream of changes or of keep-alives looks like to its caller. */
class SimStream {
  readonly #listeners = new Map<string, ((value: unknown) => void)[]>();

  constructor(
    readonly write: (request: unknown) => void,
    readonly cancel: () => void,
  ) {}

  on(event: string, listener: (value: unknown) => void): void {
    this.#listeners.set(event, [...(this.#listeners.get(event) ?? []), listener]);
  }

  emit(event: 'data' | 'error' | 'end', value?: unknown): void {
    for (const listener of this.#listeners.get(event) ?? []) listener(value);
  }
}

class SimMetadata implements CallMetadata {
  readonly values = new Map<string, string>();

  set(key: string, value: string): void {
    this.values.set(key, value);
  }
}

/** A message as the other side will see it; one that cannot be sent fails its call, as in grpc-js. */
function encode(call: SimCall, session: Session, pass: () => unknown): unknown {
  try {
    return pass();
  } catch (error) {
    session.end(call);
    const details = `Request message serialization failure: ${String(error)}`;
    queueMicrotask(() => call.onError({ code: INTERNAL, details }));
    return undefined;
  }
}

function cancel(session: Session, call: SimCall): void {
  if (call.isOver) return;
  session.end(call);
  queueMicrotask(() => call.onError({ code: CANCELLED, details: 'Cancelled on client' }));
  // The member hears of it only if it can be reached.
  const { server } = call;
  if (server !== undefined) session.link.carry(session, 'request', call, () => server.close());
}
