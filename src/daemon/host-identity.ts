import { readFile } from 'node:fs/promises';
import { hostname } from 'node:os';

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
