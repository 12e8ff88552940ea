import { OverlayError } from '../errors.js';
import { IpAddress } from '../ip/address.js';
import { Prefix } from '../ip/prefix.js';
import type { LeaseSubnets } from './lease.js';

/**
 * The pattern flannel looks for, with its two looseness: it may stand at the end of any text, and the second and third
 * separators of the IPv4 address are any character (the address check that follows refuses those).
 *
 * @see flannel `pkg/subnet/subnet.go`
 */
const KEY = /(\d+\.\d+.\d+.\d+)-(\d+)(?:&([a-f\d:]+)-(\d+))?$/;

/** Name of a lease key below `<prefix>/subnets/`: `a.b.c.d-len`, followed by `&v6-len` in a dual-stack network. */
export function formatSubnetKey(subnets: LeaseSubnets): string {
  const part = (prefix: Prefix): string => `${prefix.address.toString()}-${prefix.length}`;
  return subnets.ipv6Subnet === undefined
    ? part(subnets.subnet)
    : `${part(subnets.subnet)}&${part(subnets.ipv6Subnet)}`;
}

/**
 * Reads the name of a lease key as flannel reads it: tolerant of anything in front, host bits masked away.
 *
 * @remarks Wider than flannel in one point: it refuses full lengths, `/32` and `/128`, for want of a bit in the number.
 * @param name - the key without `<prefix>/subnets/`; a further slash in it makes it no lease key.
 * @throws {@link OverlayError} `ERR_LEASE_KEY`
 */
export function parseSubnetKey(name: string): LeaseSubnets {
  if (name.includes('/')) throw keyError(name, 'it lies deeper than directly under subnets/');
  const match = KEY.exec(name);
  if (match === null) throw keyError(name, 'it does not end in a.b.c.d-len or a.b.c.d-len&v6-len');
  const [, v4 = '', length4, v6, length6] = match;
  return {
    subnet: readPart(name, v4, Number(length4), 4),
    ipv6Subnet: v6 === undefined ? undefined : readPart(name, v6, Number(length6), 6),
  };
}

function readPart(name: string, text: string, length: number, family: 4 | 6): Prefix {
  const address = IpAddress.tryParse(text);
  if (address?.family !== family) throw keyError(name, `"${text}" is not an IPv${family} address`);
  if (length > (family === 4 ? 32 : 128)) throw keyError(name, `${length} is no prefix length for IPv${family}`);
  return Prefix.of(address, length);
}

function keyError(name: string, cause: string): OverlayError {
  return new OverlayError('ERR_LEASE_KEY', `cannot read the lease key "${name}": ${cause}`, {
    context: { key: name },
    hint: 'delete the key; nothing but leases may lie under <prefix>/subnets',
  });
}
