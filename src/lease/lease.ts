import type { IpAddress } from '../ip/address.js';
import type { Prefix } from '../ip/prefix.js';
import type { JsonValue } from '../json.js';

/** What a host tells its peers about itself; the value of a lease key. */
export interface LeaseAttributes {
  /** IPv4 address that peers send to, and the host's identity in the store; `0.0.0.0` when IPv4 is off. */
  readonly publicIp: IpAddress;
  readonly publicIpv6: IpAddress | undefined;
  /** Name of the backend, empty for `udp` and the other backends that publish nothing. */
  readonly backendType: string;
  readonly backendData: JsonValue | undefined;
  readonly backendV6Data: JsonValue | undefined;
}

/** The subnets of one lease: always IPv4, with IPv6 beside it in a dual-stack network. */
export interface LeaseSubnets {
  readonly subnet: Prefix;
  readonly ipv6Subnet: Prefix | undefined;
}

/** A host's claim on a subnet. */
export interface Lease extends LeaseSubnets {
  readonly attributes: LeaseAttributes;
  /** Store revision at which key or value last changed, as decimal text. */
  readonly revision: string;
  /** Store revision at which the key came into being; of two claims on one thing the older lease has the right to it. */
  readonly createdAt: string;
  /** A reservation never expires: its key carries no etcd lease. */
  readonly isReservation: boolean;
}

/** `udp` for the empty type that flannel's udp backend publishes, else the type itself, in lower case. */
export function backendOf({ backendType }: Pick<LeaseAttributes, 'backendType'>): string {
  return backendType === '' ? 'udp' : backendType.toLowerCase();
}
