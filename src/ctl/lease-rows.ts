import { OverlayError } from '../errors.js';
import { HOST_STATUS_PATH, type HostStatus, decodeHostStatus } from '../lease/host-status.js';
import type { JsonValue } from '../json.js';
import { type LeaseSubnets, backendOf } from '../lease/lease.js';
import type { LeaseRecord, EtcdLeaseId } from '../lease/record.js';
import type { LeaseSnapshot, OperatorStore } from '../lease/store.js';
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

/** What lies among the leases, and what it was read from. */
export interface LeaseRows {
  readonly rows: readonly LeaseRow[];
  readonly bad: readonly BadRow[];
  readonly snapshot: LeaseSnapshot;
  readonly hosts: ReadonlyMap<string, HostStatus>;
}

/** Questions about remaining time that are under way at once. */
const PARALLEL_QUESTIONS = 32;

/** What hosts tell about themselves, by public address. */
export async function readHosts(store: OperatorStore, signal: AbortSignal): Promise<ReadonlyMap<string, HostStatus>> {
  const values = await store.listValues(HOST_STATUS_PATH, signal);
  const hosts = values.map(({ path, text }) => [path.slice(HOST_STATUS_PATH.length), decodeHostStatus(text)] as const);
  return new Map(hosts.flatMap(([address, host]) => (host === undefined ? [] : [[address, host]])));
}

/** All leases with what is known about their hosts and the time they have left. */
export async function readLeaseRows(
  store: OperatorStore,
  options: { readonly wallMs: number; readonly signal: AbortSignal },
): Promise<LeaseRows> {
  const { wallMs, signal } = options;
  const snapshot = await store.listLeases(signal);
  const hosts = await readHosts(store, signal);
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
      expiresInSeconds: lease.etcdLeaseId === undefined ? null : (remaining.get(lease.etcdLeaseId) ?? 0),
      hostName: host?.hostName ?? null,
      ageSeconds: Number.isNaN(sinceMs) ? null : Math.max(0, Math.round((wallMs - sinceMs) / 1000)),
      revision: lease.revision,
    };
  });
  return { rows, bad: snapshot.bad.map(({ key, reason }) => ({ key, problem: reason })), snapshot, hosts };
}

async function remainingTimes(
  store: OperatorStore,
  leases: readonly LeaseRecord[],
  signal: AbortSignal,
): Promise<ReadonlyMap<EtcdLeaseId, number | undefined>> {
  const waiting = [...new Set(leases.flatMap(({ etcdLeaseId }) => etcdLeaseId ?? []))];
  const times = new Map<EtcdLeaseId, number | undefined>();
  const worker = async (): Promise<void> => {
    for (let etcdLeaseId = waiting.pop(); etcdLeaseId !== undefined; etcdLeaseId = waiting.pop()) {
      times.set(etcdLeaseId, await store.remainingTtl(etcdLeaseId, signal));
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

/** `10.5.3.0/24` or `10.5.3.0/24 and fd00:…/64`. */
export function describeSubnets({ subnet, ipv6Subnet }: LeaseSubnets): string {
  return ipv6Subnet === undefined ? subnet.toString() : `${subnet.toString()} and ${ipv6Subnet.toString()}`;
}
