import assert from 'node:assert/strict';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { systemClock } from '../../src/clock.js';
import { Deadline } from '../../src/deadline.js';
import { FakeClock } from '../support/fake-clock.js';

describe('Deadline', () => {
  it('aborts its signal when the time is up', async () => {
    const clock = new FakeClock();
    const { signal } = new Deadline(clock, 1000);
    await clock.advance(999);
    assert.equal(signal.aborted, false);
    await clock.advance(1);
    assert.equal(signal.aborted, true);
    assert.equal((signal.reason as Error).name, 'TimeoutError');
  });

  it('is aborted together with the other signal, with its reason, before or after it was made', () => {
    const clock = new FakeClock();
    const reason = new Error('SIGTERM');
    const parent = new AbortController();
    const { signal } = new Deadline(clock, 1000, parent.signal);
    parent.abort(reason);
    assert.equal(signal.reason, reason);
    assert.equal(new Deadline(clock, 1000, parent.signal).signal.reason, reason);
  });

  it('is aborted by nothing any more once it is cleared, and lets the program end', async () => {
    const clock = new FakeClock();
    const parent = new AbortController();
    const deadline = new Deadline(clock, 1000, parent.signal);
    deadline.clear();
    parent.abort();
    await clock.advance(2000);
    assert.equal(deadline.signal.aborted, false);
    assert.equal(clock.pending, 0);
  });

  // AbortSignal.any([signal, AbortSignal.timeout(ms)]) was collected here, and what waited for it waited for ever.
  it('fires although nothing but its listener knows it and everything is collected meanwhile', async () => {
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    const parent = new AbortController();
    const fired = new Promise((resolve) => {
      new Deadline(systemClock, 100, parent.signal).signal.addEventListener('abort', resolve, { once: true });
    });
    const collecting = setInterval(collect, 5);
    await fired;
    clearInterval(collecting);
  });
});
