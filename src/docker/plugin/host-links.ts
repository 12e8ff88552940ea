import { OverlayError } from '../../errors.js';
import type { AddressInfo } from '../../netlink/address.js';
import type { LinkInfo } from '../../netlink/link.js';
import type { NetlinkMonitor } from '../../netlink/monitor.js';
import type { NetlinkEvent, NetlinkTopic } from '../../netlink/monitor.js';
import type { NetlinkLinks } from '../../netlink/netlink.js';
import type { ContainerNetwork, NetworkSubnet } from './network.js';
import type { ParentDevice } from './network-type.js';

/** What the plugin needs of the kernel of this host. */
export interface PluginNetlink {
  readonly links: Pick<NetlinkLinks, 'list' | 'get' | 'add' | 'set' | 'del'>;
  readonly addresses: { list(): Promise<readonly AddressInfo[]> };
  subscribe(topics: readonly NetlinkTopic[], onEvent: (event: NetlinkEvent) => void): Pick<NetlinkMonitor, 'close'>;
}

/** Finds interfaces of this host. */
export class HostLinks {
  /** @param defaultParent - name of the interface that the daemon itself uses, where it has one. */
  constructor(
    private readonly netlink: PluginNetlink,
    private readonly defaultParent: () => string | undefined,
  ) {}

  /**
   * The interface that a new network lies on.
   *
   * @param name - undefined: the one with an address in one of the subnets, else the daemon's.
   * @throws {@link OverlayError} `ERR_CONTAINER_NETWORK`
   */
  async choose(name: string | undefined, subnets: readonly NetworkSubnet[]): Promise<ParentDevice> {
    const links = await this.netlink.links.list();
    const chosen = name ?? (await this.inSubnet(subnets, links)) ?? this.defaultParent();
    const link = links.find((each) => each.name === chosen);
    if (link === undefined) throw noParent(chosen, links);
    const master = links.find(({ index }) => index === link.masterIndex);
    const upper = links.filter(({ lowerIndex, kind }) => lowerIndex === link.index && kind !== 'veth');
    return { link, master, upper };
  }

  /**
   * The interface of a network that exists.
   *
   * @throws {@link OverlayError} `ERR_CONTAINER_NETWORK`
   */
  async parentOf({ parent }: ContainerNetwork): Promise<LinkInfo> {
    const link = this.netlink.links.get(parent);
    if (link?.name === parent) return link;
    throw noParent(parent, await this.netlink.links.list());
  }

  private async inSubnet(subnets: readonly NetworkSubnet[], links: readonly LinkInfo[]): Promise<string | undefined> {
    const addresses = await this.netlink.addresses.list();
    const isCandidate = (index: number): LinkInfo | undefined =>
      links.find((link) => link.index === index && !link.isLoopback && link.kind !== 'macvlan');
    return addresses
      .filter(({ address }) => subnets.some(({ subnet }) => subnet.contains(address)))
      .map(({ index }) => isCandidate(index)?.name)
      .find((name) => name !== undefined);
  }
}

function noParent(name: string | undefined, links: readonly LinkInfo[]): OverlayError {
  const names = links.filter(({ isLoopback }) => !isLoopback).map((link) => link.name);
  const why =
    name === undefined
      ? 'no interface of this host has an address in its subnet'
      : `this host has no interface ${name}`;
  return new OverlayError('ERR_CONTAINER_NETWORK', `cannot find the parent of the network: ${why}`, {
    ...(name === undefined ? {} : { context: { dev: name } }),
    hint: `name one with -o parent=; there are ${names.slice(0, 20).join(', ')}`,
    isRetryable: true,
  });
}
