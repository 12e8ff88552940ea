import type { ClusterFacts } from '../docker/plugin/ports/rule-input.js';
import type { Prefix } from '../ip/prefix.js';
import type { Lease } from '../lease/lease.js';
import type { ReachNeighbourhood } from './container-reach.js';

/**
 * What the rules of container networks depend on. A host calls containers under its address on the underlay, or under
 * that of its tunnel device, which is the first of its subnet (flannel `pkg/backend/udp/cgo.go`, `vxlan.go`).
 */
export function clusterFacts(
  overlay: readonly Prefix[],
  peers: readonly Lease[],
  { filtered, hosts }: ReachNeighbourhood,
): ClusterFacts {
  const leased = peers.flatMap(({ subnet, ipv6Subnet, attributes: { publicIp, publicIpv6 } }) =>
    [publicIp, publicIpv6, subnet.address, ipv6Subnet?.address].filter((each) => each !== undefined),
  );
  return { overlay, routed: filtered, hosts: [...leased, ...hosts] };
}
