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

  it('shares a turn with what was done before in the same one', async () => {
    const clock = new TickingClock();
    const turns = countTurns();
    for (let piece = 0; piece < 10; piece++) await finishInTurns(count(4), clock);
    const shared = turns.end();
    assert.ok(shared >= 4, `${shared} turns for ten pieces of half a turn each`);
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(new Pace(clock).isOver, false, 'another event got what was left of an earlier turn');
  });

  it('begins another turn when it has rested', async () => {
    const pace = new Pace(new TickingClock());
    while (!pace.isOver);
    await pace.rest();
    assert.equal(pace.isOver, false);
  });
});
