import { readFileSync, readdirSync } from 'node:fs';
import os from 'node:os';
import { setTimeout } from 'node:timers/promises';
import type { Daemon } from '../test/support/daemon.js';
import { Rig, type Host } from '../test/support/rig.js';
import { waitFor } from '../test/support/wait.js';
import { watchCpu } from './cpu.js';
import { LoopProbe } from './loop-probe.js';
import type { Table } from './report.js';
import { quantile } from './stats.js';

/** What the control plane needed with many peers. */
export interface ControlResult {
  readonly backend: string;
  readonly peers: number;
  /** From the start of the process, with all leases there, until each can be reached. */
  readonly startSeconds: number;
  /** From writing one lease until its host can be reached; several in turn. */
  readonly joinMs: readonly number[];
  /** From writing a hundred leases at once until all of them can be reached. */
  readonly burstMs: number;
  /** From deleting a hundred leases at once until none of them is reached. */
  readonly leaveMs: number;
  /** Processor time of all threads of the daemon in each slot of a series in which one lease comes or goes per slot. */
  readonly changeCpuMs: readonly number[];
  /** The same for a series of equal length in which nothing changes. */
  readonly idleCpuMs: readonly number[];
  /** Processor time of the whole machine's own work per second while nothing changes. */
  readonly idleCpuShare: number;
  readonly residentMb: number;
  /** How long the event loop was held at most, by what was going on. */
  readonly heldMs: Readonly<Record<HeldIn, number>>;
}

/** What may hold the event loop: one lease that comes; all of the kernel's state made again. */
export type HeldIn = 'change' | 'rebuild';

const BACKENDS = ['udp', 'vxlan', 'host-gw'] as const;
const BURST = 100;
const JOINS = 10;
// Long enough for everything that one change causes: the grace of a lease that goes, batching, the pass, the kernel's
// answer.
const SLOT_MS = 1500;
const SLOTS = 20;
/** Far longer than it takes to make everything again. */
const REBUILD_MS = 8000;
/** Processor time that one peer's change may cost, however many peers there are. */
const CHANGE_CPU_TARGET_MS = 10;
/** Time for which nothing may hold the event loop while all of the kernel's state is made again. */
const HELD_TARGET_MS = 20;
/** The command of `ip` that takes everything of ours out of the kernel. */
const LOSSES: Readonly<Record<(typeof BACKENDS)[number], string>> = {
  udp: 'link del flannel0',
  vxlan: 'link del flannel.1',
  'host-gw': 'route flush root 10.0.0.0/8',
};
// etcd refuses transactions of more operations than this (--max-txn-ops).
const TRANSACTION = 100;

/** Measures each backend with so many peers. */
export async function measureControlPlane(peers: number): Promise<{ table: Table; raw: readonly ControlResult[] }> {
  const raw: ControlResult[] = [];
  for (const backend of BACKENDS) {
    process.stderr.write(`control plane: ${backend} with ${peers} peers\n`);
    raw.push(await measureBackend(backend, peers));
  }
  const table: Table = {
    title: `control plane with ${peers} peers on ${os.cpus().length} processors`,
    head: [
      '',
      'start, s',
      'one joins, ms',
      `${BURST} join, ms`,
      `${BURST} leave, ms`,
      `CPU per change, ms (target < ${CHANGE_CPU_TARGET_MS})`,
      'CPU idle, %',
      'memory, MB',
      'event loop held at most, change, ms',
      `rebuild, ms (target ≤ ${HELD_TARGET_MS})`,
    ],
    rows: raw.map((result) => [
      result.backend,
      result.startSeconds.toFixed(2),
      quantile(result.joinMs, 0.5).toFixed(0),
      result.burstMs.toFixed(0),
      result.leaveMs.toFixed(0),
      // The median leaves out what happens once in many seconds, such as the full comparison, saving the peers and V8's
      // own housekeeping, which falls into either series by chance; every slot is in the raw results.
      (quantile(result.changeCpuMs, 0.5) - quantile(result.idleCpuMs, 0.5)).toFixed(1),
      (result.idleCpuShare * 100).toFixed(1),
      result.residentMb.toFixed(0),
      result.heldMs.change.toFixed(0),
      result.heldMs.rebuild.toFixed(0),
    ]),
  };
  return { table, raw };
}

async function measureBackend(backend: (typeof BACKENDS)[number], peers: number): Promise<ControlResult> {
  const rig = await Rig.create({ hosts: 1 });
  try {
    const host = rig.host(1);
    await rig.putConfig({ Network: '10.0.0.0/8', SubnetLen: 24, SubnetMin: '10.1.0.0', Backend: { Type: backend } });
    // host-gw reaches only neighbours on the link.
    await host.netns.ip(['addr add 198.19.255.254/15 dev eth0']);
    await putLeases(rig, backend, 0, peers);
    const probe = new LoopProbe(rig.directory);
    const daemon = host.makeDaemon({ args: [`--public-ip=${host.publicIp}`], env: probe.env });
    const startedMs = performance.now();
    await daemon.startAndWait([], 120_000);
    const reach = async (count: number): Promise<void> => waitForPeers(host, daemon, backend, count);
    await reach(peers);
    const startSeconds = (performance.now() - startedMs) / 1000;

    const joinMs: number[] = [];
    let count = peers;
    for (let join = 0; join < JOINS; join++) {
      joinMs.push(await timeChange(reach, count + 1, async () => putLeases(rig, backend, count, 1)));
      count += 1;
    }
    const burstMs = await timeChange(reach, count + BURST, async () => putLeases(rig, backend, count, BURST));
    const leaveMs = await timeChange(reach, count, async () => deleteLeases(rig, count, BURST));
    const idleCpuMs = await watchSlots(daemon, () => Promise.resolve());
    // Each lease comes and goes again, so that the number of peers is the same afterwards.
    const changeCpuMs = await watchSlots(daemon, async (slot) =>
      slot % 2 === 0 ? putLeases(rig, backend, count, 1) : deleteLeases(rig, count, 1),
    );
    const finish = watchCpu();
    await setTimeout(5000);
    const { ownSeconds, wallSeconds } = finish();
    const residentMb = daemon.residentBytes() / 1e6;
    const idleCpuShare = ownSeconds / wallSeconds;

    // Nothing is asked of the daemon meanwhile: the answer on thousands of peers holds the event loop as well.
    await probe.longestMs(daemon);
    await putLeases(rig, backend, count, 1);
    await setTimeout(SLOT_MS);
    const change = await probe.longestMs(daemon);
    await host.netns.ip([LOSSES[backend]]);
    await setTimeout(REBUILD_MS);
    const heldMs = { change, rebuild: await probe.longestMs(daemon) };
    await reach(count + 1);
    await daemon.stop();
    const cpu = { changeCpuMs, idleCpuMs, idleCpuShare };
    return { backend, peers, startSeconds, joinMs, burstMs, leaveMs, ...cpu, residentMb, heldMs };
  } finally {
    await rig.close();
  }
}

