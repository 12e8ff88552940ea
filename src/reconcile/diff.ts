import { OverlayError } from '../errors.js';
import type { IpAddress } from '../ip/address.js';
import type { AddressInfo } from '../netlink/address.js';
import { RTPROT } from '../netlink/constants.js';
import type { LinkInfo } from '../netlink/link.js';
import type { FdbInfo } from '../netlink/neighbour.js';
import type { RouteInfo } from '../netlink/route.js';
import type { ActualState } from './actual.js';
import { isSame } from '../ip/same.js';
import {
  type AddressSpec,
  type FdbSpec,
  type IpipLink,
  type LinkSpec,
  type NeighSpec,
  ROUTE_PROTOCOL,
  type RouteSpec,
  type SysctlSpec,
  type VxlanLink,
  defaultMetric,
} from './desired.js';
import type { DesiredIndex } from './desired-index.js';
import { type ObjectKey, deviceOf, kindOf, objectKey } from './object-key.js';
import { type LinkAspect, type Operation, type OperationReason, failureKey } from './operation.js';
import type { Ownership } from './ownership.js';

/** Input of {@link diff}. */
export interface DiffInput {
  readonly actual: ActualState;
  readonly desired: DesiredIndex;
  readonly ownership: Ownership;
  /** Look only at these objects, none of which is a device. Default everything. */
  readonly keys?: Iterable<ObjectKey>;
  /** Failed lately and not to be tried yet. Takes what {@link failureKey} gives. Default nothing. */
  readonly isHeld?: (key: ObjectKey) => boolean;
  /** TUN devices that go away with their tunnel and are not to be deleted. Default none. */
  readonly tunnelDevices?: ReadonlySet<string>;
}

/** Output of {@link diff}. */
export interface Plan {
  /** In the order in which they are safe: nothing is removed before what takes its place is there. */
  readonly operations: readonly Operation[];
  /** Objects that cannot be made because somebody else's is in the way. */
  readonly conflicts: ReadonlyMap<ObjectKey, OverlayError>;
  /** Objects that wait for a device. */
  readonly blocked: ReadonlySet<ObjectKey>;
  /** Operations that are needed and were left out, by their failure key. */
  readonly held: ReadonlySet<ObjectKey>;
}

/** The order: what others depend on first, removals last and backwards. A neighbour must be known before a route leads to it. */
const PHASES = [
  'links',
  'sysctls',
  'addresses',
  'up',
  'neighbours',
  'fdb',
  'routes',
  'removeRoutes',
  'removeFdb',
  'removeNeighbours',
  'removeAddresses',
  'removeLinks',
] as const;

type Phase = (typeof PHASES)[number];

/**
 * What has to be done so that the kernel looks as desired. Pure; linear in the number of objects looked at.
 *
 * @remarks
 * - A device whose fixed attributes differ is deleted and made again; what lay on it is then made again as well.
 * - A route that is ours takes the place of another that is ours in one step, so that no packet finds none. A route of
 *   flannel's (protocol `boot`) that leads the same way is taken over likewise. One that leads the same way but was made
 *   by an administrator or a routing daemon is as good as ours and left alone. Any other in its place is a conflict.
 */
export function diff(input: DiffInput): Plan {
  const planner = new Planner(input);
  if (input.keys === undefined) planner.planAll();
  else planner.planKeys(input.keys);
  return planner.plan();
}

/** What the plan makes of a device. */
interface DeviceState {
  /** Objects can be put on it once the operations on devices are done. */
  readonly isUsable: boolean;
  /** What lies on it now will be gone: everything, the neighbours, or nothing. */
  readonly loses: 'all' | 'neighbours' | 'nothing';
}

const ABSENT: DeviceState = { isUsable: false, loses: 'all' };
const UNTOUCHED: DeviceState = { isUsable: true, loses: 'nothing' };

class Planner {
  private readonly phases = new Map<Phase, Operation[]>(PHASES.map((phase) => [phase, []]));
  private readonly conflicts = new Map<ObjectKey, OverlayError>();
  private readonly blocked = new Set<ObjectKey>();
  private readonly held = new Set<ObjectKey>();
  private readonly devices = new Map<string, DeviceState>();
  private readonly doomed = new Set<string>();
  /** `device family` of every desired address. */
  private addressedDevices: ReadonlySet<string> | undefined;

  constructor(private readonly input: DiffInput) {}

  plan(): Plan {
    const { conflicts, blocked, held } = this;
    return { operations: PHASES.flatMap((phase) => this.phases.get(phase) ?? []), conflicts, blocked, held };
  }

