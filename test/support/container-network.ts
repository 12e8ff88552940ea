import type { ContainerNetwork } from '../../src/docker/plugin/network.js';

/** A macvlan network on eth0, as its options are by default, or another one. */
export function containerNetwork(id: string, change: Partial<ContainerNetwork> = {}): ContainerNetwork {
  return {
    id,
    type: 'macvlan',
    mode: 'bridge',
    flag: '',
    addressing: 'subnet',
    mtu: undefined,
    hasHostAccess: false,
    isProbed: true,
    isIccAllowed: true,
    ipv6Firewall: 'closed',
    hasNdpProxy: false,
    parent: 'eth0',
    vlan: undefined,
    isInternal: false,
    subnets: [],
    ...change,
  };
}
