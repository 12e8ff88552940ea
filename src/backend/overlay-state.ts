import type { CommandValues } from '../extension/command-text.js';
import type { HostCommands, PeerInput } from '../extension/host-commands.js';
import type { Family, IpAddress } from '../ip/address.js';
import type { Prefix } from '../ip/prefix.js';
import { type Lease, backendOf } from '../lease/lease.js';
import { SYSCTL } from '../netlink/sysctl-paths.js';
import type { Steps } from '../pace.js';
import { type DesiredState, type SysctlSpec, mergeStates } from '../reconcile/desired.js';
import { differingRange } from '../list-difference.js';
import type {
  AdditionalPrefixes,
  BackendContext,
  BackendState,
  Claim,
  ConfiguredBackend,
  ContestedDevice,
  PeerState,
  SkippedPeer,
  SkippedPrefixes,
} from './backend.js';
import { Claims } from './claims.js';

/** Finds the backend of a type, with the options last configured for it or else with its defaults. */
export type BackendLookup = (type: string) => ConfiguredBackend | undefined;

/** Input of {@link OverlayState.compute}. */
export interface OverlayInput extends Omit<BackendContext, 'isOwn'> {
  readonly backendFor: BackendLookup;
  /** Backends whose devices stay although no lease asks for them: peers may not have seen the change yet. */
  readonly lingering: readonly string[];
}

/** What a backend has commands do on this host. */
export interface DesiredCommands {
  readonly commands: HostCommands;
  readonly own: CommandValues;
  readonly peers: readonly PeerInput[];
}

/** Result of {@link OverlayState.compute}. */
export interface OverlayResult {
  /** Everything but what single peers add. */
  readonly base: DesiredState;
  /** What each peer adds; the same object as before where nothing has changed. */
  readonly peers: readonly Partial<DesiredState>[];
  readonly skipped: readonly SkippedPeer[];
  /** Networks of containers that are not reached through the peers that have them, each peer once. */
  readonly skippedPrefixes: readonly SkippedPrefixes[];
  /** Backends that leases name: the own one and those of peers, without the lingering ones. */
  readonly backends: readonly string[];
  /** Devices that are there for lingering backends only: what fails on them keeps this host from nothing. */
  readonly lingeringDevices: readonly string[];
  /** Devices of this host that need another link address, since a peer published theirs first; each once. */
  readonly contested: readonly ContestedDevice[];
  /** Undefined where no backend in use, or lingering, has commands. */
  readonly commands: DesiredCommands | undefined;
}

/**
 * The host's desired state over all backends: every peer is reached by the backend that its own lease names, so that a
 * cluster can be moved from one backend to another host by host.
 *
 * @remarks Keeps each peer's part as long as the peer's lease object and everything else stay the same, and looks only
 * at the peers between the first and the last that is another one: among thousands of peers one change is one call.
 */
export class OverlayState {
  /** What the parts of all peers depend on. */
  private common: readonly unknown[] = [];
  private leases: readonly Lease[] = [];
  private additional: AdditionalPrefixes = NO_PREFIXES;
  /** What each of the leases adds if it gets what it claims, at the same index. */
  private parts: readonly Partial<DesiredState>[] = [];
  private readonly skipped = new Map<Lease, SkippedPeer>();
  private readonly contested = new Map<Lease, ContestedDevice>();
  private readonly inputs = new Map<Lease, PeerInput>();
  private readonly claims = new Claims();
  private readonly claimsOf = new WeakMap<Lease, readonly Claim[]>();
  /** How many peers each backend reaches. */
  private readonly counts = new Map<string, number>();

  /** Peer by peer; none other may begin before it has ended. */
  *compute(input: OverlayInput): Steps<OverlayResult> {
    const states = new States(input);
    yield* this.follow(input, states);
    const ownType = input.network.backendType;
    const used = [...new Set([ownType, ...this.counts.keys()])];
    const types = [...new Set([ownType, ...input.lingering, ...this.counts.keys()])];
    const bases = types.map((type) => states.of(type)?.base ?? {});
    const base = mergeStates(bases);
    const sysctls = types.length > 1 ? [...base.sysctls, ...looseReversePath(base)] : base.sysctls;
    const lingeringDevices = bases.flatMap((part, index) => (used.includes(types[index] ?? '') ? [] : devicesOf(part)));
    const losers = this.claims.losers(input.network);
    const isLoser = (index: number): boolean => {
      const lease = this.leases[index];
      return lease !== undefined && losers.has(lease);
    };
    return {
      base: { ...base, sysctls },
      peers: losers.size === 0 ? this.parts : this.parts.map((part, index) => (isLoser(index) ? NOTHING : part)),
      skipped: [...this.skipped.values(), ...losers.values()],
      skippedPrefixes: [...this.skippedPrefixes(input, states, losers)],
      backends: used,
      lingeringDevices,
      contested: [...new Map([...this.contested.values()].map((each) => [each.device, each])).values()],
      commands: types.map((type) => this.commandsOf(type, input, states)).find((each) => each !== undefined),
    };
  }

