import assert from 'node:assert/strict';
import { Gatherer, listed, mergeSome, some } from '../../src/gatherer.js';
import { FakeClock } from '../support/fake-clock.js';

describe('Gatherer', () => {
  let clock: FakeClock;
  let told: [string, number][];
  let gatherer: Gatherer<string, number>;

  beforeEach(() => {
    clock = new FakeClock();
    told = [];
    gatherer = new Gatherer({
      clock,
      burst: 3,
      everyMs: 1000,
      merge: (before, next) => before + next,
      tell: (topic, news) => told.push([topic, news]),
    });
  });

  it('tells a few at once, and puts together what comes thick', async () => {
    for (let n = 1; n <= 5; n++) gatherer.add('a', n);
    assert.deepEqual(told.splice(0), [
      ['a', 1],
      ['a', 2],
      ['a', 3],
    ]);
    await clock.advance(999);
    gatherer.add('a', 6);
    assert.deepEqual(told, []);
    await clock.advance(1);
    assert.deepEqual(told, [['a', 15]]);
    assert.equal(clock.pending, 0);
  });

  it('tells once in its time as long as it comes thick, and at once again after a pause', async () => {
    for (let ms = 0; ms < 60_000; ms += 50) {
      gatherer.add('a', 1);
      await clock.advance(50);
    }
    await clock.advance(3000);
    assert.equal(
      told.reduce((sum, [, news]) => sum + news, 0),
      1200,
    );
    assert.ok(told.length <= 3 + 61, String(told.length));
    told.length = 0;
    for (let n = 0; n < 3; n++) gatherer.add('a', 1);
    assert.equal(told.length, 3);
  });

  it('keeps topics apart', () => {
    for (let n = 0; n < 4; n++) gatherer.add('a', 1);
    gatherer.add('b', 7);
    assert.deepEqual(told.at(-1), ['b', 7]);
  });

  it('tells at the end what still waits, once, and leaves no timer', async () => {
    for (const topic of ['a', 'b']) for (let n = 0; n < 5; n++) gatherer.add(topic, 1);
    assert.equal(clock.pending, 2);
    told.length = 0;
    gatherer.flush();
    gatherer.flush();
    assert.deepEqual(told, [
      ['a', 2],
      ['b', 2],
    ]);
    assert.equal(clock.pending, 0);
    await clock.advance(60_000);
    assert.equal(told.length, 2);
  });
});

describe('some', () => {
  it('counts all and keeps the first, also of two put together', () => {
    const both = mergeSome(some(['a', 'b']), some(['c', 'd', 'e']));
    assert.deepEqual(both, { count: 5, first: ['a', 'b', 'c'] });
    assert.equal(listed(both), 'a, b, c and 2 more');
    assert.equal(listed(some(['a', 'b'])), 'a, b');
    assert.deepEqual(some([1, 2, 3], 2), { count: 3, first: [1, 2] });
    assert.deepEqual(mergeSome(some([1], 2), some([2, 3], 2), 2), { count: 3, first: [1, 2] });
  });
});
