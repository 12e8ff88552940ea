import { OverlayError } from '../errors.js';
import type { IpAddress } from '../ip/address.js';
import { type PoolIdentity, poolPath } from './pool-id.js';

/** A network as people call it: its name, if it has one, and its subnet. */
export function poolName(identity: Pick<PoolIdentity, 'name' | 'subnet'>): string {
  return poolPath(identity).replace(/^-\//, '');
}

/** Somebody else has an address. */
export function taken(pool: PoolIdentity, address: IpAddress, why: string): OverlayError {
  const what = `cannot give ${address.toString()} of ${poolName(pool)}: ${why}`;
  return new OverlayError('ERR_ADDRESS_TAKEN', what, { hint: 'ask for another address' });
}

/** Nobody could have an address. */
export function impossible({ subnet }: PoolIdentity, what: string): OverlayError {
  return new OverlayError('ERR_ADDRESS_POOL', `cannot give ${what}`, {
    hint: `ask for an address of containers in ${subnet.toString()}`,
  });
}

/** Every address of the range is some host's. */
export function exhausted(pool: PoolIdentity): OverlayError {
  return new OverlayError('ERR_OUT_OF_ADDRESSES', `cannot give an address of ${poolName(pool)}: none is free`, {
    hint: `remove containers, or widen the range ${pool.range.toString()}; hosts that are gone keep theirs for a day`,
  });
}

/** The lease of this host has run out, and etcd has not been asked since. */
export function unconfirmed(pool: PoolIdentity, cause?: unknown): OverlayError {
  const what = `cannot give an address of ${poolName(pool)}: its lease has run out, or etcd has another history`;
  return new OverlayError('ERR_ADDRESSES_UNCONFIRMED', what, {
    cause,
    isRetryable: true,
    hint: 'bring etcd back; until it answers nobody knows whether another host has the address by now',
  });
}
