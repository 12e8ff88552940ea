import type { LinkModel } from '../test/support/rig.js';
import { iperf, ping, startPing, type IperfOptions } from '../test/support/traffic.js';
import type { Bed } from './bed.js';
import { watchCpu } from './cpu.js';
import type { Case } from './cases.js';
import type { Readings } from './measures.js';
import { lossFreeRate } from './small-packets.js';
import { quantile } from './stats.js';
import { tunnelSystemCalls } from './tunnel-status.js';

/** How long and how thorough probes are. */
export interface Effort {
  readonly tcpSeconds: number;
  readonly pings: number;
  readonly trialSeconds: number;
  readonly bisectionSteps: number;
  readonly requestSeconds: number;
  /** How often a disturbed measurement is taken at most. */
  readonly mostTries: number;
}

/** `--quick` and the full run. */
export const EFFORTS = {
  quick: { tcpSeconds: 1, pings: 200, trialSeconds: 0.25, bisectionSteps: 6, requestSeconds: 0.5, mostTries: 1 },
  full: { tcpSeconds: 2, pings: 400, trialSeconds: 0.3, bisectionSteps: 6, requestSeconds: 1, mostTries: 3 },
} as const satisfies Record<string, Effort>;

/** Values of a probe and, where it has one, the distribution behind them. */
export interface ProbeResult {
  readonly readings: Readings;
  readonly timesMs?: readonly number[];
}

/** Something that is measured in one go. */
export interface Probe {
  readonly name: string;
  run(bed: Bed, effort: Effort, generator: string): Promise<ProbeResult>;
}

const tcp: Probe = {
  name: 'tcp1',
  async run(bed, { tcpSeconds }) {
    const callsBefore = await tunnelSystemCalls(bed.daemons);
    const finish = watchCpu();
    const result = await runIperf(bed, { seconds: tcpSeconds });
    const { ownSeconds } = finish();
    const callsAfter = await tunnelSystemCalls(bed.daemons);
    const gigabytes = result.bytes / 1e9;
    const calls = callsBefore === undefined || callsAfter === undefined ? undefined : callsAfter - callsBefore;
    return {
      readings: {
        tcp1: result.bitsPerSecond / 1e9,
        cpuPerGb: ownSeconds / gigabytes,
        retransmitsPerGb: result.retransmits / gigabytes,
        ...(calls === undefined ? {} : { syscallsPerGb: calls / 1000 / gigabytes }),
      },
    };
  },
};

const throughput = (name: 'tcp1Reverse' | 'tcp4' | 'tcp4Reverse', options: IperfOptions): Probe => ({
  name,
  async run(bed, { tcpSeconds }) {
    const { bitsPerSecond } = await runIperf(bed, { ...options, seconds: tcpSeconds * 0.75 });
    return { readings: { [name]: bitsPerSecond / 1e9 } };
  },
});

const smallPackets = (name: 'small1' | 'small64', flows: number): Probe => ({
  name,
  async run(bed, { bisectionSteps: steps, trialSeconds }, generator) {
    const rate = await lossFreeRate(bed, generator, { flows, steps, trialSeconds });
    return { readings: { [name]: rate / 1000 } };
  },
});

const idleRtt: Probe = {
  name: 'rtt',
  async run(bed, { pings }) {
    const { timesMs } = await ping(bed.near.netns, bed.far.address, { count: pings, intervalMs: 3 });
    const [rttMin, rttMedian, rttP99] = [0, 0.5, 0.99].map((part) => quantile(timesMs, part));
    return { readings: definedOnly({ rttMin, rttMedian, rttP99 }), timesMs };
  },
};

const loadedRtt: Probe = {
  name: 'loadedRtt',
  async run(bed, { tcpSeconds }) {
    const pings = startPing(bed.near.netns, bed.far.address, { intervalMs: 5 });
    await runIperf(bed, { seconds: tcpSeconds * 0.75 });
    const { timesMs } = await pings.stop();
    const [loadedRttMedian, loadedRttP99] = [0.5, 0.99].map((part) => quantile(timesMs, part));
    return { readings: definedOnly({ loadedRttMedian, loadedRttP99 }), timesMs };
  },
};

const requests: Probe = {
  name: 'requests',
  async run(bed, { requestSeconds }, generator) {
    const port = '6900';
    const server = bed.far.netns.start([generator, 'serve', bed.far.address, port]);
    try {
      await server.waitForLine(/ready/);
      const measure = async (connections: number): Promise<{ rate: number; timesMs: number[] }> => {
        const args = [bed.far.address, port, String(connections), '64', String(requestSeconds)];
        const { stdout } = await bed.near.netns.run([generator, 'rr', ...args]);
        const [head = '', ...times] = stdout.trim().split('\n');
        const [count = Number.NaN, seconds = Number.NaN] = head.split(' ').map(Number);
        return { rate: count / seconds / 1000, timesMs: times.map((time) => Number(time) / 1000) };
      };
      const [one, many] = [await measure(1), await measure(32)];
      return { readings: { rr1: one.rate, rr32: many.rate, rr32P99: quantile(many.timesMs, 0.99) } };
    } finally {
      await server.kill();
    }
  },
};

/** The probes for a case. */
export function probesFor(entry: Case, link: LinkModel, isQuick: boolean): readonly Probe[] {
  const [small1, small64] = [smallPackets('small1', 1), smallPackets('small64', 64)];
  if (isQuick) return [tcp, idleRtt, ...(link === 'wire' ? [small1] : [])];
  // A packet by itself meets no offload, so the time of a lone round trip says nothing about them.
  if (entry.scope === 'offload') return [tcp, small1];
  return [
    tcp,
    throughput('tcp1Reverse', { isReverse: true }),
    throughput('tcp4', { streams: 4 }),
    throughput('tcp4Reverse', { streams: 4, isReverse: true }),
    small1,
    small64,
    idleRtt,
    loadedRtt,
    requests,
  ];
}

async function runIperf(bed: Bed, options: IperfOptions): ReturnType<typeof iperf> {
  return iperf(bed.near.netns, bed.far.netns, bed.far.address, options);
}

function definedOnly(readings: Readonly<Record<string, number | undefined>>): Readings {
  return Object.fromEntries(
    Object.entries(readings).filter(([, value]) => value !== undefined && !Number.isNaN(value)),
  );
}
