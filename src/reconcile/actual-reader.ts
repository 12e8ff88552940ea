import { ActualState } from './actual.js';
import type { DesiredIndex } from './desired-index.js';
import type { Kernel } from './kernel.js';
import type { Ownership } from './ownership.js';

/**
 * Lists everything that can matter.
 *
 * @throws {@link OverlayError} `ERR_NETLINK` or `ERR_SYSCTL`
 */
export async function readActual(kernel: Kernel, desired: DesiredIndex, ownership: Ownership): Promise<ActualState> {
  const actual = new ActualState(desired, ownership, kernel.defaultVxlanPort());
  for (const link of await kernel.listLinks()) actual.putLink(link);
  for (const index of actual.ourDevices.keys()) {
    for (const address of await kernel.listAddresses(index)) actual.putAddress(address);
    for (const family of [4, 6] as const) {
      for (const neighbour of await kernel.listNeighbours(family, index)) actual.putNeighbour(neighbour);
    }
    if (actual.linkOf(index)?.kind !== 'vxlan') continue;
    for (const entry of await kernel.listFdb(index)) actual.putFdb(entry);
  }
  for (const family of [4, 6] as const) {
    for (const route of await kernel.listRoutes(family)) actual.putRoute(route);
  }
  readSysctls(kernel, desired, actual);
  return actual;
}

/**
 * Reads the desired kernel parameters, which have no events.
 *
 * @throws {@link OverlayError} `ERR_SYSCTL`
 */
export function readSysctls(kernel: Kernel, desired: DesiredIndex, actual: ActualState): void {
  for (const [key, { path }] of desired.sysctls.entries()) {
    const text = kernel.readSysctl(path);
    if (text === undefined) actual.sysctls.delete(key);
    else actual.sysctls.set(key, text);
  }
}
