import { networksTitled } from '../container/cluster-networks.js';
import { parsePoolId } from '../container/pool-id.js';
import { IPAM_NAMES } from '../docker/plugin/ipam-driver.js';
import { hasOwnMac } from '../docker/plugin/network.js';
import { IpAddress } from '../ip/address.js';
import { Prefix } from '../ip/prefix.js';
import type { ContainerNetworksStatus } from '../observe/container-status.js';
import type { PluginClient } from './plugin-client.js';

/** A network that this host is in. */
export interface HostNetwork {
  readonly id: string;
  readonly pools: readonly { readonly id: string; readonly subnet: Prefix }[];
  /** Of default routes. */
  readonly gateways: readonly IpAddress[];
  /** Undefined as gateway: on the link. */
  readonly routes: readonly { readonly destination: Prefix; readonly gateway: IpAddress | undefined }[];
  /** Whether its interfaces have MAC addresses of their own. */
  readonly hasOwnMac: boolean;
}

/** A subnet of a network that this host is to enter. */
export interface WantedSubnet {
  readonly name: string | undefined;
  readonly subnet: Prefix;
  /** Undefined: all of it. */
  readonly range: Prefix | undefined;
  /** `first`: the first address that a host can have. */
  readonly gateway: IpAddress | 'first' | 'none';
  readonly auxiliary: readonly IpAddress[];
}

/** A network that this host is to enter. */
export interface WantedNetwork {
  readonly id: string;
  readonly subnets: readonly WantedSubnet[];
  readonly isInternal: boolean;
  /** As those that Docker takes with `-o`. */
  readonly options: Readonly<Record<string, string>>;
}

/** The network of this host that people call so, whoever has made it. */
export function findHostNetwork(title: string, { networks, pools }: ContainerNetworksStatus): HostNetwork | undefined {
  const ids = networksTitled(
    title,
    pools.map(({ id }) => ({ id, ...parsePoolId(id) })),
  ).map(({ id }) => id);
  const network = networks.find((each) => each.pools.some((id) => ids.includes(id)));
  if (network === undefined) return undefined;
  const { id, type, pools: own, gateways, routes } = network;
  return {
    id,
    pools: own.map((each) => ({ id: each, subnet: parsePoolId(each).subnet })),
    gateways: gateways.map((gateway) => IpAddress.parse(gateway)),
    routes: routes.map(({ destination, gateway }) => ({
      destination: Prefix.parse(destination),
      gateway: gateway === null ? undefined : IpAddress.parse(gateway),
    })),
    hasOwnMac: hasOwnMac({ type }),
  };
}

/** Enters this host into a network, as `docker network create` does; what fails leaves nothing behind. */
export async function makeHostNetwork(plugin: PluginClient, wanted: WantedNetwork): Promise<void> {
  const { id: NetworkID, subnets, isInternal, options } = wanted;
  const entered: EnteredSubnet[] = [];
  try {
    for (const subnet of subnets) await enterSubnet(plugin, NetworkID, subnet, entered);
    await plugin.call('NetworkDriver.CreateNetwork', {
      NetworkID,
      Options: { 'com.docker.network.generic': options, 'com.docker.network.internal': isInternal },
      IPv4Data: entered.filter(({ subnet }) => subnet.family === 4).map(dataOf),
      IPv6Data: entered.filter(({ subnet }) => subnet.family === 6).map(dataOf),
    });
  } catch (error) {
    for (const { id } of entered) {
      // Where the daemon does not answer any more, nothing can be undone; what failed is told.
      await plugin.call('IpamDriver.ReleasePool', { PoolID: id, NetworkID }).catch(() => undefined);
    }
    throw error;
  }
}

interface EnteredSubnet {
  readonly id: string;
  readonly subnet: Prefix;
  gateway: IpAddress | undefined;
  readonly auxiliary: readonly IpAddress[];
}

async function enterSubnet(
  plugin: PluginClient,
  NetworkID: string,
  { name, subnet, range, gateway, auxiliary }: WantedSubnet,
  entered: EnteredSubnet[],
): Promise<void> {
  const id = await plugin.callFor(
    'IpamDriver.RequestPool',
    {
      NetworkID,
      AddressSpace: IPAM_NAMES.mac,
      Pool: subnet.toString(),
      SubPool: range === undefined || range.equals(subnet) ? '' : range.toString(),
      Options: name === undefined ? {} : { network: name },
      V6: subnet.family === 6,
    },
    'PoolID',
  );
  const made: EnteredSubnet = { id, subnet, gateway: undefined, auxiliary };
  entered.push(made);
  if (gateway !== 'none') {
    const Address = gateway === 'first' ? '' : gateway.toString();
    const Options = { RequestAddressType: 'com.docker.network.gateway' };
    const given = await plugin.callFor('IpamDriver.RequestAddress', { PoolID: id, Address, Options }, 'Address');
    made.gateway = IpAddress.parse(given.split('/', 1)[0] ?? '');
  }
  for (const address of auxiliary) {
    await plugin.call('IpamDriver.RequestAddress', { PoolID: id, Address: address.toString(), Options: {} });
  }
}

function dataOf({ id, subnet, gateway, auxiliary }: EnteredSubnet): object {
  return {
    AddressSpace: IPAM_NAMES.mac,
    PoolID: id,
    Pool: subnet.toString(),
    Gateway: gateway === undefined ? '' : `${gateway.toString()}/${subnet.length}`,
    AuxAddresses: Object.fromEntries(auxiliary.map((address, index) => [String(index), address.toString()])),
  };
}
