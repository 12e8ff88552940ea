import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { onExit } from './cleanup.js';
import type { Netns } from './netns.js';
import type { Program } from './program.js';
import { waitFor } from './wait.js';

/** One captured frame. */
export interface Frame {
  /** Since the epoch. */
  readonly timeMs: number;
  /** From the link-layer header on; as long as it was on the link. */
  readonly data: Buffer;
}

/** A finished capture. */
export interface CaptureResult {
  readonly frames: readonly Frame[];
  /** Link-layer type of the frames: 1 = Ethernet, 12 or 101 = bare IP, as on a TUN device. */
  readonly linkType: number;
  /** Frames the kernel had no room for or tcpdump did not come to; a test that counts frames must see 0 here. */
  readonly lost: number;
}

/**
 * Starts capturing whole frames on a device; when it resolves, nothing sent from then on is missed.
 *
 * @param filter - in tcpdump's language, such as `udp port 8285`.
 */
export async function capture(netns: Netns, device: string, filter = ''): Promise<{ stop(): Promise<CaptureResult> }> {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'tsflannel-capture-'));
  const remove = (): void => {
    rmSync(directory, { recursive: true, force: true });
  };
  const withdraw = onExit(remove);
  const file = path.join(directory, 'frames.pcap');
  const program = netns.start(
    // -Z: tcpdump otherwise becomes a user who cannot write there. -B: in KiB. Not --immediate-mode: it divides the
    // buffer into slots of the largest possible packet, a few hundred in all.
    ['tcpdump', '-i', device, '-s', '0', '-n', '-Z', 'root', '-B', '65536', '-w', file, filter],
    { env: { LC_ALL: 'C' } },
  );
  await program.waitForLine(/listening on/);
  return {
    async stop() {
      try {
        await drain(program);
        await program.stop('SIGINT');
        const { captured, received } = totalsOf(program.output);
        return { ...parsePcap(readFileSync(file)), lost: received - captured };
      } finally {
        withdraw();
        remove();
      }
    },
  };
}

// While packets keep coming there is always one under way; after this time they count as lost.
const DRAIN_TIMEOUT_MS = 5000;

/** Waits until tcpdump has read what the kernel holds for it: when it is told to end it reads nothing more. */
async function drain(program: Program): Promise<void> {
  const isDrained = async (): Promise<boolean> => {
    const mark = program.mark();
    // SIGUSR1 makes it print its totals, on one line.
    program.signal('SIGUSR1');
    await program.waitForLine(/dropped by kernel/, DRAIN_TIMEOUT_MS, mark);
    const { captured, received, dropped } = totalsOf(program.output.slice(mark));
    return captured + dropped === received;
  };
  const options = { what: 'tcpdump to read everything', timeoutMs: DRAIN_TIMEOUT_MS };
  await waitFor(isDrained, options).catch(() => undefined);
}

/** Linux counts dropped packets among those received by the filter. */
function totalsOf(output: string): { captured: number; received: number; dropped: number } {
  const last = (pattern: RegExp): number => Number([...output.matchAll(pattern)].at(-1)?.[1] ?? Number.NaN);
  return {
    captured: last(/(\d+) packets? captured/g),
    received: last(/(\d+) packets? received by filter/g),
    dropped: last(/(\d+) packets? dropped by kernel/g),
  };
}

/**
 * Reads a capture file (pcap 2.4, either byte order, microseconds or nanoseconds).
 *
 * @internal
 */
export function parsePcap(file: Buffer): { linkType: number; frames: Frame[] } {
  const magics: Readonly<Record<number, { isLittle: boolean; perMs: number }>> = {
    0xd4c3b2a1: { isLittle: true, perMs: 1e3 },
    0xa1b2c3d4: { isLittle: false, perMs: 1e3 },
    0x4d3cb2a1: { isLittle: true, perMs: 1e6 },
    0xa1b23c4d: { isLittle: false, perMs: 1e6 },
  };
  const format = file.length < 24 ? undefined : magics[file.readUInt32BE(0)];
  if (format === undefined) throw new Error('this is not a pcap file');
  const word = (at: number): number => (format.isLittle ? file.readUInt32LE(at) : file.readUInt32BE(at));
  const frames: Frame[] = [];
  // Record header: seconds, fraction, captured length, length on the link.
  for (let at = 24; at + 16 <= file.length;) {
    const length = word(at + 8);
    const data = file.subarray(at + 16, at + 16 + length);
    if (data.length < length) break;
    frames.push({ timeMs: word(at) * 1000 + word(at + 4) / format.perMs, data });
    at += 16 + length;
  }
  return { linkType: word(20) & 0xffff, frames };
}
