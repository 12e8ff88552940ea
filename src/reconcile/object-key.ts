import type { IpAddress } from '../ip/address.js';
import type { MacAddress } from '../ip/mac.js';
import type { Prefix } from '../ip/prefix.js';
import { defaultMetric } from './desired.js';

/** What the reconciler keeps as desired. */
export const OBJECT_KINDS = ['link', 'address', 'route', 'neighbour', 'fdb', 'sysctl', 'tunnel'] as const;

/** One of {@link OBJECT_KINDS}; the `kind` label of logs and counters. */
export type ObjectKind = (typeof OBJECT_KINDS)[number];

/**
 * Identity of one object, equal for the desired and the actual one: its kind and what distinguishes it among its kind,
 * separated by blanks, which occur in none of the parts.
 */
export type ObjectKey = `${ObjectKind} ${string}`;

/** Keys of the seven kinds. */
export const objectKey = {
  link: (name: string): ObjectKey => `link ${name}`,
  address: (device: string, address: IpAddress, length: number): ObjectKey =>
    `address ${device} ${address.toString()}/${length}`,
  route: (destination: Prefix, metric = defaultMetric(destination.family)): ObjectKey =>
    metric === defaultMetric(destination.family)
      ? `route ${destination.toString()}`
      : `route ${destination.toString()} metric ${metric}`,
  neighbour: (device: string, address: IpAddress): ObjectKey => `neighbour ${device} ${address.toString()}`,
  fdb: (device: string, mac: MacAddress): ObjectKey => `fdb ${device} ${mac}`,
  sysctl: (path: string): ObjectKey => `sysctl ${path}`,
  tunnel: (device: string): ObjectKey => `tunnel ${device}`,
} as const;

/** The kind that a key begins with. */
export function kindOf(key: ObjectKey): ObjectKind {
  return key.slice(0, key.indexOf(' ')) as ObjectKind;
}

/** The device that an object belongs to; undefined for a route, whose key does not name it, and for host-wide settings. */
export function deviceOf(key: ObjectKey): string | undefined {
  const [kind, name = ''] = key.split(' ');
  if (kind === 'route') return undefined;
  return kind === 'sysctl' ? /^net\/ipv[46]\/(?:conf|neigh)\/([^/]+)\//.exec(name)?.[1] : name;
}
