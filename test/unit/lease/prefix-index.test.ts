import assert from 'node:assert/strict';
import fc from 'fast-check';
import { Prefix } from '../../../src/ip/prefix.js';
import { PrefixIndex } from '../../../src/lease/prefix-index.js';
import { ip } from '../../support/builders.js';

describe('PrefixIndex', () => {
  it('finds what overlaps, whatever was added and removed before', () => {
    const prefix = fc
      .record({ base: fc.constantFrom('10.5.32.0', '240.0.0.0', 'fd00::'), at: fc.nat(63), less: fc.nat(8) })
      .map(({ base, at, less }) => {
        const address = ip(base).add(BigInt(at));
        return Prefix.of(address, (address.family === 4 ? 32 : 128) - less);
      });
    const step = fc.record({ item: fc.nat(9), prefix });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const indexes = { 4: new PrefixIndex<number>(), 6: new PrefixIndex<number>() };
        const model = new Map<number, Prefix>();
        for (const { item, prefix: next } of steps) {
          const before = model.get(item);
          if (before !== undefined) indexes[before.family].remove(before, item);
          if (before?.equals(next) === true) model.delete(item);
          else {
            model.set(item, next);
            indexes[next.family].add(next, item);
          }
          const expected = [...model].filter(([, each]) => each.overlaps(next)).map(([each]) => each);
          assert.deepEqual(indexes[next.family].overlapping(next).toSorted(), expected.toSorted());
        }
      }),
    );
  });
});
