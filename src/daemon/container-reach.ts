import { type DirectRoutes, directRoutes } from '../backend/direct-routes.js';
import type { AdditionalPrefixes, SkippedPrefixes } from '../backend/backend.js';
import type { Clock } from '../clock.js';
import {
  type PeerReach,
  type PlacedHosts,
  type UnplacedHost,
  hostAddresses,
  placeHosts,
} from '../container/peer-reach.js';
import {
  type AdmittedFacts,
  REFUSAL_REASONS,
  type ReachContext,
  type RefusalReason,
  type RefusedFact,
  admitFacts,
} from '../container/reach-admission.js';
import type { KnownFacts, ReachFollower } from '../container/reach-follower.js';
import { Gatherer, LINE_PACE, type Some, listed, mergeSome, some } from '../gatherer.js';
import type { IpAddress } from '../ip/address.js';
import type { Prefix } from '../ip/prefix.js';
import type { Lease } from '../lease/lease.js';
import type { World } from '../lease/world.js';
import type { Logger } from '../log.js';
import type { DesiredState, RouteSpec } from '../reconcile/desired.js';

/** What a {@link ContainerReach} is made of. */
export interface ContainerReachParts {
  /** Stands for this host in etcd. */
  readonly host: string;
  readonly follower: (onChange: () => void) => ReachFollower;
}

/** What backends have to know of containers on other hosts; the same lists as before where nothing has changed. */
export interface Reach {
  readonly additional: AdditionalPrefixes;
  readonly ownAdditional: readonly Prefix[];
  /** Networks that routes lead to. */
  readonly scope: readonly Prefix[];
}

/** What rules of container networks on this host have to know of those on others. */
export interface ReachNeighbourhood {
  /** Networks whose containers are behind rules of their hosts. */
  readonly filtered: readonly Prefix[];
  /** Addresses of other hosts on the underlay. */
  readonly hosts: readonly IpAddress[];
}

/** How this host stands with containers of others. */
export interface ContainerReachState {
  /** Prefixes that packets are sent to, by way. */
  readonly routed: { readonly direct: number; readonly overlay: number };
  readonly refused: readonly RefusedFact[];
  readonly unplaced: readonly UnplacedHost[];
  readonly skipped: readonly SkippedPrefixes[];
}

/**
 * Leaves what ends on this host behind every other route with the same destination; see `Documentation/networking/vrf.rst`
 * of the kernel: routing daemons read it as distance 255.
 */
const END_METRIC = 0xff002000;

/** That of a host that knows of no containers on others. */
export const NO_REACH: Reach = { additional: new Map(), ownAdditional: [], scope: [] };
const NO_PREFIXES: readonly Prefix[] = [];

/**
 * Containers on other hosts as a part of the daemon: who has them, as far as it is believed, and how packets get there.
 *
 * ```
 *  etcd, file ─▶ ReachFollower ─▶ admitFacts ─▶ placeHosts ─┬▶ overlay: more prefixes of peers, for the backends
 *                                    (pure)       (pure)    └▶ direct: routes of this host
 * ```
 *
 * API: {@link start} before the first pass, {@link observe} with every world; in each pass {@link update}, then
 * {@link desire}; {@link close}.
 */
export class ContainerReach {
  private readonly follower: ReachFollower;
  private readonly refusals: Gatherer<RefusalReason, Some<RefusedFact>>;
  private readonly skips: Gatherer<'skipped', Some<string>>;
  private known: KnownFacts | undefined;
  private context: ReachContext | undefined;
  private peers: readonly Lease[] | undefined;
  private admitted: AdmittedFacts | undefined;
  private placed: PlacedHosts = { peers: [], unplaced: [] };
  private around: ReachNeighbourhood | undefined;
  private reach: Reach = NO_REACH;
  private direct: DirectRoutes = { routes: [], skipped: [] };
  private part: Partial<DesiredState> = {};
  private inputs: readonly unknown[] = [];
  private skippedByPeers: readonly SkippedPrefixes[] = [];
  private toldRefusals: ReadonlySet<string> = new Set();
  private toldSkips: ReadonlySet<string> = new Set();

