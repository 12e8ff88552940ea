import assert from 'node:assert/strict';
import { Pace, type Steps, finishInTurns } from '../../src/pace.js';
import { finish } from '../support/steps.js';
import { FakeClock } from '../support/fake-clock.js';
import { TickingClock, countTurns } from '../support/ticking-clock.js';

function* count(to: number): Steps<number> {
  for (let step = 0; step < to; step++) yield;
  return to;
}

describe('Pace', () => {
  it('gives others a turn each time that its own eight milliseconds are over', async () => {
    const turns = countTurns();
    assert.equal(await finishInTurns(count(80), new TickingClock()), 80);
    assert.equal(turns.end(), 10);
  });

  it('gives nobody a turn while it has time', async () => {
    const turns = countTurns();
    assert.equal(await finishInTurns(count(80), new FakeClock()), 80);
    assert.equal(turns.end(), 0);
  });

  it('does everything at once where that is asked for', () => {
    assert.equal(finish(count(80)), 80);
  });

  it('begins another turn when it has rested', async () => {
    const pace = new Pace(new TickingClock());
    while (!pace.isOver);
    await pace.rest();
    assert.equal(pace.isOver, false);
  });
});
