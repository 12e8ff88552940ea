import assert from 'node:assert/strict';
import { inForce, serviceSettings } from '../../../src/docker/unit-file.js';

describe('unit files', () => {
  it('give the assignments below [Service], with lines joined and comments left out', () => {
    const text = [
      '[Unit]',
      'Description=not ours',
      ' [Service] ',
      '# ExecStart=not this one',
      'ExecStart=/usr/bin/dockerd \\',
      '  ; a comment in between',
      '  -H fd://  ',
      'Environment = A=1 B=2',
      '[Install]',
      'WantedBy=multi-user.target',
    ].join('\n');
    assert.deepEqual(
      serviceSettings('a.service', text).map(({ key, value }) => [key, value.replaceAll(/\s+/g, ' ')]),
      [
        ['ExecStart', '/usr/bin/dockerd -H fd://'],
        ['Environment', 'A=1 B=2'],
      ],
    );
  });

  it('have in force what was given since the last empty assignment', () => {
    const settings = serviceSettings('a.service', '[Service]\nA=1\nB=1\nA=2\nA=\nA=3\nA=4\n');
    const values = (key: string): string[] => inForce(settings, key).map(({ value }) => value);
    assert.deepEqual([values('A'), values('B'), values('C')], [['3', '4'], ['1'], []]);
  });
});
