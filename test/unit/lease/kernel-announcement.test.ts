import assert from 'node:assert/strict';
import type { JsonValue } from '../../../src/json.js';
import { KERNEL_PATH_DATA, announcesKernelPath, kernelPathAddresses } from '../../../src/lease/kernel-announcement.js';
import { ip, lease } from '../../support/builders.js';

describe('the announcement of the kernel path', () => {
  const of = (data: JsonValue | undefined, type = ''): boolean =>
    announcesKernelPath({ backendType: type, backendData: data });

  it('is one text of backend udp, by either of its names', () => {
    assert.ok(of(KERNEL_PATH_DATA));
    assert.ok(of(KERNEL_PATH_DATA, 'udp'));
  });

  it('is nothing else that a host may write', () => {
    const others: readonly (JsonValue | undefined)[] = [undefined, null, true, 1, '', 'kernel-path', 'kernel-path-12'];
    for (const data of [...others, [KERNEL_PATH_DATA], { 'kernel-path-1': true }])
      assert.ok(!of(data), JSON.stringify(data));
    assert.ok(!of(KERNEL_PATH_DATA, 'vxlan'));
  });

  // Versions before took leases with the same object there for leases of one host, and gave one of them up.
  it('is no object', () => {
    assert.equal(typeof KERNEL_PATH_DATA, 'string');
  });

  it('tells whose way has to be known', () => {
    assert.deepEqual(kernelPathAddresses([lease(2), lease(3, { data: KERNEL_PATH_DATA })]), [ip('192.0.2.3')]);
  });
});
