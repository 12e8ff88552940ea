import assert from 'node:assert/strict';
import { LOSS_WINDOW, type PathHealth, UNKNOWN_HEALTH, afterProbe, lossOf } from '../../../src/reach/path-health.js';

/** Probes one second apart: `+` is an answer within 10 ms, `-` a loss, `?` an answer whose time nobody knows. */
function after(outcomes: string, health: PathHealth = UNKNOWN_HEALTH): PathHealth {
  return Array.from(outcomes).reduce(
    (before, outcome, index) =>
      afterProbe(before, {
        sentAtMs: 1000 * (index + 1),
        isAnswered: outcome !== '-',
        roundTripMs: outcome === '+' ? 10 : undefined,
      }),
    health,
  );
}

describe('afterProbe', () => {
  for (const [outcomes, state, sinceMs, what] of [
    ['', 'unknown', undefined, 'nothing is known before the first probe'],
    ['+', 'reachable', 1000, 'one answer is enough at first'],
    ['--', 'unknown', undefined, 'two losses tell nothing'],
    ['---', 'unreachable', 1000, 'three losses in a row do, and it has been so since the first of them'],
    ['--+', 'reachable', 3000, 'an answer ends the doubt'],
    ['+--', 'reachable', 1000, 'a reachable peer may lose two'],
    ['+---', 'unreachable', 2000, 'but not three'],
    ['+--+--', 'reachable', 1000, 'losses count only in a row'],
    ['+-----', 'unreachable', 2000, 'the time is that of the first loss, however long it lasts'],
    ['---+', 'unreachable', 1000, 'one answer does not end an outage'],
    ['---+-+', 'unreachable', 1000, 'nor do two that are not in a row'],
    ['---++', 'reachable', 4000, 'two in a row do, and it has been so since the first of them'],
  ] as const) {
    it(`${outcomes === '' ? '(none)' : outcomes} is ${state}: ${what}`, () => {
      const health = after(outcomes);
      assert.equal(health.state, state);
      assert.equal(health.sinceMs, sinceMs);
    });
  }

  it('smooths the round trip as RFC 6298 does, and takes no sample from a loss or an answer without a time', () => {
    const first = after('+-?');
    assert.equal(first.roundTripMs, 10);
    const { roundTripMs } = afterProbe(first, { sentAtMs: 4000, isAnswered: true, roundTripMs: 90 });
    assert.equal(roundTripMs, 20);
  });

  it('counts the loss over the last sixteen probes', () => {
    assert.equal(lossOf(UNKNOWN_HEALTH), undefined);
    assert.equal(lossOf(after('+-++')), 0.25);
    assert.equal(lossOf(after(`---${'+'.repeat(LOSS_WINDOW)}`)), 0);
    assert.equal(after('+'.repeat(100)).history.length, LOSS_WINDOW);
  });
});
