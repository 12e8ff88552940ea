import { readFile } from 'node:fs/promises';
import { type CarriedNetwork, readNetwork } from '../backend/network.js';
import { OverlayError, describeError } from '../errors.js';
import { addressesOfEndpoints } from '../etcd/endpoint-addresses.js';
import { IpAddress } from '../ip/address.js';
import { STORE_OWNER, assertNetworkFree } from '../lease/admission.js';
import type { Lease } from '../lease/lease.js';
import type { Underlay } from '../underlay/underlay.js';
import type { CtlContext } from './command.js';

/** A configuration that every host could run, as far as that can be told without the hosts. */
export interface CheckedConfig extends CarriedNetwork {
  readonly text: string;
}

/** An ordinary host, with both families on Ethernet: what a configuration is tried on. */
export const ORDINARY_UNDERLAY: Underlay = {
  device: 'eth0',
  ifindex: 2,
  mtu: 1500,
  address: IpAddress.parse('192.0.2.1'),
  addressV6: IpAddress.parse('2001:db8::1'),
  publicIp: IpAddress.parse('192.0.2.1'),
  publicIpv6: IpAddress.parse('2001:db8::1'),
};

/**
 * Checks a configuration as a daemon would at its start.
 *
 * @throws {@link OverlayError} `ERR_NETWORK_CONFIG`, `ERR_BACKEND_UNKNOWN`, `ERR_BACKEND_OPTION`, `ERR_BACKEND_HOST`
 */
export function checkConfig(text: string): CheckedConfig {
  const carried = readNetwork(text);
  carried.backend.check(carried.network, ORDINARY_UNDERLAY);
  return { text, ...carried };
}

/**
 * Refuses a configuration that every host would refuse: its network contains a host or etcd.
 *
 * @throws {@link OverlayError} `ERR_NETWORK_CONFIG`
 */
export async function assertApplicable(
  { network }: CheckedConfig,
  leases: readonly Lease[],
  etcdEndpoints: readonly string[],
): Promise<void> {
  const etcd = await addressesOfEndpoints(etcdEndpoints.join(','));
  const hosts = leases.flatMap(({ attributes: { publicIp, publicIpv6 } }) =>
    [publicIp, publicIpv6].filter((address) => address !== undefined && !address.isUnspecified),
  );
  assertNetworkFree(network, [
    ...etcd.map((address) => ({ address, owner: STORE_OWNER })),
    ...hosts.flatMap((address) => (address === undefined ? [] : { address, owner: 'a host of the cluster' })),
  ]);
}

/** Like {@link checkConfig}, but undefined for what no daemon can be using. */
export function tryCheckConfig(text: string): CheckedConfig | undefined {
  try {
    return checkConfig(text);
  } catch (error) {
    if (error instanceof OverlayError) return undefined;
    throw error;
  }
}

/** Bytes of the largest packet of a container on an ordinary host. */
export function ordinaryMtu({ network, backend }: Pick<CheckedConfig, 'network' | 'backend'>): number {
  return backend.mtu(network, ORDINARY_UNDERLAY);
}

/**
 * The text of a file, or of standard input for `-`.
 *
 * @throws {@link OverlayError} `ERR_FILE`
 */
export async function readConfigFile(context: CtlContext, file: string): Promise<string> {
  if (file === '-') return context.readInput();
  try {
    return await readFile(file, 'utf8');
  } catch (cause) {
    throw new OverlayError('ERR_FILE', `cannot read ${file}: ${describeError(cause)}`, {
      cause,
      context: { file },
      hint: 'name a file with the network configuration, or - for standard input',
    });
  }
}
