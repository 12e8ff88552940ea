import { OverlayError } from '../errors.js';
import type { RouteSpec } from '../reconcile/desired.js';
import type { Backend, PeerState } from './backend.js';
import { peerSides } from './families.js';

/**
 * Plain routes via the peers' underlay addresses: no device, no overhead, but every peer must be on the same link.
 *
 * @see flannel `pkg/backend/hostgw/hostgw.go`
 */
export const hostGwBackend: Backend = {
  type: 'host-gw',

  check(_network, _options, underlay) {
    const pairs = [
      [underlay.publicIp, underlay.address],
      [underlay.publicIpv6, underlay.addressV6],
    ] as const;
    for (const [announced, local] of pairs) {
      if (announced === undefined || announced.equals(local)) continue;
      throw new OverlayError(
        'ERR_BACKEND_HOST',
        `cannot run backend host-gw: the announced address ${announced.toString()} is not on ${underlay.device}`,
        { hint: 'leave out --public-ip and --public-ipv6, or choose a backend that encapsulates' },
      );
    }
  },

  mtu: (_network, _options, underlay) => underlay.mtu,
  asksOnLink: () => true,
  leaseData: () => ({ backendType: 'host-gw', backendData: undefined, backendV6Data: undefined }),
  base: () => ({}),

  peer(context, lease): PeerState {
    const { device } = context.host.underlay;
    const routes: RouteSpec[] = [];
    const sides = peerSides(context, lease);
    if ('reason' in sides) return { state: {}, skipped: sides };
    for (const { subnet, publicIp } of sides) {
      if (!context.host.isOnLink(publicIp)) {
        const reason = `${publicIp.toString()} is not on the link of ${device}`;
        const hint = 'host-gw needs all hosts on one link; use vxlan with DirectRouting for hosts behind a router';
        return { state: { routes }, skipped: { lease, cause: 'off-link', reason, hint } };
      }
      routes.push({
        destination: subnet,
        type: 'unicast',
        device,
        gateway: publicIp,
        isOnlink: false,
        scope: 'global',
      });
    }
    return { state: { routes } };
  },
};