  planAll(): void {
    const { desired, actual } = this.input;
    for (const [key, spec] of desired.links.entries()) this.devices.set(spec.name, this.planLink(key, spec));
    this.planStaleLinks();
    for (const [key, spec] of desired.sysctls.entries()) this.planSysctl(key, spec);
    for (const [key, spec] of desired.addresses.entries()) this.planAddress(key, spec);
    for (const key of actual.addresses.keys()) if (!desired.addresses.has(key)) this.planAddress(key, undefined);
    for (const [key, spec] of desired.neighbours.entries()) this.planNeighbour(key, spec);
    for (const key of actual.neighbours.keys()) if (!desired.neighbours.has(key)) this.planNeighbour(key, undefined);
    for (const [key, spec] of desired.fdb.entries()) this.planFdb(key, spec);
    for (const key of actual.fdb.keys()) if (!desired.fdb.has(key)) this.planFdb(key, undefined);
    for (const [key, spec] of desired.routes.entries()) this.planRoute(key, spec);
    for (const key of actual.routes.keys()) if (!desired.routes.has(key)) this.planRoute(key, undefined);
  }

  planKeys(keys: Iterable<ObjectKey>): void {
    const { desired } = this.input;
    const planners: Readonly<Record<string, (key: ObjectKey) => void>> = {
      sysctl: (key) => {
        const spec = desired.sysctls.get(key);
        if (spec !== undefined) this.planSysctl(key, spec);
      },
      address: (key) => {
        this.planAddress(key, desired.addresses.get(key));
      },
      neighbour: (key) => {
        this.planNeighbour(key, desired.neighbours.get(key));
      },
      fdb: (key) => {
        this.planFdb(key, desired.fdb.get(key));
      },
      route: (key) => {
        this.planRoute(key, desired.routes.get(key));
      },
    };
    for (const key of keys) planners[kindOf(key)]?.(key);
  }

  private add(phase: Phase, operation: Operation): void {
    const failure = failureKey(operation);
    if (this.input.isHeld?.(failure) === true) this.held.add(failure);
    else this.phases.get(phase)?.push(operation);
  }

  private isHeld(key: ObjectKey): boolean {
    return this.input.isHeld?.(key) === true;
  }

  // Devices

  private planLink(key: ObjectKey, spec: LinkSpec): DeviceState {
    const link = this.input.actual.links.get(spec.name);
    if (spec.kind === 'tun' && !this.hasTunnel(spec.name)) {
      this.blocked.add(key); // its tunnel makes it; one that is there already is somebody else's
      return ABSENT;
    }
    if (link === undefined) return this.planMissingLink(key, spec);
    const isMarked = link.alias === this.input.ownership.mark;
    const fits = link.kind === spec.kind && !this.input.ownership.isOthersDevice(link);
    if (!fits && (!isMarked || spec.kind === 'tun')) {
      this.conflicts.set(key, deviceTaken(link, spec, this.input.ownership));
      return ABSENT;
    }
    if (spec.kind !== 'tun' && !this.hasFixedAttributes(spec, link)) {
      if (!this.isHeld(key)) return this.planNewLink(key, spec, true);
      this.held.add(key);
      return UNTOUCHED;
    }
    return this.planLinkChanges(key, spec, link);
  }

  private hasTunnel(device: string): boolean {
    return this.input.tunnelDevices?.has(device) === true;
  }

  private planMissingLink(key: ObjectKey, spec: LinkSpec): DeviceState {
    if (spec.kind === 'tun') {
      this.blocked.add(key);
      return ABSENT;
    }
    if (this.isHeld(key)) {
      this.held.add(key);
      return ABSENT;
    }
    return this.planNewLink(key, spec, false);
  }

  private planNewLink(key: ObjectKey, spec: VxlanLink | IpipLink, replaces: boolean): DeviceState {
    const alias = this.input.ownership.mark;
    const reason = replaces ? 'altered' : 'missing';
    this.add('links', { kind: 'link', verb: 'add', key, reason, device: spec.name, spec, alias, replaces });
    this.setLink('up', key, reason, spec.name, 'up', { isUp: true });
    return { isUsable: true, loses: 'all' };
  }

