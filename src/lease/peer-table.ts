import type { IpAddress } from '../ip/address.js';
import type { Prefix } from '../ip/prefix.js';
import { areAttributesEqual } from './attributes.js';
import type { Lease, LeaseSubnets } from './lease.js';
import { isAfter } from './store.js';

/** What tells the host's own leases from those of its peers. */
export interface OwnIdentity {
  /** Undefined before a lease is held. */
  readonly subnets: LeaseSubnets | undefined;
  readonly publicIp: IpAddress;
}

/** One peer that came (no `before`), went (no `after`) or is reached in another way now. */
export interface PeerChange {
  readonly before: Lease | undefined;
  readonly after: Lease | undefined;
}

/**
 * Leases by their keys, and those of them that count as peers in order of their subnets. Pure.
 *
 * @remarks
 * *Rules.* Of two keys for one IPv4 subnet the one written last counts. The own subnet is no peer, and neither is
 * another lease with the own public address: traffic to it would come back here.
 *
 * *Limits.* One lease among thousands changes at a time. Therefore only the subnets that were touched are looked at, and
 * what remains to be done for all of them is to copy the sorted list, once for all changes since it was last asked for.
 */
export class PeerTable {
  /** By key; a key names the same subnet for ever. */
  readonly #leases = new Map<string, Lease>();
  /** The keys of each subnet, by its text; almost always one. */
  readonly #keys = new Map<string, readonly string[]>();
  /** What counts for each subnet, as of the last {@link #refresh}. */
  readonly #counting = new Map<string, Lease>();
  #sorted: readonly Lease[] = [];
  /** Subnets for which something else may count now. */
  readonly #touched = new Map<string, Prefix>();
  /** What counted for each subnet when {@link takeChanges} was called last, of those where it may be another lease now. */
  readonly #before = new Map<string, Lease | undefined>();

  constructor(private own: OwnIdentity) {}

  /** The peers; the same list until something changes. */
  get peers(): readonly Lease[] {
    this.#refresh();
    return this.#sorted;
  }

  /** All keys that have a lease. */
  get keys(): readonly string[] {
    return [...this.#leases.keys()];
  }

  has(key: string): boolean {
    return this.#leases.has(key);
  }

  put(key: string, lease: Lease): void {
    const subnet = lease.subnet.toString();
    if (!this.#leases.has(key)) this.#keys.set(subnet, [...(this.#keys.get(subnet) ?? []), key]);
    this.#leases.set(key, lease);
    this.#touched.set(subnet, lease.subnet);
  }

  delete(key: string): void {
    const lease = this.#leases.get(key);
    if (lease === undefined) return;
    const subnet = lease.subnet.toString();
    const others = (this.#keys.get(subnet) ?? []).filter((other) => other !== key);
    if (others.length === 0) this.#keys.delete(subnet);
    else this.#keys.set(subnet, others);
    this.#leases.delete(key);
    this.#touched.set(subnet, lease.subnet);
  }

  /**
   * Says which leases are the host's own from now on.
   *
   * @returns whether that is anything new.
   */
  setOwn(own: OwnIdentity): boolean {
    const { subnets, publicIp } = this.own;
    const isSameSubnet = own.subnets === subnets || (own.subnets?.subnet.equals(subnets?.subnet) ?? false);
    if (isSameSubnet && own.publicIp.equals(publicIp)) return false;
    this.own = own;
    for (const lease of this.#leases.values()) this.#touched.set(lease.subnet.toString(), lease.subnet);
    return true;
  }

  /**
   * What forwarding has to know of since the last call: first who came and changed, then who went, each in order of
   * the subnets. A lease that was only renewed is no change.
   */
  takeChanges(): readonly PeerChange[] {
    this.#refresh();
    const changes: PeerChange[] = [];
    for (const [subnet, before] of this.#before) {
      const after = this.#counting.get(subnet);
      if (!isSamePeer(before, after)) changes.push({ before, after });
    }
    this.#before.clear();
    const rank = ({ after }: PeerChange): number => (after === undefined ? 1 : 0);
    return changes.sort((a, b) => rank(a) - rank(b) || compareSubnets(a.after ?? a.before, b.after ?? b.before));
  }

  #refresh(): void {
    const news: { readonly subnet: Prefix; readonly after: Lease | undefined }[] = [];
    for (const [text, subnet] of this.#touched) {
      const before = this.#counting.get(text);
      const after = this.#choose(text);
      if (before === after) continue;
      if (!this.#before.has(text)) this.#before.set(text, before);
      if (after === undefined) this.#counting.delete(text);
      else this.#counting.set(text, after);
      news.push({ subnet, after });
    }
    this.#touched.clear();
    if (news.length === 0) return;

    const sorted: Lease[] = [];
    let copied = 0;
    for (const { subnet, after } of news.sort((a, b) => a.subnet.compare(b.subnet))) {
      const at = placeOf(subnet, this.#sorted, copied);
      for (const lease of this.#sorted.slice(copied, at)) sorted.push(lease);
      if (after !== undefined) sorted.push(after);
      copied = this.#sorted[at]?.subnet.equals(subnet) === true ? at + 1 : at;
    }
    for (const lease of this.#sorted.slice(copied)) sorted.push(lease);
    this.#sorted = sorted;
  }

  /** The lease that counts for a subnet. */
  #choose(subnet: string): Lease | undefined {
    let chosen: Lease | undefined;
    for (const key of this.#keys.get(subnet) ?? []) {
      const lease = this.#leases.get(key);
      if (lease === undefined || this.#isOwn(lease)) continue;
      if (chosen === undefined || isAfter(lease.revision, chosen.revision)) chosen = lease;
    }
    return chosen;
  }

  #isOwn(lease: Lease): boolean {
    const { subnets, publicIp } = this.own;
    return (
      lease.subnet.equals(subnets?.subnet) || (!publicIp.isUnspecified && publicIp.equals(lease.attributes.publicIp))
    );
  }
}

/** Index of the first lease from `start` on whose subnet does not come before this one. */
function placeOf(subnet: Prefix, sorted: readonly Lease[], start: number): number {
  let low = start;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const lease = sorted[middle];
    if (lease !== undefined && lease.subnet.compare(subnet) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}

function compareSubnets(a: Lease | undefined, b: Lease | undefined): number {
  return a === undefined || b === undefined ? 0 : a.subnet.compare(b.subnet);
}

/** Whether nothing that forwarding depends on differs. */
function isSamePeer(a: Lease | undefined, b: Lease | undefined): boolean {
  if (a === b) return true;
  if (a === undefined || b === undefined) return false;
  const isSameIpv6 = a.ipv6Subnet === undefined ? b.ipv6Subnet === undefined : a.ipv6Subnet.equals(b.ipv6Subnet);
  return isSameIpv6 && areAttributesEqual(a.attributes, b.attributes);
}
