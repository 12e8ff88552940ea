import type { OverlayError } from '../errors.js';
import type { ActualState } from './actual.js';
import { type Aspect, AspectMap } from './aspects.js';
import type { ObjectKey } from './object-key.js';
import type { Operation } from './operation.js';
import type { Ownership } from './ownership.js';
import type { DesiredObjects } from './spec-list.js';

/** What a plan is made from. */
export interface PlanInput {
  readonly actual: ActualState;
  readonly desired: DesiredObjects;
  readonly ownership: Ownership;
  /** Failed lately and not to be tried yet. Default nothing. */
  readonly isHeld?: (key: ObjectKey, aspect: Aspect) => boolean;
  /** TUN devices that go away with their tunnel and are not to be deleted. Default none. */
  readonly tunnelDevices?: ReadonlySet<string>;
}

/** What has to be done, and what cannot be. */
export interface Plan {
  /** In the order in which they are safe: nothing is removed before what takes its place is there. */
  readonly operations: readonly Operation[];
  /** Objects that cannot be made because somebody else's is in the way. */
  readonly conflicts: ReadonlyMap<ObjectKey, OverlayError>;
  /** Objects that wait for a device. */
  readonly blocked: ReadonlySet<ObjectKey>;
  /** What needs an operation that was left out. */
  readonly held: Pick<AspectMap<true>, 'has' | 'size'>;
}

/** The order: what others depend on first, removals last and backwards. A neighbour must be known before a route leads to it, no frame may pass a device before its filter or a port before it is isolated, and nobody may be told to send here before a route leads on. */
const PHASES = [
  'links',
  'filters',
  'ports',
  'sysctls',
  'addresses',
  'up',
  'wireguard',
  'wireguardPeers',
  'neighbours',
  'fdb',
  'routes',
  'proxyNeighbours',
  'removeProxyNeighbours',
  'removeRoutes',
  'removeFilters',
  'removeFdb',
  'removeWireguardPeers',
  'removeNeighbours',
  'removeAddresses',
  'restoreSysctls',
  'removeLinks',
] as const;

/** A step of a plan; operations of one are independent of each other. */
export type Phase = (typeof PHASES)[number];

/** What the plan makes of a device. */
export interface DeviceState {
  /** Objects can be put on it once the operations on devices are done. */
  readonly isUsable: boolean;
  /** What lies on it now will be gone: everything, the neighbours, or nothing. */
  readonly loses: 'all' | 'neighbours' | 'nothing';
}

/** A device that is not there, nor will be. */
export const ABSENT: DeviceState = { isUsable: false, loses: 'all' };

/** A device that stays as it is. */
export const UNTOUCHED: DeviceState = { isUsable: true, loses: 'nothing' };

/** A plan while it is made; the modules in `kinds/` add what their objects need. Devices come first. */
export class Planner {
  readonly actual: ActualState;
  readonly desired: DesiredObjects;
  readonly ownership: Ownership;
  private readonly phases = new Map<Phase, Operation[]>(PHASES.map((phase) => [phase, []]));
  private readonly conflicts = new Map<ObjectKey, OverlayError>();
  private readonly blocked = new Set<ObjectKey>();
  private readonly held = new AspectMap<true>();
  private readonly devices = new Map<string, DeviceState>();
  private readonly doomed = new Set<string>();

  constructor(private readonly input: PlanInput) {
    ({ actual: this.actual, desired: this.desired, ownership: this.ownership } = input);
  }

  plan(): Plan {
    const { conflicts, blocked, held } = this;
    return { operations: PHASES.flatMap((phase) => this.phases.get(phase) ?? []), conflicts, blocked, held };
  }

  /** Adds an operation, unless it is held. */
  add(phase: Phase, operation: Operation): void {
    const aspect = aspectOf(operation);
    if (this.isHeld(operation.key, aspect)) this.hold(operation.key, aspect);
    else this.phases.get(phase)?.push(operation);
  }

  isHeld(key: ObjectKey, aspect: Aspect): boolean {
    return this.input.isHeld?.(key, aspect) === true;
  }

  /** Notes that an operation is needed and left out. */
  hold(key: ObjectKey, aspect: Aspect): void {
    this.held.set(key, aspect, true);
  }

  /** Notes that the object waits for a device. */
  block(key: ObjectKey): void {
    this.blocked.add(key);
  }

  /** Notes that somebody else's object is in the way. */
  conflict(key: ObjectKey, error: OverlayError): void {
    this.conflicts.set(key, error);
  }

  hasTunnel(device: string): boolean {
    return this.input.tunnelDevices?.has(device) === true;
  }

  /** Says what becomes of a desired device. */
  setDevice(name: string, state: DeviceState): void {
    this.devices.set(name, state);
  }

  /** Says that a device goes. */
  doom(name: string): void {
    this.doomed.add(name);
  }

  isDoomed(name: string): boolean {
    return this.doomed.has(name);
  }

  /** What becomes of a device. Those that are not planned, such as the underlay device, are as the kernel says. */
  device(name: string): DeviceState {
    const planned = this.devices.get(name);
    if (planned !== undefined) return planned;
    const link = this.actual.links.get(name);
    const spec = this.desired.linkNamed(name);
    const isOurs =
      link?.kind === spec?.kind &&
      (spec?.kind !== 'tun' || this.hasTunnel(name)) &&
      (link === undefined || !this.ownership.isOthersDevice(link));
    const state = link?.isUp === true && (spec === undefined || isOurs) ? UNTOUCHED : ABSENT;
    this.devices.set(name, state);
    return state;
  }

  /** Whether the device with that index is deleted and made again. */
  isRemade(index: number): boolean {
    const device = this.plannedAt(index);
    return device?.isUsable === true && device.loses === 'all';
  }

  /** Whether the device with that index loses its neighbours, but stays. */
  losesNeighbours(index: number): boolean {
    return this.plannedAt(index)?.loses === 'neighbours';
  }

  /**
   * The device that an object lies on which is to be removed.
   *
   * @returns undefined if it needs no removal of its own: it goes with its device, or with what happens to that.
   */
  deviceToClear(index: number): string | undefined {
    const name = this.actual.linkOf(index)?.name;
    return name === undefined || this.doomed.has(name) || this.plannedAt(index)?.loses === 'all' ? undefined : name;
  }

  private plannedAt(index: number): DeviceState | undefined {
    const name = this.actual.linkOf(index)?.name;
    return name === undefined ? undefined : this.devices.get(name);
  }
}

/** What of its object the operation is about, and fails for. */
export function aspectOf(operation: Operation): Aspect {
  return 'aspect' in operation ? operation.aspect : 'whole';
}
