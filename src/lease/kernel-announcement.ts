import type { IpAddress } from '../ip/address.js';
import type { JsonValue } from '../json.js';
import { type Lease, type LeaseAttributes, backendOf } from './lease.js';

/**
 * `BackendData` of a host with backend udp whose kernel takes datagrams apart: peers may send it what their kernel has
 * put together, with inner checksums that are finished only on the way out of the machine.
 *
 * @remarks Flannel's udp backend keeps the field and does not look at it, and neither did versions of this daemon
 * before this one. It is text, since those took two leases with the same object there for leases of one host.
 */
export const KERNEL_PATH_DATA: JsonValue = 'kernel-path-1';

/** Whether a host says that its kernel takes datagrams apart: by this text alone, whatever else somebody may write. */
export function announcesKernelPath(attributes: Pick<LeaseAttributes, 'backendType' | 'backendData'>): boolean {
  return backendOf(attributes) === 'udp' && attributes.backendData === KERNEL_PATH_DATA;
}

/** Public addresses of the peers that say so. */
export function kernelPathAddresses(peers: readonly Lease[]): readonly IpAddress[] {
  return peers.flatMap(({ attributes }) => (announcesKernelPath(attributes) ? [attributes.publicIp] : []));
}
