import { readFileSync } from 'node:fs';
import os from 'node:os';
import { run } from '../test/support/netns.js';
import type { LinkModel } from '../test/support/rig.js';
import type { MeasureName, Readings } from './measures.js';
import type { MicroResult } from './micro.js';

/** What a run was made on: without this its numbers mean nothing. */
export interface Machine {
  readonly processor: string;
  readonly processors: number;
  readonly memoryGb: number;
  readonly hypervisor: string;
  readonly kernel: string;
  readonly distribution: string;
  readonly governor: string;
  readonly versions: Readonly<Record<string, string>>;
}

/** What one probe gave in one cell. */
export interface Sample {
  readonly round: number;
  readonly link: LinkModel;
  readonly case: string;
  readonly probe: string;
  readonly readings: Readings;
  readonly timesMs?: readonly number[];
  readonly foreignShare: number;
  readonly stealShare: number;
  readonly tries: number;
}

/** A cell that could not be measured. */
export interface Failure {
  readonly round: number;
  readonly link: LinkModel;
  readonly case: string;
  readonly probe: string;
  readonly message: string;
}

/** A whole run: everything a report is made from. */
export interface RunRecord {
  readonly startedAt: string;
  readonly seconds: number;
  readonly command: string;
  readonly isQuick: boolean;
  readonly rounds: number;
  readonly links: readonly LinkModel[];
  readonly machine: Machine;
  readonly cases: readonly { readonly name: string; readonly title: string }[];
  readonly samples: readonly Sample[];
  readonly failures: readonly Failure[];
  /** Taken in a full run. */
  readonly micro: readonly MicroResult[];
}

/** Looks at the machine. */
export async function describeMachine(): Promise<Machine> {
  const [cpu] = os.cpus();
  const version = async (argv: readonly string[]): Promise<string> => {
    const { stdout, stderr } = await run(argv, { mayFail: true });
    return /\d+\.\d+[\w.-]*/.exec(stdout + stderr)?.[0] ?? 'unknown';
  };
  const [iperf3, etcd, iproute2] = await Promise.all([
    version(['iperf3', '--version']),
    version(['etcd', '--version']),
    version(['ip', '-V']),
  ]);
  const flags = /^flags\s*:(.*)$/m.exec(readText('/proc/cpuinfo'))?.[1] ?? '';
  return {
    processor: cpu?.model ?? 'unknown',
    processors: os.cpus().length,
    memoryGb: Math.round(os.totalmem() / 2 ** 30),
    hypervisor: / hypervisor\b/.test(flags) ? readText('/sys/class/dmi/id/sys_vendor') || 'yes' : 'none',
    kernel: os.release(),
    distribution: /^PRETTY_NAME="?([^"\n]*)/m.exec(readText('/etc/os-release'))?.[1] ?? 'unknown',
    governor: readText('/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor') || 'not visible',
    versions: { node: process.versions.node, iperf3, etcd, iproute2 },
  };
}

/** The values of a measure, one per round in which it was taken. */
export function valuesOf(record: RunRecord, link: LinkModel, name: string, measure: MeasureName): number[] {
  return [...valuesByRound(record, link, name, measure).values()];
}

/** The ratios of a case to another in the same round. */
export function ratiosOf(
  record: RunRecord,
  link: LinkModel,
  name: string,
  reference: string,
  measure: MeasureName,
): number[] {
  const references = valuesByRound(record, link, reference, measure);
  return [...valuesByRound(record, link, name, measure)].flatMap(([round, value]) => {
    const base = references.get(round);
    return base === undefined || base === 0 ? [] : [value / base];
  });
}

function valuesByRound(record: RunRecord, link: LinkModel, name: string, measure: MeasureName): Map<number, number> {
  return new Map(
    record.samples.flatMap((sample) => {
      const value = sample.readings[measure];
      return sample.link === link && sample.case === name && value !== undefined ? [[sample.round, value]] : [];
    }),
  );
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    // Not every machine has it (no frequency scaling, no DMI); the report says so.
    return '';
  }
}
