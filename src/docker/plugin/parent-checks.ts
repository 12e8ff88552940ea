import { OverlayError } from '../../errors.js';
import type { LinkInfo } from '../../netlink/link.js';
import type { ContainerNetwork, NetworkSet } from './network.js';
import type { ParentDevice } from './network-type.js';

/** The two types whose interfaces lie on an interface of the host. */
const KINDS = ['macvlan', 'ipvlan'] as const;

/**
 * Refuses a device that carries no such interfaces, whatever the type: one receive handler per device
 * (`netdev_rx_handler_register()`) serves a bridge, a bond, macvlan or ipvlan.
 *
 * @param others - networks and endpoints on the same parent.
 * @throws {@link OverlayError} `ERR_CONTAINER_NETWORK`
 */
export function checkParent(
  network: ContainerNetwork,
  { link, master, upper }: ParentDevice,
  others: Pick<NetworkSet, 'networks'>,
): void {
  if (link.isLoopback) throw refused(network, 'it is the loopback interface', 'name another one with -o parent=');
  if (master?.kind === 'bridge') {
    throw refused(network, `it is a port of the bridge ${master.name}`, `name the bridge: -o parent=${master.name}`);
  }
  if (master !== undefined) {
    throw refused(network, `it is a part of ${master.name}`, `name that one: -o parent=${master.name}`);
  }
  const other = otherKindOn(network, upper, others);
  if (other !== undefined) throw refused(network, other, 'put macvlan and ipvlan on different interfaces, or VLANs');
  if (network.mtu !== undefined && network.mtu > link.mtu) {
    throw refused(
      network,
      `its MTU is ${link.mtu}, below the wanted ${network.mtu}`,
      'lower -o mtu=, or raise the MTU of the parent',
    );
  }
}

/** What of the other kind has the parent already: interfaces in containers are not seen, but known by their networks. */
function otherKindOn(
  { type }: ContainerNetwork,
  upper: readonly LinkInfo[],
  { networks }: Pick<NetworkSet, 'networks'>,
): string | undefined {
  const isOther = (kind: string): boolean => kind !== type && KINDS.some((each) => each === kind);
  const device = upper.find(({ kind }) => isOther(kind));
  if (device !== undefined) return `the ${device.kind} interface ${device.name} is on it`;
  const network = networks.find((each) => isOther(each.type));
  return network && `the ${network.type} network ${network.id.slice(0, 12)} is on it`;
}

/** Why a network cannot be on its parent, and what to do. */
export function refused({ type, parent }: ContainerNetwork, why: string, hint: string): OverlayError {
  const article = type === 'ipvlan' ? 'an' : 'a';
  return new OverlayError('ERR_CONTAINER_NETWORK', `cannot put ${article} ${type} network on ${parent}: ${why}`, {
    context: { dev: parent },
    hint,
  });
}
