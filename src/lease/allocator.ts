import type { NetworkConfig, SubnetRange } from '../config/network-config.js';
import { OverlayError } from '../errors.js';
import { ADDRESS_BITS, IpAddress } from '../ip/address.js';
import { Prefix } from '../ip/prefix.js';
import type { LeaseSubnets } from './lease.js';
import type { LeaseRecord, LeaseSnapshot } from './store.js';

/** Of the free subnets only the first hundred are candidates, so that small numbers are used first, as in flannel. */
const MAX_CANDIDATES = 100;

/** What {@link planLease} needs to know. */
export interface PlanInput {
  readonly network: NetworkConfig;
  /** The host's identity. */
  readonly publicIp: IpAddress;
  readonly snapshot: LeaseSnapshot;
  /** What the host had before, from subnet.env or from the lease it lost. */
  readonly previous: Partial<LeaseSubnets>;
  /** Uniform in [0, 1). */
  readonly random: () => number;
}

/** Where a planned subnet comes from, for the log. */
export type SubnetSource = 'public-ip' | 'previous' | 'free';

/** What to ask of the store next. */
export type LeasePlan =
  /** Take over the host's own key as it is. */
  | { readonly kind: 'adopt'; readonly lease: LeaseRecord }
  /** Create a key, in the same step deleting one of the host's own that the configuration has left behind. */
  | {
      readonly kind: 'create';
      readonly subnets: LeaseSubnets;
      readonly source: SubnetSource;
      readonly replacing: LeaseRecord | undefined;
    };

/**
 * Decides which subnets a host asks for, in flannel's order: its own lease by public address, the previous subnet, one
 * of the first hundred free ones by chance.
 *
 * @remarks Better than the original in this: a lease that fits in one family only keeps that part, so a network that
 * becomes dual-stack (or ceases to be) keeps its IPv4 subnets; of several own leases a reservation comes first, then
 * the previous subnet; a reservation that does not fit is left alone; keys with unreadable values count as taken.
 * @throws {@link OverlayError} `ERR_OUT_OF_SUBNETS`, or `ERR_NETWORK_CONFIG` for a network without IPv4: flannel has no key for it.
 */
export function planLease(input: PlanInput): LeasePlan {
  const { network, snapshot, previous } = input;
  const { ipv4 } = network;
  if (ipv4 === undefined) {
    throw new OverlayError(
      'ERR_NETWORK_CONFIG',
      'cannot lease a subnet in an IPv6-only network: a lease key begins with an IPv4 subnet',
      {
        hint: 'set EnableIPv4 and Network in the network configuration',
      },
    );
  }
  const own = orderOwn(input);
  const fitting = own.find((lease) => doesFit(network, lease));
  if (fitting !== undefined) return { kind: 'adopt', lease: fitting };

  const replacing = own.find((lease) => !lease.isReservation || keepsIpv4(network, lease));
  const others = occupied(snapshot, replacing);
  const choice = chooseFor(ipv4, [replacing?.subnet, previous.subnet], others, input.random);
  const ipv6 =
    network.ipv6 && chooseFor(network.ipv6, [replacing?.ipv6Subnet, previous.ipv6Subnet], others, input.random);
  const subnets = { subnet: choice.subnet, ipv6Subnet: ipv6?.subnet };
  return { kind: 'create', subnets, source: SOURCES[choice.rank] ?? 'free', replacing };
}

const SOURCES: readonly SubnetSource[] = ['public-ip', 'previous'];

/**
 * Whether a lease lies in the ranges of the configuration, with exactly the families that it has.
 *
 * @see flannel `pkg/subnet/etcd/local_manager.go`, isSubnetConfigCompat
 */
export function doesFit(network: NetworkConfig, subnets: LeaseSubnets): boolean {
  if (!isInRange(network.ipv4, subnets.subnet)) return false;
  return network.ipv6 === undefined
    ? subnets.ipv6Subnet === undefined
    : subnets.ipv6Subnet !== undefined && isInRange(network.ipv6, subnets.ipv6Subnet);
}

/** Leases among them that have an address in common with these subnets, under whatever key. */
export function findOverlapping<T extends LeaseSubnets>(subnets: LeaseSubnets, leases: readonly T[]): readonly T[] {
  return leases.filter(
    (lease) =>
      lease.subnet.overlaps(subnets.subnet) ||
      (lease.ipv6Subnet !== undefined && subnets.ipv6Subnet?.overlaps(lease.ipv6Subnet) === true),
  );
}

