import { OverlayError } from '../errors.js';
import { IpAddress } from '../ip/address.js';
import type { JsonValue, LeaseAttributes } from './lease.js';

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

/** Names in lower case; of several that differ in case only, the last one counts, as in Go. */
function readFields(text: string): ReadonlyMap<string, JsonValue> {
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
