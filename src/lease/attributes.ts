import { OverlayError } from '../errors.js';
import { IpAddress } from '../ip/address.js';
import type { JsonValue } from '../json.js';
import type { LeaseAttributes } from './lease.js';

/** Longer than the name of any backend there is. */
const MAX_TYPE_LENGTH = 64;

const UNSPECIFIED_V4 = IpAddress.parse('0.0.0.0');

/**
 * The value of a lease key, byte for byte as flannel writes it: its field order, no spaces, `PublicIPv6` always there,
 * empty backend fields left out, and the characters escaped that Go's encoder escapes for HTML.
 *
 * @see flannel `pkg/lease/lease.go` for the fields
 */
export function encodeAttributes(attributes: LeaseAttributes): string {
  const { publicIp, publicIpv6, backendType, backendData, backendV6Data } = attributes;
  return escapeAsGo(
    JSON.stringify({
      PublicIP: publicIp.toString(),
      PublicIPv6: publicIpv6?.toString() ?? null,
      BackendType: backendType === '' ? undefined : backendType,
      BackendData: backendData,
      BackendV6Data: backendV6Data,
    }),
  );
}

/**
 * Reads the value of a lease key as tolerantly as flannel: any case of the field names, unknown fields, a missing
 * `PublicIPv6` (flannel ≤ 0.14) or `PublicIP`.
 *
 * @throws {@link OverlayError} `ERR_LEASE_VALUE` which says what is wrong.
 */
export function decodeAttributes(text: string): LeaseAttributes {
  const fields = readFields(text);
  const type = fields.get('backendtype') ?? '';
  if (typeof type !== 'string') throw valueError('BackendType is not a string');
  if (type.length > MAX_TYPE_LENGTH) throw valueError(`BackendType has ${type.length} characters`);
  return {
    publicIp: readAddress(fields, 'PublicIP', 4) ?? UNSPECIFIED_V4,
    publicIpv6: fields.get('publicipv6') === null ? undefined : readAddress(fields, 'PublicIPv6', 6),
    backendType: type,
    backendData: fields.get('backenddata'),
    backendV6Data: fields.get('backendv6data'),
  };
}

/** Whether two hosts' descriptions would be written as the same bytes. */
export function areAttributesEqual(a: LeaseAttributes, b: LeaseAttributes): boolean {
  return a === b || encodeAttributes(a) === encodeAttributes(b);
}

/** Backend data is an object or two deep; what is nested a thousand times ends every recursive function that touches it. */
const MAX_DEPTH = 16;

/** How deep arrays and objects of a JSON text are nested, counted without recursion and without parsing it. */
function depthOf(json: string): number {
  let depth = 0;
  let deepest = 0;
  let isInString = false;
  for (let i = 0; i < json.length; i++) {
    const character = json[i];
    if (character === '"') isInString = !isInString;
    else if (isInString) i += character === '\\' ? 1 : 0;
    else if (character === '[' || character === '{') deepest = Math.max(deepest, ++depth);
    else if (character === ']' || character === '}') depth--;
  }
  return deepest;
}

/** Names in lower case; of several that differ in case only, the last one counts, as in Go. */
function readFields(text: string): ReadonlyMap<string, JsonValue> {
  if (depthOf(text) > MAX_DEPTH) throw valueError(`its arrays and objects are nested more than ${MAX_DEPTH} deep`);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw valueError('it is not JSON', cause);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw valueError('it is not a JSON object');
  return new Map(
    Object.entries(value as Record<string, JsonValue>).map(([name, field]) => [name.toLowerCase(), field]),
  );
}

function readAddress(fields: ReadonlyMap<string, JsonValue>, name: string, family: 4 | 6): IpAddress | undefined {
  const value = fields.get(name.toLowerCase());
  if (value === undefined) return undefined;
  const address = typeof value === 'string' ? IpAddress.tryParse(value) : undefined;
  if (address?.family !== family) throw valueError(`${name} is not an IPv${family} address`);
  return address;
}

function valueError(why: string, cause?: unknown): OverlayError {
  return new OverlayError('ERR_LEASE_VALUE', `cannot read the value of a lease: ${why}`, {
    cause,
    hint: 'delete the key or let its host write it again',
  });
}

/** Go's `json.Marshal` escapes these five wherever they stand; in JSON text they occur inside strings only. */
function escapeAsGo(json: string): string {
  return json.replace(
    /[<>&\u2028\u2029]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}
