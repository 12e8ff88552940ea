import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { type MacAddress, asLocallyAdministered, macFromBytes } from '../ip/mac.js';

/** systemd's machine id (machine-id(5)), and the copy that D-Bus keeps on hosts without systemd. */
const MACHINE_ID_FILES = ['/etc/machine-id', '/var/lib/dbus/machine-id'];

/**
 * A text that stays the same on this host over restarts and reboots and differs between hosts.
 *
 * @returns the machine id, or the host name where there is none.
 */
export async function readHostIdentity(): Promise<string> {
  for (const file of MACHINE_ID_FILES) {
    const text = await readFile(file, 'utf8').catch(() => ''); // absent on this distribution: the next one
    if (text.trim() !== '') return text.trim();
  }
  return hostname();
}

/**
 * A locally administered MAC for a device of this host: the same at every start, so that peers' forwarding entries stay
 * right when the device has to be made again.
 *
 * @param identity - of the host; public address included by the caller where cloned machines share a machine id.
 */
export function deriveMac(identity: string, device: string): MacAddress {
  const digest = createHash('sha256').update(`${identity}\0${device}`).digest();
  return asLocallyAdministered(macFromBytes(digest.subarray(0, 6)));
}
