import assert from 'node:assert/strict';
import { allCases, chooseCases } from '../../../bench/cases.js';
import type { CpuUse } from '../../../bench/cpu.js';
import { schedule, undisturbed } from '../../../bench/rounds.js';
import { carries } from '../../../bench/small-packets.js';

const cases = chooseCases(allCases(), ['host-gw', 'vxlan']);

describe('schedule', () => {
  it('takes every case once per link and round, every other round backwards', () => {
    const order = schedule(cases, ['wire', 'veth'], 2).map((cell) => `${cell.round} ${cell.link} ${cell.case.name}`);
    assert.deepEqual(order, [
      ...['1 wire host-gw', '1 wire vxlan', '1 veth host-gw', '1 veth vxlan'],
      ...['2 veth vxlan', '2 veth host-gw', '2 wire vxlan', '2 wire host-gw'],
    ]);
  });
});

describe('undisturbed', () => {
  /** A watch that reports these shares of foreign work, one per try. */
  const watchWith = (shares: readonly number[]): (() => () => CpuUse) => {
    let at = 0;
    return () => () => ({ wallSeconds: 1, ownSeconds: 1, foreignShare: shares[at++] ?? 0, stealShare: 0 });
  };
  const counter = (): (() => Promise<number>) => {
    let count = 0;
    return () => Promise.resolve(++count);
  };

  it('keeps the first result of a quiet machine', async () => {
    const { value, tries } = await undisturbed(counter(), 3, watchWith([0.01]));
    assert.deepEqual([value, tries], [1, 1]);
  });

  it('tries again until the machine was quiet', async () => {
    const { value, tries } = await undisturbed(counter(), 3, watchWith([0.3, 0.02]));
    assert.deepEqual([value, tries], [2, 2]);
  });

  it('keeps the least disturbed result when none was quiet', async () => {
    const { value, cpu, tries } = await undisturbed(counter(), 3, watchWith([0.3, 0.1, 0.2]));
    assert.deepEqual([value, cpu.foreignShare, tries], [2, 0.1, 3]);
  });
});

describe('chooseCases', () => {
  it('takes names and beginnings, in the order of the cases', () => {
    const names = chooseCases(allCases('/bin/flanneld'), ['stock-*', 'vxlan']).map(({ name }) => name);
    assert.deepEqual(names, ['vxlan', 'stock-udp', 'stock-vxlan']);
  });

  it('names the cases when one does not exist', () => {
    assert.throws(() => chooseCases(allCases(), ['vxlam']), /no case vxlam; the cases are host-gw, vxlan/);
  });
});

describe('carries', () => {
  const rate = 100_000;
  for (const { title, trial, expected } of [
    { title: 'all arrived', trial: { sent: 60_000, received: 60_000, seconds: 0.6 }, expected: true },
    { title: 'one in a thousand lost', trial: { sent: 60_000, received: 59_940, seconds: 0.6 }, expected: true },
    { title: 'more lost', trial: { sent: 60_000, received: 59_939, seconds: 0.6 }, expected: false },
    { title: 'the generator fell behind', trial: { sent: 55_000, received: 55_000, seconds: 0.6 }, expected: false },
  ]) {
    it(`${expected ? 'accepts' : 'rejects'} a trial where ${title}`, () => {
      assert.equal(carries(trial, rate), expected);
    });
  }
});
