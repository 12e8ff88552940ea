import type { IpAddress } from '../ip/address.js';
import type { Prefix } from '../ip/prefix.js';
import type { JsonValue } from '../lease/lease.js';

/** Where subnets of one family come from; the values after defaults and checks of compatibility reference 2.4 and 2.5. */
export interface SubnetRange {
  readonly network: Prefix;
  readonly subnetLen: number;
  /** First allocatable subnet's address. */
  readonly min: IpAddress;
  /** Last allocatable subnet's address (inclusive). */
  readonly max: IpAddress;
}

/** The cluster's configuration: the JSON under `<prefix>/config`, checked and completed. */
export interface NetworkConfig {
  readonly ipv4: SubnetRange | undefined;
  readonly ipv6: SubnetRange | undefined;
  readonly useNftables: boolean;
  /** `Backend.Type` in lower case, `udp` when `Backend` is absent. */
  readonly backendType: string;
  /** The keys of `Backend` in lower case, for case-insensitive look-up by the backend; `type` included. */
  readonly backendOptions: Readonly<Record<string, JsonValue>>;
}
