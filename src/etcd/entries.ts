import type { IKeyValue } from 'etcd3/lib/rpc.js';
import { OverlayError, describeError } from '../errors.js';
import { decodeAttributes } from '../lease/attributes.js';
import type { LeaseSubnets } from '../lease/lease.js';
import type { BadEntry, LeaseRecord, TextEntry, EtcdLeaseId } from '../lease/record.js';
import { parseSubnetKey } from '../lease/subnet-key.js';

/** A lease key with its value is some 200 bytes; what is far larger is not read at all. */
const MAX_VALUE_BYTES = 16_384;

/** The longest name of a lease key has 66 characters. */
const MAX_NAME_LENGTH = 256;

/** One key under `<prefix>/subnets/`: a lease, or what is wrong with it. */
export type DecodedEntry =
  { readonly lease: LeaseRecord; readonly bad: undefined } | { readonly lease: undefined; readonly bad: BadEntry };

/**
 * Reads a key under `<prefix>/subnets/`; everything another host wrote there passes through here.
 *
 * @param name - the key below `<prefix>/subnets/`.
 */
export function decodeEntry(name: string, entry: IKeyValue): DecodedEntry {
  const { mod_revision: revision, create_revision: createdAt } = entry;
  let subnets: LeaseSubnets | undefined;
  try {
    if (name.length > MAX_NAME_LENGTH)
      return badEntry(entry, name, `its name has ${name.length} characters`, undefined);
    subnets = parseSubnetKey(name);
    if (entry.value.length > MAX_VALUE_BYTES) {
      return badEntry(entry, name, `its value has ${entry.value.length} bytes`, subnets);
    }
    const lease: LeaseRecord = {
      ...subnets,
      key: name,
      attributes: decodeAttributes(entry.value.toString()),
      revision,
      createdAt,
      etcdLeaseId: toEtcdLeaseId(entry.lease),
      isReservation: entry.lease === '0',
    };
    return { lease, bad: undefined };
  } catch (error) {
    if (!(error instanceof OverlayError)) throw error;
    return badEntry(entry, name, describeError(error), subnets);
  }
}

function badEntry(
  { mod_revision: revision, create_revision: createdAt }: IKeyValue,
  key: string,
  reason: string,
  subnets: LeaseSubnets | undefined,
): DecodedEntry {
  return { lease: undefined, bad: { key, revision, createdAt, reason, subnets } };
}

/** The value of any other key. */
export function toText(entry: IKeyValue): TextEntry {
  return { text: entry.value.toString(), revision: entry.mod_revision, createdAt: entry.create_revision };
}

/** etcd's id of an etcd lease, decimal and `0` for none, as the hexadecimal that etcdctl shows. */
export function toEtcdLeaseId(etcdId: string): EtcdLeaseId | undefined {
  return etcdId === '0' ? undefined : (BigInt(etcdId).toString(16) as EtcdLeaseId);
}

/** The reverse of {@link toEtcdLeaseId}. */
export function toEtcdId(etcdLeaseId: EtcdLeaseId | undefined): string {
  return etcdLeaseId === undefined ? '0' : BigInt(`0x${etcdLeaseId}`).toString();
}
