import { LEASE_TTL_SECONDS } from '../lease/keeper.js';
import type { JsonValue } from '../json.js';
import type { MachineIdentity } from './machine.js';

/** Whose a saved lease was, where it was leased, and for how long. */
export interface SavedOrigin extends MachineIdentity {
  readonly etcdPrefix: string;
  /** Milliseconds since the epoch. */
  readonly savedAtMs: number;
  /** When the lease ends unless it is renewed, in milliseconds since the epoch; undefined for a reservation. */
  readonly expiresAtMs: number | undefined;
}

/** Where and when a saved state is to be used. */
export interface Here extends MachineIdentity {
  readonly etcdPrefix: string;
  readonly nowMs: number;
}

/**
 * What a saved state may be used for: `all` of it; only the `subnet`, for Docker, while no packet goes to or comes from
 * other hosts; or `nothing`. The reasons follow "the saved state" and "since".
 */
export type SavedUse =
  | { readonly kind: 'all' }
  | { readonly kind: 'subnet'; readonly reason: string }
  | { readonly kind: 'nothing'; readonly reason: string };

/**
 * Decides what a saved state may be used for while the store cannot be asked. Pure.
 *
 * @remarks
 * Of another machine: nothing, since the original of a copied disk may be running. Of another prefix: nothing, since that
 * is another network.
 *
 * A lease whose time may be over may have been given to another host. Within one boot that changes nothing: the kernel has
 * forwarded all along, as it does under a daemon that cannot renew. After a reboot there is nothing to be kept: the subnet
 * lets Docker start, so that an etcd in a container can come up, and whoever holds it by now does not notice.
 * @param origin - undefined where a version that did not write it saved the state, in a directory that does not
 * outlast a boot.
 */
export function judgeSavedState(origin: SavedOrigin | undefined, here: Here): SavedUse {
  if (origin === undefined) return { kind: 'all' };
  if (origin.etcdPrefix !== here.etcdPrefix) {
    return { kind: 'nothing', reason: `it is of the etcd prefix ${origin.etcdPrefix}` };
  }
  if (origin.machine !== here.machine) {
    return { kind: 'nothing', reason: 'it is of another machine: the disk, or the directory, was copied' };
  }
  const { expiresAtMs } = origin;
  if (origin.boot === here.boot || expiresAtMs === undefined) return { kind: 'all' };
  const leftMs = expiresAtMs - here.nowMs;
  if (leftMs <= 0) return { kind: 'subnet', reason: `its lease ended at ${new Date(expiresAtMs).toISOString()}` };
  if (leftMs > LEASE_TTL_SECONDS * 1000) {
    return { kind: 'subnet', reason: 'the clock is behind, so nobody knows whether its lease has ended' };
  }
  return { kind: 'all' };
}

/** As JSON for a file. */
export function encodeOrigin(origin: SavedOrigin): JsonValue {
  return { ...origin, expiresAtMs: origin.expiresAtMs ?? null };
}

/**
 * Reads what {@link encodeOrigin} made; undefined if there is none.
 *
 * @throws TypeError if it is anything else.
 */
export function decodeOrigin(value: unknown): SavedOrigin | undefined {
  if (value === undefined) return undefined;
  const { machine, boot, etcdPrefix, savedAtMs, expiresAtMs } = (value ?? {}) as Readonly<Record<string, unknown>>;
  if (typeof machine !== 'string' || typeof boot !== 'string' || typeof etcdPrefix !== 'string' || !isTime(savedAtMs)) {
    throw new TypeError('it does not say whose it is');
  }
  if (expiresAtMs !== null && !isTime(expiresAtMs)) throw new TypeError('it does not say when its lease ends');
  return { machine, boot, etcdPrefix, savedAtMs, expiresAtMs: expiresAtMs ?? undefined };
}

/** A time that a Date can show (ECMA-262, time values). */
function isTime(value: unknown): value is number {
  return typeof value === 'number' && Math.abs(value) <= 8.64e15;
}
