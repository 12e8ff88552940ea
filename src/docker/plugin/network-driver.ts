import type { ContainerAddresses, NetworkProperties } from '../../container/addresses.js';
import { OverlayError, describeError } from '../../errors.js';
import type { PublishedPort } from '../../firewall/containers/container-rules.js';
import { type Family, IpAddress } from '../../ip/address.js';
import { propertyDifference } from '../../container/network-record.js';
import { poolName } from '../../container/pool-errors.js';
import { type PoolId, type PoolIdentity, parsePoolId } from '../../container/pool-id.js';
import { type MacAddress, asLocallyAdministered, macFromBytes } from '../../ip/mac.js';
import type { Prefix } from '../../ip/prefix.js';
import type { Logger } from '../../log.js';
import type { LinkInfo } from '../../netlink/link.js';
import { netlinkErrno } from '../../netlink/socket.js';
import type { EndpointLinks } from './announcer.js';
import type { HostLinks, PluginNetlink } from './host-links.js';
import { IPAM_NAMES, ipamNamed } from './ipam-driver.js';
import type { Call, PluginInterface } from './method.js';
import {
  type ContainerNetwork,
  type Endpoint,
  type NetworkSubnet,
  hasOwnMac,
  hasOwnParent,
  hostEndOf,
  isLayer3,
  isRouted,
  linkNameOf,
  othersOn,
  ownParentOf,
} from './network.js';
import { type RequestedParent, readSettings } from './network-settings.js';
import type { ParentDevice } from './network-type.js';
import { networkType } from './network-types.js';
import type { PoolClaims } from './pool-claims.js';
import { readBindings } from './ports/port-bindings.js';
import type { PublishedPorts } from './ports/published-ports.js';
import type { Request } from './request.js';
import type { PluginState } from './state.js';
import { oneLine } from '../../printable.js';
import { inheritedNetworkId, isAttached, isOwn } from './own-ids.js';
import { Turns } from '../../turns.js';

/** Keys of libnetwork (`netlabel/labels.go`). */
const GENERIC = 'com.docker.network.generic';
const INTERNAL = 'com.docker.network.internal';

/** What {@link networkDriver} is made of. */
export interface NetworkDriverOptions {
  readonly addresses: ContainerAddresses;
  readonly claims: PoolClaims;
  readonly state: PluginState;
  readonly netlink: PluginNetlink;
  readonly links: HostLinks;
  /** Alias of our devices, by which they are told from others'. */
  readonly mark: string;
  readonly log: Logger;
  /** An interface is there, down, and about to be moved into its container; or about to be made as a port of a bridge. */
  readonly onJoin: (endpoint: Endpoint, links: EndpointLinks) => void;
  /** Resolves when what lies on the host for networks is there, if it can be. */
  readonly settled: () => Promise<void>;
  /** Why a device that the host has for networks is not as it should be; undefined if nothing is known to be wrong. */
  readonly failureOf: (device: string) => unknown;
  /** Families in which the overlay carries networks of containers; undefined while nobody knows. */
  readonly overlayFamilies: () => readonly Family[] | undefined;
  /** An interface has left its container, or does so now. */
  readonly onLeave: (endpointId: string) => void;
  /** Networks, or who is in them, have changed. */
  readonly onChange: () => void;
  readonly ports: Pick<PublishedPorts, 'publish'>;
  /** Resolves when the rules of this host are those of the present networks and ports; rejects if they cannot be. */
  readonly filtered: () => Promise<void>;
}

/** Name of the interface inside the container: Docker adds a number. */
const CONTAINER_PREFIX = 'eth';

/**
 * Docker's network driver.
 *
 * @remarks One call at a time: each reads what the one before has written. Every call may come twice, and in any order:
 * what exists is answered for as it is, and what does not exist is none to delete.
 */
