import type { LinkInfo } from '../../netlink/link.js';
import { netlinkErrno } from '../../netlink/socket.js';
import type { LinkKinds } from '../../reconcile/desired.js';
import type { PluginNetlink } from './host-links.js';
import { type ContainerNetwork, isRouted } from './network.js';

/** What Ethernet carries (RFC 894), for networks that lie on no interface. */
const ETHERNET_MTU = 1500;

/** Not the name of any network's: those end in hexadecimal digits. */
const PROBE = 'tsfi-probe';

type InternalKind = 'dummy' | 'bridge';

/**
 * The devices that internal networks lie on: dummy devices, and bridges without ports where the kernel has none.
 *
 * @remarks A bridge is everywhere that Docker is, but second best: it loses its carrier, and the containers their
 * network, when somebody sets its MAC address, as udev does (`MACAddressPolicy=persistent`).
 */
export class InternalParents {
  private preferred: InternalKind | undefined;

  constructor(private readonly netlink: PluginNetlink) {}

  /**
   * The devices that have to be there for these networks. What exists stays of its kind: containers are on it.
   *
   * @throws {@link OverlayError} `ERR_NETLINK`
   */
  desired(networks: readonly ContainerNetwork[], links: readonly LinkInfo[]): readonly LinkKinds[InternalKind][] {
    const internal = networks.filter((network) => network.isInternal && !isRouted(network));
    return internal
      .filter(({ parent }, index) => internal.findIndex((each) => each.parent === parent) === index)
      .map(({ parent: name, mtu = ETHERNET_MTU }) => {
        const present = links.find((link) => link.name === name)?.kind;
        const kind = isInternalKind(present) ? present : (this.preferred ??= this.probe());
        return kind === 'bridge' ? { kind, name, mtu, mac: undefined } : { kind, name, mtu };
      });
  }

  private probe(): InternalKind {
    const { links } = this.netlink;
    try {
      links.add({ kind: 'dummy', name: PROBE });
    } catch (error) {
      const errno = netlinkErrno(error);
      if (errno === 'EOPNOTSUPP') return 'bridge';
      if (errno !== 'EEXIST') throw error; // a crash left it
    }
    const made = links.get(PROBE);
    if (made !== undefined) links.del(made);
    return 'dummy';
  }
}

function isInternalKind(kind: string | undefined): kind is InternalKind {
  return kind === 'dummy' || kind === 'bridge';
}
