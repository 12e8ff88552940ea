import { type DesiredState, mergeStates } from '../../reconcile/desired.js';
import { type HostFacts, hostAccessStates } from './host-access.js';
import type { NetworkSet } from './network.js';

/** What Ethernet carries (RFC 894), for networks that lie on no interface. */
const ETHERNET_MTU = 1500;

/** Everything that has to be on this host for its container networks, besides the interfaces of containers. */
export function hostState(set: NetworkSet, facts: HostFacts): DesiredState {
  const links = set.networks
    .filter(({ isInternal }) => isInternal)
    .map(({ parent: name, mtu = ETHERNET_MTU }) => ({ kind: 'dummy' as const, name, mtu }));
  return mergeStates([{ links }, ...hostAccessStates(set, facts)]);
}
