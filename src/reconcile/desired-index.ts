import type { Steps } from '../pace.js';
import { type DesiredState, EMPTY_STATE, LISTS, type LinkSpec, OBJECT_KINDS, mergeStates } from './desired.js';
import { linkKey } from './kinds/link.js';
import { KINDS } from './kinds/table.js';
import { listDifference } from '../list-difference.js';
import type { ObjectKey } from './object-key.js';
import { type DesiredObjects, SpecList } from './spec-list.js';

/**
 * The desired state, found by object key, and what changed when a new one took its place.
 *
 * @remarks A cluster of 5000 peers has 15 000 objects and changes by one peer at a time. {@link update} therefore takes
 * the state in parts and looks only into those that are not the objects they were before.
 */
export class DesiredIndex implements DesiredObjects {
  readonly links = new SpecList(KINDS.link);
  readonly addresses = new SpecList(KINDS.address);
  readonly routes = new SpecList(KINDS.route);
  readonly neighbours = new SpecList(KINDS.neighbour);
  readonly proxyNeighbours = new SpecList(KINDS['proxy-neighbour']);
  readonly fdb = new SpecList(KINDS.fdb);
  readonly filters = new SpecList(KINDS.filter);
  readonly ports = new SpecList(KINDS.port);
  readonly wireguard = new SpecList(KINDS.wireguard);
  readonly wireguardPeers = new SpecList(KINDS['wireguard-peer']);
  readonly sysctls = new SpecList(KINDS.sysctl);
  readonly tunnels = new SpecList(KINDS.tunnel);
  private base: DesiredState = EMPTY_STATE;
  private parts: readonly Partial<DesiredState>[] = [];
  /** How many routes lead through each device. */
  private readonly routeDevices = new Map<string | undefined, number>();
  /** How many addresses are answered for on each device. */
  private readonly proxyDevices = new Map<string | undefined, number>();

  /**
   * Takes over a new state, object by object; what is found meanwhile belongs to neither state.
   *
   * @param parts - what belongs to the state besides `base`. Neither they nor their lists may be altered later on.
   * @returns keys of everything that was added, removed or altered.
   */
  *update(base: DesiredState, parts: readonly Partial<DesiredState>[] = []): Steps<Set<ObjectKey>> {
    const difference = listDifference(this.parts, parts);
    const removed = mergeStates([this.base, ...difference.removed]);
    const added = mergeStates([base, ...difference.added]);
    this.base = base;
    this.parts = parts;
    for (const { device } of removed.routes) count(this.routeDevices, device, -1);
    for (const { device } of added.routes) count(this.routeDevices, device, 1);
    for (const { device } of removed.proxyNeighbours) count(this.proxyDevices, device, -1);
    for (const { device } of added.proxyNeighbours) count(this.proxyDevices, device, 1);
    const changed = new Set<ObjectKey>();
    for (const kind of OBJECT_KINDS) {
      const list = LISTS[kind];
      const specs: SpecList<unknown> = this[list];
      yield* specs.update(removed[list], added[list], changed);
    }
    return changed;
  }

  linkNamed(device: string): LinkSpec | undefined {
    return this.links.get(linkKey(device));
  }

  /** Whether a desired object is, or lies on, the device of that name. */
  refersTo(device: string): boolean {
    return this.routeDevices.has(device) || this.links.has(linkKey(device)) || this.isProxying(device);
  }

  isProxying(device: string): boolean {
    return this.proxyDevices.has(device);
  }
}

function count(counts: Map<string | undefined, number>, device: string | undefined, more: 1 | -1): void {
  const sum = (counts.get(device) ?? 0) + more;
  if (sum === 0) counts.delete(device);
  else counts.set(device, sum);
}
