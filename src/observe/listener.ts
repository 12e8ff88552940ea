import type { Server } from 'node:http';
import path from 'node:path';
import { type Clock, backoffMs } from '../clock.js';
import { OverlayError } from '../errors.js';
import type { Logger } from '../log.js';
import { errnoOf } from '../sys/errno.js';
import { makeDirectory } from '../sys/make-directory.js';
import { refuseForeignLinks } from '../sys/safe-path.js';
import { type SocketObstacle, SocketPathTaken, listenOnPath, listening } from '../sys/unix-socket.js';

/** Where to listen. */
export type Place =
  | { readonly kind: 'tcp'; readonly ip: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string };

/** What a {@link Listener} is made of. */
export interface ListenerOptions {
  readonly place: Place;
  /** Makes the server that is to listen; called for each attempt. */
  readonly create: () => Server;
  readonly log: Logger;
  readonly clock: Clock;
}

const RETRY_BASE_MS = 1000;
const RETRY_CAP_MS = 30_000;

/** Only the owner, root as a rule, and its group may ask. */
const SOCKET_UMASK = 0o117;

/** Keeps a server listening on one address, trying again as long as the address cannot be used. */
export class Listener {
  /** The address as it is logged. */
  readonly name: string;
  private server: Server | undefined;
  private cancelRetry: (() => void) | undefined;
  private attempt = 0;
  private starting: Promise<void> = Promise.resolve();
  private isClosed = false;

  constructor(private readonly options: ListenerOptions) {
    const { place } = options;
    this.name = place.kind === 'unix' ? place.path : `${bracketed(place.ip)}:${place.port}`;
  }

  get isListening(): boolean {
    return this.server !== undefined;
  }

  /** Tries once; what fails is logged and tried again later. */
  async start(): Promise<void> {
    this.starting = this.tryOnce();
    return this.starting;
  }

  /** Stops listening; connections at work are cut after that time. */
  async close(timeoutMs: number): Promise<void> {
    this.isClosed = true;
    this.cancelRetry?.();
    await this.starting;
    const { server } = this;
    this.server = undefined;
    if (server === undefined) return;
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    server.closeIdleConnections();
    const cancel = this.options.clock.after(timeoutMs, () => server.closeAllConnections());
    await closed;
    cancel();
  }

  private async tryOnce(): Promise<void> {
    const { create, log, clock } = this.options;
    const server = create();
    try {
      await this.listen(server);
    } catch (cause) {
      this.attempt++;
      const delayMs = backoffMs(this.attempt, RETRY_BASE_MS, RETRY_CAP_MS, () => clock.random());
      // Only the first one: it stays true, and the rest would fill the log.
      if (this.attempt === 1) {
        log.error('status server cannot listen, trying again', {
          address: this.name,
          error: this.explain(cause),
          delayMs,
        });
      }
      if (!this.isClosed) this.cancelRetry = clock.after(delayMs, () => void this.start());
      return;
    }
    server.on('error', (error) => log.warn('status server', { address: this.name, error }));
    this.server = server;
    log.info('status server listens', {
      address: this.name,
      ...(this.attempt > 0 ? { attempt: this.attempt + 1 } : {}),
    });
    this.attempt = 0;
  }

  private async listen(server: Server): Promise<void> {
    const { place } = this.options;
    if (place.kind === 'tcp') {
      await listening(server, () => server.listen({ host: place.ip, port: place.port }));
      return;
    }
    refuseForeignLinks(path.dirname(place.path));
    await makeDirectory(path.dirname(place.path));
    await listenOnPath(server, place.path, SOCKET_UMASK);
  }

  private explain(cause: unknown): OverlayError {
    if (cause instanceof OverlayError) return cause;
    if (cause instanceof SocketPathTaken) {
      const { why, hint } = TAKEN[cause.obstacle];
      return new OverlayError('ERR_OBSERVE_LISTEN', `cannot listen on ${this.name} for status requests: ${why}`, {
        hint,
      });
    }
    const { place } = this.options;
    const errno = errnoOf(cause);
    const flags = place.kind === 'unix' ? '--status-socket' : '--healthz-ip or --healthz-port';
    const why =
      (errno === undefined ? undefined : CAUSES[errno]) ?? (cause instanceof Error ? cause.message : String(cause));
    return new OverlayError('ERR_OBSERVE_LISTEN', `cannot listen on ${this.name} for status requests: ${why}`, {
      cause,
      ...(errno === undefined ? {} : { context: { errno } }),
      hint: `set ${flags} to something else, or stop what is in the way`,
    });
  }
}

const TAKEN: Readonly<Record<SocketObstacle, { readonly why: string; readonly hint: string }>> = {
  'no socket': {
    why: 'a file that is no socket is there',
    hint: 'remove it or set --status-socket to another path',
  },
  answered: {
    why: 'a living daemon listens there',
    hint: 'stop it, or give each daemon its own --status-socket',
  },
};

const CAUSES: Readonly<Record<string, string>> = {
  EADDRINUSE: 'another program has that address (EADDRINUSE)',
  EADDRNOTAVAIL: 'this host does not have that address (EADDRNOTAVAIL)',
  EACCES: 'this user may not (EACCES)',
};

function bracketed(ip: string): string {
  return ip.includes(':') ? `[${ip}]` : ip;
}
