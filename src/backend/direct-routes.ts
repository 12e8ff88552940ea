import type { PeerReach } from '../container/peer-reach.js';
import type { IpAddress } from '../ip/address.js';
import type { Prefix } from '../ip/prefix.js';
import type { RouteSpec } from '../reconcile/desired.js';
import type { SkipCause, SkippedPrefixes } from './backend.js';
import { additionalDestination } from './families.js';
import { directRoute } from './host-gw.js';

/** Result of {@link directRoutes}. */
export interface DirectRoutes {
  readonly routes: readonly RouteSpec[];
  readonly skipped: readonly SkippedPrefixes[];
}

/**
 * Routes to containers that the real network carries as they are, as backend `host-gw` has them to subnets: via hosts on
 * the link of the underlay's device. Those behind a router are left to it, as it is the next hop of this host anyway. Pure.
 *
 * @param device - of the underlay.
 * @param isOnLink - whether the kernel reaches an address on it without a gateway.
 */
export function directRoutes(
  peers: readonly PeerReach[],
  device: string,
  isOnLink: (address: IpAddress) => boolean,
): DirectRoutes {
  const routes: RouteSpec[] = [];
  const skipped: SkippedPrefixes[] = [];
  for (const { lease, direct, gateways } of peers) {
    const skip = (prefixes: readonly Prefix[], cause: SkipCause, reason: string, hint: string): void => {
      if (prefixes.length > 0) skipped.push({ lease, prefixes, cause, reason, hint });
    };
    for (const family of [4, 6] as const) {
      const prefixes = direct.filter((prefix) => prefix.family === family);
      const gateway = gateways[family];
      if (gateway === undefined) {
        skip(prefixes, 'address', `it has told no IPv${family} address`, `give its interface an IPv${family} address`);
      } else if (isOnLink(gateway)) {
        routes.push(...prefixes.map((prefix) => directRoute(additionalDestination(prefix), gateway, device)));
      } else {
        const hint = 'give the router between them the routes that tsflannelctl docker-networks routes prints';
        skip(prefixes, 'off-link', `${gateway.toString()} is not on the link of ${device}`, hint);
      }
    }
  }
  return { routes, skipped };
}