  private commandsOf(type: string, { backendFor }: OverlayInput, states: States): DesiredCommands | undefined {
    const commands = backendFor(type)?.commands;
    if (commands === undefined) return undefined;
    return { commands, own: states.of(type)?.ownValues ?? {}, peers: [...this.inputs.values()] };
  }

  /** Of peers that are not reached all; of others those that no backend carries. */
  private *skippedPrefixes(
    { additional = NO_PREFIXES }: OverlayInput,
    states: States,
    losers: ReadonlyMap<Lease, SkippedPeer>,
  ): Generator<SkippedPrefixes> {
    for (const [lease, prefixes] of additional) {
      const skipped = this.skipped.get(lease) ?? losers.get(lease);
      if (skipped !== undefined) yield { ...skipped, prefixes };
      else yield* notCarried(lease, prefixes, states);
    }
  }

  /** Brings what is known of each peer up to date. */
  private *follow({ network, host, own, peers, additional = NO_PREFIXES }: OverlayInput, states: States): Steps<void> {
    const common = [network, host, own];
    if (common.some((part, index) => part !== this.common[index])) {
      this.common = common;
      this.leases = [];
      this.parts = [];
      this.skipped.clear();
      this.contested.clear();
      this.inputs.clear();
      this.claims.clear();
      this.counts.clear();
    }
    const moved = changedLists(this.additional, additional);
    const { start, previousEnd, nextEnd } = differingRange(this.leases, peers, moved);
    const former = new Map(
      this.leases
        .slice(start, previousEnd)
        .map((lease, index) => [lease, this.parts[start + index]] as const)
        .filter(([lease]) => !moved.has(lease)),
    );
    const next = peers.slice(start, nextEnd);
    // A backend may throw: nothing is altered before all parts are there.
    const fresh = new Map<Lease, PeerState>();
    for (const lease of next) {
      if (!former.has(lease)) fresh.set(lease, states.partOf(lease));
      yield;
    }
    const staying = new Set(next.filter((lease) => !moved.has(lease)));
    for (const lease of this.leases.slice(start, previousEnd)) if (!staying.has(lease)) this.leave(lease, states);
    for (const [lease, part] of fresh) {
      this.join(lease, part, states);
      yield;
    }
    const parts = next.map((lease) => former.get(lease) ?? fresh.get(lease)?.state ?? {});
    this.parts = this.parts.slice(0, start).concat(parts, this.parts.slice(previousEnd));
    this.leases = peers;
    this.additional = additional;
  }

  private join(lease: Lease, { skipped, contested, input, claims = [] }: PeerState, states: States): void {
    if (input !== undefined) this.inputs.set(lease, input);
    if (skipped !== undefined) this.skipped.set(lease, skipped);
    if (contested !== undefined) this.contested.set(lease, contested);
    this.claimsOf.set(lease, claims);
    this.claims.add(lease, claims);
    this.count(lease, 1, states);
  }

  private leave(lease: Lease, states: States): void {
    this.skipped.delete(lease);
    this.contested.delete(lease);
    this.inputs.delete(lease);
    this.claims.remove(lease, this.claimsOf.get(lease) ?? []);
    this.count(lease, -1, states);
  }

  private count({ attributes }: Lease, more: 1 | -1, states: States): void {
    const type = backendOf(attributes);
    if (!states.isReaching(type)) return;
    const count = (this.counts.get(type) ?? 0) + more;
    if (count === 0) this.counts.delete(type);
    else this.counts.set(type, count);
  }
}

/** Leases of which other prefixes are told than before. */
function changedLists(before: AdditionalPrefixes, after: AdditionalPrefixes): ReadonlySet<Lease> {
  const changed = new Set<Lease>();
  if (before === after) return changed;
  for (const [lease, prefixes] of before) if (after.get(lease) !== prefixes) changed.add(lease);
  for (const lease of after.keys()) if (!before.has(lease)) changed.add(lease);
  return changed;
}

/** What commands were told of such peers, by the backends as they are configured now. */
export function commandInputs(input: OverlayInput, leases: readonly Lease[]): readonly PeerInput[] {
  const states = new States(input);
  return leases.flatMap((lease) => states.partOf(lease).input ?? []);
}

