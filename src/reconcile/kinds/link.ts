import { OverlayError } from '../../errors.js';
import type { LinkChange, LinkInfo } from '../../netlink/link.js';
import { isSameDetails } from '../../netlink/link-details.js';
import type { Netlink } from '../../netlink/netlink.js';
import { netlinkErrno } from '../../netlink/socket.js';
import type { GivenLinkKind, LinkSpec, LinkKinds, MadeLinkKind } from '../desired.js';
import { fieldsBy, isAlike, isIdentical } from '../equality.js';
import type { ObjectKey } from '../object-key.js';
import type { LinkAspect, OperationReason } from '../operation.js';
import type { Ownership } from '../ownership.js';
import { ABSENT, type DeviceState, type Phase, type Planner, UNTOUCHED } from '../planner.js';
import type { KernelKind } from './kind.js';
import { changesTo, hasFixedAttributes, isSameLinkSpec, newLink } from './links/table.js';

/** Key of a device. */
export function linkKey(name: string): ObjectKey {
  return `link ${name}`;
}

/** Network devices. What the kernel says of one after a change of ours is read again, not recorded. */
export const linkKind: KernelKind<'link'> = {
  keyOf: ({ name }) => linkKey(name),
  isSame: isSameLinkSpec,

  async read(kernel, actual) {
    for (const link of await kernel.listLinks()) actual.putLink(link);
  },

  presentKeys: ({ ourDevices }) => Array.from(ourDevices.values(), linkKey),

  plan(planner, key, spec) {
    if (spec === undefined) planStale(planner, key);
    else planner.setDevice(spec.name, planDevice(planner, key, spec));
  },

  carryOut(netlink, operation, indexOf) {
    const { device: name } = operation;
    if (operation.verb === 'set') {
      netlink.links.set({ index: indexOf(name), name }, operation.change);
      return true;
    }
    if (operation.verb === 'del') {
      netlink.links.del({ index: indexOf(name), name });
      return true;
    }
    if (operation.replaces) netlink.links.del({ index: indexOf(name), name });
    addLink(netlink, operation.spec);
    const index = netlink.links.get(name)?.index;
    if (index === undefined) {
      throw new OverlayError('ERR_NETLINK', `cannot make device ${name}: it was deleted at once`, {
        context: { errno: 'ENODEV' },
        isRetryable: true,
      });
    }
    netlink.links.set({ index, name }, { alias: operation.alias });
    return true;
  },

  record() {},

  follow(actual, { link, isDeleted }, touched) {
    const { desired } = actual;
    const before = actual.linkOf(link.index);
    const wasOurs = actual.ourDevices.has(link.index);
    const matters = wasOurs || desired.refersTo(link.name) || (before !== undefined && desired.refersTo(before.name));
    if (isDeleted) {
      actual.removeLink(link.index);
      if (!matters || before === undefined) return false;
      touched.add(linkKey(before.name));
      return true;
    }
    actual.putLink(link);
    const isOurs = actual.ourDevices.has(link.index);
    if (!matters && !isOurs) return false;
    // Kernels before those that tell permanent proxy entries apart drop all with the carrier (`neigh_carrier_down()`).
    if (before?.isRunning !== link.isRunning && desired.isProxying(link.name)) return true;
    if (before !== undefined && looksAlike(before, link)) return false;
    touched.add(linkKey(link.name));
    // Going down, a new MAC and a new name take objects along, for which the kernel sends no events.
    return before?.name !== link.name || before.isUp !== link.isUp || before.mac !== link.mac || wasOurs !== isOurs;
  },
};

/** Whether two descriptions of one device agree in what can matter. */
const looksAlike = fieldsBy<LinkInfo>({
  index: isIdentical,
  name: isIdentical,
  kind: isIdentical,
  isUp: isIdentical,
  isRunning: isAlike, // comes and goes with the carrier of the underlay device
  isLoopback: isIdentical,
  mtu: isIdentical,
  mac: isIdentical,
  txQueueLength: isIdentical,
  alias: isIdentical,
  masterIndex: isIdentical,
  isIsolated: isIdentical,
  isHairpin: isIdentical,
  lowerIndex: isAlike,
  details: isSameDetails,
});

// Devices

