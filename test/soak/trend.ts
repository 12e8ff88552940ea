/** What is measured of one daemon at the end of a round, when everything is as it was at the round's beginning. */
export interface Sample {
  readonly residentBytes: number;
  readonly heapBytes: number;
  readonly descriptors: number;
  readonly threads: number;
  readonly logBytesPerMinute: number;
  /** 99th percentile of the delay of the event loop since the sample before. */
  readonly loopDelayMs: number;
  /** Etcd leases of the whole cluster. */
  readonly etcdLeases: number;
}

/** Name of one of the numbers of a {@link Sample}. */
export type Measure = keyof Sample;

/** How far the end may be above the beginning. */
interface Tolerance {
  readonly share: number;
  readonly absolute: number;
}

const MB = 1 << 20;

/**
 * What a healthy process may differ by: heap and memory breathe with garbage collection, a descriptor or two belong to
 * a connection that is just being made; threads and etcd leases do not breathe.
 */
const TOLERANCES: Readonly<Record<Measure, Tolerance>> = {
  residentBytes: { share: 0.15, absolute: 8 * MB },
  heapBytes: { share: 0.25, absolute: 4 * MB },
  descriptors: { share: 0, absolute: 2 },
  threads: { share: 0, absolute: 0 },
  logBytesPerMinute: { share: 0.5, absolute: 2048 },
  loopDelayMs: { share: 0.5, absolute: 20 },
  etcdLeases: { share: 0, absolute: 0 },
};

/** Rounds left out at the beginning, as a part of all: caches fill, code is compiled. */
const WARM_UP_SHARE = 1 / 4;

/** Rounds that a {@link trend} needs: one to warm up, and one for each of beginning and end. */
export const LEAST_ROUNDS = 4;

/** How one measure went. */
export interface Trend {
  readonly measure: Measure;
  readonly atStart: number;
  readonly atEnd: number;
  /** Most that the end may be. */
  readonly limit: number;
  readonly isSteady: boolean;
}

/**
 * Compares the medians of the first and the last third of what follows the warm-up.
 *
 * @throws RangeError with fewer than {@link LEAST_ROUNDS} samples.
 */
export function trend(samples: readonly Sample[]): readonly Trend[] {
  if (samples.length < LEAST_ROUNDS) throw new RangeError(`${samples.length} rounds, not ${LEAST_ROUNDS}`);
  const warm = samples.slice(Math.ceil(samples.length * WARM_UP_SHARE));
  const third = Math.max(1, Math.floor(warm.length / 3));
  return (Object.keys(TOLERANCES) as Measure[]).map((measure) => {
    const values = (some: readonly Sample[]): number => median(some.map((sample) => sample[measure]));
    const [atStart, atEnd] = [values(warm.slice(0, third)), values(warm.slice(-third))];
    const { share, absolute } = TOLERANCES[measure];
    const limit = atStart * (1 + share) + absolute;
    return { measure, atStart, atEnd, limit, isSteady: atEnd <= limit };
  });
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const [upper = 0, lower = upper] = [sorted[middle], sorted[middle - 1]];
  return sorted.length % 2 === 1 ? upper : (lower + upper) / 2;
}

/** Markdown of the trends of all hosts. */
export function trendTable(trends: ReadonlyMap<string, readonly Trend[]>): string {
  const header = ['host', 'measure', 'at the beginning', 'at the end', 'at most', ''];
  const lines = [...trends].flatMap(([host, own]) =>
    own.map(({ measure, atStart, atEnd, limit, isSteady }) => {
      const [label, shown] = SHOWN[measure];
      return [host, label, shown(atStart), shown(atEnd), shown(limit), isSteady ? 'steady' : '**grows**'];
    }),
  );
  return `${[header, header.map(() => '---'), ...lines].map((cells) => `| ${cells.join(' | ')} |`).join('\n')}\n`;
}

const inMb = (bytes: number): string => `${(bytes / MB).toFixed(1)} MB`;
const SHOWN: Readonly<Record<Measure, readonly [label: string, text: (value: number) => string]>> = {
  residentBytes: ['resident memory', inMb],
  heapBytes: ['heap in use', inMb],
  descriptors: ['file descriptors', String],
  threads: ['threads', String],
  logBytesPerMinute: ['log per minute', (bytes) => `${(bytes / 1024).toFixed(1)} KB`],
  loopDelayMs: ['event-loop delay, p99', (ms) => `${ms.toFixed(1)} ms`],
  etcdLeases: ['etcd leases', String],
};
