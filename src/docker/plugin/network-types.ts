import { ipvlanType } from './ipvlan.js';
import { macvlanType } from './macvlan.js';
import type { NetworkTypeName } from './network.js';
import type { NetworkType } from './network-type.js';
import { bridgeType, overlayType } from './routed.js';

/** What there is of {@link NetworkTypeName}, the default first. */
const TYPES: Readonly<Record<NetworkTypeName, NetworkType>> = {
  macvlan: macvlanType,
  ipvlan: ipvlanType,
  bridge: bridgeType,
  overlay: overlayType,
};

/** Values of `-o type=`, the default first. */
export const NETWORK_TYPES = Object.keys(TYPES) as readonly NetworkTypeName[];

/** The type of that name. */
export function networkType(name: NetworkTypeName): NetworkType {
  return TYPES[name];
}
