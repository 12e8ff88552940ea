import assert from 'node:assert/strict';
import { drawCharts } from '../../../bench/charts.js';
import type { Readings } from '../../../bench/measures.js';
import { ratiosOf, valuesOf, type RunRecord, type Sample } from '../../../bench/record.js';
import { markdownReport, markdownTable, tables, terminalReport, terminalTable } from '../../../bench/report.js';
import { judge } from '../../../bench/targets.js';

const sample = (round: number, name: string, readings: Readings, probe = 'tcp1', timesMs: number[] = []): Sample => ({
  ...{ round, link: 'wire', case: name, probe, readings, foreignShare: 0.01, stealShare: 0, tries: 1 },
  ...(timesMs.length > 0 ? { timesMs } : {}),
});

const record: RunRecord = {
  startedAt: '2026-01-02T03:04:05.000Z',
  seconds: 600,
  command: 'npm run bench',
  isQuick: false,
  rounds: 3,
  links: ['wire', 'veth'],
  machine: {
    ...{
      processor: 'Test CPU',
      processors: 2,
      memoryGb: 8,
      hypervisor: 'none',
      kernel: '6.1.0',
      distribution: 'Debian',
    },
    ...{ governor: 'performance', versions: { node: '20.19.0', iperf3: '3.12' } },
  },
  cases: [
    { name: 'vxlan', title: 'kernel VXLAN' },
    { name: 'native-1', title: 'udp, native, 1 worker' },
    { name: 'no-tso', title: 'native, no tso' },
  ],
  samples: [
    sample(1, 'vxlan', { tcp1: 4, cpuPerGb: 2 }),
    sample(1, 'native-1', { tcp1: 6, cpuPerGb: 2 }),
    sample(2, 'native-1', { tcp1: 4, cpuPerGb: 3 }),
    sample(2, 'vxlan', { tcp1: 5, cpuPerGb: 2 }),
    sample(3, 'native-1', { tcp1: 5, cpuPerGb: 2 }),
    sample(1, 'native-1', { rttMedian: 0.15 }, 'rtt', [0.1, 0.15, 0.2]),
    { ...sample(3, 'vxlan', { tcp4: 9 }, 'tcp4'), foreignShare: 0.3 },
  ],
  micro: [{ name: 'lookup/10', unit: 'ns/lookup', median: 2.5, min: 2, max: 3, reference: 250, memoryBytes: 576 }],
  failures: [{ round: 3, link: 'wire', case: 'vxlan', probe: 'tcp1', message: 'iperf3: no result' }],
};

describe('a run record', () => {
  it('gives the values of a measure by round', () => {
    assert.deepEqual(valuesOf(record, 'wire', 'native-1', 'tcp1'), [6, 4, 5]);
    assert.deepEqual(valuesOf(record, 'veth', 'native-1', 'tcp1'), []);
  });

  it('compares values of the same round only', () => {
    assert.deepEqual(ratiosOf(record, 'wire', 'native-1', 'vxlan', 'tcp1'), [1.5, 0.8]);
  });
});

describe('tables', () => {
  const [throughput] = tables(record);

  it('show median, range and ratio to VXLAN, and leave out what was not measured', () => {
    assert.deepEqual(throughput, {
      title: 'wire-like link (frames of at most 1500 bytes): throughput',
      head: ['', 'TCP, 1 stream, Gb/s', 'TCP, 4 streams, Gb/s'],
      rows: [
        ['kernel VXLAN', '4.50 (4.00–5.00)', '9.00'],
        ['udp, native, 1 worker', '5.00 (4.00–6.00) ×1.15', '–'],
      ],
    });
  });

  it('close with the micro-benchmarks', () => {
    assert.deepEqual(tables(record).at(-1)?.rows, [
      ['lookup/10', 'ns/lookup', '2.5 (2.0–3.0)', '250', '100', '', '0.6'],
    ]);
  });

  it('line up on a terminal', () => {
    assert.ok(throughput !== undefined);
    const lines = terminalTable({
      title: 't',
      head: ['', 'a'],
      rows: [
        ['x', '1'],
        ['long', '22'],
      ],
    }).split('\n');
    assert.deepEqual(lines, ['t', '         a', '  x      1', '  long  22']);
  });

  it('keep their columns in Markdown', () => {
    const text = markdownTable({ title: 't', head: ['', 'a'], rows: [['x|y', '1']] });
    assert.deepEqual(text.split('\n'), ['### T', '', '|  | a |', '|---|--:|', '| x\\|y | 1 |']);
  });
});

describe('targets', () => {
  it('are judged by the median of the ratios, or of the values, and only where measured', () => {
    const verdicts = judge(record).map(({ target, value, isReached }) => [target.measure, value, isReached]);
    assert.deepEqual(verdicts, [
      ['tcp1', 1.15, true],
      ['cpuPerGb', 1.25, false],
    ]);
  });
});

describe('the report', () => {
  it('tells what failed and what stayed disturbed', () => {
    const text = terminalReport(record);
    assert.match(text, /7 measurements in 3 rounds; 1 of them stayed disturbed after all tries \(worst 30\.0 %\)/);
    assert.match(text, /Failed: wire, vxlan, tcp1, round 3: iperf3: no result/);
  });

  it('states machine, versions, method and command, and links the charts', () => {
    const text = markdownReport(record, [{ file: 'tcp-1.svg', title: 'TCP' }]);
    for (const part of [
      'Test CPU, 2 cores',
      'Linux 6.1.0',
      'iperf3 3.12',
      'cubic',
      'npm run bench\n',
      '![TCP](tcp-1.svg)',
    ]) {
      assert.ok(text.includes(part), part);
    }
  });
});

describe('charts', () => {
  it('name every case with its number, and the unit', async () => {
    const charts = await drawCharts(record);
    assert.deepEqual(
      charts.map(({ file }) => file),
      ['tcp-1.svg', 'cpu-per-gb.svg', 'latency-wire.svg'],
    );
    const [throughput] = charts;
    assert.match(throughput?.svg ?? '', /^<svg /);
    for (const text of ['kernel VXLAN', 'udp, native, 1 worker', '5.00 (4.00–6.00)', 'Gb/s']) {
      assert.ok(throughput?.svg.includes(text), text);
    }
  });
});