const NO_PREFIXES: AdditionalPrefixes = new Map();

/** What a peer adds that another one is reached in place of. */
const NOTHING: Partial<DesiredState> = {};

/** What the backends want, each asked once. */
class States {
  private readonly states = new Map<string, BackendState | undefined>();
  private readonly carriesNothing: boolean;

  constructor(private readonly input: OverlayInput) {
    const { network, backendFor } = input;
    this.carriesNothing = backendFor(network.backendType)?.families.length === 0;
  }

  /** Undefined if there is no backend of that type. */
  of(type: string): BackendState | undefined {
    if (!this.states.has(type)) {
      const isOwn = type === this.input.network.backendType;
      this.states.set(type, this.input.backendFor(type)?.desired({ ...this.input, isOwn }));
    }
    return this.states.get(type);
  }

  /** Whether peers that name that backend are reached at all: a host with `alloc` carries nothing. */
  isReaching(type: string): boolean {
    return !this.carriesNothing && this.input.backendFor(type) !== undefined;
  }

  /** Why networks of containers of a family are not carried to a peer; undefined if they are. */
  whyNotCarried({ attributes, ipv6Subnet }: Lease, family: Family): Pick<SkippedPeer, 'reason' | 'hint'> | undefined {
    const { own, backendFor } = this.input;
    const type = backendOf(attributes);
    const backend = backendFor(type);
    const isCarrying = backend !== undefined && backend.carriesAdditional !== false && this.isReaching(type);
    if (!isCarrying || !backend.families.includes(family)) {
      return {
        reason: `backend "${type}" carries no networks of containers over IPv${family} to it`,
        hint: 'choose a backend that carries that family, such as vxlan, or networks of type bridge or ipvlan',
      };
    }
    if (family === 4 || (own.ipv6Subnet !== undefined && ipv6Subnet !== undefined)) return undefined;
    return {
      reason: 'the overlay has no IPv6 between this host and it',
      hint: 'set EnableIPv6 and IPv6Network in the network configuration, or make networks of type bridge or ipvlan',
    };
  }

  partOf(lease: Lease): PeerState {
    const type = backendOf(lease.attributes);
    if (this.input.backendFor(type) === undefined) return { state: {}, skipped: unknownBackend(lease, type) };
    return (this.isReaching(type) ? this.of(type)?.peer(lease) : undefined) ?? { state: {} };
  }
}

/** A tunnel has a link of the same name. */
function devicesOf({ links = [] }: Partial<DesiredState>): string[] {
  return links.map(({ name }) => name);
}

/** Public addresses that the backends of these peers will ask {@link HostFacts.isOnLink} about. */
export function onLinkQuestions(peers: readonly Lease[], backendFor: BackendLookup): readonly IpAddress[] {
  /** By backend as the leases spell it. */
  const asks = new Map<string, boolean>();
  const questions: IpAddress[] = [];
  for (const { attributes } of peers) {
    const { backendType, publicIp, publicIpv6 } = attributes;
    let isAsked = asks.get(backendType);
    if (isAsked === undefined) {
      isAsked = backendFor(backendOf(attributes))?.asksOnLink ?? false;
      asks.set(backendType, isAsked);
    }
    if (!isAsked) continue;
    questions.push(publicIp);
    if (publicIpv6 !== undefined) questions.push(publicIpv6);
  }
  return questions;
}

/**
 * While hosts use different backends, a peer's packets arrive on one device and the answers leave through another;
 * a strict reverse path filter (RFC 3704 2.2) would drop them. The kernel uses the larger of `all` and the device's
 * value, so 2 (loose) on our devices is enough.
 */
function looseReversePath(state: DesiredState): SysctlSpec[] {
  return state.links.map((link) => ({ path: SYSCTL.reversePathFilter(link.name), value: '2' }));
}

function* notCarried(lease: Lease, all: readonly Prefix[], states: States): Generator<SkippedPrefixes> {
  for (const family of [4, 6] as const) {
    const prefixes = all.filter((prefix) => prefix.family === family);
    const why = prefixes.length === 0 ? undefined : states.whyNotCarried(lease, family);
    if (why !== undefined) yield { lease, prefixes, cause: 'backend', ...why };
  }
}

function unknownBackend(lease: Lease, type: string): SkippedPeer {
  return {
    lease,
    cause: 'backend',
    reason: `its lease names backend "${type}", which this daemon does not have`,
    hint: 'choose a backend that all hosts support',
  };
}
