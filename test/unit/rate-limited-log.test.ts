import assert from 'node:assert/strict';
import { RateLimitedLog } from '../../src/rate-limited-log.js';
import { FakeClock } from '../support/fake-clock.js';

describe('RateLimitedLog', () => {
  let clock: FakeClock;
  let log: RateLimitedLog;
  /** Counts of the lines that were written. */
  let lines: number[];
  const tell = (events?: number): void => log.tell((count) => lines.push(count), events);

  beforeEach(() => {
    clock = new FakeClock();
    log = new RateLimitedLog(clock);
    lines = [];
  });

  it('writes the first line at once and then one a minute, which counts what came since', async () => {
    tell();
    tell();
    tell(3);
    assert.deepEqual(lines, [1]);
    await clock.advance(59_999);
    tell();
    assert.deepEqual(lines, [1]);
    await clock.advance(1);
    tell();
    assert.deepEqual(lines, [1, 6]);
    tell();
    await clock.advance(60_000);
    tell(2);
    assert.deepEqual(lines, [1, 6, 3]);
  });

  it('writes no line of its own accord', async () => {
    tell();
    tell();
    assert.equal(clock.pending, 0);
    await clock.advance(120_000);
    assert.deepEqual(lines, [1]);
  });

  it('writes at once after a reset, and counts from there', () => {
    tell();
    tell();
    log.reset();
    tell();
    tell();
    assert.deepEqual(lines, [1, 1]);
  });
});
