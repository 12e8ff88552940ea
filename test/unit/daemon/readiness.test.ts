import assert from 'node:assert/strict';
import { OverlayState } from '../../../src/backend/overlay-state.js';
import { type ReadinessParts, isReadyForOthers, reasonsNotReady } from '../../../src/daemon/readiness.js';
import type { ObjectKey } from '../../../src/reconcile/object-key.js';
import { defaultBackend, hostFacts, lease, network } from '../../support/builders.js';
import { finish } from '../../support/steps.js';

/** Failures of these objects on a device. */
const failingOn = (device: string | undefined, ...keys: readonly ObjectKey[]): ReadinessParts['kernel'] => ({
  isConverged: false,
  failures: keys.map((key) => ({ key, aspect: 'whole', device, error: new Error('refused'), attempt: 1 })),
});

const failing = (...keys: readonly ObjectKey[]): ReadinessParts['kernel'] => failingOn(undefined, ...keys);

const reasons = (changes: Partial<ReadinessParts> = {}): readonly string[] =>
  reasonsNotReady({
    hasNetwork: true,
    problem: undefined,
    isLeaseHeld: true,
    savedUse: undefined,
    isLeasePublished: true,
    isSubnetFileWritten: true,
    kernel: { isConverged: true, failures: [] },
    lingeringDevices: [],
    wasReady: true,
    ...changes,
  });

describe('readiness', () => {
  it('lacks nothing when lease, kernel and files are in place', () => {
    assert.deepEqual(reasons(), []);
    assert.deepEqual(reasons({ wasReady: false }), []);
  });

  it('names everything that is missing', () => {
    const parts = { hasNetwork: false, problem: 'no interface', isLeaseHeld: false, isSubnetFileWritten: false };
    assert.deepEqual(reasons(parts), [
      'no valid network configuration',
      'no interface',
      'no lease',
      'subnet file not written',
    ]);
  });

  it('is enough for Docker with a saved lease and nothing else missing', () => {
    for (const savedUse of ['all', 'subnet'] as const) {
      const missing = reasons({ isLeaseHeld: false, savedUse });
      assert.match(missing.join(), /^the lease is the saved one/);
      assert.equal(isReadyForOthers(missing), true);
      const more = reasons({ isLeaseHeld: false, savedUse, isSubnetFileWritten: false });
      assert.equal(isReadyForOthers(more), false);
    }
    assert.equal(isReadyForOthers(reasons()), true);
    assert.equal(isReadyForOthers(reasons({ isLeaseHeld: false })), false);
  });

  it('waits until the store tells of the lease what this host wants it to tell', () => {
    assert.deepEqual(reasons({ isLeasePublished: false }), ['lease not yet written as it should be']);
    assert.deepEqual(reasons({ isLeaseHeld: false, isLeasePublished: false }), ['no lease'], 'one reason is enough');
  });

  it('is given up for a device, an address, a tunnel or a setting, not for a route or a single peer', () => {
    for (const key of ['link flannel.1', 'address flannel.1 10.5.1.0/32', 'tunnel flannel0', 'sysctl a/b'] as const) {
      assert.deepEqual(reasons({ kernel: failing(key) }), [`${key}: refused`]);
    }
    const others = ['route 10.5.2.0/24', 'neighbour flannel.1 10.5.2.0', 'fdb flannel.1 02:00:00:00:00:01'] as const;
    assert.deepEqual(reasons({ kernel: failing(...others) }), []);
  });

  it('waits at first until the kernel is as desired, and not for later changes', () => {
    const kernel = failing('route 10.5.2.0/24');
    assert.deepEqual(reasons({ kernel, wasReady: false }), ['kernel state is being set up']);
    assert.deepEqual(reasons({ kernel, wasReady: true }), []);
  });

  it('does not depend on the devices of a former backend', () => {
    const keys = [
      'tunnel flannel0',
      'link flannel0',
      'address flannel0 10.5.1.0/32',
      'sysctl net/ipv4/conf/flannel0/rp_filter',
    ] as const;
    // The backend was changed from udp to vxlan a moment ago; then a peer still names the former one.
    const lingeringDevices = (peers: readonly ReturnType<typeof lease>[]): readonly string[] =>
      finish(
        new OverlayState().compute({
          network: network('vxlan'),
          host: hostFacts(),
          own: lease(1, { type: 'vxlan' }),
          peers,
          backendFor: defaultBackend,
          lingering: ['udp', 'vxlan'],
        }),
      ).lingeringDevices;
    assert.deepEqual(reasons({ kernel: failingOn('flannel0', ...keys), lingeringDevices: lingeringDevices([]) }), []);
    assert.deepEqual(
      reasons({ kernel: failingOn('flannel.1', 'link flannel.1'), lingeringDevices: lingeringDevices([]) }),
      ['link flannel.1: refused'],
    );
    assert.equal(
      reasons({ kernel: failingOn('flannel0', ...keys), lingeringDevices: lingeringDevices([lease(2)]) }).length,
      4,
    );
  });
});
