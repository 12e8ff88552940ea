import assert from 'node:assert/strict';
import { HISTORY_ENTRIES, HISTORY_STEP_MS, History, type HistorySource } from '../../../src/observe/history.js';
import { FakeClock } from '../../support/fake-clock.js';
import { RecordingLogger } from '../../support/recorder.js';
import { sampleKernelCounters, sampleStatus, sampleTunnelCounters } from '../../support/sample-status.js';

describe('History', () => {
  let clock: FakeClock;
  let source: HistorySource;
  let history: History;
  let log: RecordingLogger;

  beforeEach(() => {
    clock = new FakeClock();
    source = sampleStatus();
    log = new RecordingLogger();
    history = new History(clock, () => source, log);
  });

  /** Counters of the sample with something added. */
  function grow(packets: number, changes: Partial<HistorySource> = {}): void {
    const [device] = source.devices;
    assert.ok(device !== undefined);
    const devices = [{ ...device, txPackets: device.txPackets + packets, txBytes: device.txBytes + 100 * packets }];
    source = { ...source, devices, ...changes };
  }

  it('has rates of traffic and drops, and the time that etcd took', async () => {
    const { roundTripTimes } = source.store.counters;
    const buckets = roundTripTimes.buckets.map((count, index) => count + (index < 2 ? 2 : 0));
    const times = { buckets, sumSeconds: roundTripTimes.sumSeconds + 0.02 };
    const [tunnel] = source.tunnels;
    assert.ok(tunnel !== undefined);
    const counters = { ...tunnel.counters, drops: { ...tunnel.counters.drops, 'no-route': 107 } };
    grow(500, {
      tunnels: [{ ...tunnel, counters }],
      store: { ...source.store, counters: { ...source.store.counters, roundTripTimes: times } },
    });
    await clock.advance(HISTORY_STEP_MS);
    const [entry, ...more] = history.entries;
    assert.deepEqual(more, []);
    const rates = { txPps: 100, rxPps: 0, txBps: 80_000, rxBps: 0, drops: { 'no-route': 20 }, etcdMs: 5 };
    assert.deepEqual(entry, { at: clock.wallMs(), ...rates });
  });

  it('takes a counter that went back for that of another device, and silence of etcd for nothing', async () => {
    grow(-1000);
    await clock.advance(HISTORY_STEP_MS);
    assert.deepEqual([history.entries[0]?.txPps, history.entries[0]?.etcdMs], [0, null]);
  });

  it('counts by the tunnel where there is no device', async () => {
    source = { ...source, devices: [] };
    await clock.advance(HISTORY_STEP_MS);
    const [tunnel] = source.tunnels;
    assert.ok(tunnel !== undefined);
    source = { ...source, tunnels: [{ ...tunnel, counters: sampleTunnelCounters(2) }] };
    await clock.advance(HISTORY_STEP_MS);
    assert.equal(history.entries[1]?.txPps, 40_000 / 5);
  });

  it('adds what the kernel path has taken before the device could count it', async () => {
    await clock.advance(HISTORY_STEP_MS);
    const [tunnel] = source.tunnels;
    assert.ok(tunnel?.kernelPath);
    const counters = { ...sampleKernelCounters(), sent: { packets: 501, bytes: 10_100 } };
    source = { ...source, tunnels: [{ ...tunnel, kernelPath: { ...tunnel.kernelPath, counters } }] };
    await clock.advance(HISTORY_STEP_MS);
    const { txPps, txBps, rxPps } = history.entries[1] ?? {};
    assert.deepEqual([txPps, txBps, rxPps], [100, 16_000, 0]);
  });

  it('keeps an hour and no more', async () => {
    await clock.advance(HISTORY_STEP_MS * (HISTORY_ENTRIES + 10));
    assert.equal(history.entries.length, 720);
    const [first] = history.entries;
    assert.equal(clock.wallMs() - (first?.at ?? 0), 3_600_000 - HISTORY_STEP_MS);
  }).timeout(30_000);

  it('goes on after a failure, and ends its timer', async () => {
    const good = source;
    source = { ...good, devices: undefined as unknown as HistorySource['devices'] };
    await clock.advance(HISTORY_STEP_MS);
    assert.equal(log.find(/defect/, 'error').length, 1);
    source = good;
    await clock.advance(HISTORY_STEP_MS);
    assert.equal(history.entries.length, 1);
    history.close();
    assert.equal(clock.pending, 0);
  });
});
