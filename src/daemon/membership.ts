import type { Clock } from '../clock.js';
import type { NetworkConfig } from '../config/network-config.js';
import type { AdmissionContext } from '../lease/admission.js';
import { doesFit } from '../lease/allocator.js';
import { LeaseKeeper } from '../lease/keeper.js';
import type { Lease, LeaseAttributes, LeaseSubnets } from '../lease/lease.js';
import { PeerSet } from '../lease/peers.js';
import type { OwnLeaseStore } from '../lease/store.js';
import type { World } from '../lease/world.js';
import type { Logger } from '../log.js';
import type { Footing } from './footing.js';

/** What a {@link Membership} is made of. */
export interface MembershipOptions {
  readonly store: OwnLeaseStore;
  readonly clock: Clock;
  readonly log: Logger;
  readonly footing: Footing;
  readonly renewMarginMinutes: number;
  /** Called when the lease or a peer has become another. */
  readonly onChange: () => void;
}

/**
 * The host among the others: the keeper of its own lease and the set of its peers, both of which observe one world.
 *
 * API: {@link observe} with every world that the store tells, {@link keep} with what the host is to have; the first call
 * of that begins to look for a lease. Before the store has answered, lease and peers are those of the saved state.
 */
export class Membership {
  readonly #options: MembershipOptions;
  #keeper: LeaseKeeper | undefined;
  #peers: PeerSet | undefined;
  #world: World | undefined;

  constructor(options: MembershipOptions) {
    this.#options = options;
  }

  /** Undefined before the first {@link keep}. */
  get keeper(): LeaseKeeper | undefined {
    return this.#keeper;
  }

  /** Undefined before the first {@link keep}. */
  get peerSet(): PeerSet | undefined {
    return this.#peers;
  }

  /** What the store told last; undefined before it has answered. */
  get world(): World | undefined {
    return this.#world;
  }

  /** The peers to work with. */
  get peers(): readonly Lease[] {
    return this.#peers?.peers ?? this.#options.footing.peers;
  }

  get isLeaseHeld(): boolean {
    return this.#keeper?.state === 'held' || this.#keeper?.state === 'renewing';
  }

  /** Takes what the store says now. */
  observe(world: World): void {
    this.#world = world;
    this.#peers?.observe(world);
    this.#tellKeeper();
  }

  /**
   * Has a lease kept that fits, and the peers judged by a context.
   *
   * @param previousSubnets - those of the subnet file, which count more than the saved ones.
   */
  keep(
    network: NetworkConfig,
    attributes: LeaseAttributes,
    context: AdmissionContext,
    previousSubnets: Partial<LeaseSubnets>,
  ): void {
    if (this.#keeper !== undefined) {
      this.#keeper.setNetwork(network);
      this.#peers?.setContext(context);
      return;
    }
    const { clock, footing, log, onChange, renewMarginMinutes, store } = this.#options;
    const keeper = new LeaseKeeper({
      store,
      clock,
      log,
      network,
      attributes,
      previousSubnets: { ...footing.subnets, ...previousSubnets },
      former: footing.former,
      renewMarginMinutes,
    });
    keeper.onChange(onChange);
    const peers = new PeerSet({ clock, log, context });
    peers.seed(footing.peers);
    peers.onChange(onChange);
    this.#keeper = keeper;
    this.#peers = peers;
    if (this.#world !== undefined) peers.observe(this.#world);
    this.#tellKeeper();
    keeper.start();
  }

  /**
   * The lease that the host works with: the one it has (or, while another is sought, had) in the store; before the
   * store has answered, the saved one of the same host.
   */
  ownLease(network: NetworkConfig, { publicIp }: LeaseAttributes): Lease | undefined {
    const lease = this.#keeper?.lease;
    if (lease !== undefined) return doesFit(network, lease) ? lease : undefined;
    return this.#peers?.isSynced === true ? undefined : this.#options.footing.standIn(network, publicIp);
  }

  /** The lease stays in the store. */
  async close(): Promise<void> {
    this.#peers?.close();
    await this.#keeper?.close();
  }

  /** The keeper learns of the peers that may come back for their subnets before it may choose one. */
  #tellKeeper(): void {
    if (this.#keeper === undefined || this.#peers === undefined || this.#world === undefined) return;
    this.#keeper.setAvoid(this.#peers.kept.map(({ subnet }) => subnet));
    this.#keeper.observe(this.#world);
  }
}