function isInRange(range: SubnetRange | undefined, subnet: Prefix): boolean {
  return (
    range !== undefined &&
    subnet.length === range.subnetLen &&
    subnet.address.compare(range.min) >= 0 &&
    subnet.address.compare(range.max) <= 0
  );
}

function keepsIpv4(network: NetworkConfig, lease: LeaseRecord): boolean {
  return isInRange(network.ipv4, lease.subnet);
}

/** The host's own leases, best first. */
function orderOwn({ snapshot, publicIp, previous }: PlanInput): readonly LeaseRecord[] {
  // Without an address there is no identity: every host without IPv4 publishes 0.0.0.0.
  if (publicIp.isUnspecified) return [];
  const rank = (lease: LeaseRecord): number => (lease.isReservation ? 0 : lease.subnet.equals(previous.subnet) ? 1 : 2);
  return snapshot.leases
    .filter((lease) => lease.attributes.publicIp.equals(publicIp))
    .sort((a, b) => rank(a) - rank(b));
}

/** Every subnet that belongs to somebody, of both families. */
function occupied(snapshot: LeaseSnapshot, except: LeaseRecord | undefined): readonly Prefix[] {
  const leases = snapshot.leases.filter((lease) => lease.key !== except?.key);
  const halfRead = snapshot.bad.flatMap((entry) => entry.subnets ?? []);
  return [...leases, ...halfRead].flatMap((lease) =>
    lease.ipv6Subnet === undefined ? [lease.subnet] : [lease.subnet, lease.ipv6Subnet],
  );
}

/** The first wish that is in range and free, by its rank in the list; else a free subnet by chance. */
function chooseFor(
  range: SubnetRange,
  wishes: readonly (Prefix | undefined)[],
  others: readonly Prefix[],
  random: () => number,
): { readonly subnet: Prefix; readonly rank: number } {
  for (const [rank, wish] of wishes.entries()) {
    if (wish !== undefined && isInRange(range, wish) && !others.some((other) => other.overlaps(wish))) {
      return { subnet: wish, rank };
    }
  }
  const free = listFree(range, others);
  const subnet = free[Math.floor(random() * free.length)];
  if (subnet === undefined) throw outOfSubnets(range);
  return { subnet, rank: wishes.length };
}

/**
 * The first free subnets of a range in rising order, at most a hundred.
 *
 * @remarks Takes n·log n in the number of taken subnets, whatever the size of the range: it jumps over each of them.
 * @internal
 */
export function listFree(range: SubnetRange, others: readonly Prefix[]): readonly Prefix[] {
  const { family } = range.network;
  const step = 1n << BigInt(ADDRESS_BITS[family] - range.subnetLen);
  const taken = others.filter((other) => other.family === family).sort((a, b) => a.compare(b));
  const free: Prefix[] = [];
  let next = range.min.value;
  let index = 0;
  /** Highest address of the taken subnets passed so far. A shorter prefix sorts before those inside it. */
  let takenUntil = -1n;
  while (next <= range.max.value && free.length < MAX_CANDIDATES) {
    for (let other = taken[index]; other !== undefined && other.address.value < next + step; other = taken[++index]) {
      const { value } = other.last;
      if (value > takenUntil) takenUntil = value;
    }
    if (takenUntil < next) {
      free.push(Prefix.of(IpAddress.fromValue(family, next), range.subnetLen));
      next += step;
    } else {
      next = (takenUntil / step + 1n) * step;
    }
  }
  return free;
}

function outOfSubnets(range: SubnetRange): OverlayError {
  const { network, subnetLen, min, max } = range;
  const v6 = network.family === 6 ? 'IPv6' : '';
  return new OverlayError(
    'ERR_OUT_OF_SUBNETS',
    `cannot find a free subnet in ${network.toString()}: every /${subnetLen} from ${min.toString()} to ${max.toString()} is taken`,
    {
      isRetryable: true,
      hint: `widen ${v6}SubnetMin and ${v6}SubnetMax or ${v6}Network, raise ${v6}SubnetLen, or release the leases of hosts that are gone`,
    },
  );
}
