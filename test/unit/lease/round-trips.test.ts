import assert from 'node:assert/strict';
import { ROUND_TRIP_BOUNDS_SECONDS, RoundTripTimer } from '../../../src/lease/round-trips.js';

describe('RoundTripTimer', () => {
  it('counts each time in the first bucket whose bound it does not exceed, and adds them up', () => {
    const timer = new RoundTripTimer();
    for (const seconds of [0, 0.001, 0.0011, 5, 5.5, 60]) timer.add(seconds);
    const { buckets, sumSeconds } = timer.times;
    assert.deepEqual(buckets, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
    assert.equal(buckets.length, ROUND_TRIP_BOUNDS_SECONDS.length + 1);
    assert.ok(Math.abs(sumSeconds - 70.5021) < 1e-9);
  });

  it('gives a snapshot', () => {
    const timer = new RoundTripTimer();
    const { buckets } = timer.times;
    timer.add(0);
    assert.equal(buckets[0], 0);
  });
});
