import type { NetworkConfig } from '../config/network-config.js';
import type { IpAddress } from '../ip/address.js';
import { doesFit, findOverlapping } from '../lease/allocator.js';
import type { Lease, LeaseSubnets } from '../lease/lease.js';
import type { HistoryMark, World } from '../lease/world.js';
import type { Logger } from '../log.js';
import type { SavedStateStatus } from '../observe/status.js';
import { type Here, type SavedUse, judgeSavedState } from './saved-origin.js';
import type { SavedState } from './saved-state.js';

/**
 * What a daemon stands on until the store has answered: the state that an earlier process saved, as far as
 * {@link judgeSavedState} lets it be used.
 *
 * ```
 *  load ─▶ nothing (none, or of another machine or network)
 *     └──▶ known ── store silent ─▶ in use ── store answers ─▶ confirmed, or another subnet
 *             └──────── store answers ───────────────────────▶ confirmed
 * ```
 *
 * API: {@link take} once; {@link useInstead} when the store is silent; {@link standIn} gives the lease meanwhile, and
 * {@link confirm} ends it with the lease that the store has granted.
 */
export class Footing {
  private state: SavedState | undefined;
  private use: SavedUse = { kind: 'nothing', reason: 'there is none' };
  private isSameBoot = false;
  private isStoreSilent = false;
  private hasStoodIn = false;
  private isSettled = false;
  private toldAddress: string | undefined;

  constructor(private readonly log: Logger) {}

  /** Takes what was loaded, if anything was, and decides what it is good for. */
  take(state: SavedState | undefined, here: Here): void {
    if (state === undefined) return;
    this.use = judgeSavedState(state.origin, here);
    if (this.use.kind === 'nothing') {
      this.log.warn('the saved state is not used', {
        subnet: state.own.subnet.toString(),
        detail: this.use.reason,
        hint: 'it is replaced as soon as etcd answers',
      });
      return;
    }
    this.state = state;
    this.isSameBoot = state.origin === undefined || state.origin.boot === here.boot;
  }

  /** Text of the network configuration. */
  get config(): string | undefined {
    return this.state?.config;
  }

  get mark(): HistoryMark | undefined {
    return this.state?.mark;
  }

  /** The subnets that the host had. */
  get subnets(): Partial<LeaseSubnets> {
    if (this.state === undefined) return {};
    const { subnet, ipv6Subnet } = this.state.own;
    return { subnet, ...(ipv6Subnet === undefined ? {} : { ipv6Subnet }) };
  }

  /**
   * The lease that is the host's own whatever address it names: only within one boot, since a copied disk may come up
   * with the address of the copy.
   */
  get former(): Lease | undefined {
    return this.isSameBoot ? this.state?.own : undefined;
  }

  /** Peers to go on with until the store tells of them. */
  get peers(): readonly Lease[] {
    return this.use.kind === 'all' ? (this.state?.peers ?? []) : [];
  }

  /** Peers for which something may still be on this host: none after a reboot. */
  get peersOfThisBoot(): readonly Lease[] {
    return this.isSameBoot ? (this.state?.peers ?? []) : [];
  }

  /** The lease that no other lease may overlap before the host holds one. */
  get claim(): Lease | undefined {
    return this.isSettled ? undefined : this.state?.own;
  }

  /** Says that the store does not answer, so that the saved state has to do. @returns whether there is one. */
  useInstead(): boolean {
    const { isStoreSilent: isKnown } = this;
    this.isStoreSilent = true;
    if (isKnown) return this.state !== undefined;
    if (this.state === undefined) {
      // That etcd does not answer is told with its reason by the store.
      this.log.info('no saved state to go on with, waiting for etcd', {
        hint: 'how long systemd lets Docker wait for it is TimeoutStartSec= of tsflanneld.service',
      });
      return false;
    }
    const { own, origin } = this.state;
    const from = origin === undefined ? undefined : new Date(origin.savedAtMs).toISOString();
    const fields = { subnet: own.subnet.toString(), count: this.peers.length, from };
    if (this.use.kind === 'all') {
      this.log.warn('etcd does not answer, going on with the saved state', {
        ...fields,
        hint: 'bring etcd back, which has to confirm the lease and tell of new peers',
      });
    } else {
      this.log.warn('etcd does not answer and the saved lease may have ended: its subnet is for Docker only', {
        ...fields,
        detail: this.use.reason,
        hint: 'bring etcd back; until then nothing is sent to other hosts, one of which may have the subnet by now',
      });
    }
    return true;
  }

  /**
   * The lease to work with before the store has told of any.
   *
   * @param publicIp - of this host now: a lease of another address is not its own.
   */
  standIn(network: NetworkConfig, publicIp: IpAddress): Lease | undefined {
    const own = this.state?.own;
    if (own === undefined || !this.isStoreSilent || this.isSettled || !doesFit(network, own)) return undefined;
    if (!own.attributes.publicIp.equals(publicIp)) {
      this.tellAddress(own, publicIp);
      return undefined;
    }
    this.hasStoodIn = true;
    return own;
  }

  /** Once for each address: a host without etcd has no other way to learn of it. */
  private tellAddress(own: Lease, publicIp: IpAddress): void {
    const now = publicIp.toString();
    if (this.toldAddress === now) return;
    this.toldAddress = now;
    this.log.warn('the saved lease is not used: this host has another public address now', {
      subnet: own.subnet.toString(),
      from: own.attributes.publicIp.toString(),
      to: now,
      hint: 'bring etcd back; the peers know this host by its former address',
    });
  }

  /** Whether somebody else has, by the store's word, an address of the lease that stood in. */
  isTaken({ leases }: World, publicIp: IpAddress): boolean {
    if (!this.hasStoodIn || this.isSettled || this.state === undefined) return false;
    const rivals = findOverlapping(this.state.own, [...leases.values()]);
    return rivals.some(({ attributes }) => !attributes.publicIp.equals(publicIp));
  }

  /** Takes the lease that the store has granted; from now on nothing of the saved state counts. */
  confirm(lease: Lease): void {
    if (this.isSettled) return;
    this.isSettled = true;
    if (!this.hasStoodIn || this.state === undefined) return;
    const { own } = this.state;
    if (lease.subnet.equals(own.subnet)) {
      this.log.info('etcd has confirmed the saved lease', { subnet: lease.subnet.toString() });
      return;
    }
    this.log.error('the saved lease was given away meanwhile, this host has another subnet now', {
      from: own.subnet.toString(),
      to: lease.subnet.toString(),
      hint: 'restart Docker, the addresses of its containers belong to another host',
    });
  }

  /** What the host works with the saved state for, because the store has not answered; undefined if it does not. */
  get useNow(): 'all' | 'subnet' | undefined {
    return this.hasStoodIn && !this.isSettled && this.use.kind !== 'nothing' ? this.use.kind : undefined;
  }

  /** Null unless the saved state is in use. */
  get status(): SavedStateStatus | null {
    if (this.useNow === undefined || this.state === undefined) return null;
    const { own, origin } = this.state;
    const { expiresAtMs } = origin ?? {};
    return {
      subnet: own.subnet.toString(),
      savedAt: origin === undefined ? null : new Date(origin.savedAtMs).toISOString(),
      leaseEndsAt: expiresAtMs === undefined ? null : new Date(expiresAtMs).toISOString(),
      isolatedBecause: this.use.kind === 'subnet' ? this.use.reason : null,
    };
  }
}
