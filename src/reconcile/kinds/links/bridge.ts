import { isIdentical } from '../../equality.js';
import { macAttribute, mtuAttribute } from './attributes.js';
import type { LinkKind } from './link-kind.js';

/**
 * Bridges. One without ports is given no MAC address: it would lose its carrier for good
 * (`br_stp_change_bridge_id()`). One with ports keeps the address that it is given, whichever ports come and go.
 */
export const bridgeKind: LinkKind<'bridge'> = {
  isFlannels: false,
  fields: {
    mtu: mtuAttribute,
    mac: {
      isSame: isIdentical,
      isOn: (mac, device) => mac === undefined || macAttribute.isOn(mac, device),
      make: (mac) => (mac === undefined ? {} : macAttribute.make(mac)),
      change: (mac) => (mac === undefined ? {} : macAttribute.change(mac)),
      losesNeighbours: true,
    },
  },
};
