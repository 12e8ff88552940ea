import assert from 'node:assert/strict';
import fc from 'fast-check';
import { backoffMs, systemClock } from '../../src/clock.js';

describe('systemClock', () => {
  it('shows two clocks, one of which never jumps', () => {
    assert.ok(Math.abs(systemClock.wallMs() - Date.now()) < 1000);
    const before = systemClock.monotonicMs();
    assert.ok(systemClock.monotonicMs() >= before);
    const chance = systemClock.random();
    assert.ok(chance >= 0 && chance < 1);
  });

  it('sleeps at least as long as asked', async () => {
    const before = systemClock.monotonicMs();
    await systemClock.sleep(20);
    // Node's timers count whole milliseconds and may be one early on the finer clock.
    assert.ok(systemClock.monotonicMs() - before >= 19);
  });

  it('wakes up at once with the reason of the signal', async () => {
    const reason = new Error('stop');
    const controller = new AbortController();
    const sleep = systemClock.sleep(60_000, controller.signal);
    controller.abort(reason);
    await assert.rejects(sleep, reason);
    await assert.rejects(systemClock.sleep(60_000, controller.signal), reason);
  });

  it('does not collect listeners on a signal that outlives many sleeps', async () => {
    const { signal } = new AbortController();
    const warnings: Error[] = [];
    const note = (warning: Error): void => void warnings.push(warning);
    process.on('warning', note);
    for (let i = 0; i < 20; i++) await systemClock.sleep(0, signal);
    await new Promise(setImmediate);
    process.off('warning', note);
    assert.deepEqual(warnings, []);
  });

  it('calls back once, unless cancelled', async () => {
    let calls = 0;
    systemClock.after(1, () => calls++);
    systemClock.after(1, () => calls++)();
    await systemClock.sleep(20);
    assert.equal(calls, 1);
  });
});

describe('backoffMs', () => {
  const middle = (): number => 0.5;

  it('doubles up to the cap', () => {
    const delays = [1, 2, 3, 4, 5, 6, 100, 5000].map((attempt) => backoffMs(attempt, 100, 3000, middle));
    assert.deepEqual(delays, [100, 200, 400, 800, 1600, 3000, 3000, 3000]);
  });

  it('stays within a quarter of that, and uses all of it', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 1000 }),
        fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
        (attempt, chance) => {
          const delay = backoffMs(attempt, 1000, 60_000, () => chance);
          const exact = Math.min(60_000, 1000 * 2 ** (attempt - 1));
          assert.ok(delay >= Math.floor(exact * 0.75) && delay <= Math.ceil(exact * 1.25));
        },
      ),
    );
    assert.equal(
      backoffMs(1, 1000, 60_000, () => 0),
      750,
    );
    assert.equal(
      backoffMs(1, 1000, 60_000, () => 0.999),
      1250,
    );
  });
});