  private planLinkChanges(key: ObjectKey, spec: LinkSpec, link: LinkInfo): DeviceState {
    const { mark } = this.input.ownership;
    const set = (aspect: LinkAspect, change: Parameters<Planner['setLink']>[5]): void => {
      this.setLink('links', key, 'altered', spec.name, aspect, change);
    };
    if (link.alias !== mark) set('alias', { alias: mark });
    if (link.mtu !== spec.mtu) set('mtu', { mtu: spec.mtu });
    if (spec.kind === 'tun' && link.txQueueLength !== spec.txQueueLength) {
      set('txQueueLength', { txQueueLength: spec.txQueueLength });
    }
    const changesMac = spec.kind === 'vxlan' && link.mac !== spec.mac;
    if (changesMac) set('mac', { mac: spec.mac });
    if (spec.kind === 'vxlan' && link.details?.kind === 'vxlan' && link.details.learning !== spec.learning) {
      set('learning', { vxlan: { learning: spec.learning } });
    }
    if (!link.isUp) this.setLink('up', key, 'altered', spec.name, 'up', { isUp: true });
    const isMacHeld = this.isHeld(`${key} mac`);
    const staysDown = !link.isUp && this.isHeld(`${key} up`);
    return { isUsable: !staysDown, loses: changesMac && !isMacHeld ? 'neighbours' : 'nothing' };
  }

  private setLink(
    phase: Phase,
    key: ObjectKey,
    reason: OperationReason,
    device: string,
    aspect: LinkAspect,
    change: (Operation & { verb: 'set'; kind: 'link' })['change'],
  ): void {
    this.add(phase, { kind: 'link', verb: 'set', key, reason, device, aspect, change });
  }

  /** Whether everything that the kernel fixes when it makes a device is as it should be. */
  private hasFixedAttributes(spec: VxlanLink | IpipLink, link: LinkInfo): boolean {
    const { details } = link;
    if (spec.kind === 'ipip') {
      return details?.kind === 'ipip' && details.remote === undefined && isSame(details.local, spec.local);
    }
    const port = spec.port === 0 ? this.input.actual.defaultVxlanPort : spec.port;
    return (
      details?.kind === 'vxlan' &&
      details.vni === spec.vni &&
      details.underlayIndex === spec.underlayIndex &&
      isSame(details.local, spec.local) &&
      details.port === port &&
      details.gbp === spec.gbp &&
      details.group === undefined &&
      !details.l2miss &&
      !details.isExternal
    );
  }

  private planStaleLinks(): void {
    const { actual, desired } = this.input;
    for (const device of actual.ourDevices.values()) {
      const key = objectKey.link(device);
      if (desired.links.has(key)) continue;
      this.doomed.add(device);
      if (this.hasTunnel(device)) continue; // it goes with its tunnel
      this.add('removeLinks', { kind: 'link', verb: 'del', key, reason: 'unexpected', device });
    }
  }

  /** Devices that are not desired, such as the underlay device, are as the kernel says. */
  private device(name: string): DeviceState {
    const planned = this.devices.get(name);
    if (planned !== undefined) return planned;
    const link = this.input.actual.links.get(name);
    const spec = this.input.desired.links.get(objectKey.link(name));
    const isOurs =
      link?.kind === spec?.kind &&
      (spec?.kind !== 'tun' || this.hasTunnel(name)) &&
      (link === undefined || !this.input.ownership.isOthersDevice(link));
    const state = link?.isUp === true && (spec === undefined || isOurs) ? UNTOUCHED : ABSENT;
    this.devices.set(name, state);
    return state;
  }

  /** Whether objects of the device need no removal of their own: they go with it, or with what happens to it. */
  private losesObjects(index: number): boolean {
    const name = this.input.actual.linkOf(index)?.name;
    return name === undefined || this.doomed.has(name) || this.devices.get(name)?.loses === 'all';
  }

  // What lies on devices

  private planSysctl(key: ObjectKey, { path, value }: SysctlSpec): void {
    const text = this.input.actual.sysctls.get(key);
    if (text === value) return;
    const name = deviceOf(key);
    const device = name === 'all' || name === 'default' ? undefined : name;
    if (device !== undefined && !this.device(device).isUsable) {
      this.blocked.add(key);
      return;
    }
    // A device has no IPv6 parameters where IPv6 is off or its MTU is below 1280 (addrconf_notify()).
    const mayLack = path.startsWith('net/ipv6/');
    if (text === undefined && mayLack && (device === undefined || this.device(device).loses !== 'all')) return;
    const reason = text === undefined ? 'missing' : 'altered';
    this.add('sysctls', { kind: 'sysctl', verb: 'set', key, reason, device, path, value });
  }

