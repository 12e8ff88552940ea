import { type IncomingMessage, type Server, type ServerResponse, createServer } from 'node:http';
import { hostname } from 'node:os';
import type { Duplex } from 'node:stream';
import { type Clock, systemClock } from '../clock.js';
import { type DaemonSettings, SETTINGS_PATH } from '../config/daemon-settings.js';
import { LOG_LEVELS, type LogLevel, parseLogLevel } from '../log-level.js';
import type { LeveledLogger, Logger } from '../log.js';
import { ConnectionLimit } from './connections.js';
import { isOwnHost } from './host-header.js';
import { Listener } from './listener.js';
import { Metrics } from './metrics.js';
import { type Page, readPageScript, statusPage } from './page.js';
import { type Refusals, type RefusalReason, noRefusals } from './refusals.js';
import type { StatusSource } from './status.js';
import { takeStatus } from './take-status.js';

/** What {@link ObserveServer.start} needs. */
export interface ObserveOptions {
  /** `--healthz-ip` */
  readonly ip: string;
  /** `--healthz-port`; 0 opens no TCP socket. */
  readonly port: number;
  /** `--status-socket`; empty or undefined opens no Unix socket. */
  readonly statusSocket?: string | undefined;
  /** `--healthz-allowed-hosts`: names that requests over TCP may be addressed to besides those of this host. */
  readonly allowedHosts?: readonly string[];
  /** How the daemon was started; told over the Unix socket alone. */
  readonly settings?: DaemonSettings;
  readonly source: StatusSource;
  readonly log: Logger;
  /** Whose level can be asked for and changed over the Unix socket; without it nobody can. */
  readonly leveled?: Pick<LeveledLogger, 'level'>;
  readonly clock?: Clock;
  /** What runs in the status page. Default the script that was compiled with this program. */
  readonly pageScript?: string;
}

/** Requests at work when the daemon ends get this long, as in flannel. */
const CLOSE_TIMEOUT_MS = 3000;

/** Nobody sends us bodies or long headers; whoever takes longer than that holds a connection for nothing. */
const REQUEST_TIMEOUT_MS = 10_000;
const MAX_HEADER_BYTES = 8192;

/** Scrapers and probes are few; beyond that somebody is keeping connections open. */
const MAX_CONNECTIONS = 64;

/** Refused names that are logged, one line each; whoever asks is told each time. */
const MAX_REFUSALS_LOGGED = 10;

/** What Node says is wrong with what came instead of a request. */
const BROKEN: Readonly<Record<string, { readonly reason: RefusalReason; readonly status: string }>> = {
  HPE_HEADER_OVERFLOW: { reason: 'malformed', status: '431 Request Header Fields Too Large' },
  ERR_HTTP_REQUEST_TIMEOUT: { reason: 'timeout', status: '408 Request Timeout' },
};

interface Answer {
  readonly code: number;
  readonly type: string;
  readonly body: string;
  readonly headers?: Readonly<Record<string, string>>;
}

const TEXT = 'text/plain; charset=utf-8';
const JSON_TYPE = 'application/json';

/** `GET` tells the level of the log, `PUT` behind which another one stands sets it; only on the Unix socket. */
const LOG_LEVEL_PATH = '/log-level';

/**
 * Answers `/healthz`, `/readyz`, `/metrics`, `/status`, `/history` and `/` over TCP and over a Unix socket; over the
 * latter alone `/settings` and `PUT /log-level/LEVEL`: who may open the socket may know and change that.
 *
 * API: {@link ObserveServer.start} resolves after the first attempt to listen; {@link addresses} says where it does.
 * Threads: none. An answer takes one snapshot of the status.
 * Limits: {@link MAX_CONNECTIONS} connections per socket, beyond which the one that has gone longest without finishing a
 * request is ended; 10 s per request and 10 s without a byte; 8 KiB of headers; bodies are not read.
 * Errors: an address that cannot be used is logged once and tried again; it never stops the daemon. What fails in one
 * request is logged and answered with 500. Requests over TCP that are addressed to a foreign name are refused with 421,
 * since they may come from somebody's page in a browser; `/healthz` tells nothing and is answered as by flannel.
 */
