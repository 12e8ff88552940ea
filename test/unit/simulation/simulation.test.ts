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
