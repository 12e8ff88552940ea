/** How a measured quantity is shown. */
export interface Measure {
  readonly title: string;
  readonly unit: string;
  readonly digits: number;
  readonly better: 'higher' | 'lower';
  /** False where the reference is next to nothing, so that a ratio to it says nothing. Default true. */
  readonly hasRatio?: boolean;
}

/** Everything the benchmark measures, in the order of the report. */
export const MEASURES = {
  tcp1: { title: 'TCP, 1 stream', unit: 'Gb/s', digits: 2, better: 'higher' },
  tcp1Reverse: { title: 'TCP, 1 stream, reverse', unit: 'Gb/s', digits: 2, better: 'higher' },
  tcp4: { title: 'TCP, 4 streams', unit: 'Gb/s', digits: 2, better: 'higher' },
  tcp4Reverse: { title: 'TCP, 4 streams, reverse', unit: 'Gb/s', digits: 2, better: 'higher' },
  cpuPerGb: { title: 'CPU, TCP 1 stream', unit: 's/GB', digits: 2, better: 'lower' },
  syscallsPerGb: { title: 'system calls of the tunnels', unit: '1000/GB', digits: 0, better: 'lower' },
  retransmitsPerGb: { title: 'TCP retransmissions', unit: '1/GB', digits: 0, better: 'lower', hasRatio: false },
  small1: { title: '64 B packets, 1 flow', unit: '1000/s', digits: 0, better: 'higher' },
  small64: { title: '64 B packets, 64 flows', unit: '1000/s', digits: 0, better: 'higher' },
  rttMin: { title: 'RTT idle, min', unit: 'ms', digits: 3, better: 'lower' },
  rttMedian: { title: 'RTT idle, median', unit: 'ms', digits: 3, better: 'lower' },
  rttP99: { title: 'RTT idle, p99', unit: 'ms', digits: 3, better: 'lower' },
  loadedRttMedian: { title: 'RTT under load, median', unit: 'ms', digits: 3, better: 'lower' },
  loadedRttP99: { title: 'RTT under load, p99', unit: 'ms', digits: 3, better: 'lower' },
  rr1: { title: 'requests, 1 connection', unit: '1000/s', digits: 1, better: 'higher' },
  rr32: { title: 'requests, 32 connections', unit: '1000/s', digits: 1, better: 'higher' },
  rr32P99: { title: 'request time, 32 connections, p99', unit: 'ms', digits: 3, better: 'lower' },
  start: { title: 'start to subnet.env', unit: 'ms', digits: 0, better: 'lower' },
  memory: { title: 'resident memory, idle', unit: 'MB', digits: 0, better: 'lower' },
} as const satisfies Record<string, Measure>;

/** Name of a measured quantity. */
export type MeasureName = keyof typeof MEASURES;

/** How a quantity is shown. */
export function measureOf(name: MeasureName): Measure {
  return MEASURES[name];
}

/** Values one probe gave at once. */
export type Readings = Readonly<Partial<Record<MeasureName, number>>>;
