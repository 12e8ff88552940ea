import assert from 'node:assert/strict';
import { Turns } from '../../src/turns.js';
import { settle } from '../support/fake-clock.js';

describe('Turns', () => {
  let turns: Turns;
  let ended: string[];

  beforeEach(() => {
    turns = new Turns();
    ended = [];
  });

  /** Takes a turn that ends when it is told to. */
  function take(name: string, signal?: AbortSignal): { readonly end: () => void; readonly result: Promise<string> } {
    let end = (): void => {};
    const wait = new Promise<void>((resolve) => (end = resolve));
    const result = turns.take(async () => {
      ended.push(`${name} begins`);
      await wait;
      ended.push(`${name} ends`);
      return name;
    }, signal);
    return { end, result };
  }

  it('are taken one after the other, in the order in which they were asked for', async () => {
    const [a, b] = [take('a'), take('b')];
    b.end();
    await settle();
    assert.deepEqual(ended, ['a begins']);
    a.end();
    assert.deepEqual(await Promise.all([a.result, b.result]), ['a', 'b']);
    assert.deepEqual(ended, ['a begins', 'a ends', 'b begins', 'b ends']);
  });

  it('go on after one that fails, or that throws before it has begun to wait', async () => {
    await assert.rejects(
      turns.take(() => Promise.reject(new Error('in vain'))),
      /in vain/,
    );
    await assert.rejects(
      turns.take(() => assert.fail('at once')),
      /at once/,
    );
    assert.equal(await turns.take(() => Promise.resolve(7)), 7);
  });

  it('are given up by who no longer waits, and not by who has begun', async () => {
    const [first, second] = [new AbortController(), new AbortController()];
    const [a, b] = [take('a', first.signal), take('b', second.signal)];
    await settle();
    first.abort(new Error('too late for a'));
    second.abort(new Error('enough'));
    await assert.rejects(b.result, /enough/);
    a.end();
    assert.equal(await a.result, 'a');
    await settle();
    assert.deepEqual(ended, ['a begins', 'a ends']);
  });
});
