import { OverlayError } from '../../errors.js';
import type { AddressInfo } from '../../netlink/address.js';
import { MAX_DEVICE_NAME } from '../../netlink/device-name.js';
import type { LinkInfo } from '../../netlink/link.js';
import type { NetlinkMonitor } from '../../netlink/monitor.js';
import type { NetlinkEvent, NetlinkTopic } from '../../netlink/monitor.js';
import type { NetlinkLinks } from '../../netlink/netlink.js';
import type { ContainerNetwork, NetworkSubnet, NetworkVlan } from './network.js';
import { type RequestedParent, VLAN_ID } from './network-settings.js';
import type { ParentDevice } from './network-type.js';

/** What the plugin needs of the kernel of this host. */
export interface PluginNetlink {
  readonly links: Pick<NetlinkLinks, 'list' | 'get' | 'add' | 'set' | 'del'>;
  readonly addresses: { list(): Promise<readonly AddressInfo[]> };
  subscribe(topics: readonly NetlinkTopic[], onEvent: (event: NetlinkEvent) => void): Pick<NetlinkMonitor, 'close'>;
}

/** Where a new network lies. */
export interface ChosenParent {
  readonly name: string;
  readonly vlan: NetworkVlan | undefined;
  readonly device: ParentDevice;
}

/** Finds interfaces of this host. */
export class HostLinks {
  /**
   * @param mark - alias of what the reconciler has made for networks.
   * @param defaultParent - name of the interface that the daemon itself uses, where it has one.
   */
  constructor(
    private readonly netlink: PluginNetlink,
    private readonly mark: string,
    private readonly defaultParent: () => string | undefined,
  ) {}

  /** The interface by which this host reaches others, where it has one. */
  get uplink(): string | undefined {
    return this.defaultParent();
  }

  /**
   * The interface that a new network lies on: one that is there, or a sub-interface to make for a VLAN.
   *
   * @param wanted.name - undefined: the one with an address in one of the subnets, else the daemon's.
   * @throws {@link OverlayError} `ERR_CONTAINER_NETWORK`
   */
  async choose(wanted: RequestedParent, subnets: readonly NetworkSubnet[]): Promise<ChosenParent> {
    const links = await this.netlink.links.list();
    const name = wanted.name ?? (await this.inSubnet(subnets, links)) ?? this.defaultParent();
    const named = links.find((each) => each.name === name);
    if (named === undefined) {
      const missing = subInterface(name, links);
      if (missing === undefined || (wanted.vlanId ?? missing.id) !== missing.id) throw noParent(name, links);
      return this.onVlan(missing.trunk, missing.id, links);
    }
    const id = vlanIdOf(named);
    if (wanted.vlanId === undefined || wanted.vlanId === id) return this.present(named, links);
    if (id !== undefined) throw otherVlan(named, id, wanted.vlanId);
    return this.onVlan(named, wanted.vlanId, links);
  }

  /** The sub-interface of a VLAN, whatever its name is: the kernel takes a single one for each trunk. */
  private onVlan(trunk: LinkInfo, id: number, links: readonly LinkInfo[]): ChosenParent {
    const present = links.find((link) => link.lowerIndex === trunk.index && vlanIdOf(link) === id);
    if (present !== undefined) return this.present(present, links);
    const name = `${trunk.name}.${id}`;
    refuseName(name, trunk, links);
    return { name, vlan: { id, trunk: trunk.name }, device: { link: trunk, master: undefined, upper: [] } };
  }

  private present(link: LinkInfo, links: readonly LinkInfo[]): ChosenParent {
    const below = links.find(({ index }) => index === link.lowerIndex);
    const id = vlanIdOf(link);
    return {
      name: link.name,
      vlan: id === undefined ? undefined : { id, trunk: link.alias === this.mark ? below?.name : undefined },
      device: {
        link,
        master: links.find(({ index }) => index === link.masterIndex),
        upper: links.filter(
          ({ lowerIndex, kind, alias }) => lowerIndex === link.index && kind !== 'veth' && alias !== this.mark,
        ),
      },
    };
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
      links.find(
        (link) => link.index === index && !link.isLoopback && link.kind !== 'macvlan' && link.kind !== 'ipvlan',
      );
    return addresses
      .filter(({ address }) => subnets.some(({ subnet }) => subnet.contains(address)))
      .map(({ index }) => isCandidate(index)?.name)
      .find((name) => name !== undefined);
  }
}

function vlanIdOf({ details }: LinkInfo): number | undefined {
  return details?.kind === 'vlan' ? details.id : undefined;
}

/** What a name like `eth1.20` asks for; undefined if it is none, or there is no such trunk. */
function subInterface(
  name: string | undefined,
  links: readonly LinkInfo[],
): { readonly trunk: LinkInfo; readonly id: number } | undefined {
  const [, trunkName, digits] = /^(.+)\.([1-9]\d{0,3})$/.exec(name ?? '') ?? [];
  const trunk = links.find((link) => link.name === trunkName);
  const id = Number(digits);
  return trunk === undefined || id > VLAN_ID.max ? undefined : { trunk, id };
}

function refuseName(name: string, trunk: LinkInfo, links: readonly LinkInfo[]): void {
  const why =
    name.length > MAX_DEVICE_NAME
      ? `the name of its interface, ${name}, would be longer than ${MAX_DEVICE_NAME} characters`
      : links.some((link) => link.name === name)
        ? `${name} is something else`
        : undefined;
  if (why === undefined) return;
  throw new OverlayError('ERR_CONTAINER_NETWORK', `cannot put a VLAN on ${trunk.name}: ${why}`, {
    context: { dev: trunk.name },
    hint: 'make the sub-interface yourself under another name, and name that one with -o parent=',
  });
}

function otherVlan({ name }: LinkInfo, id: number, wanted: number): OverlayError {
  return new OverlayError('ERR_CONTAINER_NETWORK', `cannot put VLAN ${wanted} on ${name}: that is VLAN ${id}`, {
    context: { dev: name },
    hint: 'leave out -o vlan=, or name the interface below with -o parent=',
  });
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
