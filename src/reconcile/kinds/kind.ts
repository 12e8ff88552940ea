import type { NetlinkEvent } from '../../netlink/monitor.js';
import type { Netlink } from '../../netlink/netlink.js';
import type { ActualState } from '../actual.js';
import type { Kinds, ObjectKind } from '../desired.js';
import type { Kernel } from '../kernel.js';
import type { ObjectKey } from '../object-key.js';
import type { KernelObjectKind, Operation } from '../operation.js';
import type { Planner } from '../planner.js';

/** What every kind of object has: an identity, and when two specifications want the same. */
export interface Kind<K extends ObjectKind> {
  keyOf(spec: Kinds[K]): ObjectKey;
  isSame(a: Kinds[K], b: Kinds[K]): boolean;
}

/** A kind of object in the kernel: how it is found, compared, made and followed. */
export type KernelKind<K extends KernelObjectKind> = Kind<K> & {
  /**
   * Lists what matters of it; devices were listed before.
   *
   * @throws {@link OverlayError} `ERR_NETLINK` or `ERR_SYSCTL`
   */
  read(kernel: Kernel, actual: ActualState): Promise<void>;
  /** Keys of those that are known: what is not desired of them may have to go. */
  presentKeys(actual: ActualState): Iterable<ObjectKey>;
  /**
   * Adds to the plan what this object needs.
   *
   * @param spec - undefined if it is not desired.
   */
  plan(planner: Planner, key: ObjectKey, spec: Kinds[K] | undefined): void;
  /** Does as {@link Kernel.apply} says; deleting what is not there may throw. */
  carryOut(netlink: Netlink, operation: Operation<K>, indexOf: (device: string) => number): boolean;
  /** Takes over an operation of ours that succeeded. */
  record(actual: ActualState, operation: Operation<K>): void;
} & (K extends NetlinkEvent['type'] ? Follower<K> : unknown);

interface Follower<K extends NetlinkEvent['type']> {
  /**
   * Takes over a change that the kernel reports.
   *
   * @param touched - gets the keys of what is now different from what was known.
   * @returns whether the state is doubtful now, and only a dump tells.
   */
  follow(actual: ActualState, event: NetlinkEvent & { readonly type: K }, touched: Set<ObjectKey>): boolean;
}
