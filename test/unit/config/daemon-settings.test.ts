import assert from 'node:assert/strict';
import { type DaemonSettings, parseSettings, settingsOf } from '../../../src/config/daemon-settings.js';
import { parseCommandLine } from '../../../src/config/flags.js';

function settings(...argv: string[]): DaemonSettings {
  const line = parseCommandLine(argv, {});
  assert.ok(line.kind === 'run');
  return settingsOf(line.options, '/srv');
}

describe('settingsOf', () => {
  it('tells of every daemon where etcd and its files are', () => {
    assert.deepEqual(settings(), {
      flags: {
        'etcd-endpoints': 'http://127.0.0.1:4001,http://127.0.0.1:2379',
        'etcd-prefix': '/coreos.com/network',
        'subnet-file': '/run/flannel/subnet.env',
        'state-dir': '/var/lib/tsflannel',
        'status-socket': '/run/flannel/tsflanneld.sock',
      },
      withheld: [],
    });
  });

  it('makes names of files absolute, and only those', () => {
    const { flags } = settings('--etcd-cafile=ca.pem', '--state-dir=../state', '--etcd-prefix=relative');
    assert.deepEqual(
      [flags['etcd-cafile'], flags['state-dir'], flags['etcd-prefix']],
      ['/srv/ca.pem', '/state', 'relative'],
    );
  });

  it('withholds the password and says so', () => {
    const told = settings('--etcd-username=overlay', '--etcd-password=s3cret');
    assert.doesNotMatch(JSON.stringify(told), /s3cret/);
    assert.deepEqual([told.flags['etcd-username'], told.withheld], ['overlay', ['etcd-password']]);
  });
});

describe('parseSettings', () => {
  it('reads what was told', () => {
    const told = settings('--etcd-username=overlay', '--etcd-password=s3cret');
    assert.deepEqual(parseSettings(JSON.stringify(told)), told);
  });

  it('passes over flags of another release and values that are no texts', () => {
    const flags = { 'etcd-prefix': '/a', 'a-new-flag': '1', 'subnet-file': 3, constructor: 'x' };
    assert.deepEqual(parseSettings(JSON.stringify({ flags, withheld: ['x', 1] })), {
      flags: { 'etcd-prefix': '/a' },
      withheld: ['x'],
    });
  });

  for (const text of ['', 'null', '[]', '"flags"', '{}', '{"flags":{}}', '{"flags":null,"withheld":[]}']) {
    it(`takes ${JSON.stringify(text)} for none`, () => assert.equal(parseSettings(text), undefined));
  }
});
