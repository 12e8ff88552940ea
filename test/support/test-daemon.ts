import { Daemon } from '../../src/daemon.js';
import type { DaemonParts } from '../../src/daemon/parts.js';
import { ProblemLog } from '../../src/daemon/problem-log.js';
import { parseCommandLine } from '../../src/config/flags.js';
import { ServiceManager } from '../../src/systemd/notify.js';
import type { FakeClock } from './fake-clock.js';
import { FakeHost } from './fake-host.js';
import { FakeTunnel } from './fake-tunnel.js';
import { ip } from './builders.js';
import { RecordingLogger } from './recorder.js';
import { simStore } from './sim-etcd/sim-store.js';
import type { SimFlannel } from './sim-flannel.js';

/** Where the daemon of a {@link TestDaemon} writes what Docker reads. */
export const SUBNET_FILE = '/run/flannel/subnet.env';

/** What differs between {@link TestDaemon}s. */
export interface TestDaemonOptions {
  readonly clock: FakeClock;
  readonly cluster: SimFlannel;
  /** 1 … 250; the host has 192.0.2.`number` + 1. */
  readonly number: number;
  /** Command line, defaults for the rest. */
  readonly flags?: readonly string[];
}

/** A whole daemon on a {@link FakeHost} and a {@link SimFlannel}: everything is real but what it acts on. */
export class TestDaemon {
  readonly host: FakeHost;
  readonly log = new RecordingLogger();
  private instance: Daemon | undefined;

  constructor(private readonly options: TestDaemonOptions) {
    const { number } = options;
    this.host = new FakeHost(`host${number}`, ip(`192.0.2.${number + 1}`));
  }

  /** The daemon that runs, or ran last. */
  get daemon(): Daemon {
    if (this.instance === undefined) throw new Error(`${this.host.name} has no daemon yet`);
    return this.instance;
  }

  /** The subnet that it holds or works with, undefined before it has one. */
  get subnet(): string | undefined {
    return this.daemon.status().lease?.subnet;
  }

  get isReady(): boolean {
    return this.daemon.status().isReady;
  }

  /** Starts a daemon, a new process on the same host if one ran before; time has to pass for it to get anywhere. */
  start(): Promise<void> {
    const commandLine = parseCommandLine([`--subnet-file=${SUBNET_FILE}`, ...(this.options.flags ?? [])], {});
    if (commandLine.kind !== 'run') throw new Error('the flags of a test ask for something else than to run');
    this.instance = new Daemon(commandLine.options, this.parts());
    return this.instance.start();
  }

  /** Ends the daemon in order. */
  async stop(): Promise<void> {
    await this.daemon.stop();
  }

  private parts(): DaemonParts {
    const { host, options, log: lines } = this;
    const { clock, number } = options;
    const log = new ProblemLog(lines, () => clock.wallMs());
    return {
      log,
      clock,
      pid: number,
      hostName: host.name,
      hostIdentity: host.name,
      store: simStore(clock, { cluster: options.cluster.etcd, host: host.name, log }).store,
      storeAddresses: () => Promise.resolve([ip('192.0.2.250')]),
      netlink: host,
      kernel: host.kernel,
      tunnels: {
        open: (tunnelOptions) => {
          const tunnel = FakeTunnel.open(tunnelOptions, host.kernel);
          host.tunnels = [...host.tunnels.filter(({ isClosed }) => !isClosed), tunnel];
          return Promise.resolve(tunnel);
        },
        workers: 1,
        disabledOffloads: [],
      },
      firewall: host.firewall,
      files: host.files,
      service: new ServiceManager({ environment: {}, pid: number, clock, logger: log }),
      deviceCounters: () => new Map(),
    };
  }
}
