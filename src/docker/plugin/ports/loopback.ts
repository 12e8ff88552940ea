import { SYSCTL } from '../../../netlink/sysctl-paths.js';
import type { DesiredState } from '../../../reconcile/desired.js';
import { type NetworkSet, bridgeNameOf, isRouted } from '../network.js';

/**
 * What this host needs to reach published ports under 127.0.0.1: packets from there leave through the bridges.
 *
 * @param isFiltered - whether the rules are in place that keep containers from coming the same way.
 */
export function loopbackState({ networks }: NetworkSet, isFiltered: boolean): Partial<DesiredState> {
  const bridges = new Set(networks.filter((each) => isRouted(each) && !each.isInternal).map(bridgeNameOf));
  return {
    sysctls: isFiltered ? [...bridges].map((device) => ({ path: SYSCTL.routeLocalnet(device), value: '1' })) : [],
  };
}
