/**
 * The network of a cluster to which a provider has given one on-link /64 (2001:db8::/64, as the rig has it): a quarter of it
 * is for containers.
 */
export const ON_LINK_NETWORK = {
  Network: '10.5.0.0/16',
  EnableIPv6: true,
  IPv6Network: '2001:db8:0:0:8000::/66',
  IPv6SubnetLen: 80,
  Backend: { Type: 'vxlan' },
};