export function networkDriver(options: NetworkDriverOptions): PluginInterface {
  const driver = new NetworkDriver(options);
  const turns = new Turns();
  const inTurn =
    (method: (request: Request, call: Call) => Promise<object>) =>
    (request: Request, call: Call): Promise<object> =>
      turns.take(() => method(request, call));
  return {
    name: 'NetworkDriver',
    errorField: 'Err',
    methods: {
      GetCapabilities: () => ({ Scope: 'local', GwAllocChecker: true }),
      GwAllocCheck: (request) => {
        const isInternal = request.nested('Options').flag(INTERNAL);
        return { SkipIPv4: isInternal, SkipIPv6: isInternal };
      },
      CreateNetwork: inTurn((request) => driver.createNetwork(request)),
      DeleteNetwork: inTurn((request) => driver.deleteNetwork(request)),
      CreateEndpoint: inTurn((request, call) => driver.createEndpoint(request, call)),
      DeleteEndpoint: inTurn((request) => driver.deleteEndpoint(request)),
      EndpointOperInfo: (request) => driver.endpointInfo(request),
      Join: inTurn((request) => driver.join(request)),
      Leave: inTurn((request) => driver.leave(request)),
      ProgramExternalConnectivity: inTurn((request) => driver.publish(request)),
      RevokeExternalConnectivity: inTurn((request) => driver.unpublish(request)),
      // Only for drivers of the scope `global`; Docker calls them all the same.
      DiscoverNew: () => ({}),
      DiscoverDelete: () => ({}),
    },
  };
}

class NetworkDriver {
  constructor(private readonly options: NetworkDriverOptions) {}

  async createNetwork(request: Request): Promise<object> {
    const { addresses, claims, state } = this.options;
    const id = request.id('NetworkID');
    if (this.find(id) !== undefined) return {};
    const { network, parent } = await this.plan(id, request);
    if (parent !== undefined) {
      networkType(network.type).checkNetwork(network, parent, othersOn(network, state.contents));
    }
    if (parent !== undefined) refuseSecondName(network, othersOn(network, state.contents).networks);
    for (const subnet of network.subnets) {
      if (subnet.pool === undefined) continue;
      const properties = propertiesOf(network, subnet);
      refuseUnlikeOthers(subnet.pool, properties, state.contents.networks);
      await addresses.agree(subnet.pool, properties);
    }
    await state.change((before) => ({
      ...before,
      networks: [...before.networks, network],
      pools: isOwn(id) ? before.pools : claims.afterTaking(before.pools, network.subnets),
    }));
    if (network.vlan?.trunk !== undefined || isRouted(network)) await this.makeParent(network);
    if (network.hasHostAccess && !hasOwnMac(network) && !isLayer3(network)) await this.leaseForHost(network);
    this.options.log.info('container network made', {
      dev: network.parent,
      subnet: network.subnets.map(({ subnet }) => subnet.toString()).join(' '),
      kind: `${network.type} ${network.mode}`.trim(),
    });
    if (parent?.link.isUp === false)
      this.options.log.warn('parent of a container network is down', { dev: network.parent });
    this.warnOfOwnRoutes(network);
    this.warnOfOverlay(network);
    this.options.onChange();
    return {};
  }

  async deleteNetwork(request: Request): Promise<object> {
    const id = request.id('NetworkID');
    const { claims, log, onChange, state } = this.options;
    const subnets = this.find(id)?.subnets ?? [];
    const endpoints = state.contents.endpoints.filter(({ networkId }) => networkId === id);
    const attached = endpoints.filter((each) => isAttached(each.id));
    if (isOwn(id)) {
      if (attached.length > 0) throw inUse(attached.length);
      await this.dropOwn(id);
      return {};
    }
    for (const endpoint of endpoints) if (!isAttached(endpoint.id)) this.removeLink(endpoint.id);
    // Docker does not know what is attached, and asks nobody: that goes on in a network of its own.
    const heir = attached.length > 0 ? inheritedNetworkId(id) : undefined;
    await state.change((before) => ({
      ...before,
      networks: before.networks.flatMap((each) => {
        if (each.id !== id) return [each];
        return heir === undefined ? [] : [{ ...each, id: heir }];
      }),
      endpoints: before.endpoints.flatMap((each) => {
        if (each.networkId !== id) return [each];
        return heir !== undefined && isAttached(each.id) ? [{ ...each, networkId: heir }] : [];
      }),
    }));
    if (heir !== undefined) log.info('network kept for what is attached to it', { count: attached.length });
    onChange();
    // Docker 20.10 gives its pools back before this.
    if (heir === undefined) await claims.releaseSubnets(subnets);
    return {};
  }

