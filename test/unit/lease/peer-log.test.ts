import assert from 'node:assert/strict';
import { PeerLog } from '../../../src/lease/peer-log.js';
import { FakeClock } from '../../support/fake-clock.js';
import { leaseRecord } from '../../support/lease-world.js';
import { RecordingLogger } from '../../support/recorder.js';

describe('PeerLog', () => {
  let clock: FakeClock;
  let log: RecordingLogger;
  let peerLog: PeerLog;

  beforeEach(() => {
    clock = new FakeClock();
    log = new RecordingLogger();
    peerLog = new PeerLog(log, clock);
  });

  const peers = (count: number, from = 1): ReturnType<typeof leaseRecord>[] =>
    Array.from({ length: count }, (_, index) => leaseRecord(from + index));
  const lines = (): unknown[] => log.lines.map(({ message, fields }) => [message, fields.subnet ?? fields.count]);

  it('writes a line for each of a few, one for many, and none for nobody', () => {
    peerLog.tell('joined', peers(2));
    peerLog.tell('left', peers(200));
    peerLog.tell('changed', []);
    assert.deepEqual(lines(), [
      ['peer joined', '10.5.1.0/24'],
      ['peer joined', '10.5.2.0/24'],
      ['peers left', 200],
    ]);
    assert.equal(
      log.lines[2]?.fields.detail,
      '10.5.1.0/24 at 192.0.2.1, 10.5.2.0/24 at 192.0.2.2, 10.5.3.0/24 at 192.0.2.3 and 197 more',
    );
  });

  it('makes a few lines of many who come one by one, and counts each', async () => {
    for (let n = 0; n < 200; n++) {
      peerLog.tell('joined', peers(1, n + 1));
      await clock.advance(60);
    }
    peerLog.close();
    assert.ok(log.lines.length <= 13, String(log.lines.length));
    const counted = log.lines.reduce((sum, { fields }) => sum + (fields.count ?? 1), 0);
    assert.equal(counted, 200);
    assert.equal(clock.pending, 0);
  });
});
