/** What a backend puts packets into, as packet filters see it. */
export type Carrier =
  | {
      readonly protocol: 'udp';
      /** Destination port at every host. */
      readonly port: number;
    }
  | { readonly protocol: 'ipip' };

/** For people. */
export function describeCarrier(carrier: Carrier): string {
  return carrier.protocol === 'udp' ? `UDP port ${carrier.port}` : 'IP protocol 4';
}

/** What matches it in a rule of iptables. */
export function iptablesMatch(carrier: Carrier): string {
  return carrier.protocol === 'udp' ? `-p udp --dport ${carrier.port}` : '-p 4';
}

/** What matches it in a rule of nftables. */
export function nftMatch(carrier: Carrier): string {
  return carrier.protocol === 'udp' ? `udp dport ${carrier.port}` : 'ip protocol 4';
}