/** Does something at the beginning of each slot and gives the processor time of the daemon in each. */
async function watchSlots(daemon: Daemon, act: (slot: number) => Promise<void>): Promise<number[]> {
  const used: number[] = [];
  const startedMs = performance.now();
  let before = threadsCpuMs(daemon.program.pid);
  for (let slot = 0; slot < SLOTS; slot++) {
    await act(slot);
    await setTimeout(startedMs + (slot + 1) * SLOT_MS - performance.now());
    const after = threadsCpuMs(daemon.program.pid);
    used.push(after - before);
    before = after;
  }
  return used;
}

/** Processor time of all threads of a process; finer than the ticks of 10 ms in `/proc/<pid>/stat`. */
function threadsCpuMs(pid: number): number {
  const tasks = `/proc/${pid}/task`;
  // The first of the three numbers is nanoseconds on a processor (Documentation/scheduler/sched-stats.rst).
  const times = readdirSync(tasks).map((task) => readFileSync(`${tasks}/${task}/schedstat`, 'utf8').split(' ')[0]);
  return times.reduce((sum, time) => sum + Number(time) / 1e6, 0);
}

/** Time from when etcd has answered a change until that many peers are reached. */
async function timeChange(
  reach: (count: number) => Promise<void>,
  count: number,
  change: () => Promise<void>,
): Promise<number> {
  await change();
  const start = performance.now();
  await reach(count);
  return performance.now() - start;
}

/** Waits until packets to that many peers would find their way. */
async function waitForPeers({ netns }: Host, daemon: Daemon, backend: string, count: number): Promise<void> {
  const routes = async (): Promise<number> => {
    const { stdout } = await netns.run(['ip', '-4', 'route', 'show']);
    return stdout.split('\n').filter((line) => /^10\.\d+\.\d+\.0\/24 .*\bvia\b/.test(line)).length;
  };
  // A tunnel has one route for the whole network and keeps its peers in a table of its own.
  const tabled = async (): Promise<number> => {
    const { peers } = await daemon.status();
    return peers.filter(({ traffic }) => traffic !== null).length;
  };
  const reached = backend === 'udp' ? tabled : routes;
  await waitFor(async () => (await reached()) === count, {
    what: `${count} peers that can be reached`,
    timeoutMs: 120_000,
    intervalMs: 2,
  });
}

async function putLeases(rig: Rig, backend: string, first: number, count: number): Promise<void> {
  await changeInTransactions(
    rig,
    first,
    count,
    (number) => `put ${keyOf(rig, number)} ${quote(leaseOf(number, backend))}`,
  );
}

async function deleteLeases(rig: Rig, first: number, count: number): Promise<void> {
  await changeInTransactions(rig, first, count, (number) => `del ${keyOf(rig, number)}`);
}

async function changeInTransactions(
  rig: Rig,
  first: number,
  count: number,
  line: (number: number) => string,
): Promise<void> {
  for (let start = first; start < first + count; start += TRANSACTION) {
    const size = Math.min(TRANSACTION, first + count - start);
    const lines = Array.from({ length: size }, (_, index) => line(start + index));
    // etcdctl reads comparisons, requests on success and requests on failure, each closed by an empty line.
    await rig.etcd.ctl(['txn'], { input: `\n${lines.join('\n')}\n\n\n` });
  }
}

/** Subnets from 10.2.0.0/24 up. */
function keyOf(rig: Rig, number: number): string {
  return `${rig.etcdPrefix}/subnets/10.${2 + Math.floor(number / 256)}.${number % 256}.0-24`;
}

/** A lease of a host in 192.0.2.0/24's big neighbour 198.18.0.0/15, which RFC 2544 sets aside for benchmarks. */
function leaseOf(number: number, backend: string): object {
  const [high, low] = [Math.floor(number / 250), (number % 250) + 1];
  const mac = `02:00:00:${[number >> 16, number >> 8, number].map((part) => (part & 255).toString(16).padStart(2, '0')).join(':')}`;
  return {
    PublicIP: `198.18.${high}.${low}`,
    PublicIPv6: null,
    BackendType: backend,
    ...(backend === 'vxlan' ? { BackendData: { VNI: 1, VtepMAC: mac } } : {}),
  };
}

/** A value as etcdctl reads it in a transaction: in double quotes, with those inside escaped. */
function quote(value: object): string {
  return JSON.stringify(JSON.stringify(value));
}
