import type { IpAddress } from '../../ip/address.js';
import { isSame } from '../../ip/same.js';
import { type ProxyNeighSpec, ROUTE_PROTOCOL } from '../desired.js';
import { fieldsBy, isIdentical } from '../equality.js';
import type { ObjectKey } from '../object-key.js';
import type { KernelKind } from './kind.js';

function proxyKey(device: string, address: IpAddress): ObjectKey {
  return `proxy-neighbour ${device} ${address.toString()}`;
}

/**
 * Addresses that this host answers for on a device of somebody else's. Ours have our protocol number and lie in our
 * subnets (`OwnershipRules.proxyScope`); one that somebody else has made serves as well, and stays.
 *
 * @remarks The kernel reports no changes of them: what others remove is found by the next list.
 */
export const proxyNeighbourKind: KernelKind<'proxy-neighbour'> = {
  keyOf: ({ device, address }) => proxyKey(device, address),
  isSame: fieldsBy<ProxyNeighSpec>({ device: isIdentical, address: isSame }),

  async read(kernel, actual) {
    for (const proxy of await kernel.listProxies()) {
      const device = actual.linkOf(proxy.index)?.name;
      if (device !== undefined) actual.proxyNeighbours.set(proxyKey(device, proxy.address), proxy);
    }
  },

  *presentKeys({ ownership, proxyNeighbours }) {
    for (const [key, proxy] of proxyNeighbours) if (ownership.isOurProxy(proxy)) yield key;
  },

  plan(planner, key, spec) {
    const info = planner.actual.proxyNeighbours.get(key);
    if (spec === undefined) {
      const device = info === undefined ? undefined : planner.deviceToClear(info.index);
      if (info === undefined || device === undefined || !planner.ownership.isOurProxy(info)) return;
      const common = { kind: 'proxy-neighbour', verb: 'del', reason: 'unexpected' } as const;
      planner.add('removeProxyNeighbours', { ...common, key, device, address: info.address });
      return;
    }
    const { device, address } = spec;
    const state = planner.device(device);
    if (!state.isUsable) {
      planner.block(key);
      return;
    }
    if (info !== undefined && state.loses !== 'all') return;
    planner.add('proxyNeighbours', { kind: 'proxy-neighbour', verb: 'add', key, reason: 'missing', device, address });
  },

  carryOut(netlink, { verb, device, address }, indexOf) {
    const proxy = { index: indexOf(device), address, protocol: ROUTE_PROTOCOL };
    if (verb === 'add') netlink.proxies.replace(proxy);
    else netlink.proxies.del(proxy);
    return true;
  },

  record(actual, { key, verb, device, address }) {
    if (verb === 'del') actual.proxyNeighbours.delete(key);
    else actual.proxyNeighbours.set(key, { index: actual.indexOf(device), address, protocol: ROUTE_PROTOCOL });
  },
};
