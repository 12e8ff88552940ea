import { makeBed } from './bed.js';
import { watchCpu } from './cpu.js';
import { measureMicro, type MicroResult } from './micro.js';
import type { PathOptions } from './options.js';
import { EFFORTS, probesFor } from './probes.js';
import { Progress } from './progress.js';
import { describeMachine, type Failure, type RunRecord, type Sample } from './record.js';
import { schedule, undisturbed, type Cell } from './rounds.js';
import { buildPacketGenerator } from './tools.js';

/**
 * Measures every case on every link model in every round.
 *
 * @param keep - gets the record after every case, so that a run that is ended early has measured something.
 * @remarks A case that fails is recorded and the run goes on: one variant that cannot run here must not cost an hour.
 */
export async function measurePaths(
  options: PathOptions,
  command: string,
  keep: (record: RunRecord) => void,
): Promise<RunRecord> {
  const startedAt = new Date();
  const { cases, links, rounds, isQuick } = options;
  const generator = await buildPacketGenerator();
  const machine = await describeMachine();
  const cells = schedule(cases, links, rounds);
  const progress = new Progress(cells.length);
  const samples: Sample[] = [];
  const failures: Failure[] = [];
  const recordWith = (micro: readonly MicroResult[]): RunRecord => ({
    startedAt: startedAt.toISOString(),
    seconds: (Date.now() - startedAt.getTime()) / 1000,
    command,
    isQuick,
    rounds,
    links,
    machine,
    cases: cases.map(({ name, title }) => ({ name, title })),
    samples,
    failures,
    micro,
  });
  for (const cell of cells) {
    const place = { round: cell.round, link: cell.link, case: cell.case.name };
    const title = `round ${cell.round}, ${cell.link}, ${cell.case.title}`;
    progress.begin(title);
    let probe = 'bed';
    try {
      for await (const sample of measureCell(cell, isQuick, generator, (name) => {
        probe = name;
        progress.detail(`${title}: ${name}`);
      })) {
        samples.push({ ...place, ...sample });
      }
    } catch (error) {
      failures.push({ ...place, probe, message: error instanceof Error ? error.message : String(error) });
    }
    progress.finish();
    keep(recordWith([]));
  }
  progress.close();
  return recordWith(options.hasMicro ? await measureMicro() : []);
}

async function* measureCell(
  cell: Cell,
  isQuick: boolean,
  generator: string,
  onProbe: (name: string) => void,
): AsyncGenerator<Omit<Sample, 'round' | 'link' | 'case'>> {
  const effort = isQuick ? EFFORTS.quick : EFFORTS.full;
  const finish = watchCpu();
  const bed = await makeBed(cell.case, cell.link);
  const { foreignShare, stealShare } = finish();
  try {
    const readings = { start: bed.startMs, memory: bed.idleBytes / 1e6 };
    yield { probe: 'daemon', readings, foreignShare, stealShare, tries: 1 };
    for (const probe of probesFor(cell.case, cell.link, isQuick)) {
      onProbe(probe.name);
      const { value, cpu, tries } = await undisturbed(async () => probe.run(bed, effort, generator), effort.mostTries);
      const { foreignShare, stealShare } = cpu;
      yield { probe: probe.name, ...value, foreignShare, stealShare, tries };
    }
  } finally {
    await bed.close();
  }
}
