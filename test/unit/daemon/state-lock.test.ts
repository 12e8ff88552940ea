import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { lockStateDirectory } from '../../../src/daemon/state-lock.js';
import { describeError, isOverlayError } from '../../../src/errors.js';
import { RecordingLogger } from '../../support/recorder.js';

describe('lock on the state directory', () => {
  let parent: string;
  let log: RecordingLogger;
  beforeEach(() => {
    parent = mkdtempSync(path.join(tmpdir(), 'tsflannel-test-'));
    log = new RecordingLogger();
  });
  afterEach(() => rmSync(parent, { recursive: true }));

  it('makes the directory, for nobody else to look into', async () => {
    const directory = path.join(parent, 'new/state');
    const release = await lockStateDirectory(directory, log);
    assert.equal(statSync(directory).mode & 0o777, 0o700);
    release();
  });

  it('refuses a second daemon, by whatever path it comes, and says who is there', async () => {
    const directory = path.join(parent, 'state');
    const release = await lockStateDirectory(directory, log);
    symlinkSync(directory, path.join(parent, 'link'));
    for (const same of [directory, path.join(parent, 'link')]) {
      await assert.rejects(lockStateDirectory(same, log), (error) => {
        assert.ok(isOverlayError(error, 'ERR_STATE_LOCKED'));
        assert.match(describeError(error), new RegExp(`another tsflanneld, pid ${process.pid}, runs on it; stop that`));
        return true;
      });
    }
    await lockStateDirectory(path.join(parent, 'other'), log);
    release();
    (await lockStateDirectory(directory, log))();
  });

  it('is done without where there can be no such directory', async () => {
    writeFileSync(path.join(parent, 'file'), '');
    const release = await lockStateDirectory(path.join(parent, 'file/state'), log);
    release();
    assert.equal(log.find(/not locked/, 'debug').length, 1);
  });
});
