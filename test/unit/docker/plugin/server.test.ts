import assert from 'node:assert/strict';
import { statSync, writeFileSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { isOverlayError } from '../../../../src/errors.js';
import type { PluginInterface } from '../../../../src/docker/plugin/method.js';
import { PluginServer } from '../../../../src/docker/plugin/server.js';
import { silentLogger } from '../../../../src/log.js';
import * as libc from '../../../../src/sys/libc.js';
import { SYS } from '../../../../src/sys/libc.js';
import { FakeClock, settle } from '../../../support/fake-clock.js';
import { waitFor } from '../../../support/wait.js';
import { post, socketPlace } from './plugin-bed.js';

describe('the plugin server', () => {
  const clock = new FakeClock();
  let place: ReturnType<typeof socketPlace>;
  let servers: PluginServer[] = [];

  const start = async (interfaces: readonly PluginInterface[]): Promise<PluginServer> => {
    const server = new PluginServer({ interfaces, socket: place.socket, clock, log: silentLogger });
    servers.push(server);
    await server.start();
    return server;
  };

  const networks = (methods: PluginInterface['methods']): PluginInterface => ({
    name: 'NetworkDriver',
    errorField: 'Err',
    methods,
  });

  const ipam = (methods: PluginInterface['methods']): PluginInterface => ({
    name: 'IpamDriver',
    errorField: 'Error',
    methods,
  });

  const failing = {
    Fail: () => {
      throw new TypeError('no luck');
    },
  };

  beforeEach(() => {
    place = socketPlace();
    servers = [];
  });

  afterEach(async () => {
    await Promise.all(servers.map((server) => server.close()));
    place.remove();
  });

  it('says which interfaces it has', async () => {
    await start([networks({}), ipam({})]);
    const { status, body } = await post(place.socket, 'Plugin.Activate');
    assert.deepEqual([status, body], [200, { Implements: ['NetworkDriver', 'IpamDriver'] }]);
  });

  it('answers a method with what it gives', async () => {
    await start([networks({ Echo: (request) => ({ said: request.text('Word') }) })]);
    const { status, body } = await post(place.socket, 'NetworkDriver.Echo', { Word: 'hello' });
    assert.deepEqual([status, body], [200, { said: 'hello' }]);
  });

  it('puts an error where each interface has it, with status 200', async () => {
    await start([networks(failing), ipam(failing)]);
    assert.deepEqual(await post(place.socket, 'NetworkDriver.Fail'), { status: 200, body: { Err: 'no luck' } });
    assert.deepEqual(await post(place.socket, 'IpamDriver.Fail'), { status: 200, body: { Error: 'no luck' } });
  });

  for (const method of ['NetworkDriver.Nothing', 'NetworkDriver.toString', 'Nothing.Fail', 'NetworkDriver', '']) {
    it(`answers 404 for ${method === '' ? 'no method' : method}`, async () => {
      await start([networks(failing)]);
      assert.equal((await post(place.socket, method)).status, 404);
    });
  }

  it('refuses a body that is no JSON, and one that is too long, and goes on', async () => {
    await start([networks({ Ok: () => ({}) })]);
    const { body } = await post(place.socket, 'NetworkDriver.Ok', '{');
    assert.match(String(body['Err']), /not JSON/);
    const { body: other } = await post(place.socket, 'NetworkDriver.Ok', ' '.repeat(300 * 1024));
    assert.match(String(other['Err']), /307200 of at most 262144 bytes/);
    assert.deepEqual((await post(place.socket, 'NetworkDriver.Ok')).body, {});
  });

  it('keeps no connection, on which a call could be under way when it closes', async () => {
    await start([networks({ Echo: () => ({}) })]);
    const agent = new Agent({ keepAlive: true }); // as Docker does
    const kept = await new Promise<string | undefined>((resolve, reject) => {
      const sent = request(
        { agent, socketPath: place.socket, path: '/NetworkDriver.Echo', method: 'POST' },
        (response) => {
          response.resume();
          resolve(response.headers.connection);
        },
      );
      sent.on('error', reject);
      sent.end('{}');
    });
    agent.destroy();
    assert.equal(kept, 'close');
  });

  it('tells a call whose contents Docker has lost from one that has none', async () => {
    await start([networks({ Echo: () => ({ done: true }), GetCapabilities: () => ({ done: true }) })]);
    const { body } = await post(place.socket, 'NetworkDriver.Echo', '');
    assert.match(String(body['Err']), /Docker sent it without its contents/);
    assert.deepEqual((await post(place.socket, 'NetworkDriver.GetCapabilities', '')).body, { done: true });
  });

  it('answers with an error within 10 s, and tells the method that nobody waits any more', async () => {
    let signal: AbortSignal | undefined;
    await start([
      networks({
        Hang: (_request, call) => {
          signal = call.signal;
          return new Promise(() => {});
        },
      }),
    ]);
    const answer = post(place.socket, 'NetworkDriver.Hang');
    await waitFor(() => signal !== undefined, { what: 'the call' });
    await clock.advance(10_000);
    assert.match(String((await answer).body['Err']), /cannot carry out NetworkDriver\.Hang: not done within 9 s/);
    assert.equal(signal?.aborted, true);
  });

  it('tells the method when whoever asked has gone, as an engine that is killed', async () => {
    const signals: AbortSignal[] = [];
    await start([
      networks({
        Hang: (_request, call) => {
          signals.push(call.signal);
          return new Promise(() => {});
        },
      }),
    ]);
    const sent = request({ socketPath: place.socket, path: '/NetworkDriver.Hang', method: 'POST', agent: false });
    sent.on('error', () => {});
    sent.end('{}');
    await waitFor(() => signals.length > 0, { what: 'the call' });
    const [signal] = signals;
    assert.equal(signal?.aborted, false);
    sent.destroy();
    await waitFor(() => signal.aborted, { what: 'its end to be noticed' });
    assert.match(String(signal.reason), /whoever asked has gone/);
  });

  it('tells when an engine begins to use the plugin', async () => {
    let count = 0;
    const server = new PluginServer({
      interfaces: [],
      socket: place.socket,
      clock,
      log: silentLogger,
      onActivate: () => count++,
    });
    servers.push(server);
    await server.start();
    await post(place.socket, 'Plugin.Activate');
    assert.equal(count, 1);
  });

  it('refuses calls when too many are at work', async () => {
    const waiting: ((answer: object) => void)[] = [];
    await start([networks({ Wait: () => new Promise((resolve) => waiting.push(resolve)), Ok: () => ({}) })]);
    const answers = Array.from({ length: 256 }, () => post(place.socket, 'NetworkDriver.Wait'));
    await waitFor(() => waiting.length === 256, { what: 'the calls' });
    assert.match(String((await post(place.socket, 'NetworkDriver.Ok')).body['Err']), /256 others are at work/);
    for (const finish of waiting) finish({});
    await Promise.all(answers);
    assert.deepEqual((await post(place.socket, 'NetworkDriver.Ok')).body, {});
  });

  it('counts calls, errors and time by method', async () => {
    const server = await start([
      networks({
        Slow: async () => {
          await clock.advance(30);
          return {};
        },
        ...failing,
      }),
    ]);
    await post(place.socket, 'NetworkDriver.Slow');
    await post(place.socket, 'NetworkDriver.Fail');
    assert.deepEqual(server.statistics, {
      'NetworkDriver.Slow': { calls: 1, errors: 0, totalMs: 30, maxMs: 30 },
      'NetworkDriver.Fail': { calls: 1, errors: 1, totalMs: 0, maxMs: 0 },
    });
  });

  it('lets root alone ask', async () => {
    await start([]);
    assert.equal(statSync(place.socket).mode & 0o777, 0o600);
  });

  it('leaves the socket of a living daemon alone and says so', async () => {
    await start([]);
    await assert.rejects(start([]), (error) => {
      assert.ok(isOverlayError(error, 'ERR_PLUGIN_SOCKET'));
      assert.match(error.toString(), /somebody listens on .*; stop the other daemon$/);
      return true;
    });
  });

  it('leaves a file alone that is no socket', async () => {
    writeFileSync(place.socket, 'mine');
    await assert.rejects(start([]), /is no socket/);
  });

  it('takes over a socket that was opened for it, and leaves its file when it closes', async () => {
    const fd = libc.socket(SYS.AF_UNIX, SYS.SOCK_STREAM | SYS.SOCK_NONBLOCK, 0);
    assert.equal(libc.bind(fd, libc.sockaddrUn(place.socket)), 0);
    const server = new PluginServer({
      interfaces: [networks({})],
      socket: place.socket,
      inherited: fd,
      clock,
      log: silentLogger,
    });
    await server.start();
    assert.equal((await post(place.socket, 'Plugin.Activate')).status, 200);
    await server.close();
    assert.ok(statSync(place.socket).isSocket());
  });

  it('answers what was asked before it closes', async () => {
    let finish: ((answer: object) => void) | undefined;
    const server = await start([networks({ Wait: () => new Promise((resolve) => (finish = resolve)) })]);
    const answer = post(place.socket, 'NetworkDriver.Wait');
    await waitFor(() => finish !== undefined, { what: 'the call' });
    let isClosed = false;
    const closed = server.close().then(() => (isClosed = true));
    await settle();
    assert.equal(isClosed, false);
    finish?.({ ok: true });
    assert.deepEqual((await answer).body, { ok: true });
    await closed;
  });
});