  async createEndpoint(request: Request, { signal }: Call): Promise<object> {
    const { state } = this.options;
    const network = this.network(request);
    const id = request.id('EndpointID');
    const asked = request.nested('Interface');
    const mac = asked.mac('MacAddress');
    const addresses = [asked.interfaceAddress('Address'), asked.interfaceAddress('AddressIPv6')].filter(
      (each) => each !== undefined,
    );
    const known = state.contents.endpoints.find((each) => each.id === id);
    const own = hasOwnMac(network)
      ? (mac ?? known?.mac ?? macFor(addresses.map(({ address }) => address)))
      : await this.parentsMac(network, mac);
    if (known === undefined) {
      for (const { address } of addresses) refuseShared(network, address);
      networkType(network.type).checkEndpoint(network, othersOn(network, state.contents));
    }
    const sandbox = known?.sandbox;
    const endpoint: Endpoint = { id, networkId: network.id, mac: own, addresses, sandbox, isStale: false };
    await state.change((before) => ({
      ...before,
      endpoints: [...before.endpoints.filter((each) => each.id !== id), endpoint],
    }));
    // An engine that was not answered does not delete what it does not have.
    if (signal.aborted && known === undefined) await this.deleteEndpoint(request);
    this.options.onChange();
    // What Docker has set already must not be in the answer.
    return { Interface: mac === undefined && hasOwnMac(network) ? { MacAddress: own } : {} };
  }

  async deleteEndpoint(request: Request): Promise<object> {
    const id = request.id('EndpointID');
    const { onChange, state } = this.options;
    const networkId = state.contents.endpoints.find((each) => each.id === id)?.networkId;
    this.removeLink(id);
    await state.change((before) => ({ ...before, endpoints: before.endpoints.filter((each) => each.id !== id) }));
    onChange();
    const isLast = state.contents.endpoints.every((each) => each.networkId !== networkId);
    if (networkId !== undefined && isAttached(networkId) && isLast) await this.dropOwn(networkId);
    return {};
  }

  endpointInfo(request: Request): object {
    const network = this.find(request.id('NetworkID'));
    return { Value: network === undefined ? {} : { parent: network.parent, mode: network.mode, type: network.type } };
  }

  async join(request: Request): Promise<object> {
    const { state } = this.options;
    const network = this.network(request);
    const endpoint = this.endpoint(request.id('EndpointID'));
    const joined: Endpoint = { ...withoutPorts(endpoint), sandbox: request.required('SandboxKey'), isStale: false };
    this.refuseTakenBack(network, endpoint);
    const parent = await this.parentOf(network);
    this.removeLink(endpoint.id);
    if (isRouted(network)) this.options.onJoin(joined, { own: undefined, parent });
    const own = this.makeLink(network, joined, parent);
    try {
      await state.change((before) => ({
        ...before,
        endpoints: before.endpoints.map((each) => (each.id === joined.id ? joined : each)),
      }));
    } catch (error) {
      this.removeLink(endpoint.id);
      throw error;
    }
    if (!isRouted(network) && !isLayer3(network)) this.options.onJoin(joined, { own, parent });
    this.options.onChange();
    if (isRouted(network)) {
      await this.options.settled();
      await this.refuseOpenPort(network, request);
    }
    return {
      InterfaceName: { SrcName: linkNameOf(endpoint.id), DstPrefix: CONTAINER_PREFIX },
      ...joinRouting(network),
      // Without it Docker would add a second interface that leads out, or refuse the container.
      DisableGatewayService: true,
    };
  }

  async leave(request: Request): Promise<object> {
    const id = request.id('EndpointID');
    this.removeLink(id);
    await this.options.state.change((before) => {
      const endpoint = before.endpoints.find((each) => each.id === id);
      if (endpoint?.sandbox === undefined) return before;
      const left = { ...withoutPorts(endpoint), sandbox: undefined };
      return { ...before, endpoints: before.endpoints.map((each) => (each === endpoint ? left : each)) };
    });
    this.options.onChange();
    return {};
  }

