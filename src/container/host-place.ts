import { type Family, IpAddress } from '../ip/address.js';
import { isHostId, readObject } from './records.js';

/*
 * Where the hosts of container networks are, below `<prefix>-ts/`:
 *
 *   network-places/HOST      the addresses of a host on the real network, and its lease in the overlay
 *
 * It ends with the etcd lease of the host. It is untrusted: other hosts wrote it. It counts only as far as the lease
 * that it names says the same.
 */

/** Where the places of all hosts are. */
export const PLACES_PATH = 'network-places/';

/** Longer than any that we write. */
const MAX_TEXT = 512;

/** Where a host is. */
export interface HostPlace {
  /** What it announces as its public addresses. */
  readonly addresses: Readonly<Partial<Record<Family, IpAddress>>>;
  /** The key of its lease below `<prefix>/subnets/`, such as `10.5.3.0-24`. */
  readonly leaseKey: string;
}

/** Where a host tells its place. */
export function placePath(host: string): string {
  return `${PLACES_PATH}${host}`;
}

/** Which host a path is the place of; undefined if it is none. */
export function placeHost(path: string): string | undefined {
  const host = path.slice(PLACES_PATH.length);
  return path.startsWith(PLACES_PATH) && isHostId(host) ? host : undefined;
}

/** The text of a place. */
export function encodePlace({ addresses, leaseKey }: HostPlace): string {
  return JSON.stringify({ v4: addresses[4]?.toString(), v6: addresses[6]?.toString(), lease: leaseKey });
}

/** Reads a place; undefined if it is none. */
export function decodePlace(text: string): HostPlace | undefined {
  const fields = text.length <= MAX_TEXT ? readObject(text) : undefined;
  if (fields === undefined) return undefined;
  const [v4, v6] = [readAddress(fields['v4'], 4), readAddress(fields['v6'], 6)];
  const { lease: leaseKey } = fields;
  if (v4 === null || v6 === null || typeof leaseKey !== 'string' || leaseKey === '') return undefined;
  return { addresses: { ...(v4 && { 4: v4 }), ...(v6 && { 6: v6 }) }, leaseKey };
}

/** Null for what is no address of that family. */
function readAddress(value: unknown, family: Family): IpAddress | undefined | null {
  if (value === undefined) return undefined;
  const address = typeof value === 'string' ? IpAddress.tryParse(value) : undefined;
  return address?.family === family ? address : null;
}
