import type { IpAddress } from '../ip/address.js';
import type {
  AddressSpec,
  DesiredState,
  FdbSpec,
  LinkSpec,
  NeighSpec,
  RouteSpec,
  SysctlSpec,
  TunnelPeer,
  TunnelSpec,
} from './desired.js';
import { EMPTY_STATE } from './desired.js';
import { type ObjectKey, objectKey } from './object-key.js';

/**
 * The desired state, found by object key, and what changed when a new one took its place.
 *
 * @remarks A cluster of 5000 peers has 15 000 objects and changes by one peer at a time. {@link update} therefore skips
 * what two lists have in common at their beginning and end, and only looks up what lies between.
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
  private source: DesiredState = EMPTY_STATE;
  private routeDevices: ReadonlySet<string | undefined> = new Set();

  /**
   * Takes over a new state.
   *
   * @returns keys of everything that was added, removed or altered.
   */
  update(next: DesiredState): Set<ObjectKey> {
    const changed = new Set<ObjectKey>();
    if (next === this.source) return changed;
    if (next.routes !== this.source.routes) this.routeDevices = new Set(next.routes.map((route) => route.device));
    this.source = next;
    this.links.update(next.links, changed);
    this.addresses.update(next.addresses, changed);
    this.routes.update(next.routes, changed);
    this.neighbours.update(next.neighbours, changed);
    this.fdb.update(next.fdb, changed);
    this.sysctls.update(next.sysctls, changed);
    this.tunnels.update(next.tunnels, changed);
    return changed;
  }

  /** Whether a desired object is, or lies on, the device of that name. */
  refersTo(device: string): boolean {
    return this.routeDevices.has(device) || this.links.has(objectKey.link(device));
  }
}

/** Specifications of one kind by key. Where two have the same key, one of them counts and the other is ignored. */
export class SpecList<Spec> {
  private list: readonly Spec[] = [];
  private readonly byKey = new Map<ObjectKey, Spec>();

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

  /** Replaces the list and adds the keys whose specification is not what it was. */
  update(next: readonly Spec[], changed: Set<ObjectKey>): void {
    const { start, previousEnd, nextEnd } = this.differingRange(next);
    const previous = this.list;
    this.list = next;
    const old = new Map<ObjectKey, Spec>();
    for (const spec of previous.slice(start, previousEnd)) {
      const key = this.keyOf(spec);
      const counted = this.byKey.get(key);
      if (counted !== undefined) old.set(key, counted);
      this.byKey.delete(key);
    }
    for (const spec of next.slice(start, nextEnd)) {
      const key = this.keyOf(spec);
      if (this.byKey.has(key)) continue;
      this.byKey.set(key, spec);
      const before = old.get(key);
      old.delete(key);
      if (before === undefined || !this.isEqual(before, spec)) changed.add(key);
    }
    for (const key of old.keys()) changed.add(key);
  }

  /** What is left of both lists without their common beginning and end. */
  private differingRange(next: readonly Spec[]): { start: number; previousEnd: number; nextEnd: number } {
    const previous = this.list;
    let previousEnd = previous.length;
    let nextEnd = next.length;
    let start = 0;
    // Entries that lost to another with the same key may count now: look at all of them.
    if (this.byKey.size !== previous.length) return { start, previousEnd, nextEnd };
    while (start < previousEnd && start < nextEnd && this.isSameAt(previous[start], next[start])) start++;
    while (previousEnd > start && nextEnd > start && this.isSameAt(previous[previousEnd - 1], next[nextEnd - 1])) {
      previousEnd--;
      nextEnd--;
    }
    return { start, previousEnd, nextEnd };
  }

  private isSameAt(a: Spec | undefined, b: Spec | undefined): boolean {
    return a === b || (a !== undefined && b !== undefined && this.isEqual(a, b));
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
    a.peers.length === b.peers.length &&
    a.peers.every((peer, index) => isSamePeer(peer, b.peers[index]))
  );
}

function isSamePeer(a: TunnelPeer, b: TunnelPeer | undefined): boolean {
  return a === b || (b !== undefined && a.subnet.equals(b.subnet) && isSameAddress(a.publicIp, b.publicIp));
}
