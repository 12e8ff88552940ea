import { statSync } from 'node:fs';
import { ctlFile } from '../test/support/daemon.js';
import { Rig } from '../test/support/rig.js';
import type { Table } from './report.js';
import { spread } from './stats.js';
import { UNIT_NODE_OPTIONS } from './unit.js';

/** What a start costs, one value for each round. */
export interface StartResult {
  readonly emptyNodeMs: readonly number[];
  /** From the start of the process until subnet.env is there, with the lease of a run before. */
  readonly subnetEnvMs: readonly number[];
  /** The same for root without a service manager, which has the daemon begin again with fewer rights. */
  readonly subnetEnvAsRootMs: readonly number[];
  /** From the start of `tsflannelctl status` to its end. */
  readonly statusMs: readonly number[];
  /** Two seconds after the start. */
  readonly residentMb: readonly number[];
}

const ROUNDS = 9;
const REST_MS = 2000;
/** Root with the rights that the unit grants, and with its environment. */
const AS_UNIT = [
  'setpriv',
  '--inh-caps=-all',
  '--bounding-set=-all,+net_bind_service,+net_admin,+net_raw,+sys_nice,+bpf',
];

/** Measures the start of a host without peers, everything in turn: the programs as npm installs them, by this Node. */
export async function measureStart(): Promise<{ table: Table; raw: StartResult }> {
  process.stderr.write('start\n');
  const rig = await Rig.create({ hosts: 1 });
  const raw = {
    emptyNodeMs: [] as number[],
    subnetEnvMs: [] as number[],
    subnetEnvAsRootMs: [] as number[],
    statusMs: [] as number[],
    residentMb: [] as number[],
  };
  try {
    const host = rig.host(1);
    await rig.putConfig({ Network: '10.5.0.0/16', Backend: { Type: 'udp' } });
    const first = await host.startDaemon();
    await first.stop();
    for (let round = 0; round < ROUNDS; round++) {
      raw.emptyNodeMs.push(await timed(() => host.netns.run([process.execPath, '--eval', '0'])));
      for (const [within, env, times] of [
        [AS_UNIT, { NODE_OPTIONS: UNIT_NODE_OPTIONS }, raw.subnetEnvMs],
        [[], {}, raw.subnetEnvAsRootMs],
      ] as const) {
        const daemon = host.makeDaemon({ within, env });
        const startedAtMs = Date.now();
        await daemon.startAndWait();
        times.push(statSync(daemon.subnetFile).mtimeMs - startedAtMs);
        await daemon.waitUntilReady();
        if (times === raw.subnetEnvMs) {
          const status = [process.execPath, ctlFile(), 'status', '--status-socket', daemon.statusSocket];
          raw.statusMs.push(await timed(() => host.netns.run(status)));
          await new Promise((resolve) => setTimeout(resolve, REST_MS));
          raw.residentMb.push(daemon.residentBytes() / 1e6);
        }
        await daemon.stop();
      }
    }
  } finally {
    await rig.close();
  }
  return { table: tableOf(raw), raw };
}

function tableOf(raw: StartResult): Table {
  const empty = spread(raw.emptyNodeMs)?.median ?? Number.NaN;
  const row = (name: string, values: readonly number[], more = ''): string[] => {
    const { median = Number.NaN, min = Number.NaN, max = Number.NaN } = spread(values) ?? {};
    return [name, `${median.toFixed(0)} (${min.toFixed(0)}–${max.toFixed(0)})`, more];
  };
  const timesEmpty = (values: readonly number[]): string =>
    `${((spread(values)?.median ?? Number.NaN) / empty).toFixed(1)} × empty Node`;
  return {
    title: `start without peers of what npm installs, Node ${process.versions.node}, ${ROUNDS} rounds, median (range)`,
    head: ['', 'measured', ''],
    rows: [
      row('empty Node process, ms', raw.emptyNodeMs),
      row('start to subnet.env, ms', raw.subnetEnvMs, timesEmpty(raw.subnetEnvMs)),
      row('the same as root without the unit, ms', raw.subnetEnvAsRootMs, timesEmpty(raw.subnetEnvAsRootMs)),
      row('tsflannelctl status, ms', raw.statusMs, timesEmpty(raw.statusMs)),
      row('resident memory, MB', raw.residentMb),
    ],
  };
}

/** Milliseconds that it takes. */
async function timed(action: () => Promise<unknown>): Promise<number> {
  const startedMs = performance.now();
  await action();
  return performance.now() - startedMs;
}
