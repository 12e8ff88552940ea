import assert from 'node:assert/strict';
import { HostNames } from '../../../src/lease/host-names.js';
import { encodeHostStatus } from '../../../src/lease/host-status.js';
import type { ValueEntry } from '../../../src/lease/store.js';
import { FakeClock } from '../../support/fake-clock.js';
import { RecordingLogger } from '../../support/recorder.js';

describe('HostNames', () => {
  let clock: FakeClock;
  let log: RecordingLogger;
  let entries: ValueEntry[];
  let asked: string[];
  let isAway: boolean;
  let names: HostNames;

  const entry = (publicIp: string, hostName: string): ValueEntry => ({
    path: `hosts/${publicIp}`,
    text: encodeHostStatus({ hostName, version: 'v1', leaseKey: '10.5.2.0-24', leaseSince: '' }),
    revision: '1',
    createdAt: '1',
    etcdLeaseId: undefined,
  });

  beforeEach(() => {
    clock = new FakeClock();
    log = new RecordingLogger();
    entries = [entry('192.0.2.2', 'node-2.example.net')];
    asked = [];
    isAway = false;
    const listValues = (path: string): Promise<readonly ValueEntry[]> => {
      asked.push(path);
      return isAway ? Promise.reject(new Error('away')) : Promise.resolve(entries);
    };
    names = new HostNames({ listValues }, clock, log);
  });

  const refresh = (...publicIps: readonly string[]): Promise<void> => names.refresh(new Set(publicIps));

  it('knows a name once it was looked for, and asks the store at most once a minute', async () => {
    assert.equal(names.nameOf('192.0.2.2'), undefined);
    await Promise.all([refresh('192.0.2.2'), refresh('192.0.2.2')]);
    assert.equal(names.nameOf('192.0.2.2'), 'node-2.example.net');
    await clock.advance(59_000);
    await refresh('192.0.2.2');
    assert.deepEqual(asked, ['hosts/']);
    await clock.advance(1000);
    entries = [];
    await refresh('192.0.2.2');
    assert.equal(asked.length, 2);
    assert.equal(names.nameOf('192.0.2.2'), undefined);
  });

  it('takes nothing for a name that is none, and keeps none of hosts that nobody asked about', async () => {
    entries = [
      entry('192.0.2.1', '<img src=x>'),
      entry('192.0.2.2', 'x'.repeat(254)),
      entry('192.0.2.3', 'two words'),
      { ...entry('192.0.2.4', 'x'), text: 'no JSON' },
      entry('192.0.2.5', 'node-5'),
      entry('192.0.2.6', 'x'.repeat(253)),
    ];
    const all = entries.map(({ path }) => path.slice('hosts/'.length));
    await refresh(...all.filter((publicIp) => publicIp !== '192.0.2.5'));
    assert.deepEqual(
      all.filter((publicIp) => names.nameOf(publicIp) !== undefined),
      ['192.0.2.6'],
    );
  });

  it('keeps what it knows while the store is away', async () => {
    await refresh('192.0.2.2');
    isAway = true;
    await clock.advance(60_000);
    await refresh('192.0.2.2');
    assert.equal(names.nameOf('192.0.2.2'), 'node-2.example.net');
    assert.equal(log.find(/names of hosts not read/, 'debug').length, 1);
  });
});
