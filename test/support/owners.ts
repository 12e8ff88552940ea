import { findOverlapping } from '../../src/lease/allocator.js';
import type { LeaseRecord } from '../../src/lease/record.js';

/** What is wrong with the owners of these leases: two keys that have an address in common, one host that has two keys. */
export function ownershipFaults(leases: readonly LeaseRecord[]): readonly string[] {
  return leases.flatMap((lease, index) => {
    const before = leases.slice(0, index);
    const { key, attributes } = lease;
    return [
      ...findOverlapping(lease, before).map((other) => `${other.key} and ${key} overlap`),
      ...before
        .filter((other) => other.attributes.publicIp.equals(attributes.publicIp))
        .map((other) => `${attributes.publicIp.toString()} has ${other.key} and ${key}`),
    ];
  });
}
