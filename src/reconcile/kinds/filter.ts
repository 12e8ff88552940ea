import type { FilterInfo } from '../../netlink/filter.js';
import { isSameProgram, stationProgram } from '../../netlink/filter-program.js';
import type { MacAddress } from '../../ip/mac.js';
import type { FilterDirection, FilterSpec } from '../desired.js';
import { fieldsBy, isIdentical, listsBy } from '../equality.js';
import type { ObjectKey } from '../object-key.js';
import type { KernelKind } from './kind.js';

function filterKey(device: string, direction: FilterDirection): ObjectKey {
  return `filter ${device} ${direction}`;
}

function programOf({ direction, stations }: Pick<FilterSpec, 'direction' | 'stations'>): Uint8Array {
  return stationProgram(direction, stations);
}

/** Filters for frames on our devices. One that is to let in or out nobody else is replaced in one step. */
export const filterKind: KernelKind<'filter'> = {
  keyOf: ({ device, direction }) => filterKey(device, direction),
  isSame: fieldsBy<FilterSpec>({
    device: isIdentical,
    direction: isIdentical,
    stations: listsBy<MacAddress>(isIdentical),
  }),

  async read(kernel, actual) {
    const devices = new Set(Array.from(actual.desired.filters.values(), ({ device }) => device));
    for (const device of devices) {
      const index = actual.indexOf(device);
      if (!actual.ourDevices.has(index)) continue;
      for (const info of await kernel.listFilters(index)) actual.filters.set(filterKey(device, info.direction), info);
    }
  },

  presentKeys: ({ filters }) => filters.keys(),

  plan(planner, key, spec) {
    const info = planner.actual.filters.get(key);
    if (spec === undefined) {
      const device = info === undefined ? undefined : planner.deviceToClear(info.index);
      if (info === undefined || device === undefined) return;
      const { direction } = info;
      const common = { kind: 'filter', verb: 'del', reason: 'unexpected' } as const;
      planner.add('removeFilters', { ...common, key, device, direction, stations: [] });
      return;
    }
    const { device, direction, stations } = spec;
    const state = planner.device(device);
    if (!state.isUsable) {
      planner.block(key);
      return;
    }
    const isThere = info !== undefined && state.loses !== 'all';
    if (isThere && isSameProgram(info.program, programOf(spec))) return;
    const reason = isThere ? 'altered' : 'missing';
    planner.add('filters', { kind: 'filter', verb: 'replace', key, reason, device, direction, stations });
  },

  carryOut(netlink, { verb, device, direction, stations }, indexOf) {
    const target = { index: indexOf(device), direction };
    if (verb === 'del') netlink.filters.del(target);
    else netlink.filters.replace({ ...target, program: stationProgram(direction, stations) });
    return true;
  },

  record(actual, operation) {
    const { key, verb, device, direction } = operation;
    if (verb === 'del') actual.filters.delete(key);
    else actual.filters.set(key, { index: actual.indexOf(device), direction, program: programOf(operation) });
  },

  follow(actual, { index, filter }, touched) {
    const device = actual.ourDevices.get(index);
    if (device === undefined) return false;
    if (filter === undefined) return actual.desired.refersTo(device); // all of them, or one that is not named
    const key = filterKey(device, filter.direction);
    const before: FilterInfo | undefined = actual.filters.get(key);
    if (before !== undefined && isSameProgram(before.program, filter.program)) return false;
    actual.filters.set(key, filter);
    touched.add(key);
    return false;
  },
};
