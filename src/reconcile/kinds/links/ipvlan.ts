import { isIdentical } from '../../equality.js';
import { lowerAttribute, mtuAttribute } from './attributes.js';
import type { LinkKind } from './link-kind.js';

/**
 * Ipvlan devices that stay with the host. Mode and flag could be changed in place, but would be for every other ipvlan
 * device on the lower one as well (`ipvlan_nl_changelink()`).
 */
export const ipvlanKind: LinkKind<'ipvlan'> = {
  isFlannels: false,
  fields: {
    mtu: mtuAttribute,
    lowerIndex: lowerAttribute,
    mode: { isSame: isIdentical, isOn: (mode, { details }) => details.mode === mode, make: (mode) => ({ mode }) },
    flag: { isSame: isIdentical, isOn: (flag, { details }) => details.flag === flag, make: (flag) => ({ flag }) },
  },
  others: {},
  constants: {},
};
