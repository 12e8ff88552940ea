import assert from 'node:assert/strict';
import fc from 'fast-check';
import { differingRange, listDifference } from '../../src/list-difference.js';

const list = fc.array(fc.nat(4), { maxLength: 8 });

describe('differingRange', () => {
  it('is the shortest range outside of which nothing differs', () => {
    fc.assert(
      fc.property(list, list, (previous, next) => {
        const { start, previousEnd, nextEnd } = differingRange(previous, next);
        assert.deepEqual(next.slice(0, start), previous.slice(0, start));
        assert.deepEqual(next.slice(nextEnd), previous.slice(previousEnd));
        assert.ok(start <= previousEnd && start <= nextEnd);
        const [before, after] = [previous.slice(start, previousEnd), next.slice(start, nextEnd)];
        if (before.length === 0 || after.length === 0) return;
        assert.notEqual(before[0], after[0]);
        assert.notEqual(before.at(-1), after.at(-1));
      }),
    );
  });
});

describe('listDifference', () => {
  it('turns one list into the other, with nothing in both of its halves', () => {
    fc.assert(
      fc.property(list, list, (previous, next) => {
        const { removed, added } = listDifference(previous, next);
        const count = (items: readonly number[], item: number): number => items.filter((each) => each === item).length;
        for (const item of [0, 1, 2, 3, 4]) {
          const more = count(next, item) - count(previous, item);
          assert.deepEqual([count(added, item), count(removed, item)], [Math.max(more, 0), Math.max(-more, 0)]);
        }
      }),
    );
  });
});
