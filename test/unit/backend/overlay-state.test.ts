import assert from 'node:assert/strict';
import { type OverlayInput, OverlayState } from '../../../src/backend/overlay-state.js';
import { hostFacts, lease, network } from '../../support/builders.js';

const vxlanPeer = (n: number): ReturnType<typeof lease> =>
  lease(n, { type: 'vxlan', data: { VNI: 1, VtepMAC: `02:00:00:00:00:${n.toString(16).padStart(2, '0')}` } });

function input(changes: Partial<OverlayInput> = {}): OverlayInput {
  return {
    network: network('vxlan'),
    host: hostFacts(),
    own: vxlanPeer(1),
    peers: [],
    optionsFor: () => ({}),
    lingering: [],
    ...changes,
  };
}

describe('overlay state', () => {
  it('reaches each peer by the backend its own lease names', () => {
    const peers = [lease(2), vxlanPeer(3), lease(4, { type: 'host-gw' })];
    const { state, backends } = new OverlayState().compute(input({ peers }));
    assert.deepEqual(state.routes.map((route) => [route.destination.toString(), route.device]).sort(), [
      ['10.5.2.0/24', 'flannel0'],
      ['10.5.3.0/24', 'flannel.1'],
      ['10.5.4.0/24', 'eth0'],
    ]);
    assert.deepEqual([...backends].sort(), ['host-gw', 'udp', 'vxlan']);
  });

  it('loosens the reverse path filter of our devices only while backends are mixed', () => {
    const paths = (peers: OverlayInput['peers']): string[] =>
      new OverlayState().compute(input({ peers })).state.sysctls.map((sysctl) => sysctl.path);
    assert.deepEqual(paths([vxlanPeer(2)]), ['net/ipv6/conf/flannel.1/accept_ra']);
    assert.ok(paths([lease(2)]).includes('net/ipv4/conf/flannel0/rp_filter'));
  });

  it('keeps the devices of a lingering backend without routing anything to it', () => {
    const { state } = new OverlayState().compute(input({ lingering: ['udp'], peers: [vxlanPeer(2)] }));
    assert.deepEqual(
      state.tunnels.map((tunnel) => tunnel.peers.length),
      [1],
    );
    assert.ok(state.routes.every((route) => route.device !== 'flannel0'));
  });

  it('keeps the identity of what did not change', () => {
    const overlay = new OverlayState();
    const fixed = input();
    const before = overlay.compute({ ...fixed, peers: [vxlanPeer(2), vxlanPeer(3)] });
    const stays = vxlanPeer(4);
    const first = overlay.compute({ ...fixed, peers: [stays, vxlanPeer(5)] });
    const second = overlay.compute({ ...fixed, peers: [stays, vxlanPeer(6)] });
    assert.equal(first.state.routes[0], second.state.routes[0]);
    assert.notEqual(before.state.routes[0], first.state.routes[0]);
    const other = overlay.compute({ ...fixed, host: hostFacts(), peers: [stays] });
    assert.notEqual(other.state.routes[0], second.state.routes[0]);
  });

  it('reports peers of backends that do not exist here and reaches the others', () => {
    const { skipped, state } = new OverlayState().compute(
      input({ peers: [lease(2, { type: 'wireguard' }), vxlanPeer(3)] }),
    );
    assert.deepEqual(
      skipped.map((peer) => peer.lease.subnet.toString()),
      ['10.5.2.0/24'],
    );
    assert.equal(state.routes.length, 1);
  });

  it('carries nothing with alloc', () => {
    const { state } = new OverlayState().compute(input({ network: network('alloc'), peers: [lease(2), vxlanPeer(3)] }));
    assert.deepEqual([state.links, state.routes], [[], []]);
  });
});
