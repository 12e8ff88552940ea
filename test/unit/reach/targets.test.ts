import assert from 'node:assert/strict';
import { probePaths } from '../../../src/reach/targets.js';
import { backendContext, hostFacts, lease, network, underlay } from '../../support/builders.js';

type Options = NonNullable<Parameters<typeof lease>[1]>;

function targetsOf(
  backend: string,
  options: Options = {},
  changes: Parameters<typeof backendContext>[0] = {},
): string[] {
  const isDualStack = options.isDualStack ?? false;
  const context = backendContext({
    network: network(backend, {}, isDualStack),
    own: lease(1, { isDualStack }),
    ...changes,
  });
  return probePaths(context, lease(2, { type: backend, ...options })).map(({ family, targets }) => {
    return `${family}: ${targets.map(({ layer, address }) => `${layer} ${address.toString()}`).join(', ')}`;
  });
}

describe('probePaths', () => {
  for (const backend of ['vxlan', 'udp', 'ipip']) {
    it(`asks the device of ${backend} and then the bridge`, () => {
      assert.deepEqual(targetsOf(backend), ['4: overlay 10.5.2.0, bridge 10.5.2.1']);
    });
  }

  it('asks the bridge and then the host with host-gw, which has no device', () => {
    assert.deepEqual(targetsOf('host-gw'), ['4: bridge 10.5.2.1, underlay 192.0.2.2']);
  });

  it('asks in both families of a dual-stack network', () => {
    assert.deepEqual(targetsOf('vxlan', { isDualStack: true }), [
      '4: overlay 10.5.2.0, bridge 10.5.2.1',
      '6: overlay fd00:10:5:2::, bridge fd00:10:5:2::1',
    ]);
    assert.deepEqual(targetsOf('host-gw', { isDualStack: true })[1], '6: bridge fd00:10:5:2::1, underlay 2001:db8::2');
  });

  it('asks in IPv6 only where that is all there is', () => {
    const only = { ...network('vxlan', {}, true), ipv4: undefined };
    assert.deepEqual(targetsOf('vxlan', { isDualStack: true }, { network: only }), [
      '6: overlay fd00:10:5:2::, bridge fd00:10:5:2::1',
    ]);
  });

  it('does not ask udp in IPv6, which it does not carry', () => {
    assert.equal(targetsOf('udp', { isDualStack: true }).length, 1);
  });

  it('leaves out a family that this host has no address in', () => {
    const host = hostFacts({ underlay: underlay({ addressV6: undefined, publicIpv6: undefined }) });
    assert.equal(targetsOf('vxlan', { isDualStack: true }, { host }).length, 1);
  });

  it('asks the way that the peer’s own lease names', () => {
    assert.deepEqual(targetsOf('vxlan', { type: 'host-gw' }), ['4: bridge 10.5.2.1, underlay 192.0.2.2']);
  });

  it('asks nobody with alloc, and nobody whose backend is not known', () => {
    assert.deepEqual(targetsOf('alloc', { type: 'vxlan' }), []);
    assert.deepEqual(targetsOf('vxlan', { type: 'gre' }), []);
  });

  it('does not ask a peer that has not told its address', () => {
    assert.deepEqual(targetsOf('vxlan', { isDualStack: true, attributes: { publicIpv6: undefined } }), []);
  });
});
