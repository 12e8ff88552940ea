import { IpAddress } from '../ip/address.js';
import { type MacAddress, parseMac } from '../ip/mac.js';
import { type PoolIdentity, poolPath } from './pool-id.js';
import { isHostId, parsePoolPath, readObject } from './records.js';

/*
 * What hosts tell for people alone, below `<prefix>-ts/`; nothing is decided by it:
 *
 *   container-hosts/HOST/name                    what a host is called
 *   container-hosts/HOST/uses/NAME/SUBNET/IP     what has an address of it
 *
 * It ends with the etcd lease of the host. Everything below is untrusted: other hosts wrote it.
 */

/** Where the accounts of all hosts are. */
export const ACCOUNTS_PATH = 'container-hosts/';

/** Longer than any that we write. */
const MAX_TEXT = 2048;

/** Characters of what has an address; the rest is left out. */
const MAX_OWNER = 256;

/** As long as a name can be in the DNS (RFC 1035 2.3.4). */
const MAX_NAME = 253;

/** What has an address. */
export interface UseAccount {
  readonly owner: string | undefined;
  readonly mac: MacAddress | undefined;
  /** Milliseconds since the epoch. */
  readonly sinceMs: number;
}

/** Where the account of a host is. */
export function accountPath(host: string): string {
  return `${ACCOUNTS_PATH}${host}/`;
}

/** Where a host tells its name. */
export function hostNamePath(host: string): string {
  return `${accountPath(host)}name`;
}

/** Where a host tells what has an address. */
export function usePath(host: string, network: Pick<PoolIdentity, 'name' | 'subnet'>, address: IpAddress): string {
  return `${accountPath(host)}uses/${poolPath(network)}/${address.toString()}`;
}

/** Which host a path below {@link ACCOUNTS_PATH} is of; undefined if no host writes it. */
export function accountHost(path: string): string | undefined {
  const [host = '', kind = '', name = '', subnet = '', addressText = '', ...rest] = path
    .slice(ACCOUNTS_PATH.length)
    .split('/');
  if (!isHostId(host)) return undefined;
  if (path === hostNamePath(host)) return host;
  const network = parsePoolPath(`${name}/${subnet}`);
  const address = IpAddress.tryParse(addressText);
  if (kind !== 'uses' || rest.length > 0 || network === undefined || address === undefined) return undefined;
  return path === usePath(host, network, address) && network.subnet.contains(address) ? host : undefined;
}

/** The text of a name. */
export function encodeHostName(name: string): string {
  return JSON.stringify({ name: name.slice(0, MAX_NAME) });
}

/** Reads a name; undefined if it is none. */
export function decodeHostName(text: string): string | undefined {
  const name = readShort(text)?.['name'];
  return typeof name === 'string' && name !== '' && name.length <= MAX_NAME ? name : undefined;
}

/** The text of a use. */
export function encodeUse({ owner, mac, sinceMs }: UseAccount): string {
  return JSON.stringify({ owner: owner?.slice(0, MAX_OWNER), mac, since: new Date(sinceMs).toISOString() });
}

/** Reads a use; undefined if it is none. */
export function decodeUse(text: string): UseAccount | undefined {
  const fields = readShort(text);
  if (fields === undefined) return undefined;
  const { owner, mac, since } = fields;
  const sinceMs = typeof since === 'string' ? Date.parse(since) : Number.NaN;
  if (!Number.isFinite(sinceMs)) return undefined;
  if (owner !== undefined && (typeof owner !== 'string' || owner.length > MAX_OWNER)) return undefined;
  if (mac === undefined) return { owner, mac, sinceMs };
  try {
    return typeof mac === 'string' ? { owner, mac: parseMac(mac), sinceMs } : undefined;
  } catch {
    return undefined; // no host of ours writes such a one
  }
}

function readShort(text: string): Readonly<Record<string, unknown>> | undefined {
  return text.length <= MAX_TEXT ? readObject(text) : undefined;
}
