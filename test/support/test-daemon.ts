import { Daemon } from '../../src/daemon.js';
import type { DaemonParts } from '../../src/daemon/parts.js';
import { ProblemLog } from '../../src/daemon/problem-log.js';
import { AddressPools } from '../../src/container/address-pools.js';
import { ReachFollower } from '../../src/container/reach-follower.js';
import { describeContainerNetworks } from '../../src/daemon/container-status.js';
import type { ContainerHost, ContainerNetworks } from '../../src/daemon/container-networks.js';
import type { SharedValueStore } from '../../src/lease/store.js';
import { parseCommandLine } from '../../src/config/flags.js';
import { ServiceManager } from '../../src/systemd/notify.js';
import type { Clock } from '../../src/clock.js';
import { FakeContainerFirewall } from './fake-container-firewall.js';
import { FakeHost } from './fake-host.js';
import { FakeTunnel } from './fake-tunnel.js';
import { ip } from './builders.js';
import { RecordingLogger } from './recorder.js';
import { ProcessClock } from './sim-clock.js';
import { simStore } from './sim-etcd/sim-store.js';
import type { SimFlannel } from './sim-flannel.js';
import { finish } from './steps.js';

/** Where the daemon of a {@link TestDaemon} writes what Docker reads. */
export const SUBNET_FILE = '/run/flannel/subnet.env';

const PREFIX = '/coreos.com/network';
const ADDRESS_FILE = '/var/lib/tsflannel/container-addresses.json';
const REACH_FILE = '/var/lib/tsflannel/container-reach.json';

const NO_PLUGIN: Parameters<typeof describeContainerNetworks>[1] = {
  socket: '',
  networks: [],
  endpoints: [],
  calls: {},
  announcements: { announced: 0, failed: 0 },
  ports: 0,
  firewall: new FakeContainerFirewall().status(),
  kernel: { isConverged: true, conflicts: [], failures: [], blocked: 0 },
};

/** What differs between {@link TestDaemon}s. */
export interface TestDaemonOptions {
  readonly clock: Clock;
  readonly cluster: SimFlannel;
  /** 1 … 250; the host has 192.0.2.`number` + 1. */
  readonly number: number;
  /** Command line, defaults for the rest. */
  readonly flags?: readonly string[];
  /** Gives the ids of etcd leases. Default: at random. */
  readonly newEtcdLeaseId?: (() => bigint) | undefined;
  /** Whether it has networks of containers, without a plugin for Docker. Default false. */
  readonly hasContainers?: boolean;
  /** Answers questions about the daemon. Default nobody does. */
  readonly observe?: DaemonParts['observe'];
}

/** A service manager that only listens. */
class RecordingService extends ServiceManager {
  readonly messages: string[] = [];

  override ready(status: string): void {
    this.messages.push(`READY=1 ${status}`);
  }

  override status(text: string): void {
    this.messages.push(text);
  }
}

/** A whole daemon on a {@link FakeHost} and a {@link SimFlannel}: everything is real but what it acts on. */
export class TestDaemon {
  readonly host: FakeHost;
  readonly log = new RecordingLogger();
  private addresses: AddressPools | undefined;
  private instance: Daemon | undefined;
  private process: ProcessClock | undefined;
  private starts = 0;
  private service: RecordingService | undefined;

  constructor(private readonly options: TestDaemonOptions) {
    const { number } = options;
    this.host = new FakeHost(`host${number}`, ip(`192.0.2.${number + 1}`));
  }

  /** The daemon that runs, or ran last. */
  get daemon(): Daemon {
    if (this.instance === undefined) throw new Error(`${this.host.name} has no daemon yet`);
    return this.instance;
  }

  /** The addresses of containers that it gives. */
  get pools(): AddressPools {
    if (this.addresses === undefined) throw new Error(`${this.host.name} has no networks of containers`);
    return this.addresses;
  }

