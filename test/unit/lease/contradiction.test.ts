import assert from 'node:assert/strict';
import { contradicts } from '../../../src/lease/contradiction.js';
import type { Command, Outcome } from '../../../src/lease/decide.js';
import { leaseRecord as record, worldOf } from '../../support/lease-world.js';

describe('contradicts', () => {
  const known = record(1, { revision: 10 });
  const world = worldOf([known], { revision: 20 });
  const create = (n: number): Command => {
    const { subnet, ipv6Subnet } = record(n);
    const subnets = { subnet, ipv6Subnet };
    return { kind: 'create', subnets, source: 'free', replacing: undefined, yielding: undefined, aside: [] };
  };
  const taken = (revision: string | undefined): Outcome => ({ kind: 'create', result: { outcome: 'taken', revision } });
  const changed = (revision: string | undefined): Outcome => {
    const lease = revision === undefined ? undefined : record(1, { revision: Number(revision) });
    return { kind: 'reuse', result: { outcome: 'changed', now: { revision: '30', lease, bad: undefined } } };
  };
  const reuse: Command = { kind: 'reuse', lease: known };

  it('finds a key that is as old as the world, which does not have it', () => {
    assert.equal(contradicts(world, create(2), taken('20'), 0), true);
    assert.equal(contradicts(world, create(2), taken('7'), 0), true);
  });

  it('finds a key that the world has from another time', () => {
    assert.equal(contradicts(world, reuse, changed('9'), 0), true);
    assert.equal(contradicts(world, { kind: 'publish', lease: known }, { ...changed('12') }, 0), true);
    assert.equal(contradicts(world, create(1), taken('9'), 0), true);
  });

  it('takes what was written later, and what the world has, for true', () => {
    assert.equal(contradicts(world, create(2), taken('21'), 99), false);
    assert.equal(contradicts(world, reuse, changed('21'), 99), false);
    assert.equal(contradicts(world, create(1), taken('10'), 99), false);
  });

  it('waits for the world to tell what is in the way where that is not found, but not for ever', () => {
    for (const [command, outcome] of [
      [create(2), taken(undefined)],
      [reuse, changed(undefined)],
    ] as const) {
      assert.equal(contradicts(world, command, outcome, 5), false);
      assert.equal(contradicts(world, command, outcome, 6), true);
    }
  });

  it('finds nothing in what was carried out or failed', () => {
    const snapshot = { revision: '21', leases: [], bad: [] };
    const created: Outcome = { kind: 'create', result: { outcome: 'created', lease: record(2), snapshot } };
    assert.equal(contradicts(world, create(2), created, 99), false);
    assert.equal(contradicts(world, reuse, { kind: 'reuse', result: { outcome: 'updated', lease: known } }, 99), false);
    assert.equal(contradicts(world, reuse, { kind: 'failed', error: new Error('x') }, 99), false);
    assert.equal(
      contradicts(world, { kind: 'delete', lease: known }, { kind: 'delete', result: 'changed' }, 99),
      false,
    );
  });
});
