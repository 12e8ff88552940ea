import type { AddressStatus, PoolStatus } from '../container/addresses.js';
import { parsePoolId } from '../container/pool-id.js';
import { networkType } from '../docker/plugin/network-types.js';
import type { DockerPluginStatus } from '../docker/plugin/docker-plugin.js';
import { describeError } from '../errors.js';
import type { PublishedPort } from '../firewall/containers/container-rules.js';
import type {
  AddressPoolStatus,
  ContainerNetworkStatus,
  ContainerNetworksStatus,
  PluginCallStatus,
} from '../observe/container-status.js';
import { describeAspect } from '../reconcile/aspects.js';

/** Puts the account of container networks together. */
export function describeContainerNetworks(
  host: string,
  plugin: DockerPluginStatus,
  addresses: AddressStatus,
): ContainerNetworksStatus {
  const { announcements, calls, endpoints, firewall, kernel, networks, socket } = plugin;
  return {
    host,
    socket,
    networks: networks.map((network): ContainerNetworkStatus => {
      const { id, type, mode, parent, vlan, subnets, isInternal, hasHostAccess } = network;
      const { gateways, routes } = networkType(type).routing(network);
      const own = endpoints.filter(({ networkId }) => networkId === id);
      return {
        id,
        type,
        mode,
        parent,
        vlan: vlan?.id ?? null,
        subnets: subnets.map(({ subnet }) => subnet.toString()),
        pools: subnets.flatMap(({ pool }) => pool ?? []),
        gateways: gateways.map((gateway) => gateway.toString()),
        routes: routes.map(({ destination, gateway }) => ({
          destination: destination.toString(),
          gateway: gateway?.toString() ?? null,
        })),
        isInternal,
        hasHostAccess,
        endpoints: own.map((endpoint) => ({
          id: endpoint.id,
          mac: endpoint.mac,
          addresses: endpoint.addresses.map(({ address, length }) => `${address.toString()}/${length}`),
          isJoined: endpoint.sandbox !== undefined,
          ports: (endpoint.ports ?? []).map(describePort),
        })),
      };
    }),
    pools: addresses.pools.map(describePool),
    isConfirmed: addresses.isConfirmed,
    expiresAt: addresses.expiresAtMs === undefined ? null : iso(addresses.expiresAtMs),
    calls: Object.fromEntries(
      Object.entries(calls).map(([method, each]): [string, PluginCallStatus] => [
        method,
        { calls: each.calls, errors: each.errors, totalSeconds: each.totalMs / 1000, maxSeconds: each.maxMs / 1000 },
      ]),
    ),
    addresses: addresses.counters,
    announcements,
    firewall: {
      table: firewall.table,
      isInPlace: firewall.isInPlace,
      repaired: firewall.repaired,
      lastError: firewall.lastError ?? null,
    },
    problems: kernel.failures.map(
      ({ key, aspect, error }) => `${describeAspect(key, aspect)}: ${describeError(error)}`,
    ),
  };
}

function describePool({ id, subnet, range, blocks, free, uses, shared, seen }: PoolStatus): AddressPoolStatus {
  return {
    id,
    network: parsePoolId(id).name ?? subnet.toString(),
    subnet: subnet.toString(),
    range: range.toString(),
    blocks: blocks.map((block) => block.toString()),
    free,
    uses: uses.map(({ address, mac, owner, sinceMs, state, abandonedSinceMs }) => ({
      address: address.toString(),
      mac: mac ?? null,
      owner: owner ?? null,
      since: iso(sinceMs),
      state,
      abandonedSince: abandonedSinceMs === undefined ? null : iso(abandonedSinceMs),
    })),
    shared: shared.map(({ address }) => address.toString()),
    seen: seen.map(({ address, mac, seenAtMs }) => ({ address: address.toString(), mac, seenAt: iso(seenAtMs) })),
  };
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}

/** As `docker port` shows it, which says nothing of networks of a plugin. */
function describePort({ protocol, hostAddress, hostPort, address, port }: PublishedPort): string {
  const host = hostAddress?.toString() ?? (address.family === 4 ? '0.0.0.0' : '::');
  return `${port}/${protocol} -> ${address.family === 4 ? host : `[${host}]`}:${hostPort}`;
}
