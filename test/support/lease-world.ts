import type { AdmissionContext } from '../../src/lease/admission.js';
import type { LeaseAttributes } from '../../src/lease/lease.js';
import type { BadEntry, LeaseRecord, EtcdLeaseId } from '../../src/lease/record.js';
import type { WorldStore, Subscription } from '../../src/lease/store.js';
import { formatSubnetKey, parseSubnetKey } from '../../src/lease/subnet-key.js';
import type { World } from '../../src/lease/world.js';
import { ip, lease, net } from './builders.js';

/** How {@link leaseRecord} differs from what it does by itself. */
export interface RecordChanges {
  /** Default the canonical key of the subnets. */
  readonly key?: string;
  /** As a lease key names them. Default 10.5.`n`.0/24. */
  readonly subnets?: string;
  /** Last byte of the public address 192.0.2.x. Default `n`. */
  readonly host?: number;
  readonly attributes?: Partial<LeaseAttributes>;
  /** Default 10. */
  readonly revision?: number;
  /** Default `revision`. */
  readonly createdAt?: number;
  /** Hexadecimal. Default `n`, and none for a reservation. */
  readonly etcdLeaseId?: string;
  readonly isReservation?: boolean;
  readonly isDualStack?: boolean;
}

/** A lease of 10.5.`n`.0/24 at 192.0.2.`n` as it lies in the store. */
export function leaseRecord(n: number, changes: RecordChanges = {}): LeaseRecord {
  const { host = n, revision = 10, createdAt = revision, isReservation = false, isDualStack = false } = changes;
  const base = lease(n, { isDualStack });
  const subnets = changes.subnets === undefined ? base : parseSubnetKey(changes.subnets);
  const { publicIp } = lease(host).attributes;
  return {
    ...base,
    subnet: subnets.subnet,
    ipv6Subnet: subnets.ipv6Subnet,
    key: changes.key ?? formatSubnetKey(subnets),
    attributes: { ...base.attributes, publicIp, ...changes.attributes },
    revision: String(revision),
    createdAt: String(createdAt),
    etcdLeaseId: isReservation ? undefined : ((changes.etcdLeaseId ?? n.toString(16)) as EtcdLeaseId),
    isReservation,
  };
}

/** A key with a value that is no lease; its subnets are those that the key names, if it does. */
export function badEntry(key: string, revision = 10, createdAt = revision): BadEntry {
  let subnets: BadEntry['subnets'];
  try {
    subnets = parseSubnetKey(key);
  } catch {
    subnets = undefined; // the key is bad, too
  }
  return { key, revision: String(revision), createdAt: String(createdAt), reason: 'it is not JSON', subnets };
}

/** What {@link worldOf} puts together. */
export interface WorldParts {
  /** Default 1. */
  readonly epoch?: number;
  /** Default the newest of its entries. */
  readonly revision?: number;
  readonly clusterId?: string;
  readonly config?: string;
  readonly bad?: readonly BadEntry[];
}

/** A world with these leases. */
export function worldOf(leases: readonly LeaseRecord[], parts: WorldParts = {}): World {
  const { epoch = 1, clusterId = '77', config, bad = [] } = parts;
  const newest = Math.max(1, ...[...leases, ...bad].map(({ revision }) => Number(revision)));
  const revision = String(parts.revision ?? newest);
  return {
    epoch,
    revision,
    clusterId,
    config: config === undefined ? undefined : { text: config, revision: '1', createdAt: '1' },
    leases: new Map(leases.map((each) => [each.key, each])),
    bad: new Map(bad.map((each) => [each.key, each])),
  };
}

/** The context of the host with lease 1 in 10.5.0.0/16 and fd00:10:5::/48. */
export function admissionContext(changes: Partial<AdmissionContext> = {}): AdmissionContext {
  return {
    networks: [net('10.5.0.0/16'), net('fd00:10:5::/48')],
    needsIpv4: true,
    publicIp: ip('192.0.2.1'),
    own: { subnet: net('10.5.1.0/24'), ipv6Subnet: undefined },
    guarded: [],
    broadcasts: [],
    ...changes,
  };
}

/** Has everything that observes worlds follow a store, as the daemon does. */
export function follow(
  store: Pick<WorldStore, 'followWorld'>,
  ...observers: readonly { observe(world: World): void }[]
): Subscription {
  return store.followWorld((world) => {
    for (const observer of observers) observer.observe(world);
  });
}
