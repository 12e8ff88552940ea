import { CONTAINER_RULE_CHECKS } from './checks/container-rules.js';
import { CONTAINER_CHECKS } from './checks/containers.js';
import { CONTAINER_NETWORK_CHECKS } from './checks/container-networks.js';
import { CONTAINER_PORT_CHECKS } from './checks/container-ports.js';
import { CONTAINER_REACH_CHECKS } from './checks/container-reach.js';
import { DAEMON_CHECKS } from './checks/daemon.js';
import { DOCKER_CHECKS } from './checks/docker.js';
import { EXTENSION_CHECKS } from './checks/extension.js';
import { FIREWALL_CHECKS } from './checks/firewall.js';
import { HOST_CHECKS } from './checks/host.js';
import { KERNEL_PATH_CHECKS } from './checks/kernel-path.js';
import { LEASE_CHECKS, publicIpCheck } from './checks/leases.js';
import { PEER_CHECKS } from './checks/peers.js';
import { PROXIED_CHECKS } from './checks/proxied.js';
import { ROUTE_CHECKS } from './checks/routes.js';
import { STORE_CHECKS } from './checks/store.js';
import { WIREGUARD_CHECKS, wireguardModuleCheck } from './checks/wireguard.js';
import type { Check, DoctorFacts, Finding } from './facts.js';

/** Everything the doctor looks for, in the order of the report: what others depend on comes first. */
export const CHECKS: readonly Check[] = [
  ...STORE_CHECKS,
  publicIpCheck,
  wireguardModuleCheck,
  ...DAEMON_CHECKS,
  ...KERNEL_PATH_CHECKS,
  ...EXTENSION_CHECKS,
  ...LEASE_CHECKS,
  ...HOST_CHECKS,
  ...ROUTE_CHECKS,
  ...FIREWALL_CHECKS,
  ...CONTAINER_RULE_CHECKS,
  ...DOCKER_CHECKS,
  ...CONTAINER_NETWORK_CHECKS,
  ...CONTAINER_REACH_CHECKS,
  ...CONTAINER_PORT_CHECKS,
  ...PROXIED_CHECKS,
  ...WIREGUARD_CHECKS,
  ...PEER_CHECKS,
  ...CONTAINER_CHECKS,
];

/** Runs every check; a finding that another one explains is folded below that. */
export function diagnose(facts: DoctorFacts): readonly Finding[] {
  const findings: Finding[] = [];
  for (const { id, follows = [], run } of CHECKS) {
    for (const found of run(facts)) {
      const finding: Finding = { check: id, ...found, consequences: [] };
      const cause = findings.findIndex((earlier) => follows.includes(earlier.check) && concerns(earlier, finding));
      const explaining = findings[cause];
      if (explaining === undefined) findings.push(finding);
      else findings[cause] = { ...explaining, consequences: [...explaining.consequences, finding] };
    }
  }
  return findings;
}

/** Whether a cause reaches all that its supposed consequence is about. */
function concerns({ subnets: reached }: Finding, { subnets }: Finding): boolean {
  return reached === undefined || (subnets !== undefined && subnets.every((subnet) => reached.includes(subnet)));
}
