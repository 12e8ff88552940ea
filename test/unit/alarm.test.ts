import assert from 'node:assert/strict';
import { Alarm } from '../../src/alarm.js';
import { FakeClock } from '../support/fake-clock.js';

describe('Alarm', () => {
  let clock: FakeClock;
  let count: number;
  let alarm: Alarm;

  beforeEach(() => {
    clock = new FakeClock();
    count = 0;
    alarm = new Alarm(clock, () => count++);
  });

  for (const times of [
    [100, 300],
    [300, 100],
  ]) {
    it(`goes off once, at the earliest of the times it is set to: ${times.join(' then ')}`, async () => {
      for (const ms of times) alarm.set(ms);
      await clock.advance(99);
      assert.equal(count, 0);
      await clock.advance(1);
      assert.equal(count, 1);
      await clock.advance(1000);
      assert.equal(count, 1);
    });
  }

  it('can be set again after it went off, and after it was cancelled', async () => {
    alarm.set(100);
    await clock.advance(100);
    alarm.set(200);
    await clock.advance(200);
    assert.equal(count, 2);
    alarm.set(100);
    alarm.cancel();
    assert.equal(clock.pending, 0);
    alarm.set(100);
    await clock.advance(100);
    assert.equal(count, 3);
  });
});
