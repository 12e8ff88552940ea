import type { LinkModel } from '../test/support/rig.js';
import { REFERENCE } from './cases.js';
import type { MeasureName } from './measures.js';
import { ratiosOf, valuesOf, type RunRecord } from './record.js';
import { quantile } from './stats.js';

/** What a way to carry packets is meant to reach, on one machine in one run. */
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
const AUTO = 'auto';
const KERNEL = 'kernel';

/** What the default has to be beside the kernel's own tunnel and beside ours alone, on either link. */
const ofAuto = (link: LinkModel): readonly Target[] => {
  const beside = { link, case: AUTO, reference: REFERENCE };
  return [
    { ...beside, title: 'RTT idle, auto : VXLAN', measure: 'rttMedian', most: 1.3 },
    { ...beside, title: 'p99 RTT under load, auto : VXLAN', measure: 'loadedRttP99', most: 2 },
    { ...beside, title: 'requests, 1 connection, auto : VXLAN', measure: 'rr1', least: 0.95 },
    { ...beside, title: 'requests, 32 connections, auto : VXLAN', measure: 'rr32', least: 0.9 },
    { ...beside, title: 'TCP 1 stream, auto : native', reference: NATIVE, measure: 'tcp1', least: 0.95 },
  ];
};

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
  ...ofAuto('wire'),
  ...ofAuto('veth'),
  { title: 'TCP 1 stream, auto : VXLAN', link: 'wire', measure: 'tcp1', case: AUTO, reference: REFERENCE, least: 1.15 },
  { title: 'TCP 4 streams, auto : VXLAN', link: 'wire', measure: 'tcp4', case: AUTO, reference: REFERENCE, least: 1 },
  { title: 'CPU per GB, auto : VXLAN', link: 'wire', measure: 'cpuPerGb', case: AUTO, reference: REFERENCE, most: 1 },
  {
    title: 'small packets, 1 flow, auto : VXLAN',
    link: 'wire',
    measure: 'small1',
    case: AUTO,
    reference: REFERENCE,
    least: 2,
  },
  {
    title: 'small packets, 64 flows, auto : VXLAN',
    link: 'wire',
    measure: 'small64',
    case: AUTO,
    reference: REFERENCE,
    least: 1,
  },
  {
    title: 'TCP 1 stream, kernel : VXLAN',
    link: 'wire',
    measure: 'tcp1',
    case: KERNEL,
    reference: REFERENCE,
    least: 1,
  },
  {
    title: 'CPU per GB, kernel : VXLAN',
    link: 'wire',
    measure: 'cpuPerGb',
    case: KERNEL,
    reference: REFERENCE,
    most: 1,
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
