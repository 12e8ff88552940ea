import { ipvlanType } from './ipvlan.js';
import { macvlanType } from './macvlan.js';
import type { NetworkTypeName } from './network.js';
import type { NetworkType } from './network-type.js';

/** What there is of {@link NetworkTypeName}. */
const TYPES = { macvlan: macvlanType, ipvlan: ipvlanType } as const satisfies Partial<
  Readonly<Record<NetworkTypeName, NetworkType>>
>;

/** Values of `-o type=`, the default first. */
export const NETWORK_TYPES = Object.keys(TYPES) as readonly (keyof typeof TYPES)[];

/** The type of that name. */
export function networkType(name: NetworkTypeName): NetworkType {
  const types: Partial<Readonly<Record<NetworkTypeName, NetworkType>>> = TYPES;
  const type = types[name];
  if (type === undefined) throw new TypeError(`no networks of type ${name}`);
  return type;
}