  private planAddress(key: ObjectKey, spec: AddressSpec | undefined): void {
    const info = this.input.actual.addresses.get(key);
    if (spec === undefined) {
      if (info !== undefined) this.planStrayAddress(key, info);
      return;
    }
    const { device, address, length } = spec;
    const state = this.device(device);
    if (!state.isUsable) this.blocked.add(key);
    else if (info === undefined || state.loses === 'all') {
      const reason = 'missing';
      this.add('addresses', {
        kind: 'address',
        verb: 'replace',
        key,
        reason,
        device,
        address,
        length,
        peer: undefined,
      });
    }
  }

  private planStrayAddress(key: ObjectKey, info: AddressInfo): void {
    const device = this.input.actual.linkOf(info.index)?.name;
    const { address, length, peer } = info;
    if (device === undefined || this.losesObjects(info.index)) return;
    if (address.family === 6 && address.isLinkLocal) return;
    if (!this.hasDesiredAddress(device, address)) return;
    const reason = 'unexpected';
    this.add('removeAddresses', { kind: 'address', verb: 'del', key, reason, device, address, length, peer });
  }

  private hasDesiredAddress(device: string, { family }: IpAddress): boolean {
    this.addressedDevices ??= new Set(
      Array.from(this.input.desired.addresses.values(), (spec) => `${spec.device} ${spec.address.family}`),
    );
    return this.addressedDevices.has(`${device} ${family}`);
  }

  private planNeighbour(key: ObjectKey, spec: NeighSpec | undefined): void {
    const info = this.input.actual.neighbours.get(key);
    if (spec === undefined) {
      const device = info === undefined ? undefined : this.input.actual.linkOf(info.index)?.name;
      if (info === undefined || device === undefined || this.losesObjects(info.index)) return;
      if (this.devices.get(device)?.loses === 'neighbours') return;
      const { address } = info;
      const mac = undefined;
      this.add('removeNeighbours', { kind: 'neighbour', verb: 'del', key, reason: 'unexpected', device, address, mac });
      return;
    }
    const { device, address, mac } = spec;
    const state = this.device(device);
    if (!state.isUsable) {
      this.blocked.add(key);
      return;
    }
    const isThere = info !== undefined && state.loses === 'nothing';
    if (isThere && info.mac === mac) return;
    const reason = isThere ? 'altered' : 'missing';
    this.add('neighbours', { kind: 'neighbour', verb: 'replace', key, reason, device, address, mac });
  }

  private planFdb(key: ObjectKey, spec: FdbSpec | undefined): void {
    const info = this.input.actual.fdb.get(key);
    if (spec === undefined) {
      const device = info === undefined ? undefined : this.input.actual.linkOf(info.index)?.name;
      if (info === undefined || device === undefined || this.losesObjects(info.index)) return;
      this.add('removeFdb', { kind: 'fdb', verb: 'del', key, reason: 'unexpected', device, mac: info.mac });
      return;
    }
    const { device, mac, destination } = spec;
    const state = this.device(device);
    if (!state.isUsable) {
      this.blocked.add(key);
      return;
    }
    const isThere = info !== undefined && state.loses !== 'all';
    if (isThere && isPlainFdb(info) && isSame(info.destination, destination)) return;
    const reason = isThere ? 'altered' : 'missing';
    this.add('fdb', { kind: 'fdb', verb: 'replace', key, reason, device, mac, destination });
  }

  // Routes

  private planRoute(key: ObjectKey, spec: RouteSpec | undefined): void {
    const { actual } = this.input;
    const present = (actual.routes.get(key) ?? []).filter((route) => !this.vanishes(route));
    if (spec?.device !== undefined && !this.device(spec.device).isUsable) {
      this.blocked.add(key); // what carries the packets now goes on doing so
      return;
    }
    const kept = spec === undefined ? undefined : this.planWantedRoute(key, spec, present);
    for (const route of present) {
      if (route === kept || !actual.isOurRoute(route)) continue;
      const device = actual.linkOf(route.index)?.name;
      if (device !== undefined && this.doomed.has(device) && route.multipath.length === 0) continue;
      this.add('removeRoutes', { kind: 'route', verb: 'del', key, reason: 'unexpected', device, route });
    }
  }

