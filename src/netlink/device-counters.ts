import { readFileSync } from 'node:fs';

/** The kernel's counters of one device. */
export interface DeviceCounters {
  readonly rxBytes: number;
  readonly rxPackets: number;
  readonly rxErrors: number;
  readonly rxDropped: number;
  readonly txBytes: number;
  readonly txPackets: number;
  readonly txErrors: number;
  readonly txDropped: number;
}

/**
 * Counters of all devices of this network namespace by name.
 *
 * @remarks From `/proc/net/dev` (net/core/net-procfs.c): after the name 8 numbers for receiving, then 8 for sending,
 * each beginning with bytes, packets, errors, drops.
 * @param text - for tests; default the file's content.
 */
export function readDeviceCounters(
  text: string = readFileSync('/proc/self/net/dev', 'utf8'),
): ReadonlyMap<string, DeviceCounters> {
  const counters = new Map<string, DeviceCounters>();
  for (const line of text.split('\n')) {
    const match = /^\s*([^:\s]+):\s*(.*)$/.exec(line);
    if (match?.[1] === undefined || match[2] === undefined) continue;
    const n = match[2].trim().split(/\s+/).map(Number);
    const at = (index: number): number => n[index] ?? 0;
    counters.set(match[1], {
      rxBytes: at(0),
      rxPackets: at(1),
      rxErrors: at(2),
      rxDropped: at(3),
      txBytes: at(8),
      txPackets: at(9),
      txErrors: at(10),
      txDropped: at(11),
    });
  }
  return counters;
}
