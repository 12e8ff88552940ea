/** Kernel parameters that this program sets or looks at, as paths below `/proc/sys` (ip-sysctl.rst). */
export const SYSCTL = {
  ipv4Forwarding: 'net/ipv4/ip_forward',
  ipv6Forwarding: 'net/ipv6/conf/all/forwarding',
  /** There once `br_netfilter` is loaded. */
  bridgeNetfilter: 'net/bridge/bridge-nf-call-iptables',
  /** RFC 3704 2.2. @param device - or `all`; the kernel uses the larger of the two. */
  reversePathFilter: (device: string) => `net/ipv4/conf/${device}/rp_filter`,
  /** 8: ARP requests for addresses of this host are not answered on it. @param device - as above. */
  arpIgnore: (device: string) => `net/ipv4/conf/${device}/arp_ignore`,
  /** Whether packets that come in on the device are forwarded. */
  deviceForwarding: (device: string) => `net/ipv4/conf/${device}/forwarding`,
  /** ARP requests are answered on it for whatever is routed to other devices. */
  proxyArp: (device: string) => `net/ipv4/conf/${device}/proxy_arp`,
  /** In hundredths of a second: such an answer waits for up to this long. */
  proxyArpDelay: (device: string) => `net/ipv4/neigh/${device}/proxy_delay`,
  acceptRedirects: (device: string) => `net/ipv4/conf/${device}/accept_redirects`,
  acceptRedirects6: (device: string) => `net/ipv6/conf/${device}/accept_redirects`,
  /** 1: addresses of 127.0.0.0/8 are routed through the device like others. */
  routeLocalnet: (device: string) => `net/ipv4/conf/${device}/route_localnet`,
  acceptLocal: (device: string) => `net/ipv4/conf/${device}/accept_local`,
  disableIpv6: (device: string) => `net/ipv6/conf/${device}/disable_ipv6`,
  acceptRouterAdvertisements: (device: string) => `net/ipv6/conf/${device}/accept_ra`,
  /** Whether the host answers for its proxy entries on the device. */
  answersAsProxy: (device: string) => `net/ipv6/conf/${device}/proxy_ndp`,
  /** The longest time before such an answer, in hundredths of a second. */
  proxyDelay: (device: string) => `net/ipv6/neigh/${device}/proxy_delay`,
} as const;

/** The name of a parameter as sysctl(8) takes it; a dot in a device's name becomes a slash there. */
export function sysctlName(path: string): string {
  return path.replaceAll(/[/.]/g, (separator) => (separator === '/' ? '.' : '/'));
}
