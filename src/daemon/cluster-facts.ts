import type { ClusterFacts } from '../docker/plugin/ports/rule-input.js';
import type { Prefix } from '../ip/prefix.js';
import type { Lease } from '../lease/lease.js';

/**
 * What the rules of container networks depend on. A host calls containers under its address on the underlay, or under
 * that of its tunnel device, which is the first of its subnet (flannel `pkg/backend/udp/cgo.go`, `vxlan.go`).
 *
 * @param containers - where containers are that belong to none of this host's routed networks.
 */
export function clusterFacts(containers: readonly Prefix[], peers: readonly Lease[]): ClusterFacts {
  return {
    containers,
    hosts: peers.flatMap(({ subnet, ipv6Subnet, attributes: { publicIp, publicIpv6 } }) =>
      [publicIp, publicIpv6, subnet.address, ipv6Subnet?.address].filter((each) => each !== undefined),
    ),
  };
}
