import assert from 'node:assert/strict';
import { Metrics } from '../../../src/observe/metrics.js';
import type { DaemonStatus, StatusSource } from '../../../src/observe/status.js';
import { takeStatus } from '../../../src/observe/take-status.js';
import type { Steps } from '../../../src/pace.js';
import { sampleStatus } from '../../support/sample-status.js';

/** A status that takes three turns of the event loop. */
function* slowStatus(): Steps<DaemonStatus> {
  for (let turn = 0; turn < 3; turn++) {
    const endMs = performance.now() + 20;
    while (performance.now() < endMs);
    yield;
  }
  return sampleStatus({ hostName: 'slow' });
}

const source: StatusSource = { status: slowStatus };

describe('takeStatus', () => {
  it('lets others have their turns', async () => {
    let turns = 0;
    const count = (): void => {
      turns++;
      setImmediate(count).unref();
    };
    setImmediate(count).unref();
    assert.equal((await takeStatus(source)).hostName, 'slow');
    assert.ok(turns >= 3, String(turns));
  });

  it('is what metrics are made of', async () => {
    assert.match(await new Metrics(source).text(), /^tsflannel_ready 1$/m);
  });
});
