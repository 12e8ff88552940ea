import type { LinkInfo } from '../../netlink/link.js';
import type { LinkKinds } from '../../reconcile/desired.js';
import type { ContainerNetwork } from './network.js';

/**
 * The sub-interfaces that have to be there for these networks: one for each VLAN of a trunk, however many networks are on
 * it. One that somebody else has made since, such as the system's own network configuration at its start, serves as well
 * and is left alone.
 *
 * @param mark - alias of those that are ours.
 */
export function vlanParents(
  networks: readonly ContainerNetwork[],
  { links, mark }: { readonly links: readonly LinkInfo[]; readonly mark: string },
): readonly LinkKinds['vlan'][] {
  const parents = new Map<string, LinkKinds['vlan']>();
  for (const { parent: name, vlan } of networks) {
    const trunk = links.find((link) => link.name === vlan?.trunk);
    const present = links.find((link) => link.name === name);
    if (vlan === undefined || trunk === undefined || (present !== undefined && present.alias !== mark)) continue;
    parents.set(name, { kind: 'vlan', name, mtu: trunk.mtu, lowerIndex: trunk.index, id: vlan.id });
  }
  return [...parents.values()];
}
