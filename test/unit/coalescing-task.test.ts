import assert from 'node:assert/strict';
import { CoalescingTask } from '../../src/coalescing-task.js';
import { FakeClock, settle } from '../support/fake-clock.js';

describe('CoalescingTask', () => {
  let clock: FakeClock;
  /** When each run began. */
  let begun: number[];
  let mostAtOnce: number;
  let finish: () => void;
  let task: CoalescingTask;

  beforeEach(() => {
    clock = new FakeClock();
    begun = [];
    mostAtOnce = 0;
    let atOnce = 0;
    task = new CoalescingTask(clock, async () => {
      begun.push(clock.monotonicMs() - START_MS);
      mostAtOnce = Math.max(mostAtOnce, ++atOnce);
      await new Promise<void>((resolve) => (finish = resolve));
      atOnce--;
    });
  });

  const START_MS = new FakeClock().monotonicMs();
  const end = async (): Promise<void> => {
    finish();
    await settle();
  };

  it('runs once for all who asked, when the first of them wanted it', async () => {
    task.schedule(500);
    task.schedule(100);
    await clock.advance(50);
    task.schedule(100);
    await clock.advance(1000);
    await end();
    await clock.advance(1000);
    assert.deepEqual(begun, [100]);
    assert.equal(clock.pending, 0);
  });

  it('is not put off by those who keep asking', async () => {
    for (let ms = 0; ms < 100; ms += 10) {
      task.schedule(50);
      await clock.advance(10);
    }
    assert.deepEqual(begun, [50]);
  });

  it('runs once more for those who asked during a run, as long after its end as the most urgent of them wanted', async () => {
    task.schedule(0);
    await clock.advance(0);
    task.schedule(300);
    task.schedule(100);
    task.schedule(200);
    await clock.advance(1000);
    assert.deepEqual(begun, [0]);
    await end();
    await clock.advance(99);
    assert.deepEqual(begun, [0]);
    await clock.advance(1);
    assert.deepEqual(begun, [0, 1100]);
    await end();
    await clock.advance(1000);
    assert.deepEqual(begun, [0, 1100]);
  });

  it('runs again when the work itself asks for it', async () => {
    const runs: number[] = [];
    const periodic = new CoalescingTask(clock, () => {
      runs.push(clock.monotonicMs() - START_MS);
      periodic.schedule(runs.length * 100);
      return Promise.resolve();
    });
    periodic.schedule(0);
    await clock.advance(700);
    assert.deepEqual(runs, [0, 100, 300, 600]);
    await periodic.close();
  });

  it('runs at once when asked to, which answers what was scheduled', async () => {
    task.schedule(100);
    const done = task.runNow();
    assert.deepEqual(begun, [0]);
    await end();
    await done;
    await clock.advance(1000);
    assert.deepEqual(begun, [0]);
  });

  it('begins one run for all who want it now during a run, and tells them of its end', async () => {
    const ended: string[] = [];
    void task.runNow().then(() => ended.push('first'));
    for (const name of ['second', 'third']) void task.runNow().then(() => ended.push(name));
    task.schedule(100);
    await settle();
    assert.deepEqual(begun, [0]);
    await end();
    assert.deepEqual(ended, ['first']);
    assert.equal(begun.length, 2);
    await end();
    assert.deepEqual(ended, ['first', 'second', 'third']);
    await clock.advance(1000);
    assert.equal(begun.length, 2);
    void task.runNow();
    void task.runNow();
    await end();
    assert.equal(begun.length, 4);
    assert.equal(mostAtOnce, 1);
  });

  it('says whether a run is under way', async () => {
    assert.equal(task.isRunning, false);
    const done = task.runNow();
    assert.equal(task.isRunning, true);
    await end();
    await done;
    assert.equal(task.isRunning, false);
  });

  it('begins nothing after it was closed, and waits for the run under way', async () => {
    const done = task.runNow();
    void task.runNow();
    task.schedule(10);
    let isClosed = false;
    const closing = task.close().then(() => (isClosed = true));
    await settle();
    assert.equal(isClosed, false);
    await end();
    await Promise.all([done, closing]);
    task.schedule(10);
    await task.runNow();
    await clock.advance(1000);
    assert.deepEqual(begun, [0]);
    assert.equal(clock.pending, 0);
  });

  it('forgets what was scheduled when it is closed', async () => {
    task.schedule(10);
    await task.close();
    assert.equal(clock.pending, 0);
  });
});