  /** Docker asks this of the one endpoint of a container that its default route leads through. */
  async publish(request: Request): Promise<object> {
    const { filtered, ports, state } = this.options;
    const network = this.network(request);
    // Elsewhere every port of a container is reachable under its own address.
    if (!isRouted(network) || network.isInternal) return {};
    const endpoint = this.endpoint(request.id('EndpointID'));
    const bindings = readBindings(request.nested('Options'));
    if (bindings.length === 0) return {};
    await ports.publish(endpoint, bindings, state.contents.endpoints, (chosen) => this.setPorts(endpoint.id, chosen));
    try {
      await filtered();
    } catch (error) {
      await this.setPorts(endpoint.id, []);
      throw error;
    } finally {
      this.options.onChange();
    }
    return {};
  }

  async unpublish(request: Request): Promise<object> {
    await this.setPorts(request.id('EndpointID'), []);
    this.options.onChange();
    return {};
  }

  private setPorts(endpointId: string, ports: readonly PublishedPort[]): Promise<void> {
    return this.options.state.change((before) => {
      const endpoint = before.endpoints.find(({ id }) => id === endpointId);
      if (endpoint === undefined || (ports.length === 0 && endpoint.ports === undefined)) return before;
      const changed = ports.length === 0 ? withoutPorts(endpoint) : { ...endpoint, ports };
      return { ...before, endpoints: before.endpoints.map((each) => (each === endpoint ? changed : each)) };
    });
  }

  private async plan(
    id: string,
    request: Request,
  ): Promise<{ readonly network: ContainerNetwork; readonly parent: ParentDevice | undefined }> {
    const options = request.nested('Options');
    const given = options.options(GENERIC);
    const { settings, parent: wanted } = readSettings(given);
    const isInternal = options.flag(INTERNAL);
    const data = [...request.list('IPv4Data'), ...request.list('IPv6Data')];
    const subnets = data.map((each) => this.subnet(id, each, !isInternal && !isLayer3(settings)));
    const network = { ...settings, id, isInternal, subnets };
    const isMacSet = data.some((each) => ipamNamed(each.text('AddressSpace')) === IPAM_NAMES.mac);
    if (isMacSet && !isOwn(id) && !hasOwnMac(settings)) throw otherIpamDriver(network, given);
    if (isInternal || isRouted(network)) {
      if (isInternal) refuseOutside(network, wanted);
      return { network: { ...network, parent: this.ownParent(network), vlan: undefined }, parent: undefined };
    }
    const { name: parent, vlan, device } = await this.options.links.choose(wanted, subnets);
    return { network: { ...network, parent, vlan }, parent: device };
  }

  /** The kernel looks up where packets of ipvlan in L3 go with the parent as the way out (`ipvlan_process_v4_outbound()`). */
  private warnOfOwnRoutes(network: ContainerNetwork): void {
    const { uplink } = this.options.links;
    if (!isLayer3(network) || network.isInternal || uplink === undefined || network.parent === uplink) return;
    this.options.log.warn('containers of a network do not reach those of other hosts', {
      dev: network.parent,
      detail: `their packets leave by ${network.parent} alone, and the routes to other hosts lie on ${uplink}`,
      hint: `make the network with -o parent=${uplink}`,
    });
  }

  /** Such a network serves the containers of one host all the same, and their published ports. */
  private warnOfOverlay({ type, subnets, hasNdpProxy }: ContainerNetwork): void {
    const carried = type === 'overlay' ? this.options.overlayFamilies() : undefined;
    if (carried === undefined) return;
    const isReached = (family: Family): boolean => carried.includes(family) || (family === 6 && hasNdpProxy);
    const lost = subnets.filter(({ subnet }) => !isReached(subnet.family));
    if (lost.length === 0) return;
    const names = ([4, 6] as const).filter((family) => lost.some(({ subnet }) => subnet.family === family));
    this.options.log.warn('containers of a network do not reach those of other hosts', {
      subnet: lost.map(({ subnet }) => subnet.toString()).join(' '),
      detail: `the overlay carries no networks of containers over ${names.map((name) => `IPv${name}`).join(' and ')}`,
      hint: 'choose a backend that carries that family, with EnableIPv6 and IPv6Network for IPv6, or make it with -o type=bridge',
    });
  }

  /** @throws {@link OverlayError} `ERR_CONTAINER_NETWORK` */
  private async parentOf(network: ContainerNetwork): Promise<LinkInfo> {
    if (hasOwnParent(network)) await this.options.settled();
    return this.options.links.parentOf(network);
  }

