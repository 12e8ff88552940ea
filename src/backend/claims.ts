import { append } from '../append.js';
import { isSame } from '../ip/same.js';
import type { NetworkConfig } from '../config/network-config.js';
import type { Lease } from '../lease/lease.js';
import { isAfter } from '../lease/record.js';
import type { Claim, SkippedPeer } from './backend.js';

/**
 * Who gets what only one peer can have, such as a MAC address in a forwarding table.
 *
 * @remarks The lease that was there first has it: whoever copied a host must not cut off the original, and as all hosts
 * see the same revisions, all of them send to the same one. When it was last written does not count, since a host that
 * is started again writes its lease anew. The subnet decides between leases of one transaction.
 * A lease in a network that is no longer configured has it last: it may be what a host left behind under a former
 * address. Two leases of one host, as while a network is exchanged for another one, need not be told apart.
 */
export class Claims {
  private readonly claimants = new Map<string, readonly Lease[]>();
  private readonly contested = new Map<string, Claim>();

  add(lease: Lease, claims: readonly Claim[]): void {
    for (const claim of claims) {
      const others = this.claimants.get(claim.what);
      this.claimants.set(claim.what, append(others, lease));
      if (others !== undefined) this.contested.set(claim.what, claim);
    }
  }

  remove(lease: Lease, claims: readonly Claim[]): void {
    for (const { what } of claims) {
      const others = (this.claimants.get(what) ?? []).filter((other) => other !== lease);
      if (others.length === 0) this.claimants.delete(what);
      else this.claimants.set(what, others);
      if (others.length < 2) this.contested.delete(what);
    }
  }

  clear(): void {
    this.claimants.clear();
    this.contested.clear();
  }

  /**
   * Those who claim what another one has. Costs nothing unless there are any.
   *
   * @param network - the one that is configured.
   */
  losers(network: NetworkConfig): ReadonlyMap<Lease, SkippedPeer> {
    const losers = new Map<Lease, SkippedPeer>();
    for (const { what, cause, hint } of this.contested.values()) {
      const [holder, ...others] = (this.claimants.get(what) ?? []).toSorted(
        (a, b) => Number(isFormer(a, network)) - Number(isFormer(b, network)) || byAge(a, b),
      );
      if (holder === undefined) continue;
      const rivals = others.filter((lease) => !isSameHost(lease, holder));
      for (const lease of rivals) {
        const why =
          isFormer(lease, network) && !isFormer(holder, network) ? 'is in the configured network' : 'had it first';
        const other = `${holder.subnet.toString()} (${holder.attributes.publicIp.toString()})`;
        losers.set(lease, { lease, cause, reason: `its ${what} is also that of ${other}, which ${why}`, hint });
      }
    }
    return losers;
  }
}

/** Whether what is sent to either arrives at the same host. */
function isSameHost({ attributes: a }: Lease, { attributes: b }: Lease): boolean {
  return !a.publicIp.isUnspecified && a.publicIp.equals(b.publicIp) && isSame(a.publicIpv6, b.publicIpv6);
}

function isFormer({ subnet }: Lease, { ipv4 }: NetworkConfig): boolean {
  return ipv4?.network.covers(subnet) === false;
}

function byAge(a: Lease, b: Lease): number {
  if (a.createdAt === b.createdAt) return a.subnet.compare(b.subnet);
  return isAfter(a.createdAt, b.createdAt) ? 1 : -1;
}
