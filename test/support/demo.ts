// npm run demo: the main job of the daemon, for real, on one machine.
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { DaemonStartError } from './daemon.js';
import { Rig, type Container, type Host } from './rig.js';
import { iperf, ping, tcpTransfer, type IperfResult, type PingResult } from './traffic.js';
import { waitFor } from './wait.js';

const BACKENDS = ['udp', 'vxlan', 'host-gw'] as const;
const NETWORK = '10.5.0.0/16';
const CHECKED_BYTES = 20_000_000;

const USAGE = readFileSync(new URL('../../.ci/usage/demo.txt', import.meta.url), 'utf8');

interface DemoOptions {
  readonly backend: (typeof BACKENDS)[number];
  readonly hosts: number;
  readonly datapath: string;
  readonly seconds: number;
  readonly keep: boolean;
}

class UsageError extends Error {}

function readOptions(args: string[]): DemoOptions | undefined {
  const { values } = parseArgs({
    args,
    options: {
      backend: { type: 'string', default: 'udp' },
      hosts: { type: 'string', default: '2' },
      datapath: { type: 'string', default: 'auto' },
      seconds: { type: 'string', default: '3' },
      keep: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return undefined;
  const backend = BACKENDS.find((type) => type === values.backend);
  if (backend === undefined) throw new UsageError(`--backend ${values.backend}: not one of ${BACKENDS.join(', ')}`);
  const number = (name: 'hosts' | 'seconds', least: number, most: number): number => {
    const value = Number(values[name]);
    if (Number.isInteger(value) && value >= least && value <= most) return value;
    throw new UsageError(`--${name} ${values[name]}: not a whole number from ${least} to ${most}`);
  };
  const { datapath, keep } = values;
  return { backend, hosts: number('hosts', 2, 20), seconds: number('seconds', 1, 60), datapath, keep };
}

const started = performance.now();

function progress(text: string): void {
  process.stdout.write(`${((performance.now() - started) / 1000).toFixed(1).padStart(6)} s  ${text}\n`);
}

interface Counters {
  readonly device: string;
  readonly sentPackets: number;
  readonly receivedPackets: number;
  readonly dropped: number;
  /** Bytes that came in from the underlay. */
  readonly underlayBytes: number;
}

/** Totals of a userspace tunnel: what an operator sees in `tsflannelctl status`. */
async function readTunnels(rig: Rig): Promise<string[][]> {
  const rows = rig.hosts.map(async ({ name, daemon }) => {
    const tunnels = (await daemon?.status())?.tunnels ?? [];
    return tunnels.map(({ kind, workers, counters }) => {
      const { txPackets, rxPackets, tunReads, socketSends, socketReceives, tunWrites, drops } = counters;
      const dropped = Object.values(drops).reduce((sum, count) => sum + count, 0);
      const calls = [tunReads, socketSends, socketReceives, tunWrites];
      return [name, `${kind}, ${workers}`, ...[txPackets, rxPackets, ...calls, dropped].map(String)];
    });
  });
  return (await Promise.all(rows)).flat();
}

interface Findings {
  readonly options: DemoOptions;
  readonly hosts: readonly Host[];
  readonly containers: readonly Container[];
  readonly pings: readonly PingResult[];
  readonly throughput: IperfResult;
  readonly counters: readonly Counters[];
  readonly tunnels: readonly (readonly string[])[];
  readonly problems: readonly string[];
}

async function demonstrate(rig: Rig, options: DemoOptions): Promise<Findings> {
  const { backend, seconds, datapath } = options;
  await rig.putConfig({ Network: NETWORK, Backend: { Type: backend } });
  progress(`network configuration written: ${NETWORK}, backend ${backend}`);

  const args = backend === 'udp' ? [`--datapath=${datapath}`] : [];
  await Promise.all(
    rig.hosts.map(async (host) => {
      const daemon = await host.startDaemon({ args });
      progress(`${host.name} (${host.publicIp}) holds ${daemon.subnetEnv().FLANNEL_SUBNET ?? '?'}`);
    }),
  );
  const containers = await Promise.all(rig.hosts.map(async (host) => host.addContainer()));
  progress(`containers ${containers.map(({ address }) => address).join(', ')}`);

  const [near, ...others] = containers;
  const far = others[0];
  if (near === undefined || far === undefined) throw new Error('a demo needs two containers');
  for (const other of others) {
    await waitFor(async () => (await ping(near.netns, other.address, { count: 1, waitSeconds: 1 })).received === 1, {
      what: `an answer from container ${other.address}`,
    });
  }
  const before = await Promise.all(rig.hosts.map(async (host) => readCounters(host, near, far)));
  progress('pinging');
  const pings: PingResult[] = [];
  for (const other of others) pings.push(await ping(near.netns, other.address, { count: 50 }));
  progress(`sending ${CHECKED_BYTES / 1e6} MB of random data in odd write sizes, compared at the other end`);
  await tcpTransfer(near.netns, far.netns, far.address, { bytes: CHECKED_BYTES });
  progress(`measuring TCP throughput for ${seconds} s`);
  const throughput = await iperf(near.netns, far.netns, far.address, { seconds });
  const after = await Promise.all(rig.hosts.map(async (host) => readCounters(host, near, far)));

  const counters = after.map((end, index) => difference(end, before[index] ?? end));
  const problems = pings.flatMap(({ sent, received }, index) =>
    received === sent ? [] : [`${sent - received} of ${sent} pings to ${others[index]?.address ?? '?'} were lost`],
  );
  const crossed = counters[1]?.underlayBytes ?? 0;
  if (crossed < CHECKED_BYTES + throughput.bytes) {
    problems.push(`only ${crossed} bytes reached h2 from the underlay, though more were delivered to its container`);
  }
  const tunnels = await readTunnels(rig);
  return { options, hosts: rig.hosts, containers, pings, throughput, counters, tunnels, problems };
}

/** The kernel's counters of the device that carries packets to the other side, and of the underlay. */
async function readCounters(host: Host, near: Container, far: Container): Promise<Counters> {
  const other = host.name === 'h1' ? far : near;
  const device = String((await host.netns.ipJson(['route', 'get', other.address]))[0]?.dev);
  type Stats = Readonly<Record<'rx' | 'tx', { packets: number; bytes: number; dropped: number; errors: number }>>;
  const stats = async (name: string): Promise<Stats> =>
    (await host.netns.ipJson(['-s', 'link', 'show', 'dev', name]))[0]?.stats64 as Stats;
  const [overlay, underlay] = [await stats(device), await stats('eth0')];
  return {
    device,
    sentPackets: overlay.tx.packets,
    receivedPackets: overlay.rx.packets,
    dropped: overlay.tx.dropped + overlay.rx.dropped + overlay.tx.errors + overlay.rx.errors,
    underlayBytes: underlay.rx.bytes,
  };
}

function difference(after: Counters, before: Counters): Counters {
  return {
    device: after.device,
    sentPackets: after.sentPackets - before.sentPackets,
    receivedPackets: after.receivedPackets - before.receivedPackets,
    dropped: after.dropped - before.dropped,
    underlayBytes: after.underlayBytes - before.underlayBytes,
  };
}

function summary({ options, hosts, containers, pings, throughput, counters, tunnels, problems }: Findings): string {
  const lines = [``, `tsflannel: ${hosts.length} hosts, backend ${options.backend}`, ``];
  const leases = hosts.map((host, index) => {
    const env = Object.entries(host.daemon?.subnetEnv() ?? {}).map(([key, value]) => `${key}=${value}`);
    return [host.name, host.publicIp, containers[index]?.address ?? '', env.join(' ')];
  });
  lines.push(...table(['host', 'public IP', 'container', 'subnet.env'], leases), '');
  const rtts = pings.map(({ sent, received, timesMs }, index) => {
    const sorted = [...timesMs].sort((a, b) => a - b);
    const at = (part: number): string => (sorted[Math.floor(part * (sorted.length - 1))] ?? Number.NaN).toFixed(3);
    return [`h1 → h${index + 2}`, `${received}/${sent}`, at(0), at(0.5), at(1)];
  });
  lines.push(...table(['ping', 'answered', 'min ms', 'median ms', 'max ms'], rtts), '');
  const traffic = counters.map((row, index) => [
    `h${index + 1}`,
    row.device,
    ...[row.sentPackets, row.receivedPackets, row.dropped].map(String),
    (row.underlayBytes / 1e6).toFixed(1),
  ]);
  const head = ['packets', 'device', 'sent', 'received', 'dropped', 'MB from underlay'];
  lines.push(...table(head, traffic), '  (counted by the kernel; with TSO one packet there is up to 64 KB)', '');
  if (tunnels.length > 0) {
    const calls = ['device reads', 'sends', 'receives', 'device writes'];
    lines.push(...table(['tunnel', 'kind, workers', 'packets sent', 'received', ...calls, 'dropped'], tunnels), '');
  }
  lines.push(
    `TCP h1 → h2: ${(throughput.bitsPerSecond / 1e9).toFixed(2)} Gb/s, ${throughput.retransmits} retransmissions`,
  );
  lines.push(`TCP h1 → h2: ${CHECKED_BYTES / 1e6} MB of random data arrived unchanged (SHA-256)`, '');
  lines.push(...(problems.length === 0 ? ['passed'] : problems.map((problem) => `FAILED: ${problem}`)));
  return lines.join('\n');
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column]?.length ?? 0)));
  return [head, ...rows].map((row) =>
    `  ${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('  ')}`.trimEnd(),
  );
}

