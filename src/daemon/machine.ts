import { createHash, randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';

/** Which machine this is, and which run of its kernel. */
export interface MachineIdentity {
  /** Stays the same over reboots; a machine made from a copy of this one's disk has another. */
  readonly machine: string;
  /** Another one after each reboot. */
  readonly boot: string;
}

/**
 * Where a machine keeps what a copy of its disk does not take along: the firmware's UUID (SMBIOS, which hypervisors make
 * anew for a copy), and the serial number of boards that have a device tree instead.
 */
const HARDWARE_FILES = ['/sys/class/dmi/id/product_uuid', '/sys/firmware/devicetree/base/serial-number'];

/** See random(4): made anew by each boot. */
const BOOT_ID_FILE = '/proc/sys/kernel/random/boot_id';

/**
 * @param hostIdentity - machine id of the host; a copied disk often has the same one.
 * @remarks Only a digest leaves this function, since machine-id(5) forbids to show the id itself.
 */
export async function readMachineIdentity(
  hostIdentity: string,
  read: (file: string) => Promise<string> = (file) => readFile(file, 'utf8'),
): Promise<MachineIdentity> {
  const tryRead = (file: string): Promise<string> => read(file).catch(() => ''); // not on this kind of machine
  const hardware = await Promise.all(HARDWARE_FILES.map(tryRead));
  const digest = createHash('sha256').update(['tsflannel', hostIdentity, ...hardware].join('\0'));
  // Where nobody can tell, every start counts as another boot.
  const boot = (await tryRead(BOOT_ID_FILE)).trim() || randomUUID();
  return { machine: digest.digest('hex').slice(0, 32), boot };
}
