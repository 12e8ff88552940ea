import { append } from '../../append.js';
import { isSame } from '../../ip/same.js';
import { OverlayError } from '../../errors.js';
import type { Prefix } from '../../ip/prefix.js';
import { RTPROT, RT_TABLE_MAIN } from '../../netlink/constants.js';
import type { RouteInfo } from '../../netlink/route.js';
import type { ActualState } from '../actual.js';
import { ROUTE_PROTOCOL, type RouteSpec, defaultMetric } from '../desired.js';
import { fieldsBy, isIdentical } from '../equality.js';
import type { ObjectKey } from '../object-key.js';
import { hopIndexes } from '../ownership.js';
import type { Planner } from '../planner.js';
import type { KernelKind } from './kind.js';

/** Of all our routes, also those without a gateway, as flannel makes them. */
const SCOPE = 'global' as const;

/** Key of the routes to a destination with that metric. */
export function routeKey(destination: Prefix, metric = defaultMetric(destination.family)): ObjectKey {
  return metric === defaultMetric(destination.family)
    ? `route ${destination.toString()}`
    : `route ${destination.toString()} metric ${metric}`;
}

/** Routes of the main table. */
export const routeKind: KernelKind<'route'> = {
  keyOf: ({ destination, metric }) => routeKey(destination, metric),
  isSame: fieldsBy<RouteSpec>({
    destination: isSame,
    type: isIdentical,
    device: isIdentical,
    gateway: isSame,
    isOnlink: isIdentical,
    metric: isIdentical,
  }),

  async read(kernel, actual) {
    for (const family of [4, 6] as const) {
      for (const route of await kernel.listRoutes(family)) putBehind(actual, route);
    }
  },

  presentKeys: ({ routes }) => routes.keys(),

  plan(planner, key, spec) {
    const { actual } = planner;
    const present = (actual.routes.get(key) ?? []).filter((route) => !vanishes(planner, route));
    if (spec?.device !== undefined && !planner.device(spec.device).isUsable) {
      planner.block(key); // what carries the packets now goes on doing so
      return;
    }
    const kept = spec === undefined ? undefined : planWanted(planner, key, spec, present);
    for (const route of present) {
      if (route === kept || !actual.isOurRoute(route)) continue;
      const device = actual.linkOf(route.index)?.name;
      if (device !== undefined && planner.isDoomed(device) && route.multipath.length === 0) continue;
      planner.add('removeRoutes', { kind: 'route', verb: 'del', key, reason: 'unexpected', device, route });
    }
  },

  carryOut(netlink, operation, indexOf) {
    if (operation.verb === 'del') {
      const { destination, type, index, gateway, scope, protocol, metric, tos, multipath, nexthopId } = operation.route;
      // A next hop that is named must be one of the route's; a multipath route is found by the rest, and so is one with
      // a next hop object, which matches no hop at all (fib_nh_match()).
      const hasPlainHop = type === 'unicast' && multipath.length === 0 && nexthopId === 0;
      const hop = hasPlainHop ? { index, gateway } : {};
      netlink.routes.del({ destination, type, scope, protocol, metric, tos, ...hop });
      return true;
    }
    const { destination, type, device, gateway, isOnlink, metric } = operation.route;
    const index = device === undefined ? undefined : indexOf(device);
    const route = { destination, type, isOnlink, scope: SCOPE, protocol: ROUTE_PROTOCOL, index, gateway, metric };
    if (operation.verb === 'add') netlink.routes.add(route);
    else netlink.routes.replace(route);
    return true;
  },

  record(actual, operation) {
    const { key } = operation;
    if (operation.verb === 'del') {
      const rest = (actual.routes.get(key) ?? []).filter((other) => !isSameRouteInfo(other, operation.route));
      setRoutes(actual, key, rest);
      return;
    }
    const made = madeRoute(operation.route, actual.indexOf(operation.device));
    insert(actual, key, made, operation.verb === 'replace');
  },

  follow(actual, { route, isDeleted, isReplacement }, touched) {
    const key = relevantKey(actual, route);
    if (key === undefined) return false;
    const known = actual.routes.get(key) ?? [];
    const slot = known.filter((other) => isSameSlot(other, route));
    // The members of an IPv6 multipath route come and go one by one or all at once.
    if (route.multipath.length > 0 || slot.some((other) => other.multipath.length > 0)) return true;
    const rest = known.filter((other) => !isSameRouteInfo(other, route));
    const isKnown = rest.length !== known.length;
    if (isDeleted) {
      if (!isKnown) return false;
      setRoutes(actual, key, rest);
      touched.add(key);
      return false;
    }
    if (isKnown) return false;
    touched.add(key);
    if (route.nexthopId !== 0) actual.nexthopIds.add(route.nexthopId);
    insert(actual, key, route, isReplacement);
    return slot.length > (isReplacement ? 1 : 0); // its place among several with equal tos and metric is not known
  },
};