function showLogs(rig: Rig): void {
  for (const { name, daemon } of rig.hosts) {
    if (daemon !== undefined) process.stderr.write(`\nlog of ${name}:\n${daemon.log}`);
  }
}

async function stopDaemons(rig: Rig): Promise<string[]> {
  const ends = await Promise.all(rig.hosts.map(async (host) => ({ host, status: await host.daemon?.stop() })));
  return ends
    .filter(({ status }) => status?.code !== 0)
    .map(({ host, status }) => `the daemon of ${host.name} ended with ${status?.signal ?? String(status?.code)}`);
}

function lookAround(rig: Rig): string {
  const [first] = rig.hosts;
  return `
everything is still running; Ctrl-C ends and removes it. For example:
  ip netns exec ${first?.netns.name ?? ''} ip route
  ip netns exec ${first?.netns.name ?? ''} bash
  ${first?.netns.name ?? ''}'s log: ${first?.daemon?.logFile ?? ''}
  ${rig.etcd.options.netns.command(['etcdctl', '--endpoints', rig.etcd.endpoint, 'get', '--prefix', rig.etcdPrefix]).join(' ')}
`;
}

async function main(): Promise<number> {
  const options = readOptions(process.argv.slice(2));
  if (options === undefined) {
    process.stdout.write(USAGE);
    return 0;
  }
  if (process.getuid?.() !== 0) {
    process.stderr.write('demo: cannot make network namespaces: only root may; run it with sudo\n');
    return 1;
  }
  progress(`making ${options.hosts} hosts and starting etcd`);
  const rig = await Rig.create({ hosts: options.hosts });
  try {
    const findings = await demonstrate(rig, options);
    if (options.keep) {
      process.stdout.write(`${summary(findings)}\n${lookAround(rig)}`);
      return await new Promise<number>(() => setInterval(() => undefined, 1 << 30));
    }
    progress('stopping the daemons');
    const problems = [...findings.problems, ...(await stopDaemons(rig))];
    process.stdout.write(`${summary({ ...findings, problems })}\n`);
    return problems.length === 0 ? 0 : 1;
  } catch (error) {
    if (!(error instanceof DaemonStartError)) showLogs(rig);
    throw error;
  } finally {
    await rig.close();
  }
}

try {
  process.exitCode = await main();
} catch (error) {
  const isUsage =
    error instanceof UsageError || (error as { code?: string }).code?.startsWith('ERR_PARSE_ARGS') === true;
  process.stderr.write(
    `demo: ${error instanceof Error ? error.message : String(error)}\n${isUsage ? `\n${USAGE}` : ''}`,
  );
  process.exitCode = isUsage ? 2 : 1;
}