function planDevice(planner: Planner, key: ObjectKey, spec: LinkSpec): DeviceState {
  const { actual, ownership } = planner;
  const link = actual.links.get(spec.name);
  if (spec.kind === 'tun' && !planner.hasTunnel(spec.name)) {
    planner.block(key); // its tunnel makes it; one that is there already is somebody else's
    return ABSENT;
  }
  if (link === undefined) return planMissing(planner, key, spec);
  const isMarked = link.alias === ownership.mark;
  const fits = link.kind === spec.kind && !ownership.isOthersDevice(link);
  if (!fits && (!isMarked || isGiven(spec))) {
    planner.conflict(key, deviceTaken(link, spec, ownership));
    return ABSENT;
  }
  if (!isGiven(spec) && (!fits || !hasFixedAttributes(spec, link, actual))) {
    if (!planner.isHeld(key, 'whole')) return planNew(planner, key, spec, true);
    planner.hold(key, 'whole');
    return UNTOUCHED;
  }
  return planChanges(planner, key, spec, link);
}

function isGiven(spec: LinkSpec): spec is LinkKinds[GivenLinkKind] {
  return spec.kind === 'tun' || spec.kind === 'veth';
}

function planMissing(planner: Planner, key: ObjectKey, spec: LinkSpec): DeviceState {
  if (isGiven(spec)) {
    planner.block(key);
    return ABSENT;
  }
  if (planner.isHeld(key, 'whole')) {
    planner.hold(key, 'whole');
    return ABSENT;
  }
  return planNew(planner, key, spec, false);
}

function planNew(planner: Planner, key: ObjectKey, spec: LinkKinds[MadeLinkKind], replaces: boolean): DeviceState {
  const alias = planner.ownership.mark;
  const reason = replaces ? 'altered' : 'missing';
  planner.add('links', { kind: 'link', verb: 'add', key, reason, device: spec.name, spec, alias, replaces });
  set(planner, 'up', { key, device: spec.name, reason }, 'up', { isUp: true });
  return { isUsable: true, loses: 'all' };
}

function planChanges(planner: Planner, key: ObjectKey, spec: LinkSpec, link: LinkInfo): DeviceState {
  const target = { key, device: spec.name, reason: 'altered' } as const;
  const { mark } = planner.ownership;
  if (link.alias !== mark) set(planner, 'links', target, 'alias', { alias: mark });
  const changes = changesTo(spec, link, planner.actual);
  for (const { aspect, change } of changes) set(planner, 'links', target, aspect, change);
  const losesNeighbours = changes.some((one) => one.losesNeighbours && !planner.isHeld(key, one.aspect));
  if (!link.isUp) set(planner, 'up', target, 'up', { isUp: true });
  const staysDown = !link.isUp && planner.isHeld(key, 'up');
  return { isUsable: !staysDown, loses: losesNeighbours ? 'neighbours' : 'nothing' };
}

function set(
  planner: Planner,
  phase: Phase,
  target: { readonly key: ObjectKey; readonly device: string; readonly reason: OperationReason },
  aspect: LinkAspect,
  change: LinkChange,
): void {
  planner.add(phase, { kind: 'link', verb: 'set', ...target, aspect, change });
}

function planStale(planner: Planner, key: ObjectKey): void {
  const device = [...planner.actual.ourDevices.values()].find((name) => linkKey(name) === key);
  if (device === undefined) return;
  planner.doom(device);
  if (planner.hasTunnel(device)) return; // it goes with its tunnel
  planner.add('removeLinks', { kind: 'link', verb: 'del', key, reason: 'unexpected', device });
}

function addLink(netlink: Netlink, spec: LinkKinds[MadeLinkKind]): void {
  const { name, kind } = spec;
  try {
    netlink.links.add(newLink(spec));
  } catch (error) {
    const holder = netlinkErrno(error) === 'EEXIST' ? netlink.links.get(name) : undefined;
    if (holder === undefined || holder.name === name) throw error;
    const message = `cannot make ${kind} device ${name}: ${holder.name} has that as an alternative name`;
    throw new OverlayError('ERR_DEVICE_TAKEN', message, {
      cause: error,
      context: { dev: name },
      hint: `remove it (ip link property del dev ${holder.name} altname ${name})`,
    });
  }
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
