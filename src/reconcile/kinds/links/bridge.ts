import { mtuAttribute } from './attributes.js';
import type { LinkKind } from './link-kind.js';

/**
 * Bridges without ports. The MAC address is left to the kernel: when it is set, a bridge that has no ports loses its
 * carrier for good (`br_stp_change_bridge_id()`).
 */
export const bridgeKind: LinkKind<'bridge'> = {
  isFlannels: false,
  fields: { mtu: mtuAttribute },
};
