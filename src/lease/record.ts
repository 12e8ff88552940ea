import type { Lease, LeaseSubnets } from './lease.js';

declare const etcdLeaseIdBrand: unique symbol;

/** The store's handle on the time that keys have left; keys that share one expire together (an etcd lease). */
export type EtcdLeaseId = string & { readonly [etcdLeaseIdBrand]: true };

/** Place in the store's history, as decimal text; later is larger. */
export type Revision = string;

/** A lease as it lies in the store. */
export interface LeaseRecord extends Lease {
  /** The key below `<prefix>/subnets/`; differs from the canonical form if another program wrote it so. */
  readonly key: string;
  /** What keeps the key from expiring; undefined for a reservation. */
  readonly etcdLeaseId: EtcdLeaseId | undefined;
}

/** A key or value under `<prefix>/subnets/` that is not a lease. Never a reason to forget a peer. */
export interface BadEntry {
  readonly key: string;
  readonly revision: Revision;
  /** As in {@link Lease}. */
  readonly createdAt: Revision;
  /** What is wrong with it, for a person. */
  readonly reason: string;
  /** The subnets its key names, where only the value is bad: they are taken all the same. */
  readonly subnets: LeaseSubnets | undefined;
}

/** A text under a key with the revision that wrote it. */
export interface TextEntry {
  readonly text: string;
  readonly revision: Revision;
  /** Revision at which the key came into being. */
  readonly createdAt: Revision;
}

/** Whether a revision lies after another. */
export function isAfter(a: Revision, b: Revision): boolean {
  // Decimal without leading zeros: a longer one is larger.
  return a.length === b.length ? a > b : a.length > b.length;
}
