import path from 'node:path';
import type { TextFiles } from '../../../sys/text-files.js';
import type { PortRange } from './published-ports.js';

/** The kernel's own (`ip_local_port_range` of ip-sysctl.rst). */
const DEFAULT: PortRange = { first: 32_768, last: 60_999 };

/**
 * The ports of this host that programs get who ask for any.
 *
 * @param directory - for tests; default `/proc/sys`.
 */
export async function localPortRange(files: Pick<TextFiles, 'read'>, directory = '/proc/sys'): Promise<PortRange> {
  const text = await files.read(path.join(directory, 'net/ipv4/ip_local_port_range')).catch(() => '');
  const [first = 0, last = 0] = text.trim().split(/\s+/).map(Number);
  return first > 0 && last >= first ? { first, last } : DEFAULT;
}