export class ObserveServer {
  private readonly listeners: readonly Listener[];
  private readonly metrics: Metrics;
  private readonly ownNames: ReadonlySet<string>;
  private readonly refusedNames = new Set<string>();
  private readonly refusals = noRefusals();
  private page: Page | undefined;
  private lastFailure: string | undefined;
  private closing: Promise<void> | undefined;

  private constructor(private readonly options: ObserveOptions) {
    const { ip, port, statusSocket, log, clock = systemClock } = options;
    this.metrics = new Metrics(options.source);
    this.ownNames = new Set([hostname(), ...(options.allowedHosts ?? [])].map((name) => name.toLowerCase()));
    this.listeners = [
      ...(port === 0
        ? []
        : [new Listener({ place: { kind: 'tcp', ip, port }, create: () => this.createServer('tcp'), log, clock })]),
      ...(statusSocket === undefined || statusSocket === ''
        ? []
        : [
            new Listener({
              place: { kind: 'unix', path: statusSocket },
              create: () => this.createServer('unix'),
              log,
              clock,
            }),
          ]),
    ];
  }

  /** Listens on what the options name; never rejects because of an address. */
  static async start(options: ObserveOptions): Promise<ObserveServer> {
    const server = new ObserveServer(options);
    await Promise.all(server.listeners.map((listener) => listener.start()));
    return server;
  }

  /** Where requests are answered now: `192.0.2.1:8285`, `/run/flannel/tsflanneld.sock`. */
  get addresses(): readonly string[] {
    return this.listeners.filter((listener) => listener.isListening).map((listener) => listener.name);
  }

  /** How many requests were refused so far. */
  get refused(): Refusals {
    return { ...this.refusals };
  }

  /** Takes no more requests and gives those at work 3 s. Idempotent. */
  async close(): Promise<void> {
    this.closing ??= Promise.all(this.listeners.map((listener) => listener.close(CLOSE_TIMEOUT_MS))).then(() => {});
    return this.closing;
  }

  private createServer(kind: 'tcp' | 'unix'): Server {
    const server = createServer(
      {
        maxHeaderSize: MAX_HEADER_BYTES,
        headersTimeout: REQUEST_TIMEOUT_MS,
        requestTimeout: REQUEST_TIMEOUT_MS,
        connectionsCheckingInterval: REQUEST_TIMEOUT_MS / 2,
      },
      (request, response) => {
        response.once('finish', () => connections.noteFinished(request.socket));
        response.on('error', () => {}); // the reader has gone, which is its own affair
        void this.handle(kind, request, response);
      },
    );
    server.setTimeout(REQUEST_TIMEOUT_MS);
    server.on('clientError', (error: NodeJS.ErrnoException, socket) => this.refuseBroken(error.code ?? '', socket));
    const connections = new ConnectionLimit(server, MAX_CONNECTIONS, () => this.refusals.connections++);
    return server;
  }

