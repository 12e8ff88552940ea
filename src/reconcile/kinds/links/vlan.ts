import { isIdentical } from '../../equality.js';
import { lowerAttribute, mtuAttribute } from './attributes.js';
import type { LinkKind } from './link-kind.js';

/** 802.1Q sub-interfaces. Neither the id nor the device below can be changed in place (`vlan_changelink()`). */
export const vlanKind: LinkKind<'vlan'> = {
  isFlannels: false,
  fields: {
    mtu: mtuAttribute,
    lowerIndex: lowerAttribute,
    id: { isSame: isIdentical, isOn: (id, { details }) => details.id === id, make: (id) => ({ id }) },
  },
  others: {},
  constants: {},
};
