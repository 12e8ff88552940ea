import assert from 'node:assert/strict';
import { COMMANDS } from '../../../src/ctl/commands.js';
import { parseInvocation } from '../../../src/ctl/arguments.js';
import { describeOptions, parseCommandLine } from '../../../src/config/flags.js';
import { describeError } from '../../../src/errors.js';
import { parseEndpoints } from '../../../src/etcd/endpoints.js';
import { maskCredentials } from '../../../src/printable.js';

/** Every part of the password that is recognizable. */
const SECRET = /s3cret|hunter/;

/** Endpoints with the password in places where it does not belong; all of them are wrong in some other way, too, or not. */
const ENDPOINTS = [
  'http://root:s3cret@192.0.2.1:2379',
  'http://root:s3cret@192.0.2.1:99999',
  'http://root:s3cret/hunter@192.0.2.1:2379',
  'http://root:s3cret,hunter@192.0.2.1:2379',
  'http://root:7,s3cret,hunter@192.0.2.1:2379',
  'http://root:s3cret@hunter@192.0.2.1:2379',
  'http://192.0.2.1:2379,http://root:s3cret@192.0.2.2:2379,http://root:hunter@192.0.2.3',
  'http://root:s3cret 192.0.2.1:2379',
  'http://root:s3cret',
  'root:s3cret@192.0.2.1',
  'ftp://root:s3cret@192.0.2.1',
  'http:/root:s3cret@192.0.2.1',
];

function errorOf(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    return describeError(error);
  }
  throw new assert.AssertionError({ message: 'nothing was refused' });
}

describe('a password inside an endpoint', () => {
  for (const endpoint of ENDPOINTS) {
    it(`is refused and not repeated: ${endpoint}`, () => {
      const sources: (() => unknown)[] = [
        () => parseCommandLine([`--etcd-endpoints=${endpoint}`], {}),
        () => parseCommandLine(['--etcd-endpoints', endpoint], {}),
        () => parseCommandLine([], { FLANNELD_ETCD_ENDPOINTS: endpoint }),
        () => parseInvocation(COMMANDS, ['status', '--etcd-endpoints', endpoint], {}),
        () => parseInvocation(COMMANDS, ['status'], { FLANNELD_ETCD_ENDPOINTS: endpoint }),
        () => parseEndpoints(endpoint, false),
      ];
      for (const source of sources) assert.doesNotMatch(errorOf(source), SECRET);
    });
  }

  it('is told where it belongs', () => {
    for (const source of [
      () => parseCommandLine(['--etcd-endpoints=http://root:s3cret@192.0.2.1:2379'], {}),
      () => parseEndpoints('http://root:s3cret@192.0.2.1:2379', false),
    ]) {
      const text = errorOf(source);
      assert.match(text, /--etcd-username.*FLANNELD_ETCD_PASSWORD/);
      assert.match(text, /@192\.0\.2\.1:2379/, 'the address itself stays');
    }
  });

  it('is not in the options that are logged, wherever it may stand', () => {
    const line = parseCommandLine(['--kube-api-url=https://root:s3cret@192.0.2.1/x', '--etcd-password=hunter'], {});
    assert.ok(line.kind === 'run');
    const shown = describeOptions(line.options);
    assert.doesNotMatch(JSON.stringify(shown), SECRET);
    assert.equal(shown['etcd-password'], '***');
  });
});

describe('a password behind something that is not understood', () => {
  for (const argv of [
    ['--etcd-pasword=s3cret'],
    ['--etcd-pasword', 's3cret'],
    ['---etcd-password=s3cret'],
    ['--etcd-password:s3cret'],
    ['--etcd-password s3cret'],
    ['etcd-password=s3cret'],
    ['--etcd-password', 'my', 's3cret'],
    ['--iface=eth0', 'FLANNELD_ETCD_PASSWORD=s3cret'],
  ]) {
    it(`is not repeated: ${argv.join(' ')}`, () => {
      assert.doesNotMatch(
        errorOf(() => parseCommandLine(argv, {})),
        SECRET,
      );
      assert.doesNotMatch(
        errorOf(() => parseInvocation(COMMANDS, argv, {})),
        SECRET,
      );
      assert.doesNotMatch(
        errorOf(() => parseInvocation(COMMANDS, ['config', ...argv], {})),
        SECRET,
      );
      assert.doesNotMatch(
        errorOf(() => parseInvocation(COMMANDS, ['status', ...argv], {})),
        SECRET,
      );
    });
  }

  it('is not repeated when its variable is misspelt', () => {
    const line = parseCommandLine([], { FLANNELD_ETCD_PASWORD: 's3cret' });
    assert.ok(line.kind === 'run');
    assert.equal(line.warnings.length, 1);
    assert.doesNotMatch(line.warnings.join(), SECRET);
  });
});

describe('maskCredentials', () => {
  for (const text of [
    'http://192.0.2.1:2379,http://etcd.example.org:2379/',
    'https://[2001:db8::1]:2379',
    'unix:///run/etcd.sock',
    '192.0.2.1',
    'etcd:2379,https://b',
    'http://a:99999',
    '',
  ]) {
    it(`leaves "${text}" alone`, () => assert.equal(maskCredentials(text), text));
  }
});