  /** As Node does by itself; a client that has just gone was not refused anything. */
  private refuseBroken(code: string, socket: Duplex): void {
    const { reason, status } = BROKEN[code] ?? { reason: 'malformed', status: '400 Bad Request' };
    const isGone = code === 'HPE_INVALID_EOF_STATE' || !(code in BROKEN || code.startsWith('HPE_'));
    if (!isGone) this.refusals[reason]++;
    if (socket.writable) socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\n\r\n`);
    else socket.destroy();
  }

  private async handle(kind: 'tcp' | 'unix', request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      const control = kind === 'unix' ? this.control(request) : undefined;
      write(response, control ?? this.refusal(kind, request) ?? (await this.answer(kind, request)));
    } catch (error) {
      const answer = this.failure(error);
      if (response.headersSent) response.destroy();
      else write(response, answer);
    }
  }

  /** The answer to what only the Unix socket takes. */
  private control(request: IncomingMessage): Answer | undefined {
    const { leveled } = this.options;
    const path = pathOf(request);
    if (leveled === undefined || !(path === LOG_LEVEL_PATH || path.startsWith(`${LOG_LEVEL_PATH}/`))) return undefined;
    if (request.method === 'PUT') {
      const level = parseLogLevel(path.slice(LOG_LEVEL_PATH.length + 1));
      if (level === undefined) {
        return { code: 400, type: TEXT, body: `there is no such level; use ${LOG_LEVELS.join(', ')}\n` };
      }
      this.setLogLevel(leveled, level);
    } else if (path !== LOG_LEVEL_PATH) return undefined;
    return { code: 200, type: JSON_TYPE, body: `${JSON.stringify({ level: leveled.level })}\n` };
  }

  private setLogLevel(leveled: Pick<LeveledLogger, 'level'>, to: LogLevel): void {
    const from = leveled.level;
    if (to === from) return;
    // Written by whichever of the two levels writes more.
    if (LOG_LEVELS.indexOf(to) > LOG_LEVELS.indexOf(from)) leveled.level = to;
    this.options.log.info('log level changed', { from, to });
    leveled.level = to;
  }

  private refusal(kind: 'tcp' | 'unix', request: IncomingMessage): Answer | undefined {
    const { method, headers } = request;
    if (method !== 'GET' && method !== 'HEAD') {
      this.refusals.method++;
      const body = 'this server only answers GET and HEAD\n';
      return { code: 405, type: TEXT, body, headers: { allow: 'GET, HEAD', connection: 'close' } };
    }
    if (kind === 'unix' || pathOf(request) === '/healthz' || isOwnHost(headers.host, this.ownNames)) return undefined;
    this.refusals.host++;
    this.logRefusal(headers.host ?? '');
    const body =
      'this server does not have that name; ask it by its address, or add the name to --healthz-allowed-hosts\n';
    return { code: 421, type: TEXT, body, headers: { connection: 'close' } };
  }

  private logRefusal(host: string): void {
    if (this.refusedNames.has(host) || this.refusedNames.size >= MAX_REFUSALS_LOGGED) return;
    this.refusedNames.add(host);
    this.options.log.warn('status request for a foreign host name refused', {
      detail: host,
      hint: 'if it is a name of this host, add it to --healthz-allowed-hosts',
    });
  }

  private async answer(kind: 'tcp' | 'unix', request: IncomingMessage): Promise<Answer> {
    const { settings, source } = this.options;
    const path = pathOf(request);
    if (kind === 'unix' && path === SETTINGS_PATH && settings !== undefined) {
      return { code: 200, type: JSON_TYPE, body: `${JSON.stringify(settings)}\n` };
    }
    switch (path) {
      case '/healthz':
        return { code: 200, type: TEXT, body: 'flanneld is running' };
      case '/readyz':
        return (await takeStatus(source)).isReady
          ? { code: 200, type: TEXT, body: 'flanneld is ready' }
          : { code: 503, type: TEXT, body: 'flanneld is not ready yet' };
      case '/metrics':
        return { code: 200, type: this.metrics.contentType, body: await this.metrics.text() };
      case '/status':
        source.noteLook?.();
        return { code: 200, type: JSON_TYPE, body: `${JSON.stringify(await takeStatus(source))}\n` };
      case '/history': {
        const since = sinceOf(request);
        const entries = source.history?.().filter(({ at }) => at > since) ?? [];
        return { code: 200, type: JSON_TYPE, body: `${JSON.stringify({ entries })}\n` };
      }
      case '/': {
        this.page ??= statusPage(this.options.pageScript ?? readPageScript());
        return {
          code: 200,
          type: 'text/html; charset=utf-8',
          body: this.page.document,
          headers: { 'content-security-policy': this.page.policy, 'referrer-policy': 'no-referrer' },
        };
      }
      default:
        return { code: 404, type: TEXT, body: '404 page not found\n' };
    }
  }

  /** The same failure is asked for every few seconds, so it is logged once. */
  private failure(error: unknown): Answer {
    const text = String(error);
    if (this.lastFailure !== text) this.options.log.error('a status request failed', { error });
    this.lastFailure = text;
    return { code: 500, type: TEXT, body: 'the status cannot be told; see the log\n' };
  }
}

function write(response: ServerResponse, answer: Answer): void {
  response.writeHead(answer.code, {
    'content-type': answer.type,
    'content-length': Buffer.byteLength(answer.body),
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    'cross-origin-resource-policy': 'same-origin',
    ...answer.headers,
  });
  response.end(answer.body);
}

/** `?since=` with the `at` of the last entry that the reader has. */
function sinceOf({ url = '' }: IncomingMessage): number {
  const since = Number(/[?&]since=(\d+)(?:&|$)/.exec(url)?.[1]);
  return Number.isFinite(since) ? since : 0;
}

function pathOf({ url = '' }: IncomingMessage): string {
  return url.split('?', 1)[0] ?? '';
}
