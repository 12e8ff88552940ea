// npm run soak: everything that may happen to a cluster, for as long as asked for; nothing may grow and nothing get lost.
import { randomInt } from 'node:crypto';
import { readFileSync, readdirSync } from 'node:fs';
import { inspect, parseArgs } from 'node:util';
import { FaultBed } from '../faults/bed.js';
import { ACTIONS, type Action, bystandersOf, perform, settle } from './actions.js';
import { LEAST_ROUNDS, type Sample, type Trend, trend, trendTable } from './trend.js';

const HOSTS = 3;

const USAGE = readFileSync(new URL('../../.ci/usage/soak.txt', import.meta.url), 'utf8');

class UsageError extends Error {}

interface SoakOptions {
  readonly minutes: number;
  readonly seed: number;
  readonly actions: readonly Action[];
}

function readOptions(): SoakOptions | undefined {
  const { values } = parseArgs({
    options: {
      minutes: { type: 'string', default: '30' },
      seed: { type: 'string', default: String(randomInt(2 ** 31)) },
      only: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return undefined;
  const number = (name: 'minutes' | 'seed'): number => {
    const value = Number(values[name]);
    if (Number.isFinite(value) && value >= 0) return value;
    throw new UsageError(`--${name} ${values[name]}: not a number`);
  };
  const named = values.only?.split(',').map((name) => {
    const action = ACTIONS.find((each) => each.name === name);
    if (action === undefined) throw new UsageError(`--only ${name}: there is no such thing`);
    return action;
  });
  return { minutes: number('minutes'), seed: number('seed'), actions: named ?? ACTIONS };
}

/** Random numbers from 0 to below 1 that depend on the seed alone (mulberry32). */
function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function shuffled<T>(items: readonly T[], random: () => number): T[] {
  return items
    .map((item) => [random(), item] as const)
    .sort(([a], [b]) => a - b)
    .map(([, item]) => item);
}

const startedMs = performance.now();

function progress(text: string): void {
  process.stdout.write(`${((performance.now() - startedMs) / 1000).toFixed(0).padStart(6)} s  ${text}\n`);
}

/** Measures a daemon now. @param since - the end of its log and the time at the sample before. */
async function sample(
  bed: FaultBed,
  host: number,
  since: { readonly mark: number; readonly atMs: number },
): Promise<Sample> {
  const daemon = bed.daemon(host);
  const metrics = await daemon.get('/metrics');
  const metric = (name: string): number => Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(metrics)?.[1] ?? Number.NaN);
  const { pid } = daemon.program;
  return {
    residentBytes: daemon.residentBytes(),
    heapBytes: metric('nodejs_heap_size_used_bytes'),
    descriptors: readdirSync(`/proc/${pid}/fd`).length,
    threads: Number(/^Threads:\s+(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]),
    logBytesPerMinute: (daemon.program.mark() - since.mark) / ((performance.now() - since.atMs) / 60_000),
    loopDelayMs: metric('nodejs_eventloop_lag_p99_seconds') * 1000,
    etcdLeases: (await bed.etcd.leaseIds()).length,
  };
}

async function soak({ minutes, seed, actions }: SoakOptions): Promise<boolean> {
  progress(`seed ${seed}: npm run soak -- --minutes ${minutes} --seed ${seed}`);
  const random = seeded(seed);
  const bed = await FaultBed.create({ hosts: HOSTS, backend: 'vxlan' });
  const samples = new Map(bystandersOf(bed).map((host) => [host, [] as Sample[]]));
  const total = { sent: 0, lost: 0, actions: 0 };
  try {
    for (let round = 1; round <= LEAST_ROUNDS || performance.now() - startedMs < minutes * 60_000; round++) {
      const since = new Map(
        [...samples.keys()].map((host) => [host, { mark: bed.daemon(host).program.mark(), atMs: performance.now() }]),
      );
      for (const action of shuffled(actions, random)) {
        progress(`round ${round}: ${action.name}`);
        const { sent, lost } = await perform(bed, action);
        total.sent += sent;
        total.lost += lost;
        total.actions += 1;
      }
      await settle(bed);
      for (const [host, own] of samples) own.push(await sample(bed, host, since.get(host) ?? { mark: 0, atMs: 0 }));
    }
  } catch (error) {
    for (const number of bed.started)
      process.stdout.write(`\nlog of host ${number}:\n${tail(bed.daemon(number).log)}\n`);
    throw error;
  } finally {
    await bed.close();
  }
  const trends = new Map<string, readonly Trend[]>([...samples].map(([host, own]) => [`h${host}`, trend(own)]));
  const rounds = samples.get(1)?.length ?? 0;
  const happened = `${rounds} rounds, ${total.actions} faults and changes, seed ${seed}`;
  process.stdout.write(`\n${happened}; ${total.lost} of ${total.sent} pings lost\n\n`);
  process.stdout.write(trendTable(trends));
  return [...trends.values()].flat().every(({ isSteady }) => isSteady);
}

function tail(log: string): string {
  return log.split('\n').slice(-60).join('\n');
}

try {
  const options = readOptions();
  if (options === undefined) process.stdout.write(USAGE);
  else if (process.getuid?.() !== 0) throw new Error('cannot make network namespaces: only root may; run it with sudo');
  else process.exitCode = (await soak(options)) ? 0 : 1;
} catch (error) {
  const isUsage =
    error instanceof UsageError || (error as { code?: string }).code?.startsWith('ERR_PARSE_ARGS') === true;
  const text = error instanceof Error ? (isUsage ? error.message : inspect(error)) : String(error);
  process.stderr.write(`soak: ${text}\n${isUsage ? `\n${USAGE}` : ''}`);
  process.exitCode = isUsage ? 2 : 1;
}
