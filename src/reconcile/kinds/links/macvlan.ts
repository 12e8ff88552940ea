import { isIdentical } from '../../equality.js';
import { lowerAttribute, macAttribute, mtuAttribute } from './attributes.js';
import type { LinkKind } from './link-kind.js';

/** Macvlan devices that stay with the host. */
export const macvlanKind: LinkKind<'macvlan'> = {
  isFlannels: false,
  fields: {
    mtu: mtuAttribute,
    mac: macAttribute,
    lowerIndex: lowerAttribute,
    mode: { isSame: isIdentical, isOn: (mode, { details }) => details.mode === mode, make: (mode) => ({ mode }) },
  },
  others: {},
  constants: {},
};
