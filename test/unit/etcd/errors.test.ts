import assert from 'node:assert/strict';
import { classifyFailure, unavailableError } from '../../../src/etcd/errors.js';

describe('classifyFailure', () => {
  for (const [details, detail] of [
    [
      'No connection established. Last error: connect ECONNREFUSED 192.0.2.1:2379 (2026-11-21T17:15:21.533Z). Resolution note: ',
      'connect ECONNREFUSED 192.0.2.1:2379',
    ],
    [
      'No connection established. Last error: connect ECONNREFUSED 192.0.2.1:2379. Resolution note: some address',
      'connect ECONNREFUSED 192.0.2.1:2379',
    ],
    [
      "No connection established. Last error: Error: Hostname/IP does not match certificate's altnames: IP: 192.0.2.1\nis not in the list. Resolution note: ",
      "Hostname/IP does not match certificate's altnames: IP: 192.0.2.1\nis not in the list",
    ],
    ['No connection established. Last error: null. Resolution note: ', 'no connection established'],
    [
      'No connection established. Last error: null. Resolution note: Name resolution failed for target dns:etcd.example:2379',
      'Name resolution failed for target dns:etcd.example:2379',
    ],
    ['round_robin: No connection established. Last error: read ECONNRESET', 'read ECONNRESET'],
    ['No addresses resolved. Resolution note: Name resolution failed', 'Name resolution failed'],
  ] as const) {
    it(`tells what keeps a connection from coming about, not when, of "${details.slice(0, 80)}"`, () => {
      assert.deepEqual(classifyFailure({ code: 14, details }), { kind: 'endpoint', detail });
    });
  }

  for (const [code, details, kind] of [
    [14, 'No connection established', 'endpoint'],
    [14, 'etcdserver: no leader', 'endpoint'],
    [14, 'etcdserver: request timed out', 'endpoint'],
    [4, 'Deadline exceeded', 'endpoint'],
    [1, 'Cancelled', 'endpoint'],
    [13, 'Received RST_STREAM with code 2', 'endpoint'],
    [undefined, undefined, 'endpoint'],
    [16, 'etcdserver: invalid auth token', 'token'],
    [3, 'etcdserver: revision of auth store is old', 'token'],
    [3, 'etcdserver: user name is empty', 'no-user'],
    [9, 'etcdserver: authentication is not enabled', 'no-auth'],
    [11, 'etcdserver: mvcc: required revision has been compacted', 'compacted'],
    [5, 'etcdserver: requested lease not found', 'gone'],
    [9, 'etcdserver: lease already exists', 'exists'],
  ] as const) {
    it(`calls "${details ?? 'no details'}" ${kind}`, () => {
      assert.equal(classifyFailure({ code, details }).kind, kind);
    });
  }

  for (const [code, details, errorCode, hint, isRetryable] of [
    [
      3,
      'etcdserver: authentication failed, invalid user ID or password',
      'ERR_ETCD_AUTH',
      /check --etcd-username/,
      false,
    ],
    [7, 'etcdserver: permission denied', 'ERR_ETCD_AUTH', /grant/, false],
    [16, 'whatever', 'ERR_ETCD_AUTH', /role/, false],
    [8, 'etcdserver: mvcc: database space exceeded', 'ERR_ETCD_REQUEST', /defragment/, true],
    [8, 'etcdserver: too many requests', 'ERR_ETCD_REQUEST', /^$/, true],
    [3, 'etcdserver: key is not provided', 'ERR_ETCD_REQUEST', /^$/, false],
  ] as const) {
    it(`turns "${details}" into ${errorCode}`, () => {
      const failure = classifyFailure({ code, details });
      assert.ok(failure.kind === 'final');
      assert.equal(failure.error.code, errorCode);
      assert.equal(failure.error.isRetryable, isRetryable);
      assert.match(failure.error.hint ?? '', hint);
      assert.ok(failure.error.message.includes(details));
    });
  }
});

describe('unavailableError', () => {
  it('names the endpoints and what to check', () => {
    const targets = ['192.0.2.1:2379', '192.0.2.2:2379'];
    const plain = unavailableError('connect ECONNREFUSED', { targets, isTls: false });
    assert.match(plain.message, /cannot reach etcd at 192\.0\.2\.1:2379, 192\.0\.2\.2:2379: connect ECONNREFUSED/);
    assert.match(plain.hint ?? '', /etcd runs/);
    assert.equal(plain.isRetryable, true);
    assert.match(unavailableError('connect ECONNREFUSED', { targets, isTls: true }).hint ?? '', /etcd runs/);
    const tls = unavailableError('self-signed certificate in certificate chain', { targets, isTls: true });
    assert.match(tls.hint ?? '', /--etcd-cafile/);
  });
});
