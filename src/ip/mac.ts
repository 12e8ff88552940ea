import { createHash } from 'node:crypto';
import { OverlayError } from '../errors.js';

declare const macBrand: unique symbol;

/** An Ethernet address as lower-case colon text, such as `02:42:ac:11:00:09`. */
export type MacAddress = string & { readonly [macBrand]: true };

/**
 * Reads six hexadecimal bytes separated by colons or dashes.
 *
 * @throws {@link OverlayError} `ERR_IP_SYNTAX`
 */
export function parseMac(text: string): MacAddress {
  if (!/^[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}$/.test(text)) {
    throw new OverlayError('ERR_IP_SYNTAX', `"${text}" is not a MAC address of six bytes`);
  }
  return text.toLowerCase().replaceAll('-', ':') as MacAddress;
}

/**
 * @param bytes - six bytes.
 * @throws {@link OverlayError} `ERR_IP_SYNTAX`
 */
export function macFromBytes(bytes: Uint8Array): MacAddress {
  if (bytes.length !== 6) throw new OverlayError('ERR_IP_SYNTAX', `cannot make a MAC address of ${bytes.length} bytes`);
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(':') as MacAddress;
}

/** Six bytes. */
export function macToBytes(mac: MacAddress): Uint8Array {
  return Uint8Array.from(mac.split(':'), (byte) => Number.parseInt(byte, 16));
}

/** Whether it can be the address of one device: neither a group's (IEEE 802: lowest bit of the first byte set) nor all zero. */
export function isUnicastMac(mac: MacAddress): boolean {
  return /^.[02468ace]/.test(mac) && mac !== '00:00:00:00:00:00';
}

/** The same bytes as a locally administered unicast address (IEEE 802: second-lowest bit of the first byte set, lowest clear). */
export function asLocallyAdministered(mac: MacAddress): MacAddress {
  const [first = 0, ...rest] = macToBytes(mac);
  return macFromBytes(Uint8Array.of((first | 0x02) & 0xfe, ...rest));
}

/**
 * A locally administered MAC address that is the same for the same texts: a device that has to be made again gets the one
 * that others know.
 *
 * @param owner - what tells its owner from all others, such as the machine id.
 */
export function deriveMac(owner: string, device: string): MacAddress {
  const digest = createHash('sha256').update(`${owner}\0${device}`).digest();
  return asLocallyAdministered(macFromBytes(digest.subarray(0, 6)));
}
