import type { LinkModel } from '../test/support/rig.js';
import { REFERENCE } from './cases.js';
import { MEASURES, measureOf, type MeasureName } from './measures.js';
import type { MicroResult } from './micro.js';
import { ratiosOf, valuesOf, type Machine, type RunRecord } from './record.js';
import { DISTURBANCE_LIMIT } from './rounds.js';
import { quantile, spread } from './stats.js';
import { judge } from './targets.js';

/** A table as text, before it is laid out for a terminal or as Markdown. */
export interface Table {
  readonly title: string;
  readonly head: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

/** Link models as a reader knows them. */
export const LINK_TITLES: Readonly<Record<LinkModel, string>> = {
  wire: 'wire-like link (frames of at most 1500 bytes)',
  veth: 'veth as it is (64 KB super-packets cross unsplit)',
};

const GROUPS: readonly { readonly title: string; readonly measures: readonly MeasureName[] }[] = [
  { title: 'throughput', measures: ['tcp1', 'tcp1Reverse', 'tcp4', 'tcp4Reverse'] },
  { title: 'cost', measures: ['cpuPerGb', 'syscallsPerGb', 'retransmitsPerGb'] },
  { title: 'small packets and requests', measures: ['small1', 'small64', 'rr1', 'rr32', 'rr32P99'] },
  { title: 'latency', measures: ['rttMin', 'rttMedian', 'rttP99', 'loadedRttMedian', 'loadedRttP99'] },
  { title: 'daemon', measures: ['start', 'memory'] },
];

/** The tables of a run: per link model one for each group of measures that was taken, and the micro-benchmarks. */
export function tables(record: RunRecord): Table[] {
  const micro = record.micro.length === 0 ? [] : [microTable(record.micro)];
  return [...pathTables(record), ...micro];
}

/** The micro-benchmarks as a table. */
export function microTable(results: readonly MicroResult[]): Table {
  const number = (value: number): string => value.toFixed(value < 100 ? 1 : 0);
  return {
    title: 'micro-benchmarks of the packet core',
    head: ['', 'unit', 'median (range)', 'simple reference', 'times faster', 'GB/s', 'memory, KB'],
    rows: results.map(({ name, unit, median, min, max, reference, gigabytesPerSecond, memoryBytes }) => [
      name,
      unit,
      `${number(median)} (${number(min)}–${number(max)})`,
      number(reference),
      number(reference / median),
      gigabytesPerSecond === undefined ? '' : number(gigabytesPerSecond),
      memoryBytes === undefined ? '' : number(memoryBytes / 1000),
    ]),
  };
}

function pathTables(record: RunRecord): Table[] {
  return record.links.flatMap((link) =>
    GROUPS.flatMap(({ title, measures }) => {
      const taken = measures.filter((measure) =>
        record.cases.some(({ name }) => valuesOf(record, link, name, measure).length > 0),
      );
      if (taken.length === 0) return [];
      const rows = record.cases.map((entry) => [
        entry.title,
        ...taken.map((measure) => cellText(record, link, entry.name, measure)),
      ]);
      return [
        {
          title: `${LINK_TITLES[link]}: ${title}`,
          head: ['', ...taken.map((measure) => `${MEASURES[measure].title}, ${MEASURES[measure].unit}`)],
          rows: rows.filter((row) => row.slice(1).some((cell) => cell !== NOT_MEASURED)),
        },
      ];
    }),
  );
}

const NOT_MEASURED = '–';

/** `median (least–greatest) ×ratio`: the ratio is the median of those to the reference in the same round. */
function cellText(record: RunRecord, link: LinkModel, name: string, measure: MeasureName): string {
  const found = spread(valuesOf(record, link, name, measure));
  if (found === undefined) return NOT_MEASURED;
  const digits = (value: number): string => value.toFixed(MEASURES[measure].digits);
  const range = found.count === 1 ? '' : ` (${digits(found.min)}–${digits(found.max)})`;
  const hasRatio = name !== REFERENCE && measureOf(measure).hasRatio !== false;
  const ratios = !hasRatio ? [] : ratiosOf(record, link, name, REFERENCE, measure);
  const ratio = ratios.length === 0 ? '' : ` ×${quantile(ratios, 0.5).toFixed(2)}`;
  return `${digits(found.median)}${range}${ratio}`;
}

/** Which targets the run reached. */
export function targetTable(record: RunRecord): Table | undefined {
  const verdicts = judge(record);
  if (verdicts.length === 0) return undefined;
  return {
    title: 'targets',
    head: ['', 'link', 'target', 'measured', ''],
    rows: verdicts.map(({ target, value, isReached }) => [
      target.title,
      target.link,
      target.least === undefined ? `≤ ${target.most ?? ''}` : `≥ ${target.least}`,
      value.toFixed(value < 100 ? 2 : 0),
      isReached ? 'reached' : 'missed',
    ]),
  };
}

/** A table for a terminal. */
export function terminalTable({ title, head, rows }: Table): string {
  const widths = head.map((cell, column) => Math.max(cell.length, ...rows.map((row) => row[column]?.length ?? 0)));
  const line = (row: readonly string[]): string =>
    `  ${row.map((cell, column) => (column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0))).join('  ')}`.trimEnd();
  return [title, line(head), ...rows.map(line)].join('\n');
}

/** A table in Markdown, under a heading of the third level. */
export function markdownTable({ title, head, rows }: Table): string {
  const line = (row: readonly string[]): string => `| ${row.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  const rule = `|${head.map((_, column) => (column === 0 ? '---|' : '--:|')).join('')}`;
  return [`### ${title[0]?.toUpperCase() ?? ''}${title.slice(1)}`, '', line(head), rule, ...rows.map(line)].join('\n');
}

/** The report for a terminal. */
export function terminalReport(record: RunRecord): string {
  const targets = targetTable(record);
  const parts = [...tables(record), ...(targets === undefined ? [] : [targets])].map(terminalTable);
  return [...parts, ...remarks(record), ''].join('\n\n');
}

/** A chart beside a report. */
export interface ChartFile {
  readonly file: string;
  readonly title: string;
}

/**
 * The report in Markdown.
 *
 * @param charts - with paths relative to where the report will be.
 */
export function markdownReport(record: RunRecord, charts: readonly ChartFile[]): string {
  const targets = targetTable(record);
  return [
    '# Performance',
    `Measured on ${record.startedAt.slice(0, 10)} by \`${record.command}\` in ${Math.round(record.seconds / 60)} minutes. ` +
      'Every number compares only with others of this page: a different machine gives different ones.',
    ...charts.map(({ file, title }) => `![${title}](${file})`),
    ...(targets === undefined ? [] : [markdownTable(targets)]),
    ...tables(record).map(markdownTable),
    '## How it was measured',
    machineText(record.machine),
    METHOD,
    ...remarks(record),
    '## How to repeat it',
    `\`\`\`sh\n${record.command}\n\`\`\``,
    'Set `FLANNELD=/path/to/flanneld` to measure a stock flanneld beside it. `npm run bench -- --help` lists the options.',
    '',
  ].join('\n\n');
}

const METHOD = `Two hosts are network namespaces on the two ends of one veth pair, each with a real \`tsflanneld\` and a container
namespace behind a bridge; both share one etcd and all processors of the machine, so throughput is about processor time per byte and not about the
speed of a link. *Wire-like* means \`tso off gso off tx-udp-segmentation off gro on\`: frames of at most 1500 bytes cross, as on a real link, and
this is the model closer to real hosts. Congestion control is cubic.

*auto* is what the \`udp\` backend does without flags: the kernel carries everything but flows that stream, and the native tunnel those, since
the one answers sooner and the other moves more bytes ([the kernel path](kernel-path.md)). Where the processor time goes, and why a target is
missed, is told in [what a packet costs](packet-path.md).

Cases alternate within a round, each on freshly made namespaces, and every other round runs in reverse. A cell shows the median over the rounds,
the least and the greatest value, and after × the median of the ratios to kernel VXLAN in the same round. A measurement during which other
processes or the hypervisor took more than ${DISTURBANCE_LIMIT * 100} % of the machine is repeated. CPU per GB counts the whole machine, both hosts and both ends of the
transfer included, less other processes. Small packets are UDP with 64 bytes of payload; what counts is
the highest rate that was really sent, evenly, and arrived with at most 0.1 % loss. Differences below 15 % are not worth reading.`;

function machineText({ versions, ...machine }: Machine): string {
  return [
    `- Processor: ${machine.processor}, ${machine.processors} cores, governor ${machine.governor}; hypervisor: ${machine.hypervisor}`,
    `- Memory: ${machine.memoryGb} GB`,
    `- System: ${machine.distribution}, Linux ${machine.kernel}`,
    `- Versions: ${Object.entries(versions)
      .map(([name, version]) => `${name} ${version}`)
      .join(', ')}`,
  ].join('\n');
}

/** What a reader must know about this run besides its numbers. */
function remarks({ samples, failures, rounds }: RunRecord): string[] {
  const disturbed = samples.filter(
    ({ foreignShare, stealShare }) => Math.max(foreignShare, stealShare) > DISTURBANCE_LIMIT,
  );
  const worst = Math.max(0, ...samples.map(({ foreignShare, stealShare }) => Math.max(foreignShare, stealShare)));
  const percent = (share: number): string => `${(share * 100).toFixed(1)} %`;
  return [
    `${samples.length} measurements in ${rounds} rounds; ${disturbed.length} of them stayed disturbed after all tries (worst ${percent(worst)}).`,
    ...failures.map(
      (failure) =>
        `Failed: ${failure.link}, ${failure.case}, ${failure.probe}, round ${failure.round}: ${failure.message}`,
    ),
  ];
}
