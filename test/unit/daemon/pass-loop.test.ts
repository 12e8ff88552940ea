import assert from 'node:assert/strict';
import { PassLoop } from '../../../src/daemon/pass-loop.js';
import { systemClock } from '../../../src/clock.js';
import { FakeClock } from '../../support/fake-clock.js';
import { waitFor } from '../../support/wait.js';

/** A loop whose passes end when the test says so. */
function rig(): { loop: PassLoop; count: () => number; end: (outcome?: 'done' | 'retry') => void } {
  let count = 0;
  let finish: (outcome: 'done' | 'retry') => void = () => {};
  const loop = new PassLoop(systemClock, () => {
    count++;
    return new Promise((resolve) => {
      finish = resolve;
    });
  });
  return { loop, count: () => count, end: (outcome = 'done') => finish(outcome) };
}

const reached = (probe: () => boolean, what: string): Promise<boolean> => waitFor(probe, { what, intervalMs: 1 });

describe('pass loop', () => {
  it('makes no pass before it is started, and one for all causes that came together', async () => {
    const { loop, count, end } = rig();
    loop.trigger();
    await systemClock.sleep(20);
    assert.equal(count(), 0);
    loop.start();
    loop.trigger();
    loop.trigger();
    await reached(() => count() === 1, 'the first pass');
    end();
    await loop.settled();
    assert.equal(count(), 1);
    await loop.close();
  });

  it('makes one more pass for whatever changed during a pass, never two at a time', async () => {
    const { loop, count, end } = rig();
    loop.start();
    await reached(() => count() === 1, 'the first pass');
    loop.trigger();
    loop.trigger();
    await systemClock.sleep(20);
    assert.equal(count(), 1);
    end();
    await reached(() => count() === 2, 'the second pass');
    end();
    await loop.settled();
    assert.equal(count(), 2);
    await loop.close();
  });

  it('is not put off by causes that keep coming', async () => {
    const { loop, count, end } = rig();
    loop.start();
    for (let i = 0; i < 50 && count() === 0; i++) {
      loop.trigger();
      await systemClock.sleep(1);
    }
    assert.equal(count(), 1);
    end();
    await loop.close();
  });

  it('makes a pass again after two seconds if it failed, without another cause', async () => {
    const clock = new FakeClock();
    const outcomes = ['retry', 'retry', 'done'] as const;
    let count = 0;
    const loop = new PassLoop(clock, () => Promise.resolve(outcomes[count++] ?? 'done'));
    loop.start();
    await clock.advance(1999);
    assert.equal(count, 1);
    await clock.advance(2010);
    assert.equal(count, 3);
    await clock.advance(10_000);
    assert.equal(count, 3);
  });

  it('makes no pass after it was closed, and waits for the one under way', async () => {
    const { loop, count, end } = rig();
    loop.start();
    await reached(() => count() === 1, 'the first pass');
    const closed = loop.close();
    loop.trigger();
    end('retry');
    await closed;
    await systemClock.sleep(20);
    assert.equal(count(), 1);
  });
});
