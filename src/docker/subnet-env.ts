import { OverlayError, describeError, isOverlayError } from '../errors.js';
import type { Family } from '../ip/address.js';
import { Prefix } from '../ip/prefix.js';
import type { LeaseSubnets } from '../lease/lease.js';
import type { NetworkConfig } from '../config/network-config.js';
import { errnoOf } from '../sys/errno.js';
import { type TextFiles, systemFiles } from '../sys/text-files.js';
import { parseEnvFile } from './env-file.js';

/** What Docker and the CNI plugin are told. */
export interface SubnetEnv {
  readonly network: Pick<NetworkConfig, 'ipv4' | 'ipv6'>;
  readonly lease: LeaseSubnets;
  /** Bytes of the largest packet of a container. */
  readonly mtu: number;
  /** `--ip-masq`: whether the daemon masquerades, so that Docker must not. */
  readonly isMasquerading: boolean;
}

/**
 * The text of subnet.env: unquoted lines, since the CNI plugin does not strip quotes.
 *
 * @see flannel `pkg/subnet/subnet.go`, `WriteSubnetFile`
 */
export function formatSubnetEnv({ network, lease, mtu, isMasquerading }: SubnetEnv): string {
  const lines = [
    ...familyLines('FLANNEL', network.ipv4?.network, lease.subnet),
    ...familyLines('FLANNEL_IPV6', network.ipv6?.network, lease.ipv6Subnet),
    `FLANNEL_MTU=${mtu}`,
    `FLANNEL_IPMASQ=${String(isMasquerading)}`,
  ];
  return `${lines.join('\n')}\n`;
}

function familyLines(name: string, network: Prefix | undefined, subnet: Prefix | undefined): readonly string[] {
  if (network === undefined || subnet === undefined) return [];
  // The first host of the subnet: the address that Docker's bridge takes.
  const bridge = subnet.address.add(1n).toString();
  return [`${name}_NETWORK=${network.toString()}`, `${name}_SUBNET=${bridge}/${subnet.length}`];
}

/**
 * Writes subnet.env in one step: mode 0644 when new, directory made when missing.
 *
 * @throws {@link OverlayError} `ERR_SUBNET_FILE`, `ERR_UNSAFE_PATH`
 */
export async function writeSubnetEnv(file: string, env: SubnetEnv, files: TextFiles = systemFiles): Promise<void> {
  try {
    await files.write(file, formatSubnetEnv(env));
  } catch (cause) {
    if (isOverlayError(cause)) throw cause;
    // Node adds ", open '…'" with the name of the temporary file: another text at each attempt, and so another log line.
    const reason = describeError(cause).replace(/, \w+ '.*$/s, '');
    throw new OverlayError('ERR_SUBNET_FILE', `cannot write ${file}: ${reason}`, {
      cause,
      context: { file },
      hint: 'make the directory writable, or name another file with --subnet-file',
      isRetryable: true,
    });
  }
}

/** What an earlier daemon, ours or flanneld, left in subnet.env. */
export interface PreviousSubnetEnv {
  readonly network: Prefix | undefined;
  readonly subnet: Prefix | undefined;
  readonly ipv6Network: Prefix | undefined;
  readonly ipv6Subnet: Prefix | undefined;
  readonly mtu: number | undefined;
  /** Values that could not be used, as *what: why*. */
  readonly problems: readonly string[];
}

/** Reads what {@link formatSubnetEnv}, any flanneld or a person wrote; values that make no sense are left out. */
export function parseSubnetEnv(text: string): PreviousSubnetEnv {
  const values = parseEnvFile(text);
  const problems: string[] = [];
  const prefix = (name: string, family: Family): Prefix | undefined => {
    // flannel may list several networks, of which only a single one can be taken over.
    const entries = (values.get(name) ?? '').split(',').filter((entry) => entry.trim() !== '');
    if (entries[0] === undefined) return undefined;
    const found = entries.length === 1 ? Prefix.tryParse(entries[0].trim()) : undefined;
    if (found?.family === family) return found;
    problems.push(`${name} ${entries.join(',')}: it is not one IPv${family} network`);
    return undefined;
  };
  const mtu = Number(values.get('FLANNEL_MTU'));
  return {
    network: prefix('FLANNEL_NETWORK', 4),
    subnet: prefix('FLANNEL_SUBNET', 4),
    ipv6Network: prefix('FLANNEL_IPV6_NETWORK', 6),
    ipv6Subnet: prefix('FLANNEL_IPV6_SUBNET', 6),
    mtu: Number.isInteger(mtu) && mtu > 0 ? mtu : undefined,
    problems,
  };
}

/**
 * Reads subnet.env back.
 *
 * @returns undefined if there is no such file.
 * @throws {@link OverlayError} `ERR_SUBNET_FILE` if it cannot be read.
 */
export async function readSubnetEnv(
  file: string,
  files: TextFiles = systemFiles,
): Promise<PreviousSubnetEnv | undefined> {
  try {
    return parseSubnetEnv(await files.read(file));
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') return undefined;
    throw new OverlayError('ERR_SUBNET_FILE', `cannot read ${file}: ${describeError(cause)}`, {
      cause,
      context: { file },
      hint: 'remove it, or name another file with --subnet-file',
    });
  }
}
