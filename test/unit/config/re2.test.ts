import assert from 'node:assert/strict';
import { compileRe2 } from '../../../src/config/re2.js';
import { isOverlayError } from '../../../src/errors.js';

describe('compileRe2', () => {
  for (const [pattern, matches, misses] of [
    ['eth', ['eth0', 'veth1'], ['ens3']],
    ['^eth[0-9]+$', ['eth12'], ['veth1', 'eth']],
    ['(?i)^ETH', ['eth0', 'Eth0'], ['veth0']],
    ['(?is)^a.b$', ['A\nB'], ['ab']],
    ['^(?P<kind>en|eth)[[:digit:]]$', ['en1', 'eth2'], ['enp', 'ethx']],
    ['^[[:alpha:]_-]+$', ['br-lan_x'], ['eth0']],
    ['\\Aeth0\\z', ['eth0'], ['eth01', 'veth0']],
    ['^\\[:digit:\\]$', ['[:digit:]'], ['1']],
    ['192\\.0\\.2\\.', ['192.0.2.7'], ['192x0x2x7']],
    ['\\\\A', ['\\A'], ['A']],
    ['^bond\\-0$', ['bond-0'], ['bond0']],
  ] as const) {
    it(`matches with ${pattern} what RE2 matches`, () => {
      const expression = compileRe2(pattern);
      for (const text of matches) assert.match(text, expression);
      for (const text of misses) assert.doesNotMatch(text, expression);
    });
  }

  for (const pattern of ['(', '[a', '*', 'a(?i)b', '(?U)a']) {
    it(`refuses ${pattern}`, () => {
      assert.throws(
        () => compileRe2(pattern),
        (error) => isOverlayError(error, 'ERR_FLAG') && error.message.includes(`"${pattern}"`),
      );
    });
  }
});
