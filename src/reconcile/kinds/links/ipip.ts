import { localAttribute, mtuAttribute } from './attributes.js';
import type { LinkKind } from './link-kind.js';

/** IPIP devices as flannel makes them: no fixed remote, no queue of their own, no path MTU discovery. */
export const ipipKind: LinkKind<'ipip'> = {
  isFlannels: true,
  fields: {
    mtu: mtuAttribute,
    local: localAttribute,
  },
  others: {
    remote: (remote) => remote === undefined,
    ttl: (ttl) => ttl === 0,
    pmtuDiscovery: (isOn) => !isOn,
  },
  constants: { txQueueLength: 0, ttl: 0, pmtuDiscovery: false },
};
