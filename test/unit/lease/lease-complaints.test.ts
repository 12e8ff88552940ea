import assert from 'node:assert/strict';
import type { Quarantined } from '../../../src/lease/admission.js';
import { LeaseComplaints } from '../../../src/lease/lease-complaints.js';
import { FakeClock } from '../../support/fake-clock.js';
import { badEntry, leaseRecord } from '../../support/lease-world.js';
import { RecordingLogger } from '../../support/recorder.js';

describe('LeaseComplaints', () => {
  let clock: FakeClock;
  let log: RecordingLogger;
  let complaints: LeaseComplaints;

  beforeEach(() => {
    clock = new FakeClock();
    log = new RecordingLogger();
    complaints = new LeaseComplaints(log, clock);
  });

  const quarantined = (n: number, revision = 10): Quarantined => ({
    key: `10.6.${n}.0-24`,
    lease: leaseRecord(n, { revision }),
    reason: 'outside-network',
    detail: 'it is outside',
  });

  it('tells of thousands in one line with a few examples', () => {
    complaints.tellBad(Array.from({ length: 50_000 }, (_, n) => badEntry(`junk-${n}`)));
    assert.equal(log.lines.length, 1);
    const [line] = log.lines;
    assert.equal(line?.fields.count, 50_000);
    assert.equal(line.fields.kind, 'unreadable');
    assert.equal(line.fields.detail, 'junk-0: it is not JSON; junk-1: it is not JSON; junk-2: it is not JSON');
  });

  it('tells ten at once, then one line a minute, and leaves none out', async () => {
    const total = (): number => log.lines.reduce((sum, { fields }) => sum + Number(fields.count), 0);
    for (let n = 0; n < 14; n++) complaints.tellBad([badEntry(`junk-${n}`)]);
    assert.equal(log.lines.length, 10);
    await clock.advance(59_999);
    assert.equal(log.lines.length, 10);
    await clock.advance(1);
    assert.equal(log.lines.length, 11);
    assert.match(log.lines.at(-1)?.fields.detail ?? '', /^junk-10: .*; junk-11: .*; junk-12: /);
    assert.equal(total(), 14);
    assert.equal(clock.pending, 0, 'nothing waits');
    for (let second = 0; second < 3600; second++) {
      complaints.tellBad([badEntry(`more-${second}`)]);
      await clock.advance(1000);
    }
    await clock.advance(60_000);
    assert.ok(log.lines.length <= 11 + 61, String(log.lines.length));
    assert.equal(total(), 14 + 3600);
  }).timeout(30_000);

  it('grants ten at once again after ten quiet minutes', async () => {
    for (let n = 0; n < 11; n++) complaints.tellBad([badEntry(`junk-${n}`)]);
    await clock.advance(11 * 60_000);
    log.lines.length = 0;
    for (let n = 0; n < 11; n++) complaints.tellBad([badEntry(`again-${n}`)]);
    assert.equal(log.lines.length, 10);
  });

  it('counts a lease once for each revision and reason', () => {
    assert.equal(complaints.tellQuarantined([quarantined(1), quarantined(2)]), 2);
    assert.equal(complaints.tellQuarantined([quarantined(1), quarantined(2)]), 0);
    assert.equal(complaints.tellQuarantined([quarantined(1), quarantined(2, 11)]), 1);
    assert.equal(complaints.tellQuarantined([{ ...quarantined(1), reason: 'overlaps-own' }, quarantined(2, 11)]), 1);
    assert.deepEqual(
      log.find(/not believed/, 'warn').map(({ fields }) => [fields.kind, fields.count]),
      [
        ['outside-network', 2],
        ['outside-network', 1],
        ['overlaps-own', 1],
      ],
    );
    for (const { fields } of log.lines) assert.ok(fields.hint !== undefined);
  });

  it('says when it is over, and no more often than that it began', async () => {
    for (let turn = 0; turn < 1000; turn++) {
      complaints.tellQuarantined([quarantined(turn % 250)]);
      complaints.tellQuarantined([]);
    }
    assert.equal(log.find(/believed again/, 'info').length, 10);
    await clock.advance(60_000);
    assert.deepEqual(
      log.lines.slice(-2).map(({ message, fields }) => [message, fields.count]),
      [
        ['leases are not believed and not routed', 990],
        ['every lease in the store is believed again', undefined],
      ],
    );
  });

  it('tells at its end what still waits, once, and ends its timers', async () => {
    for (let n = 0; n < 12; n++) complaints.tellBad([badEntry(`junk-${n}`)]);
    assert.equal(clock.pending, 1);
    complaints.close();
    complaints.close();
    assert.equal(clock.pending, 0);
    await clock.advance(600_000);
    assert.deepEqual([log.lines.length, log.lines.at(-1)?.fields.count], [11, 2]);
  });
});