  /** The MAC address of interfaces that have none of their own. */
  private async parentsMac(network: ContainerNetwork, wanted: MacAddress | undefined): Promise<MacAddress> {
    const { mac } = await this.parentOf(network);
    if (mac !== undefined && wanted === undefined) return mac;
    const { type, parent } = network;
    const why = mac === undefined ? `${parent} has none` : `all of type ${type} on ${parent} have ${mac}`;
    throw new OverlayError(
      'ERR_CONTAINER_NETWORK',
      `cannot give an interface the MAC address ${wanted ?? 'of its parent'}: ${why}`,
      {
        context: { dev: parent },
        hint: mac === undefined ? 'ipvlan needs an Ethernet interface' : 'leave out --mac-address',
      },
    );
  }

  /**
   * Gives this host an address of its own in each subnet of a network, by which it and its containers reach each other;
   * without them there is no network.
   */
  private async leaseForHost(network: ContainerNetwork): Promise<void> {
    const { addresses, claims, state } = this.options;
    // The same for all networks of this host with that subnet, and after a crash.
    const own = { kind: 'container', address: undefined, mac: undefined, owner: `host ${network.parent}` } as const;
    const subnets: NetworkSubnet[] = [];
    try {
      for (const each of network.subnets) {
        subnets.push(
          each.pool === undefined ? each : { ...each, host: await addresses.requestAddress(each.pool, own) },
        );
      }
      await state.change((before) => ({
        ...before,
        networks: before.networks.map((each) => (each.id === network.id ? { ...each, subnets } : each)),
      }));
    } catch (error) {
      await this.forget(network.id);
      await claims.releaseHostAddresses(subnets);
      throw error;
    }
  }

  /** Has the sub-interface or bridge of a network made; without it there is no network. */
  private async makeParent(network: ContainerNetwork): Promise<void> {
    const { netlink, settled, failureOf } = this.options;
    await settled();
    if (netlink.links.get(network.parent) !== undefined) return;
    const cause = failureOf(network.parent);
    await this.forget(network.id);
    throw isRouted(network) ? noBridge(network, cause) : noSubInterface(network, cause);
  }

  private subnet(networkId: string, data: Request, hasGateway: boolean): NetworkSubnet {
    const subnet = data.prefix('Pool');
    if (subnet === undefined) {
      throw new OverlayError('ERR_PLUGIN_REQUEST', 'cannot make a network: Docker gave it no subnet');
    }
    return {
      subnet,
      gateway: hasGateway ? data.interfaceAddress('Gateway')?.address : undefined,
      auxiliary: auxiliaryAddresses(data),
      pool: isOwn(networkId) ? poolNamed(data) : this.dockersPool(data, subnet),
    };
  }

  private dockersPool(data: Request, subnet: Prefix): PoolId | undefined {
    return ipamNamed(data.text('AddressSpace')) === undefined ? undefined : this.options.claims.poolFor(subnet);
  }

  /** The device of a network that lies on none of the host: one for all on this host that have the same addresses. */
  private ownParent({ id, type, subnets }: Pick<ContainerNetwork, 'id' | 'type' | 'subnets'>): string {
    const isSame = (each: ContainerNetwork): boolean =>
      (each.isInternal || isRouted(each)) &&
      each.subnets.some(({ pool }) => pool !== undefined && subnets.some((own) => own.pool === pool));
    return this.options.state.contents.networks.find(isSame)?.parent ?? ownParentOf({ id, type });
  }

  /** Removes a network that Docker does not know of, with what it had. */
  private async dropOwn(id: string): Promise<void> {
    const subnets = this.find(id)?.subnets ?? [];
    await this.forget(id);
    await this.options.claims.releaseSubnets(subnets);
  }

  private async forget(id: string): Promise<void> {
    const { onChange, state } = this.options;
    await state.change((before) => ({ ...before, networks: before.networks.filter((each) => each.id !== id) }));
    onChange();
  }

  private find(id: string): ContainerNetwork | undefined {
    return this.options.state.contents.networks.find((network) => network.id === id);
  }

  private network(request: Request): ContainerNetwork {
    const id = request.id('NetworkID');
    const network = this.find(id);
    if (network !== undefined) return network;
    throw new OverlayError(
      'ERR_CONTAINER_NETWORK',
      `cannot use network ${id.slice(0, 12)}: this host does not know it`,
      {
        hint: 'its state file is lost: remove the network from Docker and create it again',
      },
    );
  }

