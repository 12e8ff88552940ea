import type { ContainerRuleInput, FilteredNetwork } from '../../../firewall/containers/container-rules.js';
import type { IpAddress } from '../../../ip/address.js';
import type { Prefix } from '../../../ip/prefix.js';
import type { LinkInfo } from '../../../netlink/link.js';
import { isDockerBridge } from '../../docker-bridge.js';
import { type NetworkSet, bridgeNameOf, isRouted } from '../network.js';
import { publishedBy } from './published-ports.js';

/** What of the cluster the rules of container networks depend on. */
export interface ClusterFacts {
  /** Networks of the daemon itself. */
  readonly overlay: readonly Prefix[];
  /** Routed networks of containers, of this host and of others. */
  readonly routed: readonly Prefix[];
  /** Addresses of its other hosts, under which they call containers. */
  readonly hosts: readonly IpAddress[];
}

/** What the rules of this host are computed from. */
export function ruleInput(
  { networks, endpoints }: NetworkSet,
  links: readonly LinkInfo[],
  { overlay, routed: elsewhere, hosts }: ClusterFacts,
): ContainerRuleInput {
  const routed = networks.filter(isRouted);
  const ids = new Set(routed.map(({ id }) => id));
  return {
    networks: [...new Set(routed.map(bridgeNameOf))].map((bridge): FilteredNetwork => {
      // Docker's networks with the same addresses are one, of which its hosts agree on the options.
      const same = routed.filter((each) => bridgeNameOf(each) === bridge);
      return {
        bridge,
        subnets: same.flatMap(({ subnets }) => subnets.map(({ subnet }) => subnet)),
        isInternal: same.some(({ isInternal }) => isInternal),
        isIccAllowed: same.every(({ isIccAllowed }) => isIccAllowed),
        ipv6Firewall: same.every(({ ipv6Firewall }) => ipv6Firewall === 'open') ? 'open' : 'closed',
      };
    }),
    ports: publishedBy(endpoints.filter(({ networkId }) => ids.has(networkId))),
    overlay,
    routed: elsewhere,
    hosts,
    dockerBridges: links.filter(({ kind, name }) => kind === 'bridge' && isDockerBridge(name)).map(({ name }) => name),
  };
}
