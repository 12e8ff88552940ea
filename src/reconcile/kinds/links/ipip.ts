import { isSame } from '../../../ip/same.js';
import { isIdentical } from '../../equality.js';
import type { LinkKind } from './link-kind.js';

/** IPIP devices as flannel makes them: no fixed remote, no queue of their own, no path MTU discovery. */
export const ipipKind: LinkKind<'ipip'> = {
  isFlannels: true,
  fields: {
    mtu: {
      isSame: isIdentical,
      isOn: (mtu, device) => device.mtu === mtu,
      make: (mtu) => ({ mtu }),
      change: (mtu) => ({ mtu }),
    },
    local: { isSame, isOn: (local, { details }) => isSame(details.local, local), make: (local) => ({ local }) },
  },
  others: {
    remote: (remote) => remote === undefined,
    ttl: (ttl) => ttl === 0,
    pmtuDiscovery: (isOn) => !isOn,
  },
  constants: { txQueueLength: 0, ttl: 0, pmtuDiscovery: false },
};