  private endpoint(id: string): Endpoint {
    const endpoint = this.options.state.contents.endpoints.find((each) => each.id === id);
    if (endpoint !== undefined) return endpoint;
    throw new OverlayError('ERR_CONTAINER_NETWORK', `cannot join endpoint ${id.slice(0, 12)}: it was not created`, {
      hint: 'start the container again',
    });
  }

  /** No interface is made for addresses that somebody else may have by now. */
  private refuseTakenBack({ subnets }: ContainerNetwork, { addresses, mac }: Endpoint): void {
    const isOurs = (address: IpAddress): boolean =>
      subnets.some(({ subnet, pool }) => pool !== undefined && subnet.contains(address));
    const gone = addresses.find(({ address }) => isOurs(address) && !this.options.addresses.isGiven(address, mac));
    if (gone === undefined) return;
    throw new OverlayError(
      'ERR_CONTAINER_NETWORK',
      `cannot join with ${gone.address.toString()}: it was taken back, as no container had it for long`,
      { hint: 'start the container again' },
    );
  }

  /** Nobody is let in where he would reach those whom he may not. */
  private async refuseOpenPort({ isIccAllowed }: ContainerNetwork, request: Request): Promise<void> {
    const { netlink, failureOf } = this.options;
    const name = hostEndOf(request.id('EndpointID'));
    if (isIccAllowed || netlink.links.get(name)?.isIsolated === true) return;
    const cause = failureOf(name);
    await this.leave(request);
    const why = cause === undefined ? 'it took too long, or the kernel cannot' : describeError(cause);
    throw new OverlayError('ERR_CONTAINER_NETWORK', `cannot isolate the port ${name} for icc=false: ${why}`, {
      cause,
      context: { dev: name },
      hint: 'start the container again; isolated ports need kernel 4.18',
      isRetryable: true,
    });
  }

  private makeLink(network: ContainerNetwork, endpoint: Endpoint, parent: LinkInfo): LinkInfo {
    const { netlink, mark } = this.options;
    const wanted = networkType(network.type).newLink(network, endpoint, parent);
    try {
      netlink.links.add(wanted);
    } catch (cause) {
      throw explain(cause, network);
    }
    const name = linkNameOf(endpoint.id);
    const made = netlink.links.get(name);
    if (made === undefined) {
      throw new OverlayError('ERR_CONTAINER_NETWORK', `cannot use the new interface ${name}: somebody removed it`);
    }
    netlink.links.set(made, { alias: mark });
    return made;
  }

  /** Docker moves the interface back when the container ends; with one end of a pair goes the other. */
  private removeLink(endpointId: string): void {
    const { netlink, onLeave } = this.options;
    onLeave(endpointId);
    for (const name of [linkNameOf(endpointId), hostEndOf(endpointId)]) {
      const link = netlink.links.get(name);
      if (link?.name === name) netlink.links.del(link);
    }
  }
}

const withoutPorts = ({ id, networkId, mac, addresses, sandbox, isStale }: Endpoint): Endpoint => {
  return { id, networkId, mac, addresses, sandbox, isStale };
};

/** A network that nothing leads out of lies on a device of its own. */
function refuseOutside(
  { hasHostAccess }: Pick<ContainerNetwork, 'hasHostAccess'>,
  { name, vlanId }: RequestedParent,
): void {
  const given = { parent: name !== undefined, vlan: vlanId !== undefined, 'host-access': hasHostAccess };
  const extra = Object.entries(given).find(([, isGiven]) => isGiven)?.[0];
  if (extra === undefined) return;
  throw new OverlayError('ERR_CONTAINER_NETWORK', `cannot use -o ${extra} together with --internal`, {
    hint: 'leave out one of the two: an internal network leads to no interface and to no host',
  });
}

/** What the hosts of the network have to agree on; the parent and the mode of macvlan are each host's own. */
function propertiesOf(network: ContainerNetwork, { gateway }: Pick<NetworkSubnet, 'gateway'>): NetworkProperties {
  const { type, isInternal, vlan } = network;
  return {
    type,
    internal: String(isInternal),
    ...(vlan === undefined ? {} : { vlan: String(vlan.id) }),
    ...(gateway === undefined ? {} : { gateway: gateway.toString() }),
    ...networkType(type).properties(network),
  };
}

