import assert from 'node:assert/strict';
import { once } from 'node:events';
import net, { type AddressInfo } from 'node:net';
import { systemClock } from '../../../src/clock.js';
import { clockAhead } from '../../../src/ctl/doctor/gather.js';

describe('the doctor, asking etcd for the time', () => {
  const { signal } = new AbortController();
  const clock = { ...systemClock, wallMs: () => Date.parse('2026-01-01T00:01:00Z') };
  let server: net.Server;
  let endpoints: readonly string[];

  async function listen(onConnection: (socket: net.Socket) => void): Promise<void> {
    server = net.createServer((socket) => {
      socket.on('error', () => {});
      onConnection(socket);
    });
    await once(server.listen(0, '127.0.0.1'), 'listening');
    endpoints = [`http://127.0.0.1:${(server.address() as AddressInfo).port}`];
  }

  afterEach(() => server.close());

  it('compares it with its own', async () => {
    await listen((socket) => socket.end('HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 2026 00:00:30 GMT\r\n\r\n'));
    assert.equal(await clockAhead({ clock, signal }, endpoints), 30);
  });

  // A time-out of the socket alone begins anew with each byte.
  it('gives up on a server whose answer drips', async () => {
    await listen((socket) => {
      socket.write('HTTP/1.1 200 OK\r\nX: ');
      const drops = setInterval(() => socket.write('.'), 50);
      socket.on('close', () => clearInterval(drops));
    });
    assert.equal(await clockAhead({ clock, signal }, endpoints), undefined);
  });
});
