import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type LogLevel, silentLogger } from '../../../src/log.js';
import { ObserveServer } from '../../../src/observe/server.js';
import { ctl } from '../../support/ctl.js';
import { sampleStatus } from '../../support/sample-status.js';
import { inOneStep } from '../../support/steps.js';

describe('log-level', () => {
  let directory: string;
  let socket: string;
  let leveled: { level: LogLevel };
  let server: { close(): unknown } | undefined;

  beforeEach(() => {
    directory = mkdtempSync(path.join(tmpdir(), 'tsflannel-log-level-'));
    socket = path.join(directory, 'status.sock');
    leveled = { level: 'info' };
  });

  afterEach(async () => {
    await server?.close();
    rmSync(directory, { recursive: true, force: true });
  });

  const run = (...words: readonly string[]): ReturnType<typeof ctl> =>
    ctl(['log-level', ...words, `--status-socket=${socket}`]);

  it('shows the level of the daemon, and changes it', async () => {
    const source = { status: () => inOneStep(sampleStatus()) };
    server = await ObserveServer.start({ ip: '', port: 0, statusSocket: socket, source, log: silentLogger, leveled });
    assert.deepEqual([(await run()).stdout, leveled.level], ['info\n', 'info']);
    assert.deepEqual([(await run('debug')).stdout, leveled.level], ['debug\n', 'debug']);
    assert.deepEqual((await run('warn', '--json')).json(), { level: 'warn' });
  });

  it('refuses a word that is no level', async () => {
    const { code, stderr } = await run('loud');
    assert.equal(code, 2);
    assert.match(stderr, /cannot run log-level for "loud": it is not known; use error or warn or info or debug/);
  });

  it('ends with 4 where no daemon answers, or something else does', async () => {
    assert.equal((await run()).code, 4);
    const stranger = http.createServer((_, response) => response.end('{"level":"loud"}'));
    server = stranger;
    await new Promise<void>((resolve) => stranger.listen(socket, resolve));
    const { code, stderr } = await run('debug');
    assert.equal(code, 4);
    assert.match(stderr, /its answer is not a level/);
  });
});
