import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { type ProcessorTime, Stopwatch, processorTimeOf } from '../../mutation/processor-time.js';
import { waitFor } from '../../support/wait.js';

/** Ends by itself after a minute. */
const BUSY = 'const end = Date.now() + 60_000; while (Date.now() < end);';
const IDLE = 'setTimeout(() => {}, 60_000);';

describe('the processor time of a process', function () {
  this.timeout(60_000);
  const started: ChildProcess[] = [];

  function start(script: string, ...options: readonly string[]): Stopwatch {
    const child = spawn('env', [...options, process.execPath, '-e', script], { stdio: 'ignore' });
    started.push(child);
    return new Stopwatch(() => processorTimeOf(child.pid));
  }

  afterEach(() => {
    for (const child of started.splice(0)) child.kill('SIGKILL');
  });

  it('tells one that waits from one that runs', async () => {
    const [idle, busy] = [start(IDLE), start(BUSY)];
    await waitFor(() => idle.read().idleMs > 1000 && busy.read().runMs > 2000, {
      what: 'time to pass',
      timeoutMs: 50_000,
    });
    assert.ok(idle.read().runMs < 1500, 'it starts, and then waits');
    assert.ok(busy.read().idleMs < 1500, 'it starts, and then runs');
  });

  it('does not hold one for idle that other programs let wait for the processor', async () => {
    start(BUSY, 'taskset', '--cpu-list', '0');
    const starved = start(BUSY, 'taskset', '--cpu-list', '0', 'nice', '-n', '19');
    const sinceMs = performance.now();
    await waitFor(() => performance.now() - sinceMs > 3000, { what: 'time to pass', timeoutMs: 50_000 });
    const { runMs, idleMs } = starved.read();
    assert.ok(runMs < 1500, 'the other one has the processor');
    assert.ok(idleMs < 1500, 'it is ready all the time');
  });

  it('is measured from when the stopwatch starts', () => {
    let time: ProcessorTime = { runMs: 100, starvedMs: 1000 };
    const stopwatch = new Stopwatch(() => time);
    const startMs = performance.now();
    time = { runMs: 130, starvedMs: 1200 };
    const { runMs, idleMs } = stopwatch.read(startMs + 500);
    assert.equal(runMs, 30);
    assert.equal(Math.round(idleMs), 270);
  });

  it('is nothing for one that has ended', () => {
    assert.deepEqual(processorTimeOf(undefined), { runMs: 0, starvedMs: 0 });
  });
});
