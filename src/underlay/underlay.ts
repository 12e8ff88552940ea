import type { IpAddress } from '../ip/address.js';

/** The real network under the overlay, as chosen by compatibility reference ch. 5. */
export interface Underlay {
  /** Device that packets to peers leave through. */
  readonly device: string;
  readonly ifindex: number;
  /** Bytes of the largest IP packet the device carries. */
  readonly mtu: number;
  /** Address on the device; undefined without that family. */
  readonly address: IpAddress | undefined;
  readonly addressV6: IpAddress | undefined;
  /** Address announced to peers; differs from `address` behind one-to-one NAT. */
  readonly publicIp: IpAddress | undefined;
  readonly publicIpv6: IpAddress | undefined;
}
