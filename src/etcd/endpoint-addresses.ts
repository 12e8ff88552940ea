import { lookup } from 'node:dns/promises';
import { parseEndpoints } from './endpoints.js';
import { IpAddress } from '../ip/address.js';

/**
 * The addresses that a list of etcd endpoints stands for; names that cannot be resolved now give none.
 *
 * @throws {@link OverlayError} `ERR_ETCD_ENDPOINT`
 */
export async function addressesOfEndpoints(endpoints: string): Promise<readonly IpAddress[]> {
  const hosts = parseEndpoints(endpoints, false)
    .targets.filter((target) => !target.startsWith('unix:'))
    .map((target) => target.replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1'));
  const lists = await Promise.all(hosts.map(resolveHost));
  return lists.flat();
}

async function resolveHost(host: string): Promise<readonly IpAddress[]> {
  const literal = IpAddress.tryParse(host);
  if (literal !== undefined) return [literal];
  try {
    const answers = await lookup(host, { all: true });
    return answers.flatMap(({ address }) => IpAddress.tryParse(address) ?? []);
  } catch {
    return []; // etcd cannot be reached by that name either, which its client reports
  }
}