/** Networks of one host on one pool are the same network of the cluster: what hosts agree on is the same for all of them. */
function refuseUnlikeOthers(pool: PoolId, properties: NetworkProperties, networks: readonly ContainerNetwork[]): void {
  for (const network of networks) {
    const subnet = network.subnets.find((each) => each.pool === pool);
    const difference = subnet && propertyDifference(propertiesOf(network, subnet), properties);
    if (difference === undefined) continue;
    const { asked, known } = difference;
    throw new OverlayError(
      'ERR_NETWORK_DIFFERS',
      `cannot use the network ${poolName(parsePoolId(pool))} with ${asked}: this host has it with ${known}`,
      { hint: 'use the same options, or give the network a name of its own with --ipam-opt network=NAME' },
    );
  }
}

/** Two networks of the cluster on one interface must not give out the same addresses there. */
function refuseSecondName({ parent, subnets }: ContainerNetwork, others: readonly ContainerNetwork[]): void {
  const identities = (all: readonly NetworkSubnet[]): readonly PoolIdentity[] =>
    all.flatMap(({ pool }) => (pool === undefined ? [] : parsePoolId(pool)));
  const there = identities(others.flatMap((each) => each.subnets));
  for (const asked of identities(subnets)) {
    const known = there.find((each) => poolName(each) !== poolName(asked) && each.range.overlaps(asked.range));
    if (known === undefined) continue;
    throw new OverlayError(
      'ERR_CONTAINER_NETWORK',
      `cannot put the network ${poolName(asked)} on ${parent}: ${poolName(known)} gives out the same addresses there`,
      {
        context: { dev: parent },
        hint: 'names tell networks on different wires apart: use the same one, another parent, or another --ip-range',
      },
    );
  }
}

/**
 * The IPAM driver that is told no MAC addresses takes a container that asks for one of these for another network with
 * the same pool.
 *
 * @throws {@link OverlayError} `ERR_ADDRESS_TAKEN`
 */
function refuseShared({ subnets }: ContainerNetwork, address: IpAddress): void {
  const isIt = (each: IpAddress | undefined): boolean => each?.equals(address) === true;
  const isShared = subnets.some(({ gateway, auxiliary, host }) => [gateway, host, ...auxiliary].some(isIt));
  if (!isShared) return;
  throw new OverlayError(
    'ERR_ADDRESS_TAKEN',
    `cannot give a container ${address.toString()}: it is the gateway, the host or an auxiliary address of its network`,
    { hint: 'ask for another address' },
  );
}

/** As Docker tells them, by the names that they were given. */
function auxiliaryAddresses(data: Request): readonly IpAddress[] {
  return Object.values(data.options('AuxAddresses')).map((text) => {
    const address = IpAddress.tryParse(text.split('/', 1)[0] ?? '');
    if (address !== undefined) return address;
    throw new OverlayError('ERR_PLUGIN_REQUEST', `cannot use ${oneLine(text, 100)} as an auxiliary address`);
  });
}

/** What tsflannelctl, unlike Docker, says of a subnet. */
function poolNamed(data: Request): PoolId {
  const text = data.required('PoolID');
  parsePoolId(text);
  return text as PoolId;
}

/** Docker would set the MAC address that it has sent with the request for an address. */
function otherIpamDriver(
  { type, isInternal, subnets }: Pick<ContainerNetwork, 'type' | 'isInternal' | 'subnets'>,
  given: Readonly<Record<string, string>>,
): OverlayError {
  const words = ['docker network create -d tsflannel --ipam-driver', IPAM_NAMES.noMac];
  if (isInternal) words.push('--internal');
  if (subnets.some(({ subnet }) => subnet.family === 6)) words.push('--ipv6');
  for (const { subnet, pool, gateway } of subnets) {
    const { name, range } = pool === undefined ? {} : parsePoolId(pool);
    words.push('--subnet', subnet.toString());
    if (range?.equals(subnet) === false) words.push('--ip-range', range.toString());
    if (gateway !== undefined) words.push('--gateway', gateway.toString());
    if (name !== undefined) words.push('--ipam-opt', `network=${name}`);
  }
  for (const [name, value] of Object.entries(given)) words.push('-o', `${name}=${value}`);
  return new OverlayError(
    'ERR_CONTAINER_NETWORK',
    `cannot make a network of type ${type} with --ipam-driver ${IPAM_NAMES.mac}: its interfaces have no MAC addresses of their own`,
    { hint: `use the other name of the driver: ${words.join(' ')} NAME` },
  );
}

