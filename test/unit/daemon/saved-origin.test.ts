import assert from 'node:assert/strict';
import {
  type Here,
  type SavedOrigin,
  decodeOrigin,
  encodeOrigin,
  judgeSavedState,
} from '../../../src/daemon/saved-origin.js';

const NOW = Date.parse('2026-03-01T12:00:00Z');
const HOUR = 3_600_000;

const origin = (changes: Partial<SavedOrigin> = {}): SavedOrigin => ({
  machine: 'm1',
  boot: 'b1',
  etcdPrefix: '/coreos.com/network',
  savedAtMs: NOW - HOUR,
  expiresAtMs: NOW + 23 * HOUR,
  ...changes,
});
const here = (changes: Partial<Here> = {}): Here => ({
  machine: 'm1',
  boot: 'b2',
  etcdPrefix: '/coreos.com/network',
  nowMs: NOW,
  ...changes,
});

describe('a saved state', () => {
  const cases: [string, SavedOrigin | undefined, Here, string][] = [
    ['after a reboot, with time left on its lease', origin(), here(), 'all'],
    ['after a reboot at the very end of its lease', origin({ expiresAtMs: NOW }), here(), 'subnet'],
    ['after a reboot, with its lease over', origin({ expiresAtMs: NOW - 1 }), here(), 'subnet'],
    ['after a reboot, with more than a whole TTL left', origin({ expiresAtMs: NOW + 24 * HOUR + 1 }), here(), 'subnet'],
    ['after a reboot, of a reservation', origin({ expiresAtMs: undefined }), here(), 'all'],
    ['within one boot, with its lease over', origin({ expiresAtMs: NOW - HOUR }), here({ boot: 'b1' }), 'all'],
    ['of another machine', origin(), here({ machine: 'm2' }), 'nothing'],
    ['of another machine within one boot', origin(), here({ machine: 'm2', boot: 'b1' }), 'nothing'],
    ['of another etcd prefix', origin(), here({ etcdPrefix: '/other' }), 'nothing'],
    ['of an earlier version', undefined, here(), 'all'],
  ];
  for (const [title, from, at, expected] of cases) {
    it(`${title} is used for ${expected}`, () => assert.equal(judgeSavedState(from, at).kind, expected));
  }

  it('says why it is not used', () => {
    const reasonOf = (from: SavedOrigin, at: Here): string => {
      const use = judgeSavedState(from, at);
      return use.kind === 'all' ? '' : use.reason;
    };
    assert.match(reasonOf(origin(), here({ machine: 'm2' })), /another machine/);
    assert.match(reasonOf(origin(), here({ etcdPrefix: '/other' })), /etcd prefix \/coreos\.com\/network/);
    assert.match(reasonOf(origin({ expiresAtMs: NOW }), here()), /ended at 2026-03-01T12:00:00\.000Z/);
    assert.match(reasonOf(origin(), here({ nowMs: NOW - 30 * HOUR })), /clock is behind/);
  });

  it('keeps its origin over writing and reading', () => {
    for (const each of [origin(), origin({ expiresAtMs: undefined })]) {
      assert.deepEqual(decodeOrigin(JSON.parse(JSON.stringify(encodeOrigin(each)))), each);
    }
    assert.equal(decodeOrigin(undefined), undefined);
  });

  for (const [title, value] of [
    ['null', null],
    ['a text', 'm1'],
    ['no machine', { ...origin(), machine: undefined }],
    ['a time that no clock shows', { ...origin(), expiresAtMs: 1e300 }],
    ['no end', { ...origin(), expiresAtMs: undefined }],
    ['a saving time that is a text', { ...origin(), savedAtMs: '1' }],
  ] as const) {
    it(`is refused if its origin is ${title}`, () => assert.throws(() => decodeOrigin(value), TypeError));
  }
});
