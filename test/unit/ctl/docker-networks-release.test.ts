import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { type Server, createServer } from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { type CtlResult, type CtlWorld, ctl } from '../../support/ctl.js';
import { sampleStatus } from '../../support/sample-status.js';

describe('docker-networks release of an address that this host has given', () => {
  let directory: string;
  let server: Server;
  let refusal: string | undefined;
  let asked: unknown[];

  beforeEach(async () => {
    directory = mkdtempSync(path.join(os.tmpdir(), `tsf${process.pid}-release-`));
    refusal = undefined;
    asked = [];
    server = createServer((request, response) => {
      let body = '';
      request.on('data', (part: Buffer) => (body += part.toString()));
      request.on('end', () => {
        if (request.url === '/settings') response.writeHead(404).end();
        else if (request.url === '/status') response.end(JSON.stringify(sampleStatus()));
        else {
          asked.push([request.url, JSON.parse(body)]);
          response.end(JSON.stringify(refusal === undefined ? {} : { Refusal: refusal }));
        }
      });
    });
    await new Promise<void>((resolve) => server.listen(path.join(directory, 'socket'), resolve));
  });

  afterEach(async () => {
    await new Promise((resolve) => server.close(resolve));
    rmSync(directory, { recursive: true, force: true });
  });

  const call = (words: readonly string[], world: CtlWorld = {}): Promise<CtlResult> => {
    const socket = path.join(directory, 'socket');
    const sockets = [`--status-socket=${socket}`, `--plugin-socket=${socket}`];
    return ctl(['docker-networks', 'release', ...words, ...sockets], world);
  };

  it('asks its daemon, which knows whether a container has it', async () => {
    const { code, stdout } = await call(['192.0.2.66', '--yes']);
    assert.deepEqual([code, stdout], [0, 'freed 192.0.2.66 of network lan\n']);
    const [[url, body]] = asked as [[string, { Address: string; Force: boolean }]];
    assert.deepEqual([url, body.Address, body.Force], ['/IpamDriver.FreeAddress', '192.0.2.66', false]);
  });

  it('says why the daemon keeps it, and ends with 5', async () => {
    refusal = 'something answers for it';
    const { code, stdout, stderr } = await call(['192.0.2.66', '--yes']);
    assert.deepEqual([code, stdout], [5, '']);
    assert.match(stderr, /192\.0\.2\.66 of network lan is not freed: something answers for it; .*--force/);
    await call(['192.0.2.66', '--yes', '--force']);
    assert.equal((asked.at(-1) as [string, { Force: boolean }])[1].Force, true);
  });

  it('asks whoever types it first', async () => {
    const { code, stderr } = await call(['192.0.2.66'], { answer: false });
    assert.equal(code, 5);
    assert.match(stderr, /to be freed: 192\.0\.2\.66 of network lan/);
    assert.deepEqual(asked, []);
  });

  it('does not mix it with what others have', async () => {
    const { code, stderr } = await call(['192.0.2.66', 'host-2', '--yes']);
    assert.notEqual(code, 0);
    assert.match(stderr, /free 192\.0\.2\.66 by a command of their own/);
    assert.deepEqual(asked, []);
  });
});
