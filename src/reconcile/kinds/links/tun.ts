import { isIdentical } from '../../equality.js';
import type { LinkKind } from './link-kind.js';

/** TUN devices, which their tunnels make. */
export const tunKind: LinkKind<'tun'> = {
  isFlannels: true,
  fields: {
    mtu: { isSame: isIdentical, isOn: (mtu, device) => device.mtu === mtu, change: (mtu) => ({ mtu }) },
    txQueueLength: {
      isSame: isIdentical,
      isOn: (txQueueLength, device) => device.txQueueLength === txQueueLength,
      change: (txQueueLength) => ({ txQueueLength }),
    },
  },
};
