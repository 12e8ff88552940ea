import assert from 'node:assert/strict';
import { type Fault, type History, makeHistory } from '../../simulation/history.js';
import { shrink } from '../../simulation/shrink.js';
import { type Outcome, runHistory } from '../../simulation/simulation.js';
import { Violation } from '../../simulation/violation.js';

/** Histories that a defect was found with, as small as they could be made. */
const FOUND: readonly { readonly title: string; readonly history: Partial<History>; readonly faults: Fault[] }[] = [
  {
    title: 'a lease that was heard of with its former value is routed by its present one',
    history: { seed: 1242, startsMs: [408, 528, 589, 741, 911, 343], backend: 2 },
    faults: [
      { atMs: 12_154, kind: 'renumber', host: 4, number: 15 },
      { atMs: 15_999, kind: 'wrong-network', ms: 496 },
      { atMs: 22_780, kind: 'restore', age: 5, writes: 0, hasNewId: false },
    ],
  },
  {
    title: 'a lease that was written, never heard of and lost in a restore is asserted again',
    history: { seed: 1192, startsMs: [854, 469, 227, 711, 32_325, 190], backend: 2, members: 3 },
    faults: [
      { atMs: 27_076, kind: 'loss', host: 4, share: 0.3, ms: 15_000 },
      { atMs: 38_597, kind: 'restore', age: 4, writes: 0, hasNewId: false },
    ],
  },
  {
    title: 'a peer that was deleted and came back with a restore is routed again',
    history: { startsMs: [0, 200], backend: 2 },
    faults: [
      { atMs: 9180, kind: 'pause', host: 0, ms: 35_227 },
      { atMs: 27_369, kind: 'delete-key', host: 0 },
      { atMs: 43_168, kind: 'restore', age: 6, writes: 22, hasNewId: false },
    ],
  },
  {
    title: 'an address that changed while etcd was away is published as soon as it is back',
    history: { startsMs: [0, 200], backend: 1 },
    faults: [
      { atMs: 8000, kind: 'outage', ms: 43_578 },
      { atMs: 31_100, kind: 'renumber', host: 1, number: 3 },
    ],
  },
  {
    title: 'one host may have two leases with one VtepMAC while the network is exchanged',
    history: { startsMs: [0, 200, 400], backend: 1 },
    faults: [{ atMs: 11_404, kind: 'wrong-network', ms: 2361 }],
  },
  {
    title: 'a host that gets another address while its daemon is down keeps its subnet and is reached',
    history: { startsMs: [0, 200], backend: 1 },
    faults: [
      { atMs: 15_600, kind: 'restart', host: 1, ms: 5000 },
      { atMs: 17_500, kind: 'renumber', host: 1, number: 15 },
    ],
  },
  {
    title: 'so does one whose daemon was killed a few seconds after it got its lease',
    history: { startsMs: [0, 200, 400], backend: 1 },
    faults: [
      { atMs: 9600, kind: 'kill', host: 2, ms: 12_200 },
      { atMs: 19_800, kind: 'renumber', host: 2, number: 18 },
    ],
  },
  {
    title: 'a host that found no free subnet takes one as soon as there is one',
    history: { startsMs: [0, 200], backend: 0 },
    faults: [
      { atMs: 12_900, kind: 'junk', junk: 4, host: 1, ms: 39_500 },
      { atMs: 18_000, kind: 'delete-key', host: 0 },
    ],
  },
  {
    title: 'no etcd lease is left behind by a lease that becomes a reservation',
    history: { seed: 10107, startsMs: [662, 955, 148, 200, 906, 933], backend: 0, tailMs: 420_000 },
    faults: [{ atMs: 25_678, kind: 'reserve', host: 2 }],
  },
  {
    title: 'a key that was deleted and is back in a restored history, where another was deleted at that revision',
    history: { seed: 26691, startsMs: [392, 605, 908, 34, 801], backend: 2 },
    faults: [
      { atMs: 10_905, kind: 'one-way', host: 3, direction: 'request', ms: 13_292 },
      { atMs: 12_450, kind: 'delete-key', host: 3 },
      { atMs: 14_629, kind: 'restore', age: 6, writes: 0, hasNewId: false },
      { atMs: 14_787, kind: 'expire', host: 2 },
    ],
  },
  {
    title: 'a reservation that is lost in a restore is noticed, and the lease written as it should be',
    history: { seed: 27725, startsMs: [910, 749, 756], stockStartsMs: [1001], backend: 0 },
    faults: [
      { atMs: 16_140, kind: 'reserve', host: 2 },
      { atMs: 22_045, kind: 'restore', age: 2, writes: 30, hasNewId: false },
      { atMs: 31_457, kind: 'renumber', host: 2, number: 18 },
    ],
  },
  {
    title: 'a host is reached under its new address although its lease in a former network has its VtepMAC, too',
    history: { seed: 35572, startsMs: [332, 768, 37_396], backend: 1 },
    faults: [
      { atMs: 8299, kind: 'network', second: 7 },
      { atMs: 9419, kind: 'restart', host: 1, ms: 12_141 },
      { atMs: 25_094, kind: 'renumber', host: 1, number: 4 },
    ],
  },
  {
    title: 'a key with the VtepMAC of a host that etcd has forgotten counts as a move of that host',
    history: { seed: 44348, startsMs: [787, 860, 877, 197], backend: 1 },
    faults: [
      { atMs: 6581, kind: 'one-way', host: 3, direction: 'request', ms: 13_010 },
      { atMs: 11_091, kind: 'wipe', ms: 7276, hasNewId: false },
      { atMs: 14_831, kind: 'junk', junk: 12, host: 3, ms: 8414 },
    ],
  },
  {
    title: 'a key that is overwritten again and again is waited for as long as its host puts off to write it',
    history: { seed: 47020, startsMs: [788, 767], backend: 0 },
    faults: [
      { atMs: 20_448, kind: 'overwrite', host: 1, how: 'unreadable' },
      { atMs: 20_618, kind: 'reserve', host: 1 },
      { atMs: 22_178, kind: 'overwrite', host: 1, how: 'unreadable' },
    ],
  },
  {
    title: 'a host whose subnet has another length than configured moves, however late it finds a free one',
    history: { seed: 60938, startsMs: [627, 481, 372], members: 3, backend: 1 },
    faults: [
      { atMs: 11_831, kind: 'junk', junk: 4, host: 2, ms: 38_091 },
      { atMs: 12_151, kind: 'subnet-length', length: 22 },
    ],
  },
  {
    title: 'two hosts with one address that share a key after a wipe are not both to be reached',
    history: { seed: 55103, startsMs: [786, 265, 842], backend: 1 },
    faults: [
      { atMs: 9686, kind: 'same-address', host: 0, other: 1, ms: 8000 },
      { atMs: 10_102, kind: 'wipe', ms: 1858, hasNewId: false },
    ],
  },
];

