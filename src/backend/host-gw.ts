import { OverlayError } from '../errors.js';
import type { IpAddress } from '../ip/address.js';
import type { Lease } from '../lease/lease.js';
import type { RouteSpec } from '../reconcile/desired.js';
import { type BackendContext, NO_LEASE_DATA, type PeerState, defineBackend } from './backend.js';
import { type PeerDestination, peerSides } from './families.js';

/**
 * Plain routes via the peers' underlay addresses: no device, no overhead, but every peer must be on the same link.
 *
 * @see flannel `pkg/backend/hostgw/hostgw.go`
 */
export const hostGwBackend = defineBackend({
  type: 'host-gw',
  publishedType: 'host-gw',
  families: [4, 6],
  deviceKind: undefined,
  deviceNames: undefined,
  rules: {},
  configure: () => ({
    carrier: undefined,
    asksOnLink: true,

    check(_network, underlay) {
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

    mtu: (_network, underlay) => underlay.mtu,
    leaseData: () => NO_LEASE_DATA,
    desired: (context) => ({ base: {}, peer: (lease) => routesTo(lease, context) }),
  }),
});

/** A route as the real network carries packets: via a host on the link. */
export function directRoute(to: PeerDestination, gateway: IpAddress, device: string): RouteSpec {
  return { ...to, type: 'unicast', device, gateway, isOnlink: false };
}

function routesTo(lease: Lease, context: BackendContext): PeerState {
  const { device } = context.host.underlay;
  const routes: RouteSpec[] = [];
  const sides = peerSides(context, lease);
  if ('reason' in sides) return { state: {}, skipped: sides };
  for (const { destinations, publicIp } of sides) {
    if (!context.host.isOnLink(publicIp)) {
      const reason = `${publicIp.toString()} is not on the link of ${device}`;
      const hint = 'host-gw needs all hosts on one link; use vxlan with DirectRouting for hosts behind a router';
      return { state: { routes }, skipped: { lease, cause: 'off-link', reason, hint } };
    }
    routes.push(...destinations.map((to) => directRoute(to, publicIp, device)));
  }
  return { state: { routes } };
}