function inUse(count: number): OverlayError {
  return new OverlayError(
    'ERR_CONTAINER_NETWORK',
    `cannot remove the network: ${count} interfaces are attached to it`,
    {
      hint: 'see them in tsflannelctl docker-networks, and take them away with tsflannelctl detach',
    },
  );
}

/** What Join answers of routes: a static route has type 0 through a next hop, 1 on the link (libnetwork `types.go`). */
function joinRouting(network: ContainerNetwork): object {
  const { gateways, routes } = networkType(network.type).routing(network);
  const of = (family: 4 | 6): string => gateways.find((each) => each.family === family)?.toString() ?? '';
  const StaticRoutes = routes.map(({ destination, gateway }) => ({
    Destination: destination.toString(),
    RouteType: gateway === undefined ? 1 : 0,
    NextHop: gateway?.toString() ?? '',
  }));
  return { Gateway: of(4), GatewayIPv6: of(6), ...(routes.length === 0 ? {} : { StaticRoutes }) };
}

/** As Docker's bridge driver does: `02:42` and the IPv4 address, or the end of the IPv6 address. */
function macFor(addresses: readonly IpAddress[]): MacAddress {
  const bytes = addresses.find(({ family }) => family === 4)?.toBytes() ?? addresses[0]?.toBytes().subarray(12);
  if (bytes === undefined) {
    throw new OverlayError('ERR_PLUGIN_REQUEST', 'cannot make an interface: Docker gave it no address');
  }
  return asLocallyAdministered(macFromBytes(Uint8Array.of(0x02, 0x42, ...bytes)));
}

function noSubInterface({ parent, vlan }: ContainerNetwork, cause: unknown): OverlayError {
  const hasNone = netlinkErrno(cause) === 'EOPNOTSUPP';
  const why = hasNone
    ? 'the kernel has no 802.1Q there'
    : cause === undefined
      ? 'it took too long'
      : describeError(cause);
  return new OverlayError('ERR_CONTAINER_NETWORK', `cannot make the interface ${parent}: ${why}`, {
    cause,
    context: { dev: parent },
    hint: hasNone
      ? `load the module 8021q, and look whether ${vlan?.trunk ?? parent} takes VLANs ("ethtool -k")`
      : 'try again; tsflannelctl status shows what is not as it should be',
    isRetryable: !hasNone,
  });
}

function noBridge({ parent }: ContainerNetwork, cause: unknown): OverlayError {
  const why = cause === undefined ? 'it took too long' : describeError(cause);
  return new OverlayError('ERR_CONTAINER_NETWORK', `cannot make the bridge ${parent}: ${why}`, {
    cause,
    context: { dev: parent },
    hint: 'load the module bridge if the kernel has none, and try again; tsflannelctl status shows what is not as it should be',
    isRetryable: true,
  });
}

/** The kernel's refusals in words of whoever made the network; anything else as it is. */
function explain(cause: unknown, { type, parent, mode }: ContainerNetwork): unknown {
  const errno = netlinkErrno(cause) ?? '';
  if (errno === 'EOPNOTSUPP') {
    return new OverlayError('ERR_CONTAINER_NETWORK', `cannot put an interface on ${parent}: the kernel makes none`, {
      cause,
      context: { dev: parent, errno },
      hint: `load the module ${type}, and look whether this kernel has mode ${mode}`,
    });
  }
  const why = WHY[errno];
  if (why === undefined) return cause;
  return new OverlayError('ERR_CONTAINER_NETWORK', `cannot put an interface on ${parent}: ${why}`, {
    cause,
    context: { dev: parent },
    hint: `look at "ip -d link" for what uses ${parent}, and whether mode ${mode} goes together with it`,
  });
}

const WHY: Readonly<Record<string, string>> = {
  EBUSY: 'another kind of interface uses it already (EBUSY): a bridge, a bond, macvlan or ipvlan',
  EINVAL: 'another macvlan has it in mode passthru, or has to have it alone (EINVAL)',
};
