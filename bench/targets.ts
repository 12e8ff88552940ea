import type { LinkModel } from '../test/support/rig.js';
import { REFERENCE } from './cases.js';
import type { MeasureName } from './measures.js';
import { ratiosOf, valuesOf, type RunRecord } from './record.js';
import { quantile } from './stats.js';

/** What the native tunnel is meant to reach, on one machine in one run. */
export interface Target {
  readonly title: string;
  readonly link: LinkModel;
  readonly measure: MeasureName;
  readonly case: string;
  /** The value is the ratio to this case; without it the value itself. */
  readonly reference?: string;
  readonly least?: number;
  readonly most?: number;
}

const NATIVE = 'native-1';

/** All targets, in the order of the report. */
export const TARGETS: readonly Target[] = [
  {
    title: 'TCP 1 stream, native : VXLAN',
    link: 'wire',
    measure: 'tcp1',
    case: NATIVE,
    reference: REFERENCE,
    least: 1.15,
  },
  {
    title: 'TCP 1 stream, native : VXLAN',
    link: 'veth',
    measure: 'tcp1',
    case: NATIVE,
    reference: REFERENCE,
    least: 0.6,
  },
  {
    title: 'TCP 1 stream, native : portable',
    link: 'wire',
    measure: 'tcp1',
    case: NATIVE,
    reference: 'portable',
    least: 30,
  },
  {
    title: 'TCP 1 stream, native : stock udp',
    link: 'wire',
    measure: 'tcp1',
    case: NATIVE,
    reference: 'stock-udp',
    least: 11,
  },
  {
    title: 'TCP 1 stream, native : stock udp',
    link: 'veth',
    measure: 'tcp1',
    case: NATIVE,
    reference: 'stock-udp',
    least: 16,
  },
  {
    title: 'CPU per GB, native : VXLAN',
    link: 'wire',
    measure: 'cpuPerGb',
    case: NATIVE,
    reference: REFERENCE,
    most: 1.1,
  },
  {
    title: 'small packets, 1 flow, native : VXLAN',
    link: 'wire',
    measure: 'small1',
    case: NATIVE,
    reference: REFERENCE,
    least: 2,
  },
  {
    title: 'small packets, 64 flows, native : VXLAN',
    link: 'wire',
    measure: 'small64',
    case: NATIVE,
    reference: REFERENCE,
    least: 1,
  },
  {
    title: 'RTT idle, native : stock udp',
    link: 'wire',
    measure: 'rttMedian',
    case: NATIVE,
    reference: 'stock-udp',
    most: 1,
  },
  {
    title: 'p99 RTT under load, native : VXLAN',
    link: 'wire',
    measure: 'loadedRttP99',
    case: NATIVE,
    reference: REFERENCE,
    most: 4,
  },
  { title: 'start to subnet.env, ms', link: 'wire', measure: 'start', case: NATIVE, most: 500 },
  { title: 'resident memory, idle, 3 peers, MB', link: 'wire', measure: 'memory', case: NATIVE, most: 100 },
];

/** How a run stands to a target. */
export interface Verdict {
  readonly target: Target;
  readonly value: number;
  readonly isReached: boolean;
}

/** The verdicts on all targets that the run measured. */
export function judge(record: RunRecord): Verdict[] {
  return TARGETS.flatMap((target) => {
    const { link, measure, case: name, reference, least = -Infinity, most = Infinity } = target;
    const values =
      reference === undefined
        ? valuesOf(record, link, name, measure)
        : ratiosOf(record, link, name, reference, measure);
    if (values.length === 0) return [];
    const value = quantile(values, 0.5);
    return [{ target, value, isReached: value >= least && value <= most }];
  });
}
