import { type IncomingMessage, type Server, type ServerResponse, createServer } from 'node:http';
import path from 'node:path';
import type { Clock } from '../../clock.js';
import { Deadline } from '../../deadline.js';
import { OverlayError, describeError, isOverlayError } from '../../errors.js';
import type { Logger } from '../../log.js';
import { oneLine } from '../../printable.js';
import { RateLimitedLog } from '../../rate-limited-log.js';
import { errnoOf } from '../../sys/errno.js';
import { makeDirectory } from '../../sys/make-directory.js';
import { refuseForeignLinks } from '../../sys/safe-path.js';
import { SocketPathTaken, listenOnPath, listening } from '../../sys/unix-socket.js';
import { CallCounters, type CallStatistics } from './call-counters.js';
import type { PluginInterface } from './method.js';
import { Request } from './request.js';

/** Where Docker looks for plugins, whatever its own directories are. */
export const PLUGIN_SOCKET = '/run/docker/plugins/tsflannel.sock';

/** Docker waits for ever, and for 10 s the user should: the answer has to be there before, late as it may be. */
const ANSWER_MS = 9000;

/** A network with all its options takes a few KiB. */
const MAX_BODY_BYTES = 256 * 1024;

/** An engine that starts asks for all its containers at once; whatever is more waits in the kernel's queue. */
const MAX_CONNECTIONS = 512;

/** Calls at work; more are refused, since they could not be answered in time. */
const MAX_CALLS = 256;

const CLOSE_TIMEOUT_MS = ANSWER_MS + 1000;

/** Who may connect may make networks: root alone. */
const SOCKET_UMASK = 0o177;

/** Methods that are told nothing. */
const WITHOUT_CONTENTS: ReadonlySet<string> = new Set(['GetCapabilities', 'GetDefaultAddressSpaces']);

const CONTENT_TYPE = 'application/vnd.docker.plugins.v1.1+json';

/** What a {@link PluginServer} is made of. */
export interface PluginServerOptions {
  readonly interfaces: readonly PluginInterface[];
  /** Default {@link PLUGIN_SOCKET}. */
  readonly socket?: string;
  /** Default none but its own. */
  readonly counters?: CallCounters;
  /** An engine has begun to use the plugin: it does so once in its life. */
  readonly onActivate?: () => void;
  /** Listening socket that systemd opened; it stays when this server closes. Default none: the socket is ours. */
  readonly inherited?: number | undefined;
  readonly clock: Clock;
  readonly log: Logger;
}

/**
 * Answers Docker's plugin protocol (version 1: JSON over HTTP over a Unix socket).
 *
 * API: {@link start}, {@link close}; {@link statistics}.
 * Threads: none. Calls run side by side.
 * Limits: {@link MAX_CONNECTIONS} connections, {@link MAX_CALLS} calls at work, {@link MAX_BODY_BYTES} per call, an answer
 * after {@link ANSWER_MS} at the latest.
 * Errors: what goes wrong in a call is its answer, with status 200 and in the field that the interface has for it; Docker
 * shows the text to the user. An unknown method is 404, by which Docker takes it for optional.
 * Counters: {@link CallStatistics} per method.
 */
export class PluginServer {
  private readonly counters: CallCounters;
  private readonly failures: RateLimitedLog;
  private readonly server: Server;
  private active = 0;

  constructor(private readonly options: PluginServerOptions) {
    this.counters = options.counters ?? new CallCounters(options.clock);
    this.failures = new RateLimitedLog(options.clock);
    this.server = createServer(
      { requestTimeout: ANSWER_MS },
      (request, response) => void this.serve(request, response),
    );
    this.server.maxConnections = MAX_CONNECTIONS;
  }

  /** Where it listens, in words. */
  get place(): string {
    const { inherited, socket = PLUGIN_SOCKET } = this.options;
    return inherited === undefined ? socket : `${socket} (of systemd)`;
  }

  /** What was asked since the start. */
  get statistics(): CallStatistics {
    return this.counters.statistics;
  }

  /** @throws {@link OverlayError} `ERR_PLUGIN_SOCKET` */
  async start(): Promise<void> {
    const { inherited, log } = this.options;
    try {
      if (inherited === undefined) await this.bind();
      else await listening(this.server, () => this.server.listen({ fd: inherited }));
    } catch (cause) {
      throw this.explain(cause);
    }
    this.server.on('error', (error) => log.warn('plugin server', { address: this.place, error }));
    log.info('answering docker', { address: this.place });
  }

  /** Takes no more calls and waits for those at work. Idempotent. */
  async close(): Promise<void> {
    if (!this.server.listening) return;
    const closed = new Promise<void>((resolve) => this.server.close(() => resolve()));
    this.server.closeIdleConnections();
    const cancel = this.options.clock.after(CLOSE_TIMEOUT_MS, () => this.server.closeAllConnections());
    await closed;
    cancel();
  }

  private async bind(): Promise<void> {
    const { socket = PLUGIN_SOCKET } = this.options;
    refuseForeignLinks(path.dirname(socket));
    await makeDirectory(path.dirname(socket));
    await listenOnPath(this.server, socket, SOCKET_UMASK);
  }

