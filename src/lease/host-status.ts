import type { IpAddress } from '../ip/address.js';

/** Where hosts tell about themselves, below `<prefix>-ts/`; the public address follows. */
export const HOST_STATUS_PATH = 'hosts/';

/** What a host tells the operator about itself, beyond what flannel's lease has room for. */
export interface HostStatus {
  readonly hostName: string;
  /** Version of the daemon. */
  readonly version: string;
  /** Name of the key of the lease it has. */
  readonly leaseKey: string;
  /** When the host got the lease it has, ISO 8601. */
  readonly leaseSince: string;
}

/** Path of a host's status below `<prefix>-ts/`. */
export function hostStatusPath(publicIp: IpAddress): string {
  return `${HOST_STATUS_PATH}${publicIp.toString()}`;
}

/** The text of a host's status. */
export function encodeHostStatus({ hostName, version, leaseKey, leaseSince }: HostStatus): string {
  return JSON.stringify({ hostName, version, leaseKey, leaseSince });
}

/** Reads a host's status; undefined if it is none, which is no reason not to show the lease. */
export function decodeHostStatus(text: string): HostStatus | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined; // written by nobody we know
  }
  if (typeof value !== 'object' || value === null) return undefined;
  const fields = value as Readonly<Record<string, unknown>>;
  const textOf = (name: string): string => (typeof fields[name] === 'string' ? fields[name] : '');
  const hostName = textOf('hostName');
  if (hostName === '') return undefined;
  return { hostName, version: textOf('version'), leaseKey: textOf('leaseKey'), leaseSince: textOf('leaseSince') };
}
