import type { Prefix } from '../../ip/prefix.js';
import type { Clock } from '../../clock.js';
import type { Logger } from '../../log.js';
import type { LinkInfo } from '../../netlink/link.js';
import { RateLimitedLog } from '../../rate-limited-log.js';
import type { DesiredState, ProxyNeighSpec } from '../../reconcile/desired.js';
import { answersForOthers } from '../../reconcile/uplink-parameters.js';
import { onLinkDevice } from '../../underlay/on-link-device.js';
import { proxyAnnouncements } from './announcement.js';
import type { AnnouncementPort } from './announcer.js';
import type { HostFacts } from './host-access.js';
import type { ContainerNetwork, NetworkSet } from './network.js';

/**
 * Has this host answer neighbour solicitations for the containers of networks with `-o ndp-proxy=true`, on the device
 * whose on-link prefix their subnet is a part of: for exactly those that run here.
 */
export function proxiedStates(
  set: NetworkSet,
  facts: Pick<HostFacts, 'links' | 'addresses' | 'mark'>,
): readonly Partial<DesiredState>[] {
  return set.networks
    .filter(({ hasNdpProxy }) => hasNdpProxy)
    .flatMap((network) => ipv6SubnetsOf(network).map((subnet) => proxiedState(network, subnet, set, facts)));
}

/** The subnets in which the proxy entries of this host are the plugin's. */
export function proxyScope({ networks }: NetworkSet): readonly Prefix[] {
  return networks.flatMap(ipv6SubnetsOf);
}

function ipv6SubnetsOf({ subnets }: ContainerNetwork): readonly Prefix[] {
  return subnets.map(({ subnet }) => subnet).filter(({ family }) => family === 6);
}

function proxiedState(
  { id }: ContainerNetwork,
  subnet: Prefix,
  { endpoints }: NetworkSet,
  facts: Pick<HostFacts, 'links' | 'addresses' | 'mark'>,
): Partial<DesiredState> {
  const uplink = onLinkDevice(subnet, facts, ({ alias }) => alias !== facts.mark);
  if (uplink === undefined) return {}; // its addresses are routed here
  const running = endpoints.filter(({ networkId, sandbox }) => networkId === id && sandbox !== undefined);
  return {
    sysctls: answersForOthers(uplink.name),
    proxyNeighbours: running
      .flatMap(({ addresses }) => addresses.map(({ address }) => address))
      .filter((address) => subnet.contains(address))
      .map((address) => ({ device: uplink.name, address })),
  };
}

/**
 * Tells the link of the addresses that this host begins to answer for: whoever knows them at another host sends here at
 * once. The kernel's answers as a proxy do not override what is known (RFC 4861 7.2.8).
 */
export class ProxyAnnouncer {
  private known: ReadonlySet<string> | undefined;
  private readonly failures: RateLimitedLog;

  constructor(
    private readonly port: Pick<AnnouncementPort, 'send'>,
    private readonly log: Logger,
    clock: Clock,
  ) {
    this.failures = new RateLimitedLog(clock);
  }

  /** @param proxies - all of them; those of the first call were answered for before this process. */
  follow(proxies: readonly ProxyNeighSpec[], links: readonly LinkInfo[]): void {
    const { known } = this;
    this.known = new Set(proxies.map(({ address }) => address.toString()));
    if (known === undefined) return;
    const fresh = proxies.filter(({ address }) => !known.has(address.toString()));
    for (const [link, frames] of proxyAnnouncements(fresh, links)) this.send(link, frames);
  }

  private send(link: LinkInfo, frames: readonly Uint8Array[]): void {
    try {
      this.port.send(link, frames);
    } catch (error) {
      this.failures.tell((count) =>
        this.log.warn('addresses of containers not announced on the uplink', {
          dev: link.name,
          count,
          error,
        }),
      );
    }
  }
}
