import { OverlayError } from '../errors.js';
import { IpAddress } from '../ip/address.js';
import { Prefix } from '../ip/prefix.js';

declare const poolBrand: unique symbol;

/**
 * A pool of addresses as text, with all that is needed to answer for it without memory of it: name, subnet and range,
 * such as `lan/10.10.10.0-24/10.10.10.128-25`, or `-/fd00:10::-64/fd00:10::-64` without a name.
 */
export type PoolId = string & { readonly [poolBrand]: true };

/** What a {@link PoolId} says. */
export interface PoolIdentity {
  /** Tells two segments with the same subnet apart; undefined where the subnet alone is the identity. */
  readonly name: string | undefined;
  readonly subnet: Prefix;
  /** Where addresses are given out by themselves; within the subnet, at most the whole of it. */
  readonly range: Prefix;
}

/** Stands for no name; a name cannot begin with it. */
const NAMELESS = '-';

const NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$/;

/** A name and two IPv6 networks with their lengths. */
const MAX_LENGTH = 63 + 2 * (39 + 4) + 2;

/** Whether a text can be the name of a network: 1…63 letters, digits, `_`, `.` and `-`, the first a letter or digit. */
export function isNetworkName(text: string): boolean {
  return NAME.test(text);
}

/**
 * The one text for an identity.
 *
 * @throws {@link OverlayError} `ERR_ADDRESS_POOL` for a name that is none, or a range outside of the subnet.
 */
export function formatPoolId(identity: PoolIdentity): PoolId {
  const { name, subnet, range } = identity;
  if (name !== undefined && !isNetworkName(name)) {
    throw new OverlayError('ERR_ADDRESS_POOL', `cannot use ${JSON.stringify(name)} as the name of a network`, {
      hint: 'write 1 to 63 letters, digits, "_", "." or "-", beginning with a letter or a digit',
    });
  }
  if (!subnet.covers(range)) {
    const what = `cannot give out addresses of ${range.toString()} in the subnet ${subnet.toString()}`;
    throw new OverlayError('ERR_ADDRESS_POOL', `${what}: it lies outside of it`, {
      hint: 'let --ip-range be a part of --subnet',
    });
  }
  return `${poolPath(identity)}/${formatPrefix(range)}` as PoolId;
}

/**
 * Reads what {@link formatPoolId} wrote, and nothing else: no other spelling of the same.
 *
 * @throws {@link OverlayError} `ERR_ADDRESS_POOL`
 */
export function parsePoolId(text: string): PoolIdentity {
  const identity = text.length <= MAX_LENGTH ? readPoolId(text) : undefined;
  if (identity === undefined) {
    throw new OverlayError('ERR_ADDRESS_POOL', `cannot use ${JSON.stringify(text.slice(0, MAX_LENGTH))} as a pool id`, {
      hint: 'use an id that this daemon gave: name/subnet/range',
    });
  }
  return identity;
}

/** What all hosts of a network have in common, whatever range they give out addresses of: name and subnet. */
export function poolPath({ name, subnet }: Pick<PoolIdentity, 'name' | 'subnet'>): string {
  return `${name ?? NAMELESS}/${formatPrefix(subnet)}`;
}

/** A network as part of a path: `address-length`. */
export function formatPrefix(prefix: Prefix): string {
  return `${prefix.address.toString()}-${prefix.length}`;
}

/** Reads what {@link formatPrefix} wrote, undefined for anything else. */
export function tryParsePrefix(text: string): Prefix | undefined {
  const [, address = '', length = ''] = /^([0-9a-f.:]{2,39})-(\d{1,3})$/.exec(text) ?? [];
  if (IpAddress.tryParse(address) === undefined) return undefined;
  const prefix = Prefix.tryParse(`${address}/${length}`);
  return prefix !== undefined && formatPrefix(prefix) === text ? prefix : undefined;
}

function readPoolId(text: string): PoolIdentity | undefined {
  const [nameText = '', subnetText = '', rangeText = '', ...rest] = text.split('/');
  const [subnet, range] = [tryParsePrefix(subnetText), tryParsePrefix(rangeText)];
  const name = nameText === NAMELESS ? undefined : nameText;
  if (rest.length > 0 || subnet === undefined || range === undefined) return undefined;
  if (!subnet.covers(range) || (name !== undefined && !isNetworkName(name))) return undefined;
  return { name, subnet, range };
}
