import assert from 'node:assert/strict';
import { countCalls } from '../../../bench/tunnel-status.js';

describe('countCalls', () => {
  const counters = {
    tunReads: 1,
    tunWrites: 20,
    socketSends: 300,
    socketReceives: 4000,
    txPackets: 9,
    drops: { short: 1 },
  };

  it('adds up the calls of every tunnel', () => {
    assert.equal(countCalls({ lease: { subnet: 'x' }, tunnels: [{ counters }, { counters }] }), 2 * 4321);
  });

  it('tells a backend without a tunnel from one that made no calls', () => {
    assert.equal(countCalls({ lease: { subnet: 'x' }, tunnels: [] }), undefined);
    assert.equal(countCalls({ tunReads: 0, tunWrites: 0, socketSends: 0, socketReceives: 0 }), 0);
  });
});