  constructor(
    private readonly options: {
      readonly parts: ContainerReachParts;
      readonly clock: Clock;
      readonly log: Logger;
      /** Called when there is something new to route. */
      readonly onChange: () => void;
    },
  ) {
    const { clock, parts, onChange } = options;
    this.follower = parts.follower(onChange);
    const pace = { ...LINE_PACE, clock };
    this.refusals = new Gatherer({
      ...pace,
      merge: mergeSome,
      tell: (reason: RefusalReason, facts: Some<RefusedFact>) => this.writeRefusals(reason, facts),
    });
    this.skips = new Gatherer({
      ...pace,
      merge: mergeSome,
      tell: (_: 'skipped', texts: Some<string>) => this.writeSkips(texts),
    });
  }

  get host(): string {
    return this.options.parts.host;
  }

  /** Goes on with what an earlier process knew, and begins to follow. */
  async start(): Promise<void> {
    await this.follower.load();
    this.follower.start();
  }

  /** Takes what the store says now. */
  observe(world: World): void {
    this.follower.observe(world);
  }

  /**
   * What backends have to know with these peers.
   *
   * @param isFit - whether packets may be sent to an address that no lease tells; belongs to the context.
   */
  update(context: ReachContext, peers: readonly Lease[], isFit: (address: IpAddress) => boolean): Reach {
    const { known } = this.follower;
    const isSameInput = this.known === known && this.context === context;
    if (isSameInput && this.peers === peers) return this.reach;
    const admitted = (isSameInput ? this.admitted : undefined) ?? this.admit(known, context);
    this.placed = placeHosts(admitted, peers, isFit);
    this.around = { filtered: admitted.filtered, hosts: hostAddresses(admitted.places, peers, isFit) };
    this.known = known;
    this.context = context;
    this.peers = peers;
    const additional = new Map(
      this.placed.peers.flatMap(({ lease, overlay }) => (overlay.length === 0 ? [] : [[lease, overlay] as const])),
    );
    this.reach = {
      additional: isSameMap(this.reach.additional, additional) ? this.reach.additional : additional,
      ownAdditional: admitted.own,
      scope: admitted.networks,
    };
    return this.reach;
  }

  private admit(known: KnownFacts, context: ReachContext): AdmittedFacts {
    const fresh = admitFacts(known.facts, context, known.fading);
    const admitted = reuseLists(this.admitted, { ...fresh, refused: [...unreadable(known), ...fresh.refused] });
    this.admitted = admitted;
    this.tellRefusals(admitted.refused);
    return admitted;
  }

  /** Addresses of hosts that {@link desire} will ask about whether they are on the link. */
  get onLinkQuestions(): readonly IpAddress[] {
    return this.placed.peers.flatMap(({ direct, gateways }) => (direct.length === 0 ? [] : Object.values(gateways)));
  }

  /**
   * The part of the host's state that no backend has; the same object as before where nothing has changed.
   *
   * @param device - of the underlay.
   * @param isOnLink - the same function as before where its answers are.
   */
  desire(device: string, isOnLink: (address: IpAddress) => boolean): Partial<DesiredState> {
    const { ends = [] } = this.admitted ?? {};
    const inputs = [this.placed, ends, device, isOnLink];
    if (inputs.every((each, index) => each === this.inputs[index])) return this.part;
    this.inputs = inputs;
    this.direct = directRoutes(this.placed.peers, device, isOnLink);
    this.part = { routes: [...this.direct.routes, ...ends.map(endRoute)] };
    this.tellSkips();
    return this.part;
  }

  /** Takes what the backends cannot carry, of which some may be found on the link. */
  note(skipped: readonly SkippedPrefixes[]): void {
    const { proxied = NO_PREFIXES } = this.admitted ?? {};
    const isOnLink = (prefix: Prefix): boolean => proxied.some((network) => network.covers(prefix));
    this.skippedByPeers = skipped
      .map((each) => ({ ...each, prefixes: each.prefixes.filter((prefix) => !isOnLink(prefix)) }))
      .filter(({ prefixes }) => prefixes.length > 0);
    this.tellSkips();
  }