// What is there

/** Key of a route that can be ours, or lies where ours lie or may come to lie. */
function relevantKey(actual: ActualState, route: RouteInfo): ObjectKey | undefined {
  if (route.table !== RT_TABLE_MAIN) return undefined;
  const key = routeKey(route.destination, route.metric);
  const isRelevant =
    hopIndexes(route).some((index) => actual.ourDevices.has(index)) ||
    actual.desired.routes.has(key) ||
    actual.ownership.isInScope(route.destination);
  return isRelevant ? key : undefined;
}

/** Adds a route behind those with the same destination, as dumps list them. */
function putBehind(actual: ActualState, route: RouteInfo): void {
  const key = relevantKey(actual, route);
  if (key === undefined) return;
  actual.routes.set(key, append(actual.routes.get(key), route));
  if (route.nexthopId !== 0) actual.nexthopIds.add(route.nexthopId);
}

/** Puts a route before the others of its tos, or in place of the first of them. */
function insert({ routes }: ActualState, key: ObjectKey, route: RouteInfo, isReplacement: boolean): void {
  const known = routes.get(key) ?? [];
  const at = known.findIndex((other) => isSameSlot(other, route));
  if (at < 0) routes.set(key, append(known, route));
  else routes.set(key, known.toSpliced(at, isReplacement ? 1 : 0, route));
}

function setRoutes(actual: ActualState, key: ObjectKey, routes: readonly RouteInfo[]): void {
  if (routes.length === 0) actual.routes.delete(key);
  else actual.routes.set(key, routes);
}

/** What the kernel will say about a route that we make. */
function madeRoute(spec: RouteSpec, index: number): RouteInfo {
  const { destination, type, gateway, isOnlink } = spec;
  return {
    destination,
    type,
    table: RT_TABLE_MAIN,
    protocol: ROUTE_PROTOCOL,
    scope: SCOPE,
    tos: 0,
    metric: spec.metric ?? defaultMetric(destination.family),
    prefsrc: undefined,
    index,
    gateway,
    isOnlink,
    nexthopId: 0,
    multipath: [],
  };
}

/** Routes to one destination with one metric compete by tos; among equal ones only the first is used. */
function isSameSlot(a: RouteInfo, b: RouteInfo): boolean {
  return a.tos === b.tos;
}

function isSameRouteInfo(a: RouteInfo, b: RouteInfo): boolean {
  return (
    isSameSlot(a, b) &&
    a.type === b.type &&
    a.protocol === b.protocol &&
    a.nexthopId === b.nexthopId &&
    a.multipath.length === b.multipath.length &&
    (a.type !== 'unicast' || // IPv6 shows the loopback device for routes without one
      (a.index === b.index && a.scope === b.scope && a.isOnlink === b.isOnlink && isSame(a.gateway, b.gateway))) &&
    isSame(a.prefsrc, b.prefsrc)
  );
}

// What is wanted

/** @returns the present route that is, or is replaced by, the wanted one. */
function planWanted(
  planner: Planner,
  key: ObjectKey,
  spec: RouteSpec,
  present: readonly RouteInfo[],
): RouteInfo | undefined {
  const { actual } = planner;
  const { device } = spec;
  const index = actual.indexOf(device);
  const equals = present.filter(({ tos }) => tos === 0);
  const [first] = equals;
  if (first === undefined) {
    planner.add('routes', { kind: 'route', verb: 'add', key, reason: 'missing', device, route: spec });
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
  if (match !== undefined && (isOurs || leadsTheSameWay)) return match;
  if (isOurs || (leadsTheSameWay && first.protocol === RTPROT.BOOT)) {
    planner.add('routes', { kind: 'route', verb: 'replace', key, reason: 'altered', device, route: spec });
  } else if (!leadsTheSameWay) {
    planner.conflict(key, routeConflict(first, actual));
    return match; // one behind it takes over as soon as the first goes
  }
  return first;
}

/** Whether the route goes with a device that is deleted before routes are made. */
function vanishes(planner: Planner, route: RouteInfo): boolean {
  return planner.isRemade(route.index) && route.multipath.length === 0;
}

function isSameWay(spec: RouteSpec, index: number, route: RouteInfo): boolean {
  if (spec.type !== route.type || route.multipath.length > 0) return false;
  return spec.type !== 'unicast' || (route.index === index && isSame(route.gateway, spec.gateway));
}

/** Whether also what does not decide where packets go is as desired. */
function isExact(spec: RouteSpec, route: RouteInfo): boolean {
  if (spec.type !== 'unicast') return true;
  return route.scope === SCOPE && spec.isOnlink === route.isOnlink && route.prefsrc === undefined;
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
