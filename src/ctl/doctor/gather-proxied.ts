import { Prefix } from '../../ip/prefix.js';
import type { AddressInfo } from '../../netlink/address.js';
import type { LinkInfo } from '../../netlink/link.js';
import type { ProxyNeigh } from '../../netlink/neighbour.js';
import type { Netlink } from '../../netlink/netlink.js';
import { ALIAS_PREFIX } from '../../reconcile/ownership.js';
import { onLinkDevice } from '../../underlay/on-link-device.js';
import type { ProxiedFacts, UnansweredNeighbour } from './facts.js';
import type { Ping } from './probe.js';

/** So many silent ones are asked whether they are there. */
const MAX_ASKED = 16;

/** What {@link readProxied} looks at. */
export interface ProxiedSources {
  readonly netlink: {
    readonly neighbours: Pick<Netlink['neighbours'], 'list'>;
    readonly proxies: Pick<Netlink['proxies'], 'list'>;
    readonly routes: Pick<Netlink['routes'], 'lookup'>;
  };
  readonly links: readonly LinkInfo[];
  readonly addresses: readonly AddressInfo[];
  readonly ping: Ping;
}

/** Compares whom this host answers for as a proxy with who is there behind its bridges. */
export async function readProxied({ netlink, links, addresses, ping }: ProxiedSources): Promise<ProxiedFacts> {
  const proxies = await netlink.proxies.list();
  const known = new Set<string>();
  const missing: UnansweredNeighbour[] = [];
  for (const bridge of links.filter(({ kind }) => kind === 'bridge')) {
    const isUplink = ({ alias, index }: LinkInfo): boolean => index !== bridge.index && !alias.startsWith(ALIAS_PREFIX);
    for (const { address, mac, isFailed } of await netlink.neighbours.list(6, bridge.index)) {
      if (mac === undefined || isFailed || !address.isGlobalUnicast) continue;
      const uplink = onLinkDevice(Prefix.host(address), { links, addresses }, isUplink);
      if (uplink === undefined) continue;
      known.add(address.toString());
      const isProxied = proxies.some((each) => each.index === uplink.index && each.address.equals(address));
      if (!isProxied) missing.push({ address, device: uplink.name, bridge: bridge.name });
    }
  }
  const nameOf = ({ index }: ProxyNeigh): string => links.find((link) => link.index === index)?.name ?? '';
  const silent = proxies.filter(({ address }) => !known.has(address.toString()));
  // Whoever is there becomes a neighbour by being asked, whether or not it answers an echo.
  const isAbsent = async ({ address, index }: ProxyNeigh): Promise<boolean> => {
    const route = netlink.routes.lookup(address);
    if (route === undefined || route.index === index) return true; // what comes for it is not passed on
    if (route.gateway !== undefined || (await ping(address.toString())) === undefined) return false;
    const neighbours = await netlink.neighbours.list(6, route.index);
    return !neighbours.some((each) => each.address.equals(address) && each.mac !== undefined && !each.isFailed);
  };
  const asked = silent.slice(0, MAX_ASKED);
  const absent = await Promise.all(asked.map(isAbsent));
  const stale = asked.filter((_, index) => absent[index]);
  return {
    proxied: proxies.map((proxy) => ({ address: proxy.address, device: nameOf(proxy) })),
    stale: stale.map((proxy) => ({ address: proxy.address, device: nameOf(proxy) })),
    missing,
  };
}
