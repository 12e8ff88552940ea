import { RT_TABLE_MAIN } from '../netlink/constants.js';
import type { NetlinkEvent, NetlinkTopic } from '../netlink/monitor.js';
import type { Netlink } from '../netlink/netlink.js';
import type { RouteInfo } from '../netlink/route.js';
import type { DefaultRoute, HostNetwork } from './select.js';
import type { HostNetworkSource } from './watcher.js';

/** What is read of the host's own network, which others configure; {@link Netlink} is the real one. */
export interface HostNetlink {
  readonly links: Pick<Netlink['links'], 'list' | 'get'>;
  readonly addresses: Pick<Netlink['addresses'], 'list'>;
  readonly routes: Pick<Netlink['routes'], 'list' | 'lookup'>;
  /** Follows changes until what it returns is closed, which is up to the caller. */
  subscribe(topics: readonly NetlinkTopic[], onEvent: (event: NetlinkEvent) => void): { close(): void };
  close(): void;
}

/**
 * The host's network as the kernel tells it.
 *
 * @param netlink - must stay open as long as the source is used.
 */
export function netlinkHostNetwork(netlink: HostNetlink): HostNetworkSource {
  return {
    async read({ withRoutes }): Promise<HostNetwork> {
      const links = await netlink.links.list();
      const addresses = await netlink.addresses.list();
      return {
        links: links.map(({ index, name, mtu, isUp, isRunning, isLoopback }) => {
          return { index, name, mtu, isUp: isUp && isRunning, isLoopback };
        }),
        addresses: addresses.map(({ index, address, isDeprecated, isPermanent, isSecondary, isTentative }) => {
          return { ifindex: index, address, isDeprecated, isPermanent, isTentative, isTemporary: isSecondary };
        }),
        defaultRoutes: withRoutes ? await listDefaultRoutes(netlink) : [],
      };
    },

    routeTo(address) {
      const route = netlink.routes.lookup(address);
      return route === undefined || route.index === 0 ? undefined : { ifindex: route.index, source: route.prefsrc };
    },

    onChange(callback) {
      const monitor = netlink.subscribe(['link', 'address', 'route'], (event) => {
        for (const ifindex of devicesOf(event)) callback(ifindex);
      });
      return () => monitor.close();
    },
  };
}

async function listDefaultRoutes(netlink: HostNetlink): Promise<readonly DefaultRoute[]> {
  const routes = [
    ...(await netlink.routes.list({ family: 4, table: RT_TABLE_MAIN })),
    ...(await netlink.routes.list({ family: 6, table: RT_TABLE_MAIN })),
  ];
  return routes.filter(isDefaultRoute).map(({ destination, metric, index, multipath }) => {
    const ifindexes = multipath.length > 0 ? multipath.map((hop) => hop.index) : [index];
    return { family: destination.family, metric, ifindexes: ifindexes.filter((ifindex) => ifindex !== 0) };
  });
}

/** Not the `unreachable default` that the kernel keeps where IPv6 has no route. */
function isDefaultRoute({ destination, type, table }: RouteInfo): boolean {
  return destination.length === 0 && type === 'unicast' && table === RT_TABLE_MAIN;
}

/** Devices that an event is about; undefined stands for any. Routes other than default ones matter to nobody here. */
function devicesOf(event: NetlinkEvent): readonly (number | undefined)[] {
  switch (event.type) {
    case 'link':
      return [event.link.index];
    case 'address':
      return [event.address.index];
    case 'route':
      return isDefaultRoute(event.route) ? [event.route.index] : [];
    case 'resync':
      return [undefined];
    case 'neighbour':
    case 'fdb':
    case 'nexthop':
    case 'filter':
      return [];
  }
}
