import assert from 'node:assert/strict';
import { guarded } from '../../src/guard.js';
import { FakeClock, settle } from '../support/fake-clock.js';
import { RecordingLogger } from '../support/recorder.js';

describe('guarded', () => {
  let clock: FakeClock;
  let logger: RecordingLogger;
  beforeEach(() => {
    clock = new FakeClock();
    logger = new RecordingLogger();
  });

  const broken = (recover?: () => void): (() => void) =>
    guarded({ logger, clock, what: 'a test', ...(recover === undefined ? {} : { recover }) }, () => {
      throw new TypeError('nothing there');
    });

  it('hands values on', () => {
    const seen: unknown[] = [];
    guarded({ logger, clock, what: 'a test' }, (...values) => seen.push(...values))(1, 'two');
    assert.deepEqual(seen, [1, 'two']);
  });

  it('turns an exception into one line with its place, and recovers', () => {
    let recovered = 0;
    broken(() => recovered++)();
    assert.equal(recovered, 1);
    const [line] = logger.find(/defect in the daemon/, 'error');
    assert.equal(line?.fields.kind, 'a test');
    assert.match(line.fields.detail ?? '', /^TypeError: nothing there at .*guard\.test\.ts/);
  });

  it('says it once a minute however often it happens, with the number', async () => {
    const callback = broken();
    for (let second = 0; second < 120; second++) {
      callback();
      await clock.advance(1000);
    }
    assert.deepEqual(
      logger.lines.map(({ fields }) => fields.count),
      [1, 60],
    );
  });

  it('takes a rejection for an exception', async () => {
    guarded({ logger, clock, what: 'a test' }, () => Promise.reject(new Error('later')))();
    await settle();
    assert.match(logger.lines[0]?.fields.detail ?? '', /^Error: later/);
  });
});
