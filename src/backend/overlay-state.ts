import type { IpAddress } from '../ip/address.js';
import { type Lease, backendOf } from '../lease/lease.js';
import { type DesiredState, type SysctlSpec, mergeStates } from '../reconcile/desired.js';
import type { Backend, BackendContext, BackendOptions, PeerState, SkippedPeer } from './backend.js';
import { findBackend } from './registry.js';

/** Input of {@link OverlayState.compute}. */
export interface OverlayInput extends Omit<BackendContext, 'options' | 'isOwn'> {
  /** Options last configured for a backend type; empty if it never was. */
  readonly optionsFor: (type: string) => BackendOptions;
  /** Backends whose devices stay although no lease asks for them: peers may not have seen the change yet. */
  readonly lingering: readonly string[];
}

/** Result of {@link OverlayState.compute}. */
export interface OverlayResult {
  readonly state: DesiredState;
  readonly skipped: readonly SkippedPeer[];
  /** Backends that leases name: the own one and those of peers, without the lingering ones. */
  readonly backends: readonly string[];
  /** Devices that are there for lingering backends only: what fails on them keeps this host from nothing. */
  readonly lingeringDevices: readonly string[];
  readonly peersByBackend: ReadonlyMap<string, number>;
}

/**
 * The host's desired state over all backends: every peer is reached by the backend that its own lease names, so that a
 * cluster can be moved from one backend to another host by host.
 *
 * @remarks Keeps each peer's part as long as the peer's lease object and everything else stay the same: among thousands
 * of peers one change is one call, and what did not change keeps its identity (`===`).
 */
export class OverlayState {
  private cacheKey: readonly unknown[] = [];
  private cache = new WeakMap<Lease, PeerState>();

  compute(input: OverlayInput): OverlayResult {
    const ownType = input.network.backendType;
    const groups = new Map<string, Lease[]>([ownType, ...input.lingering].map((type) => [type, []]));
    const skipped: SkippedPeer[] = [];
    for (const lease of input.peers) {
      const type = backendOf(lease.attributes);
      if (findBackend(type) === undefined) {
        skipped.push(unknownBackend(lease, type));
      } else if (ownType !== 'alloc') {
        const group = groups.get(type);
        if (group === undefined) groups.set(type, [lease]);
        else group.push(lease);
      }
    }
    this.dropStaleCache(input, [...groups.keys()]);

    const states: Partial<DesiredState>[] = [];
    const lingeringDevices: string[] = [];
    const isInUse = (type: string): boolean => type === ownType || (groups.get(type)?.length ?? 0) > 0;
    for (const [type, leases] of groups) {
      const backend = findBackend(type);
      if (backend === undefined) continue;
      const context = { ...input, options: input.optionsFor(type), isOwn: type === ownType };
      const peerStates = leases.map((lease) => this.peerState(backend, context, lease));
      skipped.push(...peerStates.flatMap((peer) => peer.skipped ?? []));
      const base = backend.base(context);
      if (!isInUse(type)) lingeringDevices.push(...devicesOf(base));
      states.push(base, ...peerStates.map((peer) => peer.state));
    }
    const merged = mergeStates(states);
    const sysctls = groups.size > 1 ? [...merged.sysctls, ...looseReversePath(merged)] : merged.sysctls;
    return {
      state: { ...merged, sysctls },
      skipped,
      backends: [...groups.keys()].filter(isInUse),
      lingeringDevices,
      peersByBackend: new Map([...groups].map(([type, leases]) => [type, leases.length])),
    };
  }

  private peerState(backend: Backend, context: BackendContext, lease: Lease): PeerState {
    const cached = this.cache.get(lease);
    if (cached !== undefined) return cached;
    const state = backend.peer(context, lease);
    this.cache.set(lease, state);
    return state;
  }

  private dropStaleCache({ network, host, own }: OverlayInput, types: readonly string[]): void {
    const key = [network, host, own, types.join()];
    if (key.every((part, index) => part === this.cacheKey[index])) return;
    this.cacheKey = key;
    this.cache = new WeakMap();
  }
}

function devicesOf({ links = [], tunnels = [] }: Partial<DesiredState>): string[] {
  return [...links.map(({ name }) => name), ...tunnels.map(({ device }) => device)];
}

/** Public addresses that the backends of these peers will ask {@link HostFacts.isOnLink} about. */
export function onLinkQuestions(
  peers: readonly Lease[],
  optionsFor: (type: string) => BackendOptions,
): readonly IpAddress[] {
  const asks = new Map<string, boolean>();
  return peers.flatMap(({ attributes }) => {
    const type = backendOf(attributes);
    if (!asks.has(type)) asks.set(type, findBackend(type)?.asksOnLink(optionsFor(type)) ?? false);
    if (asks.get(type) !== true) return [];
    const { publicIp, publicIpv6 } = attributes;
    return publicIpv6 === undefined ? [publicIp] : [publicIp, publicIpv6];
  });
}

/**
 * While hosts use different backends, a peer's packets arrive on one device and the answers leave through another;
 * a strict reverse path filter (RFC 3704 2.2) would drop them. The kernel uses the larger of `all` and the device's
 * value, so 2 (loose) on our devices is enough.
 */
function looseReversePath(state: DesiredState): SysctlSpec[] {
  return state.links.map((link) => ({ path: `net/ipv4/conf/${link.name}/rp_filter`, value: '2' }));
}

function unknownBackend(lease: Lease, type: string): SkippedPeer {
  return {
    lease,
    reason: `its lease names backend "${type}", which this daemon does not have`,
    hint: 'choose a backend that all hosts support',
  };
}
