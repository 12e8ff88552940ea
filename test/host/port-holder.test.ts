import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { type HostPort, PortRefusal, type ReleasePort, holdPort } from '../../src/docker/plugin/ports/port-holder.js';
import { ip } from '../support/builders.js';
import { OwnNetns } from '../support/own-netns.js';
import { skipBecause } from '../support/skip.js';
import { runCommand } from '../../src/sys/command.js';

const place = (address: string, change: Partial<HostPort> = {}): HostPort => ({
  protocol: 'tcp',
  address: ip(address),
  port: 8080,
  ...change,
});

/** The errno that listening there ends with, if any. */
const listenAt = async (host: string, port = 8080): Promise<string | undefined> => {
  const server = net.createServer();
  const failed = new Promise<string | undefined>((resolve) => {
    server.once('error', (error: NodeJS.ErrnoException) => resolve(error.code));
    server.once('listening', () => server.close(() => resolve(undefined)));
  });
  server.listen({ host, port, ipv6Only: true });
  return failed;
};

const refusal = (hold: () => unknown): string | undefined => {
  try {
    hold();
  } catch (error) {
    if (error instanceof PortRefusal) return error.errno;
    throw error;
  }
  return undefined;
};

describe('a held port', function () {
  let netns: OwnNetns;
  const held: (ReleasePort | undefined)[] = [];

  before(async function () {
    if (process.getuid?.() !== 0) skipBecause(this, 'network namespaces need root');
    netns = await OwnNetns.enter('hold');
  });

  afterEach(() => {
    for (const release of held.splice(0)) release?.();
  });

  after(() => netns.leave());

  it('is not for anybody else, in its family, until it is given back', async () => {
    for (const address of ['0.0.0.0', '::']) {
      const release = holdPort(place(address));
      held.push(release);
      assert.equal(await listenAt(address), 'EADDRINUSE');
      assert.equal(await listenAt(address === '::' ? '::1' : '127.0.0.1'), 'EADDRINUSE');
    }
    for (const release of held.splice(0)) release?.();
    assert.equal(await listenAt('0.0.0.0'), undefined);
  });

  it('is refused where a program listens, or the host has no such address', async () => {
    const server = net.createServer().listen({ host: '127.0.0.1', port: 8080 });
    await once(server, 'listening');
    try {
      assert.equal(
        refusal(() => holdPort(place('0.0.0.0'))),
        'EADDRINUSE',
      );
      held.push(holdPort(place('0.0.0.0', { protocol: 'udp' })));
    } finally {
      server.close();
    }
    assert.equal(
      refusal(() => holdPort(place('192.0.2.77'))),
      'EADDRNOTAVAIL',
    );
    assert.equal(
      refusal(() => holdPort(place('0.0.0.0', { protocol: 'udp' }))),
      'EADDRINUSE',
      'by ourselves',
    );
  });

  it('can be had right after the program that had it has ended, whose connections wait for late packets', async () => {
    const server = net.createServer((socket) => socket.end()).listen({ host: '127.0.0.1', port: 8080 });
    await once(server, 'listening');
    const client = net.connect({ host: '127.0.0.1', port: 8080 });
    await once(client, 'close');
    await new Promise((resolve) => server.close(resolve));
    const { stdout } = (await runCommand('ss', ['-tan', 'state', 'time-wait'])) ?? { stdout: '' };
    assert.match(stdout, /127\.0\.0\.1:8080 /, 'there is one in TIME_WAIT');
    held.push(holdPort(place('0.0.0.0')));
    assert.equal(await listenAt('0.0.0.0'), 'EADDRINUSE');
  });

  it('refuses at once who calls where nothing is translated', async () => {
    held.push(holdPort(place('::')));
    const client = net.connect({ host: '::1', port: 8080 });
    const [error] = (await once(client, 'error')) as [NodeJS.ErrnoException];
    assert.equal(error.code, 'ECONNREFUSED');
  });
});
