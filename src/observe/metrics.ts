import { Counter, Gauge, type MetricType, Registry, collectDefaultMetrics } from 'prom-client';
import { type BucketSample, METRIC_FAMILIES, type MetricFamily } from './metric-families.js';
import type { DaemonStatus, StatusSource } from './status.js';
import { takeStatus } from './take-status.js';

/** Node's own metrics whose names break the rules: `_total` is for counters, and these are gauges. */
const MISNAMED = ['nodejs_active_handles_total', 'nodejs_active_requests_total', 'nodejs_active_resources_total'];

/**
 * The daemon's metrics in Prometheus' text format.
 *
 * @remarks Nothing is counted here: each scrape takes one snapshot of the status and shows it, so that metrics and
 * `/status` cannot contradict each other. Process and runtime metrics are prom-client's defaults under their usual names.
 */
export class Metrics {
  private readonly registry = new Registry();
  private readonly fillers: readonly ((status: DaemonStatus) => void)[];
  private scrape: Promise<string> | undefined;

  constructor(private readonly source: StatusSource) {
    this.fillers = METRIC_FAMILIES.map((family) => createFiller(family, this.registry));
    collectDefaultMetrics({ register: this.registry });
    for (const name of MISNAMED) this.registry.removeSingleMetric(name);
  }

  get contentType(): string {
    return this.registry.contentType;
  }

  /** What a scrape is answered with; scrapes at the same time share one snapshot. */
  async text(): Promise<string> {
    this.scrape ??= this.render().finally(() => {
      this.scrape = undefined;
    });
    return this.scrape;
  }

  /** Names of all metrics, those of process and runtime included. */
  get names(): readonly string[] {
    return this.registry.getMetricsAsArray().map(({ name }) => name);
  }

  private async render(): Promise<string> {
    const status = await takeStatus(this.source);
    for (const fill of this.fillers) fill(status);
    return this.registry.metrics();
  }
}

function createFiller(family: MetricFamily, registry: Registry): (status: DaemonStatus) => void {
  const { name, help, labels } = family;
  const options = { name, help, labelNames: labels, registers: [registry] };
  if (family.type === 'histogram') {
    const metric = new BucketMetric(options, family.bounds);
    return (status) => metric.fill(family.read(status));
  }
  if (family.type === 'gauge') {
    const metric = new Gauge(options);
    return (status) => {
      const samples = family.read(status);
      metric.reset();
      for (const sample of samples) metric.set(sample.labels, sample.value);
      // Without labels a reset means 0, but what has no value is to be absent.
      if (samples.length === 0 && labels.length === 0) metric.remove();
    };
  }
  const metric = new Counter(options);
  return (status) => {
    metric.reset();
    for (const sample of family.read(status)) metric.inc(sample.labels, sample.value);
  };
}

type MetricObject = Awaited<ReturnType<Gauge['get']>>;

/**
 * A histogram whose buckets were counted elsewhere; prom-client's own can only be given single observations.
 *
 * @remarks A sample without `sum` has no `_sum` either: the workers count batches by size class, and an invented sum would
 * be wrong. Their mean is the packet counter divided by the counter of system calls.
 */
class BucketMetric extends Gauge {
  private values: MetricObject['values'] = [];
  private readonly bounds: readonly number[];
  private readonly metricName: string;

  constructor(options: ConstructorParameters<typeof Gauge>[0], bounds: readonly number[]) {
    super(options);
    this.metricName = options.name;
    this.bounds = bounds;
  }

  fill(samples: readonly BucketSample[]): void {
    this.values = samples.flatMap(({ labels, buckets, sum }) => {
      let total = 0;
      const rows = buckets.map((count, index) => {
        total += count;
        const le = String(this.bounds[index] ?? '+Inf');
        return { metricName: `${this.metricName}_bucket`, labels: { ...labels, le }, value: total };
      });
      const sums =
        sum === undefined ? [] : [{ metricName: `${this.metricName}_sum`, labels: { ...labels }, value: sum }];
      return [...rows, ...sums, { metricName: `${this.metricName}_count`, labels: { ...labels }, value: total }];
    });
  }

  override async get(): Promise<MetricObject> {
    // The declared enum has numbers, the library itself uses these words.
    return { ...(await super.get()), type: 'histogram' as unknown as MetricType, values: this.values };
  }
}
