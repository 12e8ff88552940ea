import { OverlayError } from '../../errors.js';
import { readSysctl, writeSysctl } from '../../netlink/sysctl.js';
import type { ActualState } from '../actual.js';
import type { SysctlSpec } from '../desired.js';
import { fieldsBy, isIdentical } from '../equality.js';
import type { FormerValue } from '../former-values.js';
import type { Kernel } from '../kernel.js';
import type { ObjectKey } from '../object-key.js';
import type { Operation } from '../operation.js';
import type { Planner } from '../planner.js';
import type { KernelKind } from './kind.js';

/** Where IPv6 is off there is nothing that its parameters could regulate. */
function mayLack(path: string): boolean {
  return path.startsWith('net/ipv6/');
}

/** The device whose parameter it is; undefined for those of the whole host. */
function deviceOf(path: string): string | undefined {
  const name = /^net\/ipv[46]\/(?:conf|neigh)\/([^/]+)\//.exec(path)?.[1];
  return name === 'all' || name === 'default' ? undefined : name;
}

/**
 * Reads the parameters that are desired, or are to get back what they were; they have no events.
 *
 * @throws {@link OverlayError} `ERR_SYSCTL`
 */
export function readSysctls(kernel: Kernel, actual: ActualState): void {
  const { desired, formerValues, sysctls } = actual;
  const read = (key: ObjectKey, path: string): string | undefined => {
    const text = kernel.readSysctl(path);
    if (text === undefined) sysctls.delete(key);
    else sysctls.set(key, text);
    return text;
  };
  for (const [key, { path }] of desired.sysctls.entries()) read(key, path);
  for (const [path, { value, keptWhile }] of formerValues.entries) {
    const key = sysctlKey(path);
    if (keptWhile !== undefined) read(sysctlKey(keptWhile.path), keptWhile.path);
    if (desired.sysctls.has(key) || read(key, path) === value) continue;
    formerValues.forget(path); // with its device, or because somebody has set it to something else
    sysctls.delete(key);
  }
}

/**
 * Remembers what a parameter is before it is changed.
 *
 * @throws {@link OverlayError} `ERR_SYSCTL`
 */
export function rememberFormer({ formerValues }: ActualState, { path, former }: Operation<'sysctl'>): void {
  if (former !== undefined) formerValues.remember(path, former);
}

const isSameCondition = (a: SysctlSpec['keptWhile'], b: SysctlSpec['keptWhile']): boolean =>
  a?.path === b?.path && a?.value === b?.value;

function sysctlKey(path: string): ObjectKey {
  return `sysctl ${path}`;
}

/** Kernel parameters. One that is no longer desired keeps its value, unless it is known what it was. */
export const sysctlKind: KernelKind<'sysctl'> = {
  keyOf: ({ path }) => sysctlKey(path),
  isSame: fieldsBy<SysctlSpec>({
    path: isIdentical,
    value: isIdentical,
    from: isIdentical,
    isRestored: isIdentical,
    keptWhile: isSameCondition,
  }),

  read(kernel, actual) {
    readSysctls(kernel, actual);
    return Promise.resolve();
  },

  presentKeys: ({ formerValues }) => Array.from(formerValues.entries.keys(), sysctlKey),

  plan(planner, key, spec) {
    if (spec === undefined) {
      planRestoration(planner, key);
      return;
    }
    const { path, value, from } = spec;
    const text = planner.actual.sysctls.get(key);
    if (text === value || (text !== undefined && from !== undefined && text !== from)) return;
    const device = deviceOf(path);
    if (device !== undefined && !planner.device(device).isUsable) {
      planner.block(key);
      return;
    }
    // A device has no IPv6 parameters where IPv6 is off or its MTU is below 1280 (addrconf_notify()).
    const isMade = device !== undefined && planner.device(device).loses === 'all';
    if (text === undefined && mayLack(path) && !isMade) return;
    const reason = text === undefined ? 'missing' : 'altered';
    const former = spec.isRestored === true && text !== undefined ? { former: formerValue(spec, text) } : {};
    planner.add('sysctls', { kind: 'sysctl', verb: 'set', key, reason, device, path, value, ...former });
  },

  carryOut(_netlink, { path, value }) {
    const text = readSysctl(path);
    if (text === value) return false;
    if (text !== undefined) {
      writeSysctl(path, value);
      return true;
    }
    if (mayLack(path)) return false;
    throw new OverlayError('ERR_SYSCTL', `cannot set kernel parameter ${path}: this kernel does not have it`);
  },

  record(actual, { key, path, value }) {
    actual.sysctls.set(key, value);
    if (actual.desired.sysctls.has(key)) return;
    actual.sysctls.delete(key);
    actual.formerValues.forget(path);
  },
};

function formerValue({ value, keptWhile }: SysctlSpec, former: string): FormerValue {
  return { former, value, ...(keptWhile && { keptWhile }) };
}

function planRestoration(planner: Planner, key: ObjectKey): void {
  const { formerValues, sysctls } = planner.actual;
  for (const [path, { former, value, keptWhile }] of formerValues.entries) {
    if (sysctlKey(path) !== key || sysctls.get(key) !== value || isKept(planner, keptWhile)) continue;
    const common = { kind: 'sysctl', verb: 'set', reason: 'unexpected' } as const;
    planner.add('restoreSysctls', { ...common, key, device: deviceOf(path), path, value: former });
  }
}

function isKept({ actual, desired }: Planner, condition: FormerValue['keptWhile']): boolean {
  if (condition === undefined) return false;
  const key = sysctlKey(condition.path);
  const own = desired.sysctls.has(key) ? undefined : actual.formerValues.entries.get(condition.path);
  const current = actual.sysctls.get(key);
  // One that gets back what it was in the same step is as good as there.
  return (own?.value === current && own !== undefined ? own.former : current) === condition.value;
}
