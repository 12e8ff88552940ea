import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { systemClock } from '../../../src/clock.js';
import { type ProgramEnd, type ProgramRun, STDOUT_BYTES_MAX, programGroups } from '../../../src/sys/program-group.js';
import { waitFor } from '../../support/wait.js';

const environment = { PATH: process.env['PATH'] };

function run(script: string, changes: Partial<ProgramRun> = {}): Promise<ProgramEnd> {
  return programGroups(systemClock)({
    program: 'sh',
    args: ['-c', script],
    environment,
    stdin: '',
    timeoutMs: 60_000,
    signal: new AbortController().signal,
    ...changes,
  });
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false; // ESRCH
  }
}

describe('programGroups', () => {
  let directory: string;

  beforeEach(async () => {
    directory = await mkdtemp(path.join(tmpdir(), 'tsf-program-'));
  });

  afterEach(() => rm(directory, { recursive: true }));

  const pidIn = async (file: string): Promise<number> => Number(await readFile(path.join(directory, file), 'utf8'));

  it('gives the program its input and variables, and tells its outputs apart', async () => {
    const end = await run('read line; echo "$line $PLACE"; echo oops >&2', {
      stdin: 'first\nsecond\n',
      environment: { ...environment, PLACE: 'here' },
    });
    assert.deepEqual([end.failure, end.stdout, end.isStdoutComplete], [undefined, 'first here\n', true]);
    assert.match(end.output, /first here/);
    assert.match(end.output, /oops/);
  });

  it('gives it no other variables', async () => {
    const { stdout } = await run('env', { environment: { PATH: environment.PATH } });
    const names = stdout
      .trim()
      .split('\n')
      .map((line) => line.split('=')[0] ?? '');
    assert.deepEqual(
      names.filter((name) => !['PATH', 'PWD', 'SHLVL', '_', 'OLDPWD'].includes(name)),
      [],
    );
  });

  it('tells how it ended', async () => {
    assert.equal((await run('exit 3')).failure, 'exit status 3');
    assert.equal((await run('kill -KILL $$')).failure, 'ended by SIGKILL');
    assert.equal((await run('', { program: 'tsf-no-such' })).failure, 'there is no program tsf-no-such');
    assert.equal((await run('', { program: directory })).failure, 'cannot be started: EACCES');
    assert.match((await run('', { args: ['a\0b'] })).failure ?? '', /^cannot be started: /);
  });

  it('does not mind a program that reads nothing', async () => {
    assert.equal((await run('exec <&-; exit 0', { stdin: 'x'.repeat(1_000_000) })).failure, undefined);
  });

  it('keeps the beginning of the output and the last lines, however much there is', async () => {
    const end = await run('echo first; yes | head -c 1000000; echo last >&2');
    assert.equal(end.stdout.length, STDOUT_BYTES_MAX);
    assert.match(end.stdout, /^first/);
    assert.equal(end.isStdoutComplete, false);
    assert.ok(end.output.length <= 4096);
    assert.match(end.output, /last/);
  });

  it('ends a program that hangs, with what it has started, though all of them ignore SIGTERM', async () => {
    const script = `trap '' TERM; (trap '' TERM; echo $$ >own; sh -c 'echo $$ >child; while :; do sleep 1; done') & while :; do sleep 1; done`;
    const end = await run(`cd ${directory}; ${script}`, { timeoutMs: 1000 });
    assert.equal(end.failure, 'not ended within 1 s');
    const pids = [await pidIn('own'), await pidIn('child')];
    await waitFor(() => pids.every((pid) => !isAlive(pid)), { what: 'the end of both' });
  });

  it('ends what a program has started that obeys SIGTERM itself', async () => {
    const script = `sh -c 'trap "" TERM; echo $$ >child; while :; do sleep 1; done' & wait`;
    const end = await run(`cd ${directory}; ${script}`, { timeoutMs: 1000 });
    assert.equal(end.failure, 'not ended within 1 s');
    const pid = await pidIn('child');
    await waitFor(() => !isAlive(pid), { what: 'its end' });
  });

  it('lets a program put things in order when it is interrupted', async () => {
    const controller = new AbortController();
    const script = `cd ${directory}; trap 'echo bye; exit 1' TERM; echo $$ >own; while :; do sleep 0.05; done`;
    const ended = run(script, { signal: controller.signal });
    await waitFor(async () => (await pidIn('own').catch(() => 0)) > 0, { what: 'the program to run' });
    controller.abort();
    const end = await ended;
    assert.equal(end.failure, 'interrupted');
    assert.equal(end.stdout, 'bye\n');
  });

  it('does not wait for what a program leaves running, and leaves it alone', async () => {
    const end = await run(`cd ${directory}; sleep 600 & echo $! >child; echo done`);
    assert.deepEqual([end.failure, end.stdout], [undefined, 'done\n']);
    const pid = await pidIn('child');
    try {
      assert.equal(isAlive(pid), true);
    } finally {
      process.kill(pid, 'SIGKILL');
    }
  });
});
