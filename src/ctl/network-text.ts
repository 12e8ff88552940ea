import { toJsonValue } from '../config/json-reader.js';
import type { NetworkConfig } from '../config/network-config.js';

/** A checked and completed configuration for people. */
export function describeNetwork(network: NetworkConfig, mtu: number): string {
  const ranges = [network.ipv4, network.ipv6].flatMap((range) =>
    range === undefined
      ? []
      : [
          `network   ${range.network.toString()}`,
          `subnets   /${range.subnetLen} from ${range.min.toString()} to ${range.max.toString()}`,
        ],
  );
  const options = Object.entries(network.backendOptions).filter(([key]) => key !== 'type');
  const backend = [
    network.backendType,
    ...options.map(([key, value]) => `${key}=${JSON.stringify(toJsonValue(value))}`),
  ].join(' ');
  return [
    ...ranges,
    `backend   ${backend}`,
    `mtu       ${mtu} where the underlay has 1500`,
    `rules     ${network.useNftables ? 'nftables' : 'iptables'}`,
    '',
  ].join('\n');
}
