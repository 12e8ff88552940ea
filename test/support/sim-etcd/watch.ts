import type { Clock } from '../../../src/clock.js';
import type { EventMessage, Header, WatchCreateRequest, WatchRequest } from './messages.js';
import { type Change, type Mvcc, type Span, isWithin, spanOf } from './mvcc.js';
import { RpcError } from './protocol.js';
import { toEvent } from './state.js';

/** The member's side of a stream of calls. */
export interface ServerStream {
  receive(message: unknown): void;
  /** The client, or the connection, is gone. */
  close(): void;
}

/** What a {@link WatchStream} needs of its member. */
export interface WatchContext {
  readonly mvcc: Mvcc;
  readonly clock: Clock;
  readonly progressIntervalMs: number;
  /** The revision that the member has reached. */
  readonly applied: () => number;
  readonly header: (revision: number) => Header;
  /** Throws an {@link RpcError}. */
  readonly assertMayRead: (span: Span) => void;
  readonly send: (response: object) => void;
}

interface Watcher {
  readonly id: number;
  readonly span: Span;
  readonly request: WatchCreateRequest;
  /** Events before it are not wanted. */
  readonly minRevision: number;
  isQuiet: boolean;
}

/** etcd sends a watcher that is behind the events of that many revisions together. */
const MAX_REVISIONS_BEHIND = 1000;

/** Watchers that share a stream, see etcd `mvcc/watchable_store.go`. */
export class WatchStream implements ServerStream {
  readonly #watchers = new Map<number, Watcher>();
  #nextId = 0;
  #cancelProgress: (() => void) | undefined;

  constructor(private readonly context: WatchContext) {}

  receive(message: unknown): void {
    const { create_request: create, cancel_request: cancel, progress_request: progress } = message as WatchRequest;
    if (create !== undefined) this.#create(create);
    else if (cancel !== undefined) this.#cancel(Number(cancel.watch_id));
    else if (progress !== undefined) this.#respond({ watch_id: -1 });
  }

  close(): void {
    this.#watchers.clear();
    this.#cancelProgress?.();
    this.#cancelProgress = undefined;
  }

  /** Reports the changes of one revision to those who are up to date. */
  notify(changes: readonly Change[], revision: number): void {
    for (const watcher of this.#watchers.values()) {
      const events = this.#select(watcher, changes);
      if (events.length > 0) this.#report(watcher, events, revision);
    }
  }

  #create(request: WatchCreateRequest): void {
    const { context } = this;
    // An empty key with an end is the first one there can be, and an end before the key none at all.
    const span = spanOf({ ...request, key: request.key.length === 0 ? Buffer.from([0]) : request.key });
    try {
      context.assertMayRead(span);
    } catch (error) {
      if (!(error instanceof RpcError)) throw error;
      this.#respond({ watch_id: -1, created: true, canceled: true, cancel_reason: toGoText(error) });
      return;
    }
    while (this.#watchers.has(this.#nextId)) this.#nextId++;
    const id = request.watch_id === '0' ? this.#nextId++ : Number(request.watch_id);
    const start = Number(request.start_revision);
    const applied = context.applied();
    const watcher: Watcher = { id, span, request, minRevision: start === 0 ? applied + 1 : start, isQuiet: true };
    this.#watchers.set(id, watcher);
    this.#respond({ watch_id: id, created: true });
    if (watcher.minRevision <= applied) this.#catchUp(watcher, applied);
    if (request.progress_notify) this.#armProgress();
  }

  #catchUp(watcher: Watcher, applied: number): void {
    const { mvcc, header, send } = this.context;
    if (watcher.minRevision < mvcc.compactRevision) {
      this.#watchers.delete(watcher.id);
      send({ header: header(0), watch_id: watcher.id, canceled: true, compact_revision: mvcc.compactRevision });
      return;
    }
    let events: EventMessage[] = [];
    let revisions = 0;
    let last = 0;
    for (const change of mvcc.changesBetween(watcher.minRevision - 1, applied)) {
      const [event] = this.#select(watcher, [change]);
      if (event === undefined) continue;
      if (change.revision !== last) revisions++;
      if (revisions > MAX_REVISIONS_BEHIND) {
        this.#report(watcher, events, applied);
        events = [];
        revisions = 1;
      }
      events.push(event);
      last = change.revision;
    }
    if (events.length > 0) this.#report(watcher, events, applied);
  }

  #select(watcher: Watcher, changes: readonly Change[]): EventMessage[] {
    const { mvcc } = this.context;
    const { span, request, minRevision } = watcher;
    return changes
      .filter(
        ({ key, revision, entry }) =>
          revision >= minRevision &&
          isWithin(key, span) &&
          !request.filters.includes(entry === undefined ? 'Nodelete' : 'Noput'),
      )
      .map((change) => {
        const before = change.revision - 1;
        const isKnown = request.prev_kv && before >= mvcc.compactRevision;
        return toEvent(change, isKnown ? mvcc.get(change.key, before) : undefined);
      });
  }

  #report(watcher: Watcher, events: readonly EventMessage[], revision: number): void {
    watcher.isQuiet = false;
    this.context.send({ header: this.context.header(revision), watch_id: watcher.id, events });
  }

  #cancel(id: number): void {
    if (this.#watchers.delete(id)) this.#respond({ watch_id: id, canceled: true });
  }

  #respond(response: object): void {
    this.context.send({ header: this.context.header(this.context.applied()), ...response });
  }

  /** Tells watchers without news since the last time that they have missed nothing. */
  #armProgress(): void {
    this.#cancelProgress ??= this.context.clock.after(this.context.progressIntervalMs, () => {
      this.#cancelProgress = undefined;
      for (const watcher of this.#watchers.values()) {
        if (!watcher.request.progress_notify) continue;
        if (watcher.isQuiet && watcher.minRevision <= this.context.applied() + 1)
          this.#respond({ watch_id: watcher.id });
        watcher.isQuiet = true;
      }
      if (this.#watchers.size > 0) this.#armProgress();
    });
  }
}

const CODE_NAMES: Readonly<Record<number, string>> = {
  3: 'InvalidArgument',
  7: 'PermissionDenied',
  16: 'Unauthenticated',
};

/** A status as Go prints it. */
function toGoText({ code, details }: RpcError): string {
  return `rpc error: code = ${CODE_NAMES[code] ?? 'Unknown'} desc = ${details}`;
}
