import { type DesiredState, mergeStates } from '../../reconcile/desired.js';
import { bridgeStates } from './bridges.js';
import { type HostFacts, hostAccessStates } from './host-access.js';
import type { InternalParents } from './internal-parents.js';
import type { NetworkSet } from './network.js';
import { proxiedStates } from './proxied-endpoints.js';
import { vlanParents } from './vlan-parents.js';

/**
 * Everything that has to be on this host for its container networks, besides the interfaces of containers.
 *
 * @throws {@link OverlayError} `ERR_NETLINK`
 */
export function hostState(set: NetworkSet, facts: HostFacts, internal: InternalParents): DesiredState {
  const links = [...internal.desired(set.networks, facts.links), ...vlanParents(set.networks, facts)];
  return mergeStates([
    { links },
    ...hostAccessStates(set, facts),
    ...bridgeStates(set, facts),
    ...proxiedStates(set, facts),
  ]);
}
