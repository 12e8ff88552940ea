import { isSame } from '../../ip/same.js';
import type { IpAddress } from '../../ip/address.js';
import type { NeighSpec } from '../desired.js';
import { fieldsBy, isIdentical } from '../equality.js';
import type { ObjectKey } from '../object-key.js';
import type { KernelKind } from './kind.js';

/** Key of the ARP or ND entry for an address on a device. */
export function neighbourKey(device: string, address: IpAddress): ObjectKey {
  return `neighbour ${device} ${address.toString()}`;
}

/** Permanent ARP and ND entries on our devices. */
export const neighbourKind: KernelKind<'neighbour'> = {
  keyOf: ({ device, address }) => neighbourKey(device, address),
  isSame: fieldsBy<NeighSpec>({ device: isIdentical, address: isSame, mac: isIdentical }),

  async read(kernel, actual) {
    for (const [index, device] of actual.ourDevices) {
      for (const family of [4, 6] as const) {
        for (const info of await kernel.listNeighbours(family, index)) {
          if (info.isPermanent) actual.neighbours.set(neighbourKey(device, info.address), info);
        }
      }
    }
  },

  presentKeys: ({ neighbours }) => neighbours.keys(),

  plan(planner, key, spec) {
    const info = planner.actual.neighbours.get(key);
    if (spec === undefined) {
      const device = info === undefined ? undefined : planner.deviceToClear(info.index);
      if (info === undefined || device === undefined || planner.losesNeighbours(info.index)) return;
      const common = { kind: 'neighbour', verb: 'del', reason: 'unexpected' } as const;
      planner.add('removeNeighbours', { ...common, key, device, address: info.address, mac: undefined });
      return;
    }
    const { device, address, mac } = spec;
    const state = planner.device(device);
    if (!state.isUsable) {
      planner.block(key);
      return;
    }
    const isThere = info !== undefined && state.loses === 'nothing';
    if (isThere && info.mac === mac) return;
    const reason = isThere ? 'altered' : 'missing';
    planner.add('neighbours', { kind: 'neighbour', verb: 'replace', key, reason, device, address, mac });
  },

  carryOut(netlink, { verb, device, address, mac }, indexOf) {
    const target = { index: indexOf(device), address, mac };
    if (verb === 'replace') netlink.neighbours.replace(target);
    else netlink.neighbours.del(target);
    return true;
  },

  record(actual, { key, verb, device, address, mac }) {
    if (verb === 'del') actual.neighbours.delete(key);
    else
      actual.neighbours.set(key, { index: actual.indexOf(device), address, mac, isPermanent: true, isFailed: false });
  },

  follow(actual, { neighbour: info, isDeleted }, touched) {
    const device = actual.ourDevices.get(info.index);
    if (device === undefined) return false;
    const key = neighbourKey(device, info.address);
    const before = actual.neighbours.get(key);
    if (isDeleted || !info.isPermanent) {
      if (actual.neighbours.delete(key)) touched.add(key);
    } else if (before?.mac !== info.mac) {
      actual.neighbours.set(key, info);
      touched.add(key);
    }
    return false;
  },
};
