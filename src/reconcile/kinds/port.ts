import type { PortSpec } from '../desired.js';
import { fieldsBy, isIdentical } from '../equality.js';
import type { KernelKind } from './kind.js';

/**
 * Devices of ours as ports of bridges. The kernel tells it of the device; one that is no longer to be a port is no longer
 * desired as a device either, and goes.
 */
export const portKind: KernelKind<'port'> = {
  keyOf: ({ device }) => `port ${device}`,
  isSame: fieldsBy<PortSpec>({
    device: isIdentical,
    bridge: isIdentical,
    isIsolated: isIdentical,
    isHairpin: isIdentical,
  }),

  read: () => Promise.resolve(),

  presentKeys: () => [],

  plan(planner, key, spec) {
    if (spec === undefined) return;
    const { device, bridge, isIsolated, isHairpin } = spec;
    const states = [planner.device(device), planner.device(bridge)];
    if (states.some(({ isUsable }) => !isUsable)) {
      planner.block(key);
      return;
    }
    const { actual } = planner;
    const link = actual.links.get(device);
    const isMade = states.some(({ loses }) => loses === 'all');
    const isThere = !isMade && link?.masterIndex === actual.indexOf(bridge);
    if (isThere && link.isIsolated === isIsolated && link.isHairpin === isHairpin) return;
    const reason = isThere ? 'altered' : 'missing';
    planner.add('ports', { kind: 'port', verb: 'set', key, reason, device, bridge, isIsolated, isHairpin });
  },

  carryOut(netlink, { device, bridge, isIsolated, isHairpin }, indexOf) {
    const link = { index: indexOf(device), name: device };
    netlink.links.set(link, { masterIndex: indexOf(bridge) });
    netlink.links.set(link, { isIsolated, isHairpin });
    return true;
  },

  record() {}, // as for devices, what the kernel says of it is read again
};
