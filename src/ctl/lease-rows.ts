import { OverlayError } from '../errors.js';
import { IpAddress } from '../ip/address.js';
import { HOST_STATUS_PATH, decodeHostStatus } from '../lease/host-status.js';
import { type JsonValue, type LeaseSubnets, backendOf } from '../lease/lease.js';
import type { LeaseRecord, TtlId } from '../lease/record.js';
import type { LeaseSnapshot, LeaseStore } from '../lease/store.js';
import { parseSubnetKey } from '../lease/subnet-key.js';

/** A lease as `leases list --json` prints it. */
export interface LeaseRow {
  /** Name of the key below `<prefix>/subnets/`. */
  readonly key: string;
  readonly subnet: string;
  readonly ipv6Subnet: string | null;
  readonly publicIp: string;
  readonly publicIpv6: string | null;
  readonly backend: string;
  readonly backendData: JsonValue | null;
  readonly backendV6Data: JsonValue | null;
  readonly isReservation: boolean;
  /** Seconds until it ends unless it is renewed; null for a reservation. */
  readonly expiresInSeconds: number | null;
  /** As the host told; null if it runs flannel's own daemon. */
  readonly hostName: string | null;
  /** Since the host got this lease, as it told; null likewise. */
  readonly ageSeconds: number | null;
  readonly revision: string;
}

/** Keys under `subnets/` that are no leases, and what is wrong with them. */
export interface BadRow {
  readonly key: string;
  readonly problem: string;
}

/** Questions about remaining time that are under way at once. */
const PARALLEL_QUESTIONS = 32;

/** All leases with what is known about their hosts and the time they have left. */
export async function readLeaseRows(
  store: LeaseStore,
  options: { readonly wallMs: number; readonly signal: AbortSignal },
): Promise<{ readonly rows: readonly LeaseRow[]; readonly bad: readonly BadRow[]; readonly snapshot: LeaseSnapshot }> {
  const { wallMs, signal } = options;
  const snapshot = await store.listLeases(signal);
  const hosts = new Map(
    (await store.listValues(HOST_STATUS_PATH, signal)).map(({ path, text }) => [
      path.slice(HOST_STATUS_PATH.length),
      decodeHostStatus(text),
    ]),
  );
  const remaining = await remainingTimes(store, snapshot.leases, signal);
  const rows = snapshot.leases.map((lease): LeaseRow => {
    const { publicIp, publicIpv6, backendData, backendV6Data } = lease.attributes;
    const host = hosts.get(publicIp.toString());
    // What a host told about an earlier lease says nothing about this one.
    const sinceMs = Date.parse(host?.leaseKey === lease.key ? host.leaseSince : '');
    return {
      key: lease.key,
      subnet: lease.subnet.toString(),
      ipv6Subnet: lease.ipv6Subnet?.toString() ?? null,
      publicIp: publicIp.toString(),
      publicIpv6: publicIpv6?.toString() ?? null,
      backend: backendOf(lease.attributes),
      backendData: backendData ?? null,
      backendV6Data: backendV6Data ?? null,
      isReservation: lease.isReservation,
      expiresInSeconds: lease.ttlId === undefined ? null : (remaining.get(lease.ttlId) ?? 0),
      hostName: host?.hostName ?? null,
      ageSeconds: Number.isNaN(sinceMs) ? null : Math.max(0, Math.round((wallMs - sinceMs) / 1000)),
      revision: lease.revision,
    };
  });
  return { rows, bad: snapshot.bad.map(({ key, reason }) => ({ key, problem: reason })), snapshot };
}

async function remainingTimes(
  store: LeaseStore,
  leases: readonly LeaseRecord[],
  signal: AbortSignal,
): Promise<ReadonlyMap<TtlId, number | undefined>> {
  const waiting = [...new Set(leases.flatMap(({ ttlId }) => ttlId ?? []))];
  const times = new Map<TtlId, number | undefined>();
  const worker = async (): Promise<void> => {
    for (let ttlId = waiting.pop(); ttlId !== undefined; ttlId = waiting.pop()) {
      times.set(ttlId, await store.remainingTtl(ttlId, signal));
    }
  };
  await Promise.all(Array.from({ length: PARALLEL_QUESTIONS }, worker));
  return times;
}

/**
 * Reads the name of a subnet: `10.5.3.0/24`, or as in etcd `10.5.3.0-24`, with `&` and an IPv6 part behind it or without.
 *
 * @throws {@link OverlayError} `ERR_IP_SYNTAX`
 */
export function parseSubnetName(text: string): LeaseSubnets {
  try {
    const [v4 = '', v6] = text.split('&').map((part) => part.replace('/', '-'));
    if (!/^\d+\.\d+\.\d+\.\d+-\d+$/.test(v4)) throw new OverlayError('ERR_IP_SYNTAX', 'it is no IPv4 subnet');
    return parseSubnetKey(v6 === undefined ? v4 : `${v4}&${v6}`);
  } catch (cause) {
    throw new OverlayError('ERR_IP_SYNTAX', `cannot use the subnet "${text}": it is not an IPv4 network`, {
      cause,
      hint: 'write it as 10.5.3.0/24',
    });
  }
}

/**
 * The lease of that IPv4 subnet, or of the host with that public address.
 *
 * @throws {@link OverlayError} `ERR_NOT_FOUND`, `ERR_IP_SYNTAX`
 */
export function findLease(snapshot: LeaseSnapshot, text: string): LeaseRecord {
  const byKey = snapshot.leases.find(({ key }) => key === text);
  if (byKey !== undefined) return byKey;
  const address = IpAddress.tryParse(text);
  const isSought = ({ subnet, attributes }: LeaseRecord): boolean =>
    address === undefined ? subnet.equals(parseSubnetName(text).subnet) : attributes.publicIp.equals(address);
  const found = snapshot.leases.filter(isSought);
  const [lease] = found;
  if (lease !== undefined && found.length === 1) return lease;
  if (lease !== undefined) {
    throw new OverlayError('ERR_NOT_FOUND', `cannot choose a lease for ${text}: there are ${found.length}`, {
      hint: `name one of ${found.map(({ key }) => key).join(', ')}`,
    });
  }
  throw new OverlayError('ERR_NOT_FOUND', `cannot find a lease for ${text}: nobody holds one`, {
    hint: 'see tsflannelctl leases list',
  });
}

/** `10.5.3.0/24` or `10.5.3.0/24 and fd00:…/64`. */
export function describeSubnets({ subnet, ipv6Subnet }: LeaseSubnets): string {
  return ipv6Subnet === undefined ? subnet.toString() : `${subnet.toString()} and ${ipv6Subnet.toString()}`;
}