  /** Undefined before the first {@link update}; the same object as long as nothing in it can have changed. */
  get neighbourhood(): ReachNeighbourhood | undefined {
    return this.around;
  }

  get state(): ContainerReachState {
    const skipped = this.skipped;
    const sum = (way: 'direct' | 'overlay'): number =>
      this.placed.peers.reduce((count, peer: PeerReach) => count + peer[way].length, 0);
    const lost = (lists: readonly SkippedPrefixes[]): number =>
      lists.reduce((count, { prefixes }) => count + prefixes.length, 0);
    return {
      routed: {
        direct: sum('direct') - lost(this.direct.skipped),
        overlay: sum('overlay') - lost(this.skippedByPeers),
      },
      refused: this.admitted?.refused ?? [],
      unplaced: this.placed.unplaced,
      skipped,
    };
  }

  /** Tells what is still to be told, and ends. Idempotent. */
  async close(): Promise<void> {
    this.refusals.flush();
    this.skips.flush();
    await this.follower.close();
  }

  private get skipped(): readonly SkippedPrefixes[] {
    return [...this.direct.skipped, ...this.skippedByPeers];
  }

  /** Each once, and again after it was over. */
  private tellRefusals(refused: readonly RefusedFact[]): void {
    const keyOf = ({ reason, what }: RefusedFact): string => `${reason} ${what}`;
    const fresh = refused.filter((each) => !this.toldRefusals.has(keyOf(each)));
    this.toldRefusals = new Set(refused.map(keyOf));
    for (const reason of REFUSAL_REASONS) {
      const facts = fresh.filter((each) => each.reason === reason);
      if (facts.length > 0) this.refusals.add(reason, some(facts));
    }
  }

  private tellSkips(): void {
    const texts = this.skipped.map(({ lease, reason }) => `${lease.subnet.toString()}: ${reason}`);
    const fresh = texts.filter((text) => !this.toldSkips.has(text));
    this.toldSkips = new Set(texts);
    if (fresh.length > 0) this.skips.add('skipped', some(fresh));
  }

  private writeRefusals(reason: RefusalReason, { count, first }: Some<RefusedFact>): void {
    this.options.log.warn('what other hosts tell of their containers is not believed', {
      kind: reason,
      count,
      detail: listed({ count, first: first.map(({ what, detail }) => `${what}: ${detail}`) }),
      hint: 'tsflannelctl docker-networks shows what is in etcd',
    });
  }

  private writeSkips(texts: Some<string>): void {
    this.options.log.warn('containers of other hosts cannot be reached', {
      count: texts.count,
      detail: listed(texts),
      hint: this.skipped[0]?.hint,
    });
  }
}

function unreadable({ bad }: KnownFacts): readonly RefusedFact[] {
  return [...bad].map((path) => ({ reason: 'unreadable', what: path, detail: 'no host of this version writes that' }));
}

function endRoute(destination: Prefix): RouteSpec {
  return {
    destination,
    type: 'unreachable',
    device: undefined,
    gateway: undefined,
    isOnlink: false,
    metric: END_METRIC,
  };
}

/** Lists that say what they said before are the same objects, so that nobody has to look at them again. */
function reuseLists(before: AdmittedFacts | undefined, after: AdmittedFacts): AdmittedFacts {
  if (before === undefined) return after;
  const others = new Map(
    [...after.others].map(([host, { direct, overlay }]) => {
      const former = before.others.get(host);
      return [host, { direct: reuse(former?.direct, direct), overlay: reuse(former?.overlay, overlay) }];
    }),
  );
  return { ...after, others, own: reuse(before.own, after.own), ends: reuse(before.ends, after.ends) };
}

function reuse(before: readonly Prefix[] = NO_PREFIXES, after: readonly Prefix[]): readonly Prefix[] {
  return before.length === after.length && after.every((prefix, index) => prefix.equals(before[index]))
    ? before
    : after;
}

function isSameMap(before: AdditionalPrefixes, after: AdditionalPrefixes): boolean {
  return before.size === after.size && [...after].every(([lease, prefixes]) => before.get(lease) === prefixes);
}