function historyOf(more: Partial<History>): History {
  return {
    seed: 1,
    startsMs: [0, 100],
    stockStartsMs: [],
    members: 1,
    backend: 0,
    faults: [],
    tailMs: 8000,
    ...more,
  };
}

describe('a simulated history', () => {
  for (const { title, history, faults } of FOUND) {
    it(`holds: ${title}`, async () => {
      const { violation } = await runHistory(historyOf({ ...history, faults }));
      assert.equal(violation?.message, undefined);
    });
  }

  it('is the same byte for byte with the same seed, and another one with another', async () => {
    const tell = async (seed: number): Promise<string> => {
      const lines: string[] = [];
      await runHistory(makeHistory(seed), (line) => lines.push(line));
      return lines.join('\n');
    };
    const [first, again, other] = [await tell(7), await tell(7), await tell(8)];
    assert.ok(first.length > 5000, 'it tells what happens');
    assert.equal(again, first);
    assert.notEqual(other, first);
  });

  it('is shrunk to the faults that it takes to break the same invariant', async () => {
    const faults: Fault[] = [
      { atMs: 7000, kind: 'compact' },
      { atMs: 8000, kind: 'wipe', ms: 0, hasNewId: false },
      { atMs: 9000, kind: 'reset', host: 0 },
      { atMs: 10_000, kind: 'kill', host: 1, ms: 100 },
    ];
    const run = (history: History): Promise<Pick<Outcome, 'violation'>> => {
      const kinds = history.faults.map(({ kind }) => kind);
      const isBroken = kinds.includes('wipe') && kinds.includes('kill');
      const violation = new Violation(isBroken ? 'one owner' : 'guarded', 0, `${kinds.length} faults`);
      return Promise.resolve({ violation });
    };
    const smallest = await shrink(historyOf({ faults }), new Violation('one owner', 0, ''), run);
    assert.deepEqual(
      smallest.history.faults.map(({ kind }) => kind),
      ['wipe', 'kill'],
    );
    assert.equal(smallest.violation?.message, 'one owner: 2 faults');
  });
});