  /** @returns the present route that is, or is replaced by, the wanted one. */
  private planWantedRoute(key: ObjectKey, spec: RouteSpec, present: readonly RouteInfo[]): RouteInfo | undefined {
    const { actual } = this.input;
    const { device } = spec;
    const index = device === undefined ? 0 : (actual.links.get(device)?.index ?? 0);
    const metric = spec.metric ?? defaultMetric(spec.destination.family);
    const equals = present.filter((route) => route.tos === 0 && route.metric === metric);
    const [first] = equals;
    if (first === undefined) {
      this.add('routes', { kind: 'route', verb: 'add', key, reason: 'missing', device, route: spec });
      return undefined;
    }
    const leadsTheSameWay = isSameWay(spec, index, first);
    const isOurs = actual.isOurRoute(first);
    // One behind the first moves up when that is removed; the kernel would refuse to put its twin in the first's place.
    const match = equals.find(
      (route) =>
        route.protocol === ROUTE_PROTOCOL &&
        actual.isOurRoute(route) &&
        isSameWay(spec, index, route) &&
        isExact(spec, route),
    );
    if (match !== undefined && (match === first || isOurs || leadsTheSameWay)) return match;
    if (isOurs || (leadsTheSameWay && first.protocol === RTPROT.BOOT)) {
      this.add('routes', { kind: 'route', verb: 'replace', key, reason: 'altered', device, route: spec });
    } else if (!leadsTheSameWay) {
      this.conflicts.set(key, routeConflict(first, this.input.actual));
      return match ?? first; // one behind it takes over as soon as the first goes
    }
    return first;
  }

  /** Whether the route goes with a device that is deleted before routes are made. */
  private vanishes(route: RouteInfo): boolean {
    const name = this.input.actual.linkOf(route.index)?.name;
    const device = name === undefined ? undefined : this.devices.get(name);
    return device?.isUsable === true && device.loses === 'all' && route.multipath.length === 0;
  }
}

/** Whether port, VNI and underlay device are the VXLAN device's own. */
function isPlainFdb({ port, vni, viaIndex }: FdbInfo): boolean {
  return port === undefined && vni === undefined && viaIndex === undefined;
}

function isSameWay(spec: RouteSpec, index: number, route: RouteInfo): boolean {
  if (spec.type !== route.type || route.multipath.length > 0) return false;
  return spec.type === 'blackhole' || (route.index === index && isSame(route.gateway, spec.gateway));
}

/** Whether also what does not decide where packets go is as desired. */
function isExact(spec: RouteSpec, route: RouteInfo): boolean {
  if (spec.type === 'blackhole') return true;
  const isSameScope = spec.destination.family === 6 || spec.scope === route.scope;
  return isSameScope && spec.isOnlink === route.isOnlink && route.prefsrc === undefined;
}

function deviceTaken(link: LinkInfo, spec: LinkSpec, ownership: Ownership): OverlayError {
  const context = { dev: spec.name };
  if (ownership.isOthersDevice(link)) {
    return new OverlayError(
      'ERR_DEVICE_TAKEN',
      `cannot use ${spec.name}: it belongs to another daemon ("${link.alias}")`,
      { context, hint: 'give the two networks different VNIs or backends' },
    );
  }
  const kind = link.kind === '' ? 'a physical device' : `a device of kind ${link.kind}`;
  return new OverlayError('ERR_DEVICE_TAKEN', `cannot make ${spec.kind} device ${spec.name}: ${kind} has that name`, {
    context,
    hint: `rename it (ip link set ${spec.name} name …) or delete it (ip link del ${spec.name})`,
  });
}

function routeConflict(route: RouteInfo, actual: ActualState): OverlayError {
  const destination = route.destination.toString();
  const type = route.type === 'unicast' ? '' : `${route.type} `;
  const via = route.gateway === undefined ? '' : ` via ${route.gateway.toString()}`;
  const device = actual.linkOf(route.index)?.name;
  const dev = device === undefined || route.type !== 'unicast' ? '' : ` dev ${device}`;
  const metric = route.metric === defaultMetric(route.destination.family) ? '' : ` metric ${route.metric}`;
  const text = `${type}${destination}${route.multipath.length > 0 ? ' (multipath)' : `${via}${dev}`}${metric}`;
  const command = route.destination.family === 6 ? 'ip -6 route del' : 'ip route del';
  return new OverlayError('ERR_ROUTE_CONFLICT', `cannot route ${destination}: somebody else's route ${text} is there`, {
    context: { route: destination, ...(device === undefined ? {} : { dev: device }) },
    // The way to a network that this host itself is in comes with an address, and must not be taken from it.
    hint:
      route.protocol === RTPROT.KERNEL || route.prefsrc !== undefined || route.destination.length === 0
        ? `choose another network for the overlay, or another address for ${device ?? 'that device'}`
        : `remove it (${command} ${type}${destination}${via}${dev}${metric}) or choose another network for the overlay`,
  });
}
