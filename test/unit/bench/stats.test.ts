import assert from 'node:assert/strict';
import fc from 'fast-check';
import { bisect, quantile, spread } from '../../../bench/stats.js';

describe('quantile', () => {
  it('interpolates between neighbours', () => {
    const values = [4, 1, 3, 2];
    assert.deepEqual(
      [0, 0.25, 0.5, 1].map((part) => quantile(values, part)),
      [1, 1.75, 2.5, 4],
    );
  });

  it('gives the only value whatever the part, and nothing for no values', () => {
    assert.equal(quantile([7], 0.99), 7);
    assert.ok(Number.isNaN(quantile([], 0.5)));
  });

  it('lies within the values, rises with the part and does not depend on their order', () => {
    const numbers = fc.array(fc.double({ noNaN: true, min: -1e6, max: 1e6 }), { minLength: 1 });
    fc.assert(
      fc.property(
        numbers,
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (values, a, b) => {
          const [low, high] = [quantile(values, Math.min(a, b)), quantile(values, Math.max(a, b))];
          assert.ok(Math.min(...values) <= low && low <= high + 1e-6 && high <= Math.max(...values) + 1e-6);
          assert.equal(quantile([...values].reverse(), a), quantile(values, a));
        },
      ),
    );
  });
});

describe('spread', () => {
  it('tells median and range', () => {
    assert.deepEqual(spread([3, 1, 2]), { median: 2, min: 1, max: 3, count: 3 });
    assert.equal(spread([]), undefined);
  });
});

describe('bisect', () => {
  it('finds any threshold within the promised accuracy, trying each value once', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1000, max: 1_000_000 }),
        fc.integer({ min: 1, max: 12 }),
        async (threshold, steps) => {
          const tried: number[] = [];
          const found = await bisect({ low: 1000, high: 1_000_000, steps }, (value) => {
            tried.push(value);
            return Promise.resolve(value <= threshold);
          });
          assert.equal(tried.length, steps);
          assert.ok(found <= threshold);
          assert.ok(threshold <= found * 1000 ** (1 / 2 ** steps) * 1.0001, `${found} for ${threshold}`);
        },
      ),
    );
  });

  it('gives the lower end when nothing passes', async () => {
    assert.equal(await bisect({ low: 5, high: 500, steps: 6 }, () => Promise.resolve(false)), 5);
  });
});
