import type { NetworkConfig, SubnetRange } from '../config/network-config.js';
import { OverlayError } from '../errors.js';
import { ADDRESS_BITS, IpAddress } from '../ip/address.js';
import { Prefix } from '../ip/prefix.js';
import { areAttributesEqual } from './attributes.js';
import type { Lease, LeaseSubnets } from './lease.js';
import { type BadEntry, type LeaseRecord, isAfter } from './record.js';

/** Of the free subnets only the first hundred are candidates, so that small numbers are used first, as in flannel. */
const MAX_CANDIDATES = 100;

/** What the store has under `<prefix>/subnets/`. */
export interface KnownLeases {
  readonly leases: readonly LeaseRecord[];
  readonly bad: readonly BadEntry[];
}

/** What {@link planLease} needs to know. */
export interface PlanInput {
  readonly network: NetworkConfig;
  /** The host's identity. */
  readonly publicIp: IpAddress;
  readonly known: KnownLeases;
  /**
   * Leases that the host held: in an earlier process, or in a network that was exchanged. If nobody has written them
   * since then they are the host's own, whatever address they name: that may have changed while no process ran.
   */
  readonly former?: readonly Lease[];
  /** What the host had before, the latest first: leases that it lost, what subnet.env names. */
  readonly wishes: readonly Partial<LeaseSubnets>[];
  /** Subnets of hosts that may come back for them; given away only if no other is free. */
  readonly avoid: readonly Prefix[];
  /** Uniform in [0, 1). */
  readonly random: () => number;
}

/** Where a planned subnet comes from, for the log. */
export type SubnetSource = 'public-ip' | 'previous' | 'free';

/** What to ask of the store next. */
export type LeasePlan =
  /** Take over the host's own key as it is. */
  | { readonly kind: 'reuse'; readonly lease: LeaseRecord }
  /** Create a key, in the same step deleting one of the host's own that the configuration has left behind. */
  | {
      readonly kind: 'create';
      readonly subnets: LeaseSubnets;
      readonly source: SubnetSource;
      readonly replacing: LeaseRecord | undefined;
      /** A key of the host's own that would fit, but overlaps an older one of another host. */
      readonly yielding: { readonly lease: LeaseRecord; readonly rival: string } | undefined;
      /** Keys of the host's own that lie outside the network: they may be wanted again if it is soon changed back. */
      readonly aside: readonly LeaseRecord[];
    };

/**
 * Decides which subnets a host asks for, in flannel's order: its own lease by public address, the previous subnet, one
 * of the first hundred free ones by chance.
 *
 * @remarks Better than the original in this: a lease that fits in one family only keeps that part, so a network that
 * becomes dual-stack (or ceases to be) keeps its IPv4 subnets; of several own leases a reservation comes first, then
 * the previous subnet; a reservation that does not fit is left alone; an own lease that overlaps an older one of
 * another host is exchanged; keys with unreadable values count as taken.
 * @throws {@link OverlayError} `ERR_OUT_OF_SUBNETS`, or `ERR_NETWORK_CONFIG` for a network without IPv4: flannel has no key for it.
 */
