import assert from 'node:assert/strict';
import { OFFLOADS } from '../../../src/dataplane/tunnel.js';
import { readOptions, UsageError } from '../../../bench/options.js';

const pathOptions = (args: string[], stock?: string) => {
  const options = readOptions(args, stock);
  assert.ok(options.mode === 'path');
  return { ...options, names: options.cases.map(({ name }) => name) };
};

describe('the options of the benchmark', () => {
  it('measure every case on both links in five rounds by default', () => {
    const { names, links, rounds } = pathOptions([]);
    assert.deepEqual(names.slice(0, 7), ['host-gw', 'vxlan', 'native-1', 'native-2', 'kernel', 'auto', 'portable']);
    assert.deepEqual(
      names.slice(7),
      OFFLOADS.map((offload) => `no-${offload}`),
    );
    assert.deepEqual([links, rounds], [['wire', 'veth'], 5]);
  });

  it('add a stock daemon where one is given', () => {
    assert.ok(pathOptions([], '/usr/bin/flanneld').names.includes('stock-udp'));
  });

  it('can be narrowed', () => {
    const { names, links, rounds } = pathOptions([
      '--quick',
      '--only',
      'vxlan,native-*',
      '--link',
      'veth',
      '--rounds',
      '1',
    ]);
    assert.deepEqual([names, links, rounds], [['vxlan', 'native-1', 'native-2'], ['veth'], 1]);
  });

  it('know the control plane', () => {
    assert.deepEqual(readOptions(['control', '--peers', '50']), { mode: 'control', isJson: false, peers: 50 });
  });

  it('make a report anew from a record', () => {
    assert.deepEqual(readOptions(['report', 'a.json']), { mode: 'report', file: 'a.json' });
  });

  for (const args of [
    ['report'],
    ['--only', 'none'],
    ['--link', 'x'],
    ['--rounds', '0'],
    ['--rounds', '1.5'],
    ['what'],
    ['--what'],
  ]) {
    it(`refuse ${args.join(' ')}`, () => {
      assert.throws(() => readOptions(args), UsageError);
    });
  }
});