  /** The subnet that it holds or works with, undefined before it has one. */
  get subnet(): string | undefined {
    return finish(this.daemon.status()).lease?.subnet;
  }

  get isReady(): boolean {
    return finish(this.daemon.status()).isReady;
  }

  /** Starts a daemon, a new process on the same host if one ran before; time has to pass for it to get anywhere. */
  start(): Promise<void> {
    const commandLine = parseCommandLine([`--subnet-file=${SUBNET_FILE}`, ...(this.options.flags ?? [])], {});
    if (commandLine.kind !== 'run') throw new Error('the flags of a test ask for something else than to run');
    const { clock } = this.options;
    this.process = new ProcessClock(clock, `${this.host.name} ${++this.starts} ${clock.random()}`);
    this.instance = new Daemon(commandLine.options, this.parts(this.process));
    return this.instance.start();
  }

  /** Ends the daemon in order. */
  async stop(): Promise<void> {
    await this.daemon.stop();
  }

  /** As SIGKILL: nothing of the process goes on; kernel, files and what was sent stay. */
  kill(): void {
    const { host, options } = this;
    this.process?.end();
    options.cluster.etcd.link(host.name).abandon();
    host.kernel.dropListeners();
    for (const tunnel of host.tunnels) void tunnel.close();
    host.tunnels = [];
  }

  /** As SIGSTOP and SIGCONT. */
  setPaused(isPaused: boolean): void {
    if (isPaused) this.process?.pause();
    else this.process?.resume();
    this.options.cluster.etcd.link(this.host.name).setPaused(isPaused);
  }

  /** What the process has told the service manager: lines of status, behind `READY=1` the first one of a ready daemon. */
  get serviceMessages(): readonly string[] {
    return this.service?.messages ?? [];
  }

  /** Timers of the process that are to fire. */
  get pendingTimers(): number {
    return this.process?.pending ?? 0;
  }

  private parts(clock: Clock): DaemonParts {
    const { host, options, log: lines } = this;
    const { number } = options;
    const log = new ProblemLog(lines, () => clock.wallMs());
    const { store } = simStore(clock, {
      cluster: options.cluster.etcd,
      host: host.name,
      log,
      newEtcdLeaseId: options.newEtcdLeaseId,
    });
    this.service = new RecordingService({ environment: {}, pid: number, clock, logger: log });
    return {
      log,
      clock,
      pid: number,
      hostName: host.name,
      hostIdentity: host.name,
      machine: host.machine,
      store,
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
      programs: { run: host.programs.run, environment: {} },
      openEchoPort: host.echo.open,
      files: host.files,
      privateKeyFile: '/run/flannel/wgkey',
      secretFiles: host.secretFiles,
      service: this.service,
      deviceCounters: () => new Map(),
      ...(options.hasContainers === true && {
        containerReach: {
          host: host.name,
          follower: (onChange) =>
            new ReachFollower({ store, clock, log, files: host.files, file: REACH_FILE, etcdPrefix: PREFIX, onChange }),
        },
        openContainerNetworks: (containerHost) => this.openContainers(store, clock, containerHost),
      }),
      ...(options.observe === undefined ? {} : { observe: options.observe }),
    };
  }

  /** Addresses as they are given, without anybody who asks for them but the test. */
  private async openContainers(
    store: SharedValueStore,
    clock: Clock,
    { range, overlay, place }: ContainerHost,
  ): Promise<ContainerNetworks> {
    const { files, name } = this.host;
    const pools = await AddressPools.open({
      ...{ host: name, etcdPrefix: PREFIX, store, clock, log: this.log, files, file: ADDRESS_FILE },
      ...{ range, overlay, place, ttlSeconds: 3600 },
    });
    this.addresses = pools;
    return {
      status: () => describeContainerNetworks(name, NO_PLUGIN, pools.status()),
      observe: (world) => pools.observe(world),
      review: () => {},
      noteNeighbourhood: () => {},
      moved: () => pools.moved(),
      close: () => pools.close(),
    };
  }
}
