import { toJsonValue } from '../config/json-reader.js';
import type { NetworkConfig, SubnetRange } from '../config/network-config.js';
import { ADDRESS_BITS } from '../ip/address.js';
import { doesFit } from '../lease/allocator.js';
import { backendOf } from '../lease/lease.js';
import type { LeaseRecord } from '../lease/record.js';
import { type CheckedConfig, ORDINARY_UNDERLAY, ordinaryMtu } from './config-validation.js';

/**
 * What a new configuration means for one thing:
 *
 * - `network`, `range`, `families`, `backend`, `backend-option`, `mtu`, `rules`: a setting that is different
 * - `subnet-lost`: a host whose subnet no longer fits; it takes another one, and its containers get new addresses
 * - `subnet-extended`: a host that keeps its IPv4 subnet while the IPv6 one comes or goes
 * - `reservation-lost`: a reservation that no host can use any more
 * - `backend-switch`: a host that is reached by another backend so far
 * - `too-small`: fewer subnets than hosts
 */
export type ImpactKind =
  | 'network'
  | 'range'
  | 'families'
  | 'backend'
  | 'backend-option'
  | 'mtu'
  | 'rules'
  | 'subnet-lost'
  | 'subnet-extended'
  | 'reservation-lost'
  | 'backend-switch'
  | 'too-small';

/** One consequence of a new configuration. */
export interface Impact {
  readonly kind: ImpactKind;
  /** A sentence for people. */
  readonly message: string;
  /** The lease concerned, as its key. */
  readonly lease?: string;
  readonly from?: string;
  readonly to?: string;
}

/**
 * What changes for hosts that run now.
 *
 * @param before - undefined if there was none, or none that could be used.
 */
export function configImpact(
  before: CheckedConfig | undefined,
  after: CheckedConfig,
  leases: readonly LeaseRecord[],
): readonly Impact[] {
  return [
    ...(before === undefined ? [] : settingChanges(before, after)),
    ...leases.flatMap((lease) => leaseImpact(after, lease)),
    ...capacityImpact(after.network, leases),
  ];
}

function settingChanges(before: CheckedConfig, after: CheckedConfig): readonly Impact[] {
  const [old, now] = [before.network, after.network];
  const changes: Impact[] = [];
  const compare = (kind: ImpactKind, what: string, from: string, to: string, consequence = ''): void => {
    if (from !== to) changes.push({ kind, message: `${what}: ${from} → ${to}${consequence}`, from, to });
  };
  compare('families', 'address families', familiesOf(old), familiesOf(now));
  for (const [name, from, to] of [
    ['Network', old.ipv4, now.ipv4],
    ['IPv6Network', old.ipv6, now.ipv6],
  ] as const) {
    if (from === undefined || to === undefined) continue;
    compare('network', name, from.network.toString(), to.network.toString());
    compare('range', name === 'Network' ? 'subnets' : 'IPv6 subnets', rangeText(from), rangeText(to));
  }
  compare('backend', 'backend', old.backendType, now.backendType, '; hosts change over one after the other');
  if (old.backendType === now.backendType) changes.push(...optionChanges(old, now));
  const mtu = `; restart Docker on every host, and containers with other runtimes`;
  const onOrdinary = `MTU of containers where the underlay has ${ORDINARY_UNDERLAY.mtu}`;
  compare('mtu', onOrdinary, String(ordinaryMtu(before)), String(ordinaryMtu(after)), mtu);
  const mode = (network: NetworkConfig): string => (network.useNftables ? 'nftables' : 'iptables');
  compare('rules', 'firewall rules', mode(old), mode(now));
  return changes;
}

function optionChanges(old: NetworkConfig, now: NetworkConfig): readonly Impact[] {
  const keys = new Set([...Object.keys(old.backendOptions), ...Object.keys(now.backendOptions)]);
  keys.delete('type'); // compared by the caller, with the default that stands for a missing Backend
  const text = (network: NetworkConfig, key: string): string => {
    const value = network.backendOptions[key];
    return value === undefined ? 'its default' : JSON.stringify(toJsonValue(value));
  };
  return [...keys].flatMap((key) => {
    const [from, to] = [text(old, key), text(now, key)];
    return from === to
      ? []
      : [{ kind: 'backend-option', message: `Backend ${key}: ${from} → ${to}`, from, to } as const];
  });
}

function leaseImpact({ network, backend }: CheckedConfig, lease: LeaseRecord): readonly Impact[] {
  const host = `host ${lease.attributes.publicIp.toString()}`;
  const subnet = lease.subnet.toString();
  const impacts: Impact[] = [];
  const keepsIpv4 = doesFit({ ...network, ipv6: undefined }, { subnet: lease.subnet, ipv6Subnet: undefined });
  if (!keepsIpv4) {
    impacts.push(
      lease.isReservation
        ? {
            kind: 'reservation-lost',
            lease: lease.key,
            message: `the reservation of ${subnet} for ${host} is outside the new subnets; the host takes another one`,
          }
        : {
            kind: 'subnet-lost',
            lease: lease.key,
            message: `${host} loses ${subnet} and takes another subnet; restart Docker there, all containers get new addresses`,
          },
    );
  } else if (!doesFit(network, lease)) {
    const change = network.ipv6 === undefined ? 'gives its IPv6 subnet up' : 'gets another IPv6 subnet';
    impacts.push({
      kind: 'subnet-extended',
      lease: lease.key,
      message: `${host} keeps ${subnet} and ${lease.ipv6Subnet === undefined ? 'gets an IPv6 subnet' : change}`,
    });
  }
  const from = backendOf(lease.attributes);
  const publishes = backendOf({ backendType: backend.publishedType });
  if (!lease.isReservation && from !== publishes) {
    impacts.push({
      kind: 'backend-switch',
      lease: lease.key,
      message: `${host} (${subnet}) changes from ${from} to ${network.backendType}`,
      from,
      to: network.backendType,
    });
  }
  return impacts;
}

function capacityImpact(network: NetworkConfig, leases: readonly LeaseRecord[]): readonly Impact[] {
  if (network.ipv4 === undefined) return [];
  const { min, max, subnetLen } = network.ipv4;
  const size = 1n << BigInt(ADDRESS_BITS[4] - subnetLen);
  const count = (max.value - min.value) / size + 1n;
  if (count >= BigInt(leases.length)) return [];
  const message = `there are ${count} subnets for ${leases.length} leases; some hosts will find none`;
  return [{ kind: 'too-small', message }];
}

function familiesOf(network: NetworkConfig): string {
  return network.ipv6 === undefined ? 'IPv4' : 'IPv4 and IPv6';
}

function rangeText({ subnetLen, min, max }: SubnetRange): string {
  return `/${subnetLen} from ${min.toString()} to ${max.toString()}`;
}
