import type { TunnelPeer, TunnelSpec } from '../dataplane/tunnel-spec.js';
import type { IpAddress } from '../ip/address.js';
import type { AddressSpec, DesiredState, FdbSpec, LinkSpec, NeighSpec, RouteSpec, SysctlSpec } from './desired.js';
import { EMPTY_STATE, mergeStates } from './desired.js';
import { listDifference } from './list-difference.js';
import { type ObjectKey, objectKey } from './object-key.js';

/**
 * The desired state, found by object key, and what changed when a new one took its place.
 *
 * @remarks A cluster of 5000 peers has 15 000 objects and changes by one peer at a time. {@link update} therefore takes
 * the state in parts and looks only into those that are not the objects they were before.
 */
export class DesiredIndex {
  readonly links = new SpecList<LinkSpec>((link) => objectKey.link(link.name), isSameLink);
  readonly addresses = new SpecList<AddressSpec>(
    (spec) => objectKey.address(spec.device, spec.address, spec.length),
    (a, b) => a.device === b.device && a.length === b.length && isSameAddress(a.address, b.address),
  );
  readonly routes = new SpecList<RouteSpec>((route) => objectKey.route(route.destination, route.metric), isSameRoute);
  readonly neighbours = new SpecList<NeighSpec>(
    (spec) => objectKey.neighbour(spec.device, spec.address),
    (a, b) => a.device === b.device && a.mac === b.mac && isSameAddress(a.address, b.address),
  );
  readonly fdb = new SpecList<FdbSpec>(
    (spec) => objectKey.fdb(spec.device, spec.mac),
    (a, b) => a.device === b.device && a.mac === b.mac && isSameAddress(a.destination, b.destination),
  );
  readonly sysctls = new SpecList<SysctlSpec>(
    (spec) => objectKey.sysctl(spec.path),
    (a, b) => a.path === b.path && a.value === b.value,
  );
  readonly tunnels = new SpecList<TunnelSpec>((spec) => objectKey.tunnel(spec.device), isSameTunnel);
  private base: DesiredState = EMPTY_STATE;
  private parts: readonly Partial<DesiredState>[] = [];
  /** How many routes lead through each device. */
  private readonly routeDevices = new Map<string | undefined, number>();

  /**
   * Takes over a new state.
   *
   * @param parts - what belongs to the state besides `base`. Neither they nor their lists may be altered later on.
   * @returns keys of everything that was added, removed or altered.
   */
  update(base: DesiredState, parts: readonly Partial<DesiredState>[] = []): Set<ObjectKey> {
    const difference = listDifference(this.parts, parts);
    const removed = mergeStates([this.base, ...difference.removed]);
    const added = mergeStates([base, ...difference.added]);
    this.base = base;
    this.parts = parts;
    for (const { device } of removed.routes) this.countRoute(device, -1);
    for (const { device } of added.routes) this.countRoute(device, 1);
    const changed = new Set<ObjectKey>();
    this.links.update(removed.links, added.links, changed);
    this.addresses.update(removed.addresses, added.addresses, changed);
    this.routes.update(removed.routes, added.routes, changed);
    this.neighbours.update(removed.neighbours, added.neighbours, changed);
    this.fdb.update(removed.fdb, added.fdb, changed);
    this.sysctls.update(removed.sysctls, added.sysctls, changed);
    this.tunnels.update(removed.tunnels, added.tunnels, changed);
    return changed;
  }

  /** Whether a desired object is, or lies on, the device of that name. */
  refersTo(device: string): boolean {
    return this.routeDevices.has(device) || this.links.has(objectKey.link(device));
  }

  private countRoute(device: string | undefined, more: 1 | -1): void {
    const count = (this.routeDevices.get(device) ?? 0) + more;
    if (count === 0) this.routeDevices.delete(device);
    else this.routeDevices.set(device, count);
  }
}

/** Specifications of one kind by key. Where several have the same key, one of them counts and the others wait. */
export class SpecList<Spec> {
  private readonly byKey = new Map<ObjectKey, Spec>();
  private readonly waiting = new Map<ObjectKey, readonly Spec[]>();

  constructor(
    private readonly keyOf: (spec: Spec) => ObjectKey,
    private readonly isEqual: (a: Spec, b: Spec) => boolean,
  ) {}

