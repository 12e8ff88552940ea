import assert from 'node:assert/strict';
import { type Measure, type Sample, trend, trendTable } from '../../soak/trend.js';

const MB = 1 << 20;
const STEADY: Sample = {
  residentBytes: 90 * MB,
  heapBytes: 20 * MB,
  descriptors: 30,
  threads: 11,
  logBytesPerMinute: 4000,
  loopDelayMs: 12,
  etcdLeases: 3,
};

/** As many samples as factors, each with one measure multiplied. */
const rounds = (measure: Measure, factors: readonly number[]): Sample[] =>
  factors.map((factor) => ({ ...STEADY, [measure]: STEADY[measure] * factor }));

const growing = (samples: readonly Sample[]): Measure[] =>
  trend(samples).flatMap(({ measure, isSteady }) => (isSteady ? [] : [measure]));

describe('trend', () => {
  for (const measure of Object.keys(STEADY) as Measure[]) {
    it(`finds ${measure} that grows, and nothing else`, () => {
      assert.deepEqual(growing(rounds(measure, [1, 1, 1, 2, 3, 4, 5, 6])), [measure]);
    });

    it(`is content with ${measure} that rises while warming up only`, () => {
      assert.deepEqual(growing(rounds(measure, [0.2, 0.5, 1, 1, 1, 1, 1, 1])), []);
    });
  }

  it('does not take a single high round for growth', () => {
    assert.deepEqual(growing(rounds('heapBytes', [1, 1, 1, 1, 1, 1, 1, 1, 1, 9, 1, 1])), []);
  });

  it('allows no etcd lease and no thread more', () => {
    const more = (measure: Measure): Sample => ({ ...STEADY, [measure]: STEADY[measure] + 1 });
    for (const measure of ['etcdLeases', 'threads'] as const) {
      assert.deepEqual(growing([STEADY, STEADY, STEADY, more(measure)]), [measure]);
    }
  });

  it('refuses to judge fewer rounds than it takes', () => {
    assert.throws(() => trend([STEADY, STEADY, STEADY]), RangeError);
  });

  it('is shown with units and a verdict', () => {
    const table = trendTable(new Map([['h1', trend(rounds('heapBytes', [1, 1, 1, 2]))]]));
    assert.match(table, /^\| h1 \| heap in use \| 20\.0 MB \| 40\.0 MB \| 29\.0 MB \| \*\*grows\*\* \|$/m);
    assert.match(table, /^\| h1 \| threads \| 11 \| 11 \| 11 \| steady \|$/m);
  });
});