export function planLease(input: PlanInput): LeasePlan {
  const { network, known, wishes, avoid } = input;
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
  const fitting = own
    .filter((lease) => doesFit(network, lease))
    .map((lease) => ({ lease, rival: findOlderRival(lease, known)?.key }));
  const sound = fitting.find(({ rival }) => rival === undefined);
  if (sound !== undefined) return { kind: 'reuse', lease: sound.lease };
  const yielding = fitting.flatMap(({ lease, rival }) => (rival === undefined ? [] : [{ lease, rival }]))[0];

  const isInNetwork = (lease: LeaseRecord): boolean => ipv4.network.overlaps(lease.subnet);
  const replacing = own.find((lease) => (lease.isReservation ? keepsIpv4(network, lease) : isInNetwork(lease)));
  const aside = own.filter((lease) => !lease.isReservation && !isInNetwork(lease));
  const others = occupied(known, replacing);
  const choose = (range: SubnetRange, family: 'subnet' | 'ipv6Subnet'): Choice => {
    const wanted = [replacing?.[family], ...wishes.map((wish) => wish[family])];
    try {
      return chooseFor(range, wanted, [...others, ...avoid], input.random);
    } catch {
      return chooseFor(range, wanted, others, input.random);
    }
  };
  const choice = choose(ipv4, 'subnet');
  const ipv6 = network.ipv6 && choose(network.ipv6, 'ipv6Subnet');
  const subnets = { subnet: choice.subnet, ipv6Subnet: ipv6?.subnet };
  const source = choice.rank === 0 ? 'public-ip' : choice.rank <= wishes.length ? 'previous' : 'free';
  return { kind: 'create', subnets, source, replacing, yielding, aside };
}

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

/**
 * Whoever claims an address of a lease under an older key: they are in the right.
 *
 * @remarks Keys of the same host do not count; those with an unreadable value do, since nobody knows whose they are.
 */
export function findOlderRival(lease: LeaseRecord, known: KnownLeases): LeaseRecord | BadEntry | undefined {
  return findRivals(lease, known).find((rival) => isAfter(lease.createdAt, rival.createdAt));
}

/** Keys of others that name an address of a lease. */
export function findRivals(lease: LeaseRecord, known: KnownLeases): readonly (LeaseRecord | BadEntry)[] {
  const { publicIp } = lease.attributes;
  const leases = findOverlapping(lease, known.leases).filter(
    ({ key, attributes }) => key !== lease.key && (publicIp.isUnspecified || !attributes.publicIp.equals(publicIp)),
  );
  const bad = known.bad.filter(
    ({ key, subnets }) => key !== lease.key && subnets !== undefined && findOverlapping(lease, [subnets]).length > 0,
  );
  return [...leases, ...bad];
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
function orderOwn({ known, publicIp, former = [], wishes }: PlanInput): readonly LeaseRecord[] {
  // Without an address there is no identity: every host without IPv4 publishes 0.0.0.0.
  if (publicIp.isUnspecified) return [];
  const rank = (lease: LeaseRecord): number => {
    if (lease.isReservation) return -1;
    const wish = wishes.findIndex(({ subnet }) => lease.subnet.equals(subnet));
    return wish < 0 ? wishes.length : wish;
  };
  const isOwn = (lease: LeaseRecord): boolean =>
    lease.attributes.publicIp.equals(publicIp) || former.some((each) => isUntouched(lease, each));
  return known.leases.filter(isOwn).sort((a, b) => rank(a) - rank(b));
}

/** Whether nobody has written a lease since it was seen last. */
function isUntouched(lease: LeaseRecord, { subnet, revision, attributes }: Lease): boolean {
  return lease.subnet.equals(subnet) && lease.revision === revision && areAttributesEqual(lease.attributes, attributes);
}

/** Every subnet that belongs to somebody, of both families. */
function occupied(known: KnownLeases, except: LeaseRecord | undefined): readonly Prefix[] {
  const leases = known.leases.filter((lease) => lease.key !== except?.key);
  const halfRead = known.bad.flatMap((entry) => entry.subnets ?? []);
  return [...leases, ...halfRead].flatMap((lease) =>
    lease.ipv6Subnet === undefined ? [lease.subnet] : [lease.subnet, lease.ipv6Subnet],
  );
}

interface Choice {
  readonly subnet: Prefix;
  /** Index of the wish that came true; their number if none did. */
  readonly rank: number;
}

/** The first wish that is in range and free; else a free subnet by chance. */
function chooseFor(
  range: SubnetRange,
  wishes: readonly (Prefix | undefined)[],
  others: readonly Prefix[],
  random: () => number,
): Choice {
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
