import assert from 'node:assert/strict';
import { foreignSeconds, parseMachine, parseProcess } from '../../../bench/cpu.js';

describe('parseMachine', () => {
  it('adds up what is neither idle nor waiting', () => {
    const text = 'cpu  100 20 300 9999 50 6 70 80 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n';
    assert.deepEqual(parseMachine(text), { busy: 4.96, steal: 0.8 });
  });
});

describe('parseProcess', () => {
  it('reads times behind a name with spaces and parentheses', () => {
    const text = '42 (a) b (c) S 7 42 42 0 -1 4194560 100 0 0 0 11 22 33 44 20 0 1 0 100 1000 10';
    assert.deepEqual(parseProcess(text), { pid: 42, parent: 7, seconds: 1.1 });
  });
});

describe('foreignSeconds', () => {
  it('leaves out ourselves, our descendants and kernel threads', () => {
    const process = (pid: number, parent: number, seconds: number) => ({ pid, parent, seconds });
    const list = [
      process(1, 0, 1),
      process(2, 0, 2),
      process(9, 2, 4),
      process(10, 1, 8),
      process(100, 10, 16),
      process(101, 100, 32),
      process(102, 101, 64),
      process(200, 10, 128),
    ];
    assert.equal(foreignSeconds(list, 100), 1 + 8 + 128);
  });
});
