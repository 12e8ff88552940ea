import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import {
  existsSync,
  lchownSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { spawn } from 'node:child_process';
import { compilePageScript } from '../../../.ci/page.mjs';
import { OverlayError } from '../../../src/errors.js';
import { type LogFields, type Logger, type LogLevel, silentLogger } from '../../../src/log.js';
import { type ObserveOptions, ObserveServer } from '../../../src/observe/server.js';
import type { DaemonStatus, HistoryEntry } from '../../../src/observe/status.js';
import type { Steps } from '../../../src/pace.js';
import { freePort } from '../../support/free-port.js';
import { sampleStatus } from '../../support/sample-status.js';
import { skipBecause } from '../../support/skip.js';
import { inOneStep } from '../../support/steps.js';

interface Answer {
  readonly code: number | undefined;
  readonly body: string;
  readonly headers: http.IncomingHttpHeaders;
}

describe('ObserveServer', () => {
  let directory: string;
  let socketPath: string;
  const open: { close(): unknown }[] = [];

  beforeEach(() => {
    directory = mkdtempSync(path.join(os.tmpdir(), 'tsflannel-observe-'));
    socketPath = path.join(directory, 'run', 'status.sock');
  });

  afterEach(async () => {
    for (const one of open.splice(0).reverse()) await one.close();
    rmSync(directory, { recursive: true, force: true });
  });

  async function start(options: Partial<ObserveOptions> = {}): Promise<ObserveServer> {
    const server = await ObserveServer.start({
      ip: '127.0.0.1',
      port: 0,
      source: { status: () => inOneStep(sampleStatus()) },
      log: silentLogger,
      pageScript: compilePageScript(),
      ...options,
    });
    open.push(server);
    return server;
  }

  async function get(
    where: http.RequestOptions,
    page: string,
    method = 'GET',
    { isUnfinished = false } = {},
  ): Promise<Answer> {
    const request = http.request({ ...where, path: page, method, agent: false });
    if (isUnfinished) request.flushHeaders();
    else request.end();
    const [response] = (await once(request, 'response')) as [http.IncomingMessage];
    let body = '';
    for await (const chunk of response.setEncoding('utf8')) body += String(chunk);
    return { code: response.statusCode, body, headers: response.headers };
  }

  describe('over TCP', () => {
    let where: { host: string; port: number };
    beforeEach(async () => {
      where = { host: '127.0.0.1', port: await freePort() };
    });

    it('answers /healthz as flannel does, whatever the state and the name that was asked for', async () => {
      await start({ port: where.port, source: { status: () => inOneStep(sampleStatus({ isReady: false })) } });
      for (const host of ['127.0.0.1', 'balancer.example.org']) {
        const { code, body } = await get({ ...where, headers: { host } }, '/healthz');
        assert.deepEqual([code, body], [200, 'flanneld is running'], host);
      }
    });

    it('refuses methods other than GET and HEAD, and does not wait for their bodies', async () => {
      await start({ port: where.port });
      for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH']) {
        const { code, headers } = await get({ ...where, headers: { 'content-length': '1000000' } }, '/status', method, {
          isUnfinished: true,
        });
        assert.deepEqual([code, headers.allow], [405, 'GET, HEAD'], method);
      }
    });

    for (const [host, code] of [
      ['127.0.0.1:9090', 200],
      ['[::1]:9090', 200],
      ['192.0.2.1', 200],
      ['localhost:1', 200],
      [os.hostname().toUpperCase(), 200],
      [`${os.hostname()}.`, 200],
      ['node.example.org:80', 200],
      ['attacker.example', 421],
      [`${os.hostname()}.attacker.example`, 421],
      ['127.0.0.1.attacker.example', 421],
      ['localhost.attacker.example', 421],
      ['[::1].attacker.example', 421],
    ] as const) {
      it(`answers a request for host "${host}" with ${code}`, async () => {
        await start({ port: where.port, allowedHosts: ['Node.example.org'] });
        for (const page of ['/', '/status', '/metrics', '/readyz']) {
          const answer = await get({ ...where, headers: { host } }, page);
          assert.equal(answer.code, code, page);
          if (code === 421) assert.match(answer.body, /--healthz-allowed-hosts/);
        }
      });
    }

    it('logs the first names that were refused, each once', async () => {
      const log = new RecordingLog();
      await start({ port: where.port, log });
      for (let i = 0; i < 30; i++) {
        for (const page of ['/status', '/']) {
          await get({ ...where, headers: { host: `n${i}.attacker.example` } }, page);
        }
      }
      const lines = log.lines.filter(({ level }) => level === 'warn');
      assert.equal(lines.length, 10);
      assert.match(lines[0]?.fields?.hint ?? '', /--healthz-allowed-hosts/);
    });

    it('counts what it refused, by reason', async () => {
      const server = await start({ port: where.port });
      await get({ ...where, headers: { host: 'attacker.example' } }, '/status');
      await get({ ...where, headers: { host: 'attacker.example' } }, '/healthz');
      await get(where, '/status', 'POST');
      await get({ ...where, headers: { 'x-long': 'y'.repeat(10_000) } }, '/healthz');
      const client = net.connect(where);
      client.end('this is no HTTP\r\n\r\n');
      const [answer] = (await once(client, 'data')) as [Buffer];
      assert.match(String(answer), /^HTTP\/1\.1 400 Bad Request\r\n/);
      const gone = net.connect(where);
      await once(gone, 'connect');
      gone.write('GET /status HTTP/1.1\r\n');
      gone.resetAndDestroy();
      await get(where, '/healthz');
      assert.deepEqual(server.refused, { host: 1, method: 1, malformed: 2, timeout: 0, connections: 0 });
    });

    it('tells the history from an instant on', async () => {
      const entry = (at: number): HistoryEntry => {
        return { at, txPps: 1, rxPps: 2, txBps: 3, rxBps: 4, drops: {}, etcdMs: null };
      };
      const history = (): HistoryEntry[] => [entry(1000), entry(2000), entry(3000)];
      await start({ port: where.port, source: { status: () => inOneStep(sampleStatus()), history } });
      const instants = async (page: string): Promise<number[]> => {
        const { entries } = JSON.parse((await get(where, page)).body) as { entries: HistoryEntry[] };
        return entries.map(({ at }) => at);
      };
      assert.deepEqual(await instants('/history'), [1000, 2000, 3000]);
      assert.deepEqual(await instants('/history?since=1000'), [2000, 3000]);
      assert.deepEqual(await instants('/history?since=yesterday'), [1000, 2000, 3000]);
    });

    it('says to the daemon that somebody looks at the status, and not at every scrape', async () => {
      let looks = 0;
      await start({ port: where.port, source: { status: () => inOneStep(sampleStatus()), noteLook: () => looks++ } });
      for (const page of ['/metrics', '/readyz', '/healthz']) await get(where, page);
      assert.equal(looks, 0);
      await get(where, '/status');
      assert.equal(looks, 1);
    });

    it('refuses headers that are larger than 8 KiB', async () => {
      await start({ port: where.port });
      assert.equal((await get({ ...where, headers: { 'x-long': 'y'.repeat(10_000) } }, '/healthz')).code, 431);
    });

    it('answers /readyz with 503 until the daemon is ready', async () => {
      let isReady = false;
      await start({ port: where.port, source: { status: () => inOneStep(sampleStatus({ isReady })) } });
      const before = await get(where, '/readyz');
      isReady = true;
      const after = await get(where, '/readyz?verbose');
      assert.deepEqual([before.code, before.body], [503, 'flanneld is not ready yet']);
      assert.deepEqual([after.code, after.body], [200, 'flanneld is ready']);
    });

    it('answers /status with the status as JSON', async () => {
      await start({ port: where.port });
      const { code, body, headers } = await get(where, '/status');
      assert.equal(code, 200);
      assert.equal(headers['content-type'], 'application/json');
      assert.deepEqual(JSON.parse(body), sampleStatus());
    });

    it('answers /metrics in the format that it declares', async () => {
      await start({ port: where.port });
      const { code, body, headers } = await get(where, '/metrics');
      assert.equal(code, 200);
      assert.equal(headers['content-type'], 'text/plain; version=0.0.4; charset=utf-8');
      assert.match(body, /^tsflannel_ready 1$/m);
    });

    it('sends headers only to HEAD', async () => {
      await start({ port: where.port });
      const { code, body, headers } = await get(where, '/healthz', 'HEAD');
      assert.deepEqual([code, body, headers['content-length']], [200, '', '19']);
    });

    for (const page of ['/healthz/', '/HEALTHZ', '/favicon.ico', '/status/peers', '//', '/../etc/passwd']) {
      it(`answers ${page} with 404`, async () => {
        await start({ port: where.port });
        assert.equal((await get(where, page)).code, 404);
      });
    }

    it('answers 500 and logs once when the status cannot be told, and goes on', async () => {
      const log = new RecordingLog();
      let isBroken = true;
      function* status(): Steps<DaemonStatus> {
        yield;
        if (isBroken) throw new Error('no tunnel');
        return sampleStatus();
      }
      await start({ port: where.port, source: { status }, log });
      assert.deepEqual([(await get(where, '/status')).code, (await get(where, '/metrics')).code], [500, 500]);
      assert.equal(log.lines.filter((line) => line.message === 'a status request failed').length, 1);
      isBroken = false;
      assert.deepEqual([(await get(where, '/status')).code, (await get(where, '/metrics')).code], [200, 200]);
    });

    it('keeps how the daemon was started for those on the Unix socket', async () => {
      const settings = { flags: { 'etcd-prefix': '/a' }, withheld: ['etcd-password'] };
      await start({ port: where.port, statusSocket: socketPath, settings });
      assert.equal((await get(where, '/settings')).code, 404);
      const { code, body } = await get({ socketPath }, '/settings');
      assert.deepEqual([code, JSON.parse(body)], [200, settings]);
    });

    it('opens nothing when the port is 0', async () => {
      assert.deepEqual((await start()).addresses, []);
    });

    it('says which address is in use, and takes it as soon as it is free', async () => {
      const other = net.createServer().listen(where);
      await once(other, 'listening');
      const log = new RecordingLog();
      const server = await start({ port: where.port, log, clock: impatientClock() });
      assert.deepEqual(server.addresses, []);
      const [line] = log.lines;
      assert.equal(line?.level, 'error');
      const error = line.fields?.error;
      assert.ok(error instanceof OverlayError);
      assert.equal(error.code, 'ERR_OBSERVE_LISTEN');
      assert.match(error.message, /cannot listen on 127\.0\.0\.1:\d+ .*EADDRINUSE/);
      assert.match(error.hint ?? '', /--healthz-port/);
      other.close();
      await waitUntil(() => server.addresses.length === 1);
      assert.equal((await get(where, '/healthz')).code, 200);
      assert.equal(log.lines.filter(({ level }) => level === 'error').length, 1, 'repeats are not logged');
    });

    it('stops trying when it is closed', async () => {
      const other = net.createServer().listen(where);
      await once(other, 'listening');
      open.push({ close: () => other.close() });
      const clock = impatientClock();
      const server = await start({ port: where.port, clock });
      await server.close();
      assert.equal(clock.pending, 0);
    });

    it('refuses headers that are too long', async () => {
      await start({ port: where.port });
      const request = http.get({ ...where, path: '/healthz', headers: { 'x-long': 'x'.repeat(20_000) } });
      const [response] = (await once(request, 'response')) as [http.IncomingMessage];
      response.resume();
      assert.equal(response.statusCode, 431);
    });

    it('closes at once although a connection is kept alive, and can be closed twice', async () => {
      const server = await start({ port: where.port });
      const agent = new http.Agent({ keepAlive: true });
      open.push({ close: () => agent.destroy() });
      const request = http.get({ ...where, path: '/healthz', agent });
      const [response] = (await once(request, 'response')) as [http.IncomingMessage];
      response.resume();
      await once(response, 'end');
      const before = performance.now();
      await Promise.all([server.close(), server.close()]);
      assert.ok(performance.now() - before < 1000);
      await assert.rejects(get(where, '/healthz'), { code: 'ECONNREFUSED' });
    });

    it('cuts a request that is still at work after 3 s', async () => {
      const clock = impatientClock();
      const server = await start({ port: where.port, clock });
      const socket = net.connect(where);
      open.push({ close: () => socket.destroy() });
      await once(socket, 'connect');
      socket.write('GET /healthz HTTP/1.1\r\n');
      await new Promise((resolve) => setImmediate(resolve));
      const closed = once(socket, 'close');
      socket.on('error', () => {});
      await server.close();
      await closed;
      assert.ok(clock.waits.includes(3000), String(clock.waits));
    });

    it('serves a page that may load nothing from elsewhere and run nothing but its own script', async () => {
      await start({ port: where.port });
      const { code, body, headers } = await get(where, '/');
      assert.equal(code, 200);
      assert.equal(headers['content-type'], 'text/html; charset=utf-8');
      const policy = headers['content-security-policy'] ?? '';
      assert.match(
        String(policy),
        /^default-src 'none'; script-src 'sha256-[^']+'; style-src 'sha256-[^']+'; connect-src 'self'/,
      );
      assert.doesNotMatch(String(policy), /unsafe/);
      const [, script = ''] = /<script type="module">(.*)<\/script>/s.exec(body) ?? [];
      assert.equal(script, compilePageScript());
      assert.ok(policy.includes(`script-src 'sha256-${createHash('sha256').update(script).digest('base64')}'`));
      assert.doesNotMatch(body, /(?:src|href)=["']?(?:https?:)?\/\//);
      assert.doesNotMatch(body, /innerHTML|insertAdjacentHTML|document\.write| style="| on\w+="/);
    });
  });

  for (const kind of ['tcp', 'unix'] as const) {
    describe(`with many who keep connections open, over ${kind}`, () => {
      let where: { host: string; port: number } | { socketPath: string };
      const clients: net.Socket[] = [];
      let server: ObserveServer;

      beforeEach(async () => {
        const port = kind === 'tcp' ? await freePort() : 0;
        server = await start(kind === 'tcp' ? { port } : { statusSocket: socketPath });
        where = kind === 'tcp' ? { host: '127.0.0.1', port } : { socketPath };
      });

      afterEach(() => {
        for (const client of clients.splice(0)) client.destroy();
      });

      /** Connections that send a part of a request and no more; resolves when the server has all of them. */
      async function openSlow(count: number): Promise<void> {
        for (let i = 0; i < count; i++) {
          const client = 'port' in where ? net.connect(where) : net.connect(where.socketPath);
          client.on('error', () => {}); // the server ends some of them
          clients.push(client);
          await once(client, 'connect');
          client.write('GET /status HTTP/1.1\r\nHost: ');
        }
      }

      it('answers probes at once and ends those that have waited longest', async () => {
        await openSlow(100);
        for (let i = 0; i < 5; i++) assert.equal((await get(where, '/healthz')).code, 200);
        await waitUntil(() => clients.filter((client) => client.closed).length >= 100 - 64);
        const isClosed = clients.map((client) => client.closed);
        assert.ok(isClosed.slice(0, 30).every(Boolean), 'the first ones are ended');
        assert.ok(server.refused.connections >= 100 - 64, 'and counted');
        assert.ok(!isClosed.slice(-30).some(Boolean), 'the last ones are not');
      });

      it('keeps the connection of somebody who asks and is answered', async () => {
        const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
        open.push({ close: () => agent.destroy() });
        const sockets = new Set<unknown>();
        for (let i = 0; i < 4; i++) {
          const request = http.get({ ...where, path: '/healthz', agent });
          const [response] = (await once(request, 'response')) as [http.IncomingMessage];
          sockets.add(response.socket);
          response.resume();
          await once(response, 'end');
          await openSlow(50);
        }
        assert.equal(sockets.size, 1);
      });
    });
  }

  describe('over a Unix socket', () => {
    it('answers whatever the name that was asked for, as no browser gets here, and refuses other methods', async () => {
      await start({ statusSocket: socketPath });
      assert.equal((await get({ socketPath, headers: { host: 'anything' } }, '/status')).code, 200);
      assert.equal((await get({ socketPath }, '/status', 'POST')).code, 405);
    });

    it('tells the level of the log, sets it, and writes that down', async () => {
      const log = new RecordingLog();
      const leveled = { level: 'info' as LogLevel };
      await start({ statusSocket: socketPath, log, leveled });
      log.lines.length = 0;
      assert.equal((await get({ socketPath }, '/log-level')).body, '{"level":"info"}\n');
      for (const level of ['debug', 'debug', 'warn'] as const) {
        const { code, body } = await get({ socketPath }, `/log-level/${level}`, 'PUT');
        assert.deepEqual([code, body, leveled.level], [200, `{"level":"${level}"}\n`, level]);
      }
      assert.deepEqual(
        log.lines.map(({ message, fields }) => [message, fields?.from, fields?.to]),
        [
          ['log level changed', 'info', 'debug'],
          ['log level changed', 'debug', 'warn'],
        ],
      );
    });

    it('writes that the level changed at the one of the two levels that writes more', async () => {
      const leveled = { level: 'info' as LogLevel };
      const levels: LogLevel[] = [];
      const log = { ...silentLogger, info: () => void levels.push(leveled.level) };
      await start({ statusSocket: socketPath, log, leveled });
      levels.length = 0;
      for (const level of ['debug', 'error']) await get({ socketPath }, `/log-level/${level}`, 'PUT');
      assert.deepEqual(levels, ['debug', 'debug']);
    });

    it('refuses a level that there is not, and everything else at that path', async () => {
      const leveled = { level: 'info' as LogLevel };
      await start({ statusSocket: socketPath, leveled });
      for (const [method, page, code] of [
        ['PUT', '/log-level/loud', 400],
        ['PUT', '/log-level/', 400],
        ['PUT', '/log-level', 400],
        ['PUT', '/log-levels/debug', 405],
        ['POST', '/log-level/debug', 405],
        ['GET', '/log-level/debug', 404],
      ] as const) {
        assert.equal((await get({ socketPath }, page, method)).code, code, `${method} ${page}`);
      }
      assert.equal(leveled.level, 'info');
    });

    it('lets nobody ask for or change the level over TCP', async () => {
      const where = { host: '127.0.0.1', port: await freePort() };
      const leveled = { level: 'info' as LogLevel };
      await start({ port: where.port, leveled });
      assert.equal((await get(where, '/log-level')).code, 404);
      assert.equal((await get(where, '/log-level/debug', 'PUT')).code, 405);
      assert.equal(leveled.level, 'info');
    });

    it('answers the same pages', async () => {
      const server = await start({ statusSocket: socketPath });
      assert.deepEqual(server.addresses, [socketPath]);
      assert.deepEqual(JSON.parse((await get({ socketPath }, '/status')).body), sampleStatus());
      assert.match((await get({ socketPath }, '/metrics')).body, /^tsflannel_ready 1$/m);
      assert.equal((await get({ socketPath }, '/readyz')).body, 'flanneld is ready');
    });

    it('lets only owner and group ask, and leaves the umask as it was', async () => {
      const before = process.umask(0o027);
      await start({ statusSocket: socketPath });
      const after = process.umask(before);
      assert.equal(statSync(socketPath).mode & 0o777, 0o660);
      assert.equal(after, 0o027);
    });

    it('removes its file when it closes', async () => {
      const server = await start({ statusSocket: socketPath });
      await server.close();
      assert.equal(existsSync(socketPath), false);
    });

    it('replaces the file of a daemon that was killed', async () => {
      const file = path.join(directory, 'stale.sock');
      const dead = spawn(process.execPath, ['-e', `require('net').createServer().listen(${JSON.stringify(file)})`]);
      await waitUntil(() => existsSync(file));
      dead.kill('SIGKILL');
      await once(dead, 'exit');
      assert.ok(existsSync(file), 'the file is still there');
      const server = await start({ statusSocket: file });
      assert.deepEqual(server.addresses, [file]);
      assert.equal((await get({ socketPath: file }, '/healthz')).code, 200);
    });

    it('leaves the socket of a living daemon alone and says so', async () => {
      await start({
        statusSocket: socketPath,
        source: { status: () => inOneStep(sampleStatus({ hostName: 'first' })) },
      });
      const log = new RecordingLog();
      const second = await start({ statusSocket: socketPath, log, clock: impatientClock(60_000) });
      assert.deepEqual(second.addresses, []);
      const error = log.lines[0]?.fields?.error;
      assert.ok(error instanceof OverlayError);
      assert.equal(error.code, 'ERR_OBSERVE_LISTEN');
      assert.match(error.message, /a living daemon listens there/);
      const { body } = await get({ socketPath }, '/status');
      assert.equal((JSON.parse(body) as DaemonStatus).hostName, 'first');
      await second.close();
      assert.ok(existsSync(socketPath), 'closing the second one does not take the file of the first');
    });

    it('makes no socket behind a link of another user', async function () {
      if (process.geteuid?.() !== 0) skipBecause(this, 'needs root to make files of others');
      const link = path.join(directory, 'link');
      symlinkSync(os.tmpdir(), link);
      lchownSync(link, 65_534, 65_534);
      const log = new RecordingLog();
      const server = await start({ statusSocket: path.join(link, 'x.sock'), log, clock: impatientClock(60_000) });
      assert.deepEqual(server.addresses, []);
      const error = log.lines[0]?.fields?.error;
      assert.ok(error instanceof OverlayError);
      assert.equal(error.code, 'ERR_UNSAFE_PATH');
    });

    it('leaves a file alone that is no socket', async () => {
      const file = path.join(directory, 'notes.txt');
      writeFileSync(file, 'keep me');
      const log = new RecordingLog();
      const server = await start({ statusSocket: file, log, clock: impatientClock(60_000) });
      assert.deepEqual(server.addresses, []);
      assert.match(String(log.lines[0]?.fields?.error), /no socket/);
      assert.equal(readFileSync(file, 'utf8'), 'keep me');
    });
  });
});

/** Records lines for assertions. */
class RecordingLog implements Logger {
  readonly lines: { level: string; message: string; fields: LogFields | undefined }[] = [];
  error = this.#write('error');
  warn = this.#write('warn');
  info = this.#write('info');
  debug = this.#write('debug');
  #write(level: string) {
    return (message: string, fields?: LogFields): void => void this.lines.push({ level, message, fields });
  }
}

/** A clock on which whatever is waited for happens within `atMostMs`. */
function impatientClock(atMostMs = 20): NonNullable<ObserveOptions['clock']> & { pending: number; waits: number[] } {
  const clock = {
    pending: 0,
    waits: [] as number[],
    wallMs: () => Date.now(),
    monotonicMs: () => performance.now(),
    random: () => 0.5,
    sleep: () => Promise.reject(new Error('not used here')),
    after: (ms: number, callback: () => void) => {
      clock.waits.push(ms);
      clock.pending++;
      let isOver = false;
      const end = (): void => {
        if (isOver) return;
        isOver = true;
        clock.pending--;
      };
      const timer = setTimeout(
        () => {
          end();
          callback();
        },
        atMostMs < 1000 ? Math.min(ms, atMostMs) : atMostMs,
      );
      return () => {
        end();
        clearTimeout(timer);
      };
    },
  };
  return clock;
}

async function waitUntil(isTrue: () => boolean): Promise<void> {
  const deadline = performance.now() + 5000;
  while (!isTrue()) {
    assert.ok(performance.now() < deadline, 'it did not come true in 5 s');
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