  private explain(cause: unknown): OverlayError {
    if (cause instanceof OverlayError) return cause;
    const errno = errnoOf(cause);
    const isAnswered = cause instanceof SocketPathTaken && cause.obstacle === 'answered';
    return new OverlayError('ERR_PLUGIN_SOCKET', `cannot answer Docker on ${this.place}: ${describeError(cause)}`, {
      cause,
      ...(errno === undefined ? {} : { context: { errno } }),
      hint: isAnswered ? 'stop the other daemon' : 'remove what is at that path',
    });
  }

  private async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on('error', () => {}); // Docker has gone, which is its own affair
    const [, interfaceName = '', name = ''] = /^\/(?:([A-Za-z]+)\.)([A-Za-z]+)$/.exec(request.url ?? '') ?? [];
    const { interfaces } = this.options;
    if (interfaceName === 'Plugin' && name === 'Activate') {
      this.options.onActivate?.();
      answer(response, 200, { Implements: interfaces.map((each) => each.name) });
      return;
    }
    const found = interfaces.find((each) => each.name === interfaceName);
    if (found === undefined || !Object.hasOwn(found.methods, name) || request.method !== 'POST') {
      answer(response, 404, { Err: `there is no ${oneLine(request.url ?? '', 100)}` });
      return;
    }
    const asker = new AbortController();
    response.once('close', () => {
      if (!response.writableFinished) asker.abort(gone(`${found.name}.${name}`));
    });
    const body = await this.call(found, name, request, asker.signal);
    answer(response, 200, body);
  }

  /** The answer to a call, an error's included. */
  private async call(
    found: PluginInterface,
    name: string,
    message: IncomingMessage,
    asker: AbortSignal,
  ): Promise<object> {
    const method = `${found.name}.${name}`;
    const finish = this.counters.begin(method);
    const deadline = new Deadline(this.options.clock, ANSWER_MS, asker);
    this.active++;
    try {
      if (this.active > MAX_CALLS) throw tooMany();
      const work = this.carryOut(found, name, message, deadline.signal);
      const result = await Promise.race([work, givenUp(deadline.signal, method)]);
      finish(true);
      return result;
    } catch (error) {
      finish(false);
      this.failures.tell((count) => {
        this.options.log.warn('what docker asked for failed', { kind: method, count, error });
      });
      return { [found.errorField]: oneLine(describeError(error)) };
    } finally {
      this.active--;
      deadline.clear();
    }
  }

  private async carryOut(
    { methods, name: interfaceName }: PluginInterface,
    name: string,
    message: IncomingMessage,
    signal: AbortSignal,
  ): Promise<object> {
    const text = await readBody(message);
    if (text === '' && !WITHOUT_CONTENTS.has(name)) throw repeated(`${interfaceName}.${name}`);
    const request = Request.parse(text);
    const method = methods[name];
    if (method === undefined) throw new TypeError(`no method ${name}`);
    return method(request, { signal });
  }
}

function answer(response: ServerResponse, status: number, body: object): void {
  const text = JSON.stringify(body);
  response.writeHead(status, {
    'content-type': CONTENT_TYPE,
    'content-length': Buffer.byteLength(text),
    // On a connection that is closed under a call, Docker repeats the call without its contents (moby
    // `pkg/plugins/client.go`, callWithRetry). A new one waits in the listening socket for the next process instead.
    connection: 'close',
  });
  response.end(text);
}

async function readBody(message: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of message as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    // The rest is read and dropped, so that the answer can be sent on this connection.
    if (bytes <= MAX_BODY_BYTES) chunks.push(chunk);
  }
  if (bytes > MAX_BODY_BYTES) {
    throw new OverlayError(
      'ERR_PLUGIN_REQUEST',
      `cannot read the request: it has ${bytes} of at most ${MAX_BODY_BYTES} bytes`,
    );
  }
  return Buffer.concat(chunks).toString('utf8');
}

function givenUp(signal: AbortSignal, method: string): Promise<never> {
  return new Promise((_resolve, reject) => {
    signal.addEventListener('abort', () => {
      if (isOverlayError(signal.reason)) reject(signal.reason);
      reject(
        new OverlayError('ERR_PLUGIN_REQUEST', `cannot carry out ${method}: not done within ${ANSWER_MS / 1000} s`, {
          hint: 'look at "tsflannelctl status" for what it waits for, and try again',
          isRetryable: true,
        }),
      );
    });
  });
}

/** Whoever is killed has closed its end of the connection. */
function gone(method: string): OverlayError {
  return new OverlayError('ERR_PLUGIN_REQUEST', `cannot answer ${method}: whoever asked has gone`, {
    isRetryable: true,
  });
}

/** What Docker does if the process ended that was at work on a call (moby `pkg/plugins/client.go`, callWithRetry). */
function repeated(method: string): OverlayError {
  return new OverlayError('ERR_PLUGIN_REQUEST', `cannot carry out ${method}: Docker sent it without its contents`, {
    hint: 'tsflanneld ended while it was at work on it: try again',
    isRetryable: true,
  });
}

function tooMany(): OverlayError {
  return new OverlayError('ERR_PLUGIN_REQUEST', `cannot take the call: ${MAX_CALLS} others are at work`, {
    hint: 'try again',
    isRetryable: true,
  });
}
