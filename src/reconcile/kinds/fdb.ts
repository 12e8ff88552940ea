import { isSame } from '../../ip/same.js';
import { type MacAddress, isUnicastMac } from '../../ip/mac.js';
import type { FdbInfo } from '../../netlink/neighbour.js';
import type { FdbSpec } from '../desired.js';
import { fieldsBy, isAlike, isIdentical } from '../equality.js';
import type { ObjectKey } from '../object-key.js';
import type { KernelKind } from './kind.js';

function fdbKey(device: string, mac: MacAddress): ObjectKey {
  return `fdb ${device} ${mac}`;
}

/** Whether two entries for a MAC on a device lead the same way. */
const isSameWay = fieldsBy<FdbInfo>({
  index: isAlike,
  mac: isAlike,
  destination: isSame,
  port: isIdentical,
  vni: isIdentical,
  viaIndex: isIdentical,
  isPermanent: isAlike,
  masterIndex: isAlike,
  isSelf: isAlike,
});

/** What the kernel says about an entry that we make: port, VNI and underlay device are the VXLAN device's own. */
function madeEntry(index: number, { mac, destination }: Pick<FdbSpec, 'mac' | 'destination'>): FdbInfo {
  const own = { port: undefined, vni: undefined, viaIndex: undefined, masterIndex: 0 };
  return { index, mac, destination, ...own, isPermanent: true, isSelf: true };
}

function isUnicastSelf({ isSelf, mac }: FdbInfo): boolean {
  return isSelf && isUnicastMac(mac);
}

/** Permanent forwarding entries of our VXLAN devices. */
export const fdbKind: KernelKind<'fdb'> = {
  keyOf: ({ device, mac }) => fdbKey(device, mac),
  isSame: fieldsBy<FdbSpec>({ device: isIdentical, mac: isIdentical, destination: isSame }),

  async read(kernel, actual) {
    for (const [index, device] of actual.ourDevices) {
      if (actual.linkOf(index)?.kind !== 'vxlan') continue;
      for (const info of await kernel.listFdb(index)) {
        if (isUnicastSelf(info) && info.isPermanent) actual.fdb.set(fdbKey(device, info.mac), info);
      }
    }
  },

  presentKeys: ({ fdb }) => fdb.keys(),

  plan(planner, key, spec) {
    const info = planner.actual.fdb.get(key);
    if (spec === undefined) {
      const device = info === undefined ? undefined : planner.deviceToClear(info.index);
      if (info === undefined || device === undefined) return;
      planner.add('removeFdb', { kind: 'fdb', verb: 'del', key, reason: 'unexpected', device, mac: info.mac });
      return;
    }
    const { device, mac, destination } = spec;
    const state = planner.device(device);
    if (!state.isUsable) {
      planner.block(key);
      return;
    }
    const isThere = info !== undefined && state.loses !== 'all';
    if (isThere && isSameWay(info, madeEntry(info.index, spec))) return;
    const reason = isThere ? 'altered' : 'missing';
    planner.add('fdb', { kind: 'fdb', verb: 'replace', key, reason, device, mac, destination });
  },

  carryOut(netlink, operation, indexOf) {
    const target = { index: indexOf(operation.device), mac: operation.mac };
    if (operation.verb === 'replace') netlink.fdb.replace({ ...target, destination: operation.destination });
    else netlink.fdb.del(target);
    return true;
  },

  record(actual, operation) {
    if (operation.verb === 'del') actual.fdb.delete(operation.key);
    else actual.fdb.set(operation.key, madeEntry(actual.indexOf(operation.device), operation));
  },

  follow(actual, { entry: info, isDeleted }, touched) {
    const device = actual.ourDevices.get(info.index);
    if (device === undefined || !isUnicastSelf(info)) return false;
    // Up to Linux 6.12 rtnetlink tells of each change, too (`rtnl_fdb_notify()`): after the device, and without the way.
    if (info.destination === undefined) return false;
    const key = fdbKey(device, info.mac);
    const before = actual.fdb.get(key);
    const isKnown = before !== undefined && isSameWay(before, info);
    if (isDeleted && !isKnown) return false; // it had been replaced before
    if (!isDeleted && info.isPermanent) {
      if (isKnown) return false;
      actual.fdb.set(key, info);
    } else if (!actual.fdb.delete(key)) {
      return false;
    }
    touched.add(key);
    return false;
  },
};
