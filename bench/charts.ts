import type { EChartsOption, SeriesOption } from 'echarts';
import type { LinkModel } from '../test/support/rig.js';
import { MEASURES, type MeasureName } from './measures.js';
import { valuesOf, type RunRecord } from './record.js';
import { LINK_TITLES } from './report.js';
import { quantile, spread } from './stats.js';

/** A chart as SVG text. */
export interface Chart {
  /** File name without directory. */
  readonly file: string;
  readonly title: string;
  readonly svg: string;
}

const WIDTH = 860;
const LINK_NAMES: Readonly<Record<LinkModel, string>> = { wire: 'wire-like link', veth: 'veth as it is' };
// Distinguishable for colour-blind readers (Okabe and Ito).
const COLOURS: Readonly<Record<LinkModel, string>> = { wire: '#0072b2', veth: '#e69f00' };

/** The charts of a run; a measure that was not taken has none. */
export async function drawCharts(record: RunRecord): Promise<Chart[]> {
  // Loaded here, since it takes longer than everything else a quick run starts with.
  const echarts = await import('echarts');
  const render = (option: EChartsOption, height: number): string => {
    const chart = echarts.init(null, null, { renderer: 'svg', ssr: true, width: WIDTH, height });
    chart.setOption({ animation: false, backgroundColor: '#ffffff', ...option });
    const svg = chart.renderToSVGString();
    chart.dispose();
    return svg;
  };
  const bars = (['tcp1', 'cpuPerGb', 'small1', 'small64'] as const).flatMap((measure) => {
    const drawn = barChart(record, measure);
    if (drawn === undefined) return [];
    const { title, better } = MEASURES[measure];
    const full = `${title} (${better} is better)`;
    return [{ file: `${kebab(measure)}.svg`, title: full, svg: render(drawn.option, drawn.height) }];
  });
  const latency = record.links.flatMap((link) => {
    const option = latencyChart(record, link);
    if (option === undefined) return [];
    return [
      {
        file: `latency-${link}.svg`,
        title: `Distribution of idle round-trip times, ${link}`,
        svg: render(option, 440),
      },
    ];
  });
  return [...bars, ...latency];
}

function barChart(record: RunRecord, measure: MeasureName): { option: EChartsOption; height: number } | undefined {
  const isTaken = (link: LinkModel, name: string): boolean => valuesOf(record, link, name, measure).length > 0;
  const cases = record.cases.filter(({ name }) => record.links.some((link) => isTaken(link, name)));
  if (cases.length === 0) return undefined;
  const { title, unit, better, digits } = MEASURES[measure];
  const series = record.links.map((link): SeriesOption => ({
    type: 'bar',
    name: LINK_NAMES[link],
    itemStyle: { color: COLOURS[link] },
    barMaxWidth: 16,
    data: cases.map(({ name }) => {
      const found = spread(valuesOf(record, link, name, measure));
      const text = (value: number): string => value.toFixed(digits);
      const range = found === undefined || found.count === 1 ? '' : ` (${text(found.min)}–${text(found.max)})`;
      return {
        value: found?.median ?? 0,
        label: { show: found !== undefined, position: 'right', formatter: `${text(found?.median ?? 0)}${range}` },
      };
    }),
  }));
  const option: EChartsOption = {
    title: { text: title, subtext: `${unit}, median (range), ${better} is better`, left: 'center' },
    legend: { bottom: 0, itemGap: 40 },
    grid: { left: labelWidth(cases.map((entry) => entry.title)), right: 150, top: 70, bottom: 60 },
    xAxis: { type: 'value' },
    yAxis: { type: 'category', inverse: true, data: cases.map((entry) => entry.title) },
    series,
  };
  return { option, height: 150 + cases.length * record.links.length * 24 };
}

/** Share of round trips that took at most so long, one line per case, on a logarithmic scale of time. */
function latencyChart(record: RunRecord, link: LinkModel): EChartsOption | undefined {
  const lines = record.cases.flatMap(({ name, title }): SeriesOption[] => {
    const samples = record.samples.filter(
      (sample) => sample.link === link && sample.case === name && sample.probe === 'rtt',
    );
    const times = samples.flatMap(({ timesMs }) => timesMs ?? []);
    if (times.length === 0 || name.startsWith('no-')) return [];
    const data = Array.from({ length: 200 }, (_, index) => (index + 0.5) / 200).map((part) => [
      quantile(times, part),
      part * 100,
    ]);
    return [{ type: 'line', name: title, showSymbol: false, data }];
  });
  if (lines.length === 0) return undefined;
  return {
    color: ['#000000', '#0072b2', '#d55e00', '#cc79a7', '#009e73', '#e69f00', '#56b4e9'],
    title: {
      text: 'Round-trip time, idle',
      subtext: `${LINK_TITLES[link]}: share of pings answered within a time`,
      left: 'center',
    },
    legend: { bottom: 0, itemGap: 20 },
    grid: { left: 60, right: 40, top: 70, bottom: 100 },
    xAxis: { type: 'log', name: 'ms', nameLocation: 'middle', nameGap: 28, minorSplitLine: { show: true } },
    yAxis: { type: 'value', name: '%', min: 0, max: 100 },
    series: lines,
  };
}

/** Room for labels in pixels. The library cannot measure text without a browser. */
function labelWidth(labels: readonly string[]): number {
  return 20 + 7 * Math.max(...labels.map(({ length }) => length));
}

function kebab(name: string): string {
  return name.replace(/[A-Z]|\d+/g, (part) => `-${part.toLowerCase()}`);
}