  get size(): number {
    return this.byKey.size;
  }

  get(key: ObjectKey): Spec | undefined {
    return this.byKey.get(key);
  }

  has(key: ObjectKey): boolean {
    return this.byKey.has(key);
  }

  entries(): IterableIterator<[ObjectKey, Spec]> {
    return this.byKey.entries();
  }

  values(): IterableIterator<Spec> {
    return this.byKey.values();
  }

  /**
   * Takes some specifications out and others in.
   *
   * @param removed - the very objects that were added before.
   * @param changed - gets the keys for which now another specification counts.
   */
  update(removed: readonly Spec[], added: readonly Spec[], changed: Set<ObjectKey>): void {
    const before = new Map<ObjectKey, Spec | undefined>();
    for (const spec of removed) {
      const key = this.keyOf(spec);
      if (!before.has(key)) before.set(key, this.byKey.get(key));
      this.remove(key, spec);
    }
    for (const spec of added) {
      const key = this.keyOf(spec);
      if (!before.has(key)) before.set(key, this.byKey.get(key));
      this.add(key, spec);
    }
    for (const [key, old] of before) {
      const now = this.byKey.get(key);
      if (old === now) continue;
      // An equal one changes nothing, for those who compare objects either.
      if (old !== undefined && now !== undefined && this.isEqual(old, now)) this.byKey.set(key, old);
      else changed.add(key);
    }
  }

  private add(key: ObjectKey, spec: Spec): void {
    if (this.byKey.has(key)) this.waiting.set(key, [...(this.waiting.get(key) ?? []), spec]);
    else this.byKey.set(key, spec);
  }

  private remove(key: ObjectKey, spec: Spec): void {
    const waiting = this.waiting.get(key) ?? [];
    const at = waiting.indexOf(spec);
    const rest = at < 0 ? waiting.slice(1) : waiting.toSpliced(at, 1);
    if (rest.length === 0) this.waiting.delete(key);
    else this.waiting.set(key, rest);
    if (at >= 0) return;
    const [heir] = waiting;
    if (heir === undefined) this.byKey.delete(key);
    else this.byKey.set(key, heir);
  }
}

function isSameAddress(a: IpAddress | undefined, b: IpAddress | undefined): boolean {
  return a === b || (a?.equals(b) ?? false);
}

function isSameLink(a: LinkSpec, b: LinkSpec): boolean {
  if (a.name !== b.name || a.mtu !== b.mtu) return false;
  if (a.kind === 'tun') return b.kind === 'tun' && a.txQueueLength === b.txQueueLength;
  if (a.kind === 'ipip') return b.kind === 'ipip' && isSameAddress(a.local, b.local);
  return (
    b.kind === 'vxlan' &&
    a.mac === b.mac &&
    a.vni === b.vni &&
    a.underlayIndex === b.underlayIndex &&
    isSameAddress(a.local, b.local) &&
    a.port === b.port &&
    a.learning === b.learning &&
    a.gbp === b.gbp
  );
}

function isSameRoute(a: RouteSpec, b: RouteSpec): boolean {
  return (
    a.type === b.type &&
    a.device === b.device &&
    a.isOnlink === b.isOnlink &&
    a.scope === b.scope &&
    a.metric === b.metric &&
    isSameAddress(a.gateway, b.gateway) &&
    (a.destination === b.destination || a.destination.equals(b.destination))
  );
}

function isSameTunnel(a: TunnelSpec, b: TunnelSpec): boolean {
  return (
    a.device === b.device &&
    a.port === b.port &&
    a.mtu === b.mtu &&
    a.verifySource === b.verifySource &&
    isSameAddress(a.bindAddress, b.bindAddress) &&
    isSameAddress(a.icmpSource, b.icmpSource) &&
    a.ownPrefixes.length === b.ownPrefixes.length &&
    a.ownPrefixes.every((prefix, index) => b.ownPrefixes[index]?.equals(prefix)) &&
    a.peers.length === b.peers.length &&
    a.peers.every((peer, index) => isSamePeer(peer, b.peers[index]))
  );
}

function isSamePeer(a: TunnelPeer, b: TunnelPeer | undefined): boolean {
  return a === b || (b !== undefined && a.subnet.equals(b.subnet) && isSameAddress(a.publicIp, b.publicIp));
}
