import type { Prefix } from '../ip/prefix.js';
import type { NetworkProperties } from './addresses.js';

/*
 * A host that answers for containers on its link is in the solicited-node multicast group of each of their addresses, and
 * a switch that snoops MLD has an entry for each group. Which group that is follows from the last 24 bits of the address
 * (RFC 4291 2.7.1). So networks with `-o ndp-proxy=true` give out addresses by themselves that differ in the bits above:
 *
 *   2001:db8::2  2001:db8::100:2  2001:db8::200:2 …        one group, ff02::1:ff00:2, for all of them
 *
 * All hosts of a network have to cut it into the same blocks, so whether its addresses are spread stands in its record, as
 * a property that the first host writes. A host that has never heard of it refuses such a network, as one with an option
 * that it was not given.
 */

/** How far the addresses that a spread network gives out by themselves are apart. */
export const STRIDE = 1n << 24n;

/** The bits below: the first that is no gateway, in all networks, so that these share the group as well. */
export const SHARED_LOW = 2n;

/** Longest range that is spread: it has as many such addresses as others have at most in their blocks, 2^16. */
const MAX_LENGTH = 88;

const PROPERTY = 'shared-low-bits';
const VALUE = '24';

/** Whether a range has room enough for its addresses to be spread. */
export function canSpread({ family, length }: Prefix): boolean {
  return family === 6 && length <= MAX_LENGTH;
}

/** Whether the hosts of a network have agreed on its addresses being spread. */
export function isSpread(properties: NetworkProperties | undefined): boolean {
  return properties?.[PROPERTY] === VALUE;
}

/** Properties by which the addresses of a network are spread, where that is of use and the range has room. */
export function spread(properties: NetworkProperties, range: Prefix): NetworkProperties {
  return properties['ndp-proxy'] === 'true' && canSpread(range) ? { ...properties, [PROPERTY]: VALUE } : properties;
}

/** The properties that hosts are asked for: all but what the first one adds by itself. */
export function withoutSpread(properties: NetworkProperties): NetworkProperties {
  return Object.fromEntries(Object.entries(properties).filter(([name]) => name !== PROPERTY));
}
