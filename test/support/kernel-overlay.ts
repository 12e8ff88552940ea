import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import type { KernelCounters } from '../../src/dataplane/kernel-path.js';
import type { Daemon } from './daemon.js';
import { Overlay, type OverlayOptions } from './overlay.js';
import type { Host } from './rig.js';
import { tcpTransfer, udpExchange } from './traffic.js';
import { eventually } from './wait.js';

/** What daemons of tests of the kernel path are started with: `TSFLANNEL_DATAPATH` has the same tests run for another. */
export const DATAPATH = process.env['TSFLANNEL_DATAPATH'] ?? 'kernel';

/** Around what one packet holds (1444), and what takes fragments. */
export const SIZES = [0, 1, 100, 1443, 1444, 1445, 9000];
/** Bytes that a TCP connection carries each way. */
export const BULK_BYTES = 4 << 20;
/** A kernel path that was refused is tried again every minute. */
const PATIENCE_MS = 60_000;

/** Hosts whose daemons all run with {@link DATAPATH}, once the kernel of each sends to all others. */
export async function startKernelOverlay(options: OverlayOptions = {}): Promise<Overlay> {
  const overlay = await Overlay.create({
    ...options,
    args: (host) => [`--datapath=${DATAPATH}`, ...(options.args?.(host) ?? [])],
  });
  try {
    const numbers = overlay.containers.map((_, index) => index + 1);
    for (const number of numbers) await eventuallySends(overlay, number, numbers.length - 1);
    return overlay;
  } catch (error) {
    await overlay.close();
    throw error;
  }
}

/** Waits until the kernel of a host sends to so many others. */
export async function eventuallySends(overlay: Overlay, host: number, count: number): Promise<void> {
  await eventually(
    `the kernel of host ${host} to send to ${count}`,
    async () => {
      const { peers, tunnels } = await overlay.daemon(host).status();
      const sent = peers.filter(({ carrier }) => carrier?.carrier === 'kernel');
      const found = [tunnels[0]?.kernelPath?.isActive, sent.length];
      assert.deepEqual(found, [true, count], JSON.stringify([peers, tunnels[0]?.kernelPath]));
    },
    { timeoutMs: PATIENCE_MS },
  );
}

/** What has become of packets at the programs of a host. */
export async function kernelCounters(daemon: Daemon): Promise<KernelCounters> {
  const counters = (await daemon.status()).tunnels[0]?.kernelPath?.counters;
  assert.ok(counters, 'no programs are attached');
  return counters;
}

/** Indexes of the devices where programs of a daemon hang, by its links; 0 stands for a device that is gone. */
export function programPlaces(daemon: Daemon): readonly number[] {
  const directory = `/proc/${daemon.program.pid}/fdinfo`;
  const indexes = readdirSync(directory).flatMap((fd) => {
    const text = readFileSync(`${directory}/${fd}`, 'utf8');
    const index = /^ifindex:\s*(\d+)$/m.exec(text)?.[1];
    return /^link_type:\s*(xdp|tcx)$/m.test(text) && index !== undefined ? [Number(index)] : [];
  });
  return [...new Set(indexes)].sort((left, right) => left - right);
}

/** Index of a device. */
export async function indexOf(host: Host, device: string): Promise<number> {
  const [link] = await host.netns.ipJson(['link', 'show', 'dev', device]);
  return Number(link?.['ifindex']);
}

/** The XDP program of a device as `ip` shows it. */
export async function xdpOf(host: Host, device = 'eth0'): Promise<unknown> {
  return (await host.netns.ipJson(['link', 'show', 'dev', device]))[0]?.['xdp'];
}

/** Whether a device merges what it receives: `on` or `off`. */
export async function groOf(host: Host, device = 'eth0'): Promise<string> {
  const { stdout } = await host.netns.run(['ethtool', '-k', device]);
  return /^generic-receive-offload: (\w+)/m.exec(stdout)?.[1] ?? '';
}

/** Sends datagrams of many sizes and bulk between all containers, and compares what arrives. */
export async function carriesEverything(overlay: Overlay): Promise<void> {
  for (const [source, target] of overlay.pairs) {
    const [near, far] = [overlay.container(source), overlay.container(target)];
    const exchanged = await udpExchange(near.netns, far.netns, far.address, SIZES);
    assert.deepEqual(exchanged, { lost: [], altered: [] }, `host ${source} to host ${target}`);
    await tcpTransfer(near.netns, far.netns, far.address, { bytes: BULK_BYTES });
  }
}

/** {@link carriesEverything}, and what of it the programs can take is theirs. */
export async function carriesByKernel(overlay: Overlay): Promise<void> {
  const daemons = overlay.containers.map((_, index) => overlay.daemon(index + 1));
  const before = await Promise.all(daemons.map(kernelCounters));
  await carriesEverything(overlay);
  const after = await Promise.all(daemons.map(kernelCounters));
  for (const [index, counters] of after.entries()) {
    for (const name of ['sent', 'received'] as const) {
      const packets = counters[name].packets - (before[index]?.[name].packets ?? 0);
      assert.ok(packets > SIZES.length, `host ${index + 1}: ${packets} ${name}`);
    }
  }
}
