import { macvlanType } from './macvlan.js';
import type { NetworkTypeName } from './network.js';
import type { NetworkType } from './network-type.js';

const TYPES: Readonly<Record<NetworkTypeName, NetworkType>> = { macvlan: macvlanType };

/** The type of that name. */
export function networkType(name: NetworkTypeName): NetworkType {
  return TYPES[name];
}
