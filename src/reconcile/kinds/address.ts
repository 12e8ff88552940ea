import { isSame } from '../../ip/same.js';
import type { IpAddress } from '../../ip/address.js';
import type { AddressInfo } from '../../netlink/address.js';
import type { ActualState } from '../actual.js';
import type { AddressSpec } from '../desired.js';
import { fieldsBy, isIdentical } from '../equality.js';
import type { ObjectKey } from '../object-key.js';
import type { Planner } from '../planner.js';
import type { KernelKind } from './kind.js';

function addressKey(device: string, address: IpAddress, length: number): ObjectKey {
  return `address ${device} ${address.toString()}/${length}`;
}

/** @returns undefined for an address that is on no device of ours. */
function keyOfInfo(actual: ActualState, { index, address, length, peer }: AddressInfo): ObjectKey | undefined {
  const device = actual.ourDevices.get(index);
  if (device === undefined) return undefined;
  const key = addressKey(device, address, length);
  return peer === undefined ? key : `${key} peer ${peer.toString()}`;
}

/** Addresses on our devices. */
export const addressKind: KernelKind<'address'> = {
  keyOf: ({ device, address, length }) => addressKey(device, address, length),
  isSame: fieldsBy<AddressSpec>({
    device: isIdentical,
    address: isSame,
    length: isIdentical,
    noPrefixRoute: isIdentical,
  }),

  async read(kernel, actual) {
    for (const index of actual.ourDevices.keys()) {
      for (const info of await kernel.listAddresses(index)) {
        const key = keyOfInfo(actual, info);
        if (key !== undefined) actual.addresses.set(key, info);
      }
    }
  },

  presentKeys: ({ addresses }) => addresses.keys(),

  plan(planner, key, spec) {
    const info = planner.actual.addresses.get(key);
    if (spec === undefined) {
      if (info !== undefined) planStray(planner, key, info);
      return;
    }
    const { device, address, length, noPrefixRoute = false } = spec;
    const state = planner.device(device);
    if (!state.isUsable) planner.block(key);
    else if (info === undefined || state.loses === 'all') {
      const common = { kind: 'address', verb: 'replace', reason: 'missing' } as const;
      planner.add('addresses', { ...common, key, device, address, length, peer: undefined, noPrefixRoute });
    }
  },

  carryOut(netlink, { verb, device, address, length, peer, noPrefixRoute }, indexOf) {
    const target = { index: indexOf(device), address, length, peer };
    // An address of the overlay is given by a lease: nobody else can have it, so nothing has to be waited for.
    if (verb === 'replace') netlink.addresses.replace({ ...target, noDad: address.family === 6, noPrefixRoute });
    else netlink.addresses.del(target);
    return true;
  },

  record(actual, { key, verb, device, address, length, peer }) {
    if (verb === 'del') {
      actual.addresses.delete(key);
      return;
    }
    const flags = { isPermanent: true, isTentative: false, isDeprecated: false, isSecondary: false };
    actual.addresses.set(key, { index: actual.indexOf(device), address, length, peer, scope: 0, ...flags });
  },

  follow(actual, { address: info, isDeleted }, touched) {
    const key = keyOfInfo(actual, info);
    const name = actual.linkOf(info.index)?.name;
    // With the last IPv4 address of a device go its routes, and with any the routes that use it as source, unreported.
    if (key === undefined) return isDeleted && name !== undefined && actual.desired.refersTo(name);
    if (isDeleted) {
      if (!actual.addresses.delete(key)) return false;
      touched.add(key);
      return true;
    }
    if (!actual.addresses.has(key)) touched.add(key);
    actual.addresses.set(key, info);
    return false;
  },
};

/** Other addresses of a desired family go, except link-local IPv6. */
function planStray(planner: Planner, key: ObjectKey, { index, address, length, peer }: AddressInfo): void {
  const device = planner.deviceToClear(index);
  if (device === undefined || (address.family === 6 && address.isLinkLocal)) return;
  const hasDesired = Array.from(planner.desired.addresses.values()).some(
    (spec) => spec.device === device && spec.address.family === address.family,
  );
  if (!hasDesired) return;
  const common = { kind: 'address', verb: 'del', reason: 'unexpected' } as const;
  planner.add('removeAddresses', { ...common, key, device, address, length, peer });
}
