import { OverlayError } from '../../errors.js';
import { readSysctl, writeSysctl } from '../../netlink/sysctl.js';
import type { ActualState } from '../actual.js';
import type { SysctlSpec } from '../desired.js';
import { fieldsBy, isIdentical } from '../equality.js';
import type { Kernel } from '../kernel.js';
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
 * Reads the desired parameters, which have no events.
 *
 * @throws {@link OverlayError} `ERR_SYSCTL`
 */
export function readSysctls(kernel: Kernel, actual: ActualState): void {
  for (const [key, { path }] of actual.desired.sysctls.entries()) {
    const text = kernel.readSysctl(path);
    if (text === undefined) actual.sysctls.delete(key);
    else actual.sysctls.set(key, text);
  }
}

/** Kernel parameters. One that is no longer desired keeps its value: nobody knows what it should be instead. */
export const sysctlKind: KernelKind<'sysctl'> = {
  keyOf: ({ path }) => `sysctl ${path}`,
  isSame: fieldsBy<SysctlSpec>({ path: isIdentical, value: isIdentical }),

  read(kernel, actual) {
    readSysctls(kernel, actual);
    return Promise.resolve();
  },

  presentKeys: () => [],

  plan(planner, key, spec) {
    if (spec === undefined) return;
    const { path, value } = spec;
    const text = planner.actual.sysctls.get(key);
    if (text === value) return;
    const device = deviceOf(path);
    if (device !== undefined && !planner.device(device).isUsable) {
      planner.block(key);
      return;
    }
    // A device has no IPv6 parameters where IPv6 is off or its MTU is below 1280 (addrconf_notify()).
    const isMade = device !== undefined && planner.device(device).loses === 'all';
    if (text === undefined && mayLack(path) && !isMade) return;
    const reason = text === undefined ? 'missing' : 'altered';
    planner.add('sysctls', { kind: 'sysctl', verb: 'set', key, reason, device, path, value });
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

  record(actual, { key, value }) {
    actual.sysctls.set(key, value);
  },

  forget() {}, // read anew whenever a device is looked at
};
