import { isIdentical } from '../../equality.js';
import { localAttribute, macAttribute, mtuAttribute } from './attributes.js';
import type { LinkKind } from './link-kind.js';

/** VXLAN devices as flannel makes them: unicast only, no queue of their own. */
export const vxlanKind: LinkKind<'vxlan'> = {
  isFlannels: true,
  fields: {
    mtu: mtuAttribute,
    mac: macAttribute,
    vni: { isSame: isIdentical, isOn: (vni, { details }) => details.vni === vni, make: (vni) => ({ vni }) },
    underlayIndex: {
      isSame: isIdentical,
      isOn: (underlayIndex, { details }) => details.underlayIndex === underlayIndex,
      make: (underlayIndex) => ({ underlayIndex }),
    },
    local: localAttribute,
    port: {
      isSame: isIdentical,
      isOn: (port, { details }, { defaultVxlanPort }) => details.port === (port === 0 ? defaultVxlanPort : port),
      make: (port) => ({ port }),
    },
    learning: {
      isSame: isIdentical,
      isOn: (learning, { details }) => details.learning === learning,
      make: (learning) => ({ learning }),
      change: (learning) => ({ vxlan: { learning } }),
    },
    gbp: { isSame: isIdentical, isOn: (gbp, { details }) => details.gbp === gbp, make: (gbp) => ({ gbp }) },
  },
  others: {
    group: (group) => group === undefined,
    l2miss: (isOn) => !isOn,
    l3miss: () => true, // without `proxy` the device never asks for a neighbour (vxlan_xmit())
    isExternal: (isOn) => !isOn,
  },
  constants: { txQueueLength: 0 },
};
