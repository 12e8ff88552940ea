import assert from 'node:assert/strict';
import type { LinkInfo } from '../../src/netlink/link.js';
import type { Netlink } from '../../src/netlink/netlink.js';
import { ip } from './builders.js';

/** The device of that name, which must be there. */
export function linkNamed(netlink: Netlink, name: string): LinkInfo {
  const link = netlink.links.get(name);
  assert.ok(link, `${name} is not there`);
  return link;
}

/** Makes eth0 with 192.0.2.1/24 and 2001:db8::1/64, and its other end eth0p, in the namespace of the socket. */
export function addUnderlay(netlink: Netlink): LinkInfo {
  netlink.links.add({ kind: 'veth', name: 'eth0', peer: { name: 'eth0p' } });
  const eth0 = linkNamed(netlink, 'eth0');
  netlink.links.set(eth0, { isUp: true });
  netlink.links.set(linkNamed(netlink, 'eth0p'), { isUp: true });
  netlink.addresses.add({ index: eth0.index, address: ip('192.0.2.1'), length: 24 });
  netlink.addresses.add({ index: eth0.index, address: ip('2001:db8::1'), length: 64, noDad: true });
  return eth0;
}

/** Deletes every device but loopback, and every route of the main table. */
export async function clearNetwork(netlink: Netlink): Promise<void> {
  for (const link of await netlink.links.list()) {
    if (!link.isLoopback && netlink.links.get(link.index) !== undefined) netlink.links.del(link);
  }
  for (const family of [4, 6] as const) {
    for (const route of await netlink.routes.list({ family, table: 254 })) netlink.routes.del(route);
  }
}
