import assert from 'node:assert/strict';
import { describeError, type ErrorCode } from '../../../src/errors.js';
import { tunnelError, type TunnelFailure } from '../../../src/dataplane/tunnel-errors.js';

const place = { device: 'flannel0', bindAddress: '192.0.2.1', port: 8285 };
const failure = (operation: string, errno: string): TunnelFailure => ({ ...place, operation, errno });

describe('tunnelError', () => {
  const cases: readonly (readonly [operation: string, errno: string, code: ErrorCode])[] = [
    ['open-tun', 'EPERM', 'ERR_NOT_PRIVILEGED'],
    ['open-tun', 'EACCES', 'ERR_NOT_PRIVILEGED'],
    ['open-tun', 'ENOENT', 'ERR_NO_TUN_DEVICE'],
    ['open-tun', 'ENXIO', 'ERR_NO_TUN_DEVICE'],
    ['open-tun', 'ENODEV', 'ERR_NO_TUN_DEVICE'],
    ['open-tun', 'EMFILE', 'ERR_TUNNEL'],
    ['create-device', 'EPERM', 'ERR_NOT_PRIVILEGED'],
    ['create-device', 'EBUSY', 'ERR_DEVICE_TAKEN'],
    ['create-device', 'EINVAL', 'ERR_DEVICE_TAKEN'],
    ['create-device', 'ENOMEM', 'ERR_TUNNEL'],
    ['bind-socket', 'EADDRINUSE', 'ERR_PORT_IN_USE'],
    ['bind-socket', 'EACCES', 'ERR_NOT_PRIVILEGED'],
    ['bind-socket', 'EADDRNOTAVAIL', 'ERR_TUNNEL'],
    ['open-icmp', 'EPERM', 'ERR_NOT_PRIVILEGED'],
    ['open-icmp', 'EMFILE', 'ERR_TUNNEL'],
    ['TUNSETVNETHDRSZ', 'EINVAL', 'ERR_TUNNEL'],
  ];
  for (const [operation, errno, code] of cases) {
    it(`answers ${errno} of ${operation} with ${code}, naming the error and the object`, () => {
      const error = tunnelError(failure(operation, errno));
      assert.equal(error.code, code);
      assert.match(error.message, new RegExp(errno));
      assert.match(error.message, /\/dev\/net\/tun|flannel0|raw socket|192\.0\.2\.1:8285/);
      assert.equal(error.context['errno'], errno);
    });
  }

  it('tells who may own the port and what to do', () => {
    assert.equal(
      describeError(tunnelError(failure('bind-socket', 'EADDRINUSE'))),
      'cannot bind UDP 192.0.2.1:8285: EADDRINUSE (another socket owns the port); stop flanneld or set Backend.Port',
    );
  });

  it('marks as retryable what can pass without anybody changing anything', () => {
    assert.equal(tunnelError(failure('open-tun', 'EMFILE')).isRetryable, true);
    assert.equal(tunnelError(failure('bind-socket', 'EADDRNOTAVAIL')).isRetryable, true);
    assert.equal(tunnelError(failure('open-tun', 'ENOENT')).isRetryable, false);
  });

  it('keeps the cause', () => {
    const cause = new Error('below');
    assert.equal(tunnelError({ ...failure('socket', 'EMFILE'), cause }).cause, cause);
  });
});
