import { isIdentical } from '../../equality.js';
import { mtuAttribute } from './attributes.js';
import type { LinkKind } from './link-kind.js';

/** TUN devices, which their tunnels make. */
export const tunKind: LinkKind<'tun'> = {
  isFlannels: true,
  fields: {
    mtu: mtuAttribute,
    txQueueLength: {
      isSame: isIdentical,
      isOn: (txQueueLength, device) => device.txQueueLength === txQueueLength,
      change: (txQueueLength) => ({ txQueueLength }),
    },
  },
};
