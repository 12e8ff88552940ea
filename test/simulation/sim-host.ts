import type { DaemonStatus } from '../../src/observe/status.js';
import { Prefix } from '../../src/ip/prefix.js';
import { ip } from '../support/builders.js';
import type { SimClock } from '../support/sim-clock.js';
import type { SimLink } from '../support/sim-etcd/link.js';
import type { SimFlannel } from '../support/sim-flannel.js';
import { SUBNET_FILE, TestDaemon } from '../support/test-daemon.js';
import { finish } from '../support/steps.js';

/** What a {@link SimHost} needs. */
export interface SimHostOptions {
  readonly clock: SimClock;
  readonly cluster: SimFlannel;
  readonly number: number;
  readonly newEtcdLeaseId: () => bigint;
  /** Told of what goes wrong where nobody waits for it. */
  readonly onError: (what: string, error: unknown) => void;
}

/** One host of a simulation: the daemon on it, and what is being done to both. */
export class SimHost {
  readonly daemon: TestDaemon;
  phase: 'down' | 'up' | 'stopping' = 'down';
  isPaused = false;
  /** Number of processes that were started. */
  generation = 0;
  /** Faults on the way to etcd that are going on. */
  cuts = 0;
  /** Requests that were under way during such a fault may be waited for until then. */
  troubledUntilMs = 0;
  /** Since when nothing keeps it from etcd; undefined while something does. */
  connectedSinceMs: number | undefined;
  /** When something was done last that may change its subnet or the way to it. */
  touchedMs = 0;
  /** Every address that it has had. */
  readonly addresses = new Set<string>();
  /** Lines of its log that have been looked at. */
  seenLines = 0;
  #kernelEvents = 0;
  #status: DaemonStatus | undefined;
  #statusStep = -1;
  readonly #parsed = new Map<string, Prefix>();

  constructor(private readonly options: SimHostOptions) {
    // Probes change nothing that a history is checked for, and cost a tenth of its time.
    this.daemon = new TestDaemon({ ...options, flags: ['--peer-probe-interval=0'] });
    this.addresses.add(this.address);
    this.#watchKernel();
  }

  get name(): string {
    return this.daemon.host.name;
  }

  get address(): string {
    return this.daemon.host.address.toString();
  }

  get link(): SimLink {
    return this.options.cluster.etcd.link(this.name);
  }

  /** Whether a process runs that is not stopped. */
  get isRunning(): boolean {
    return this.phase === 'up' && !this.isPaused;
  }

  /** What the daemon says now. */
  get status(): DaemonStatus {
    const { steps } = this.options.clock;
    if (this.#status === undefined || steps !== this.#statusStep) this.#status = finish(this.daemon.daemon.status());
    this.#statusStep = steps;
    return this.#status;
  }

  /** The subnet of the lease that it believes to hold. */
  get heldSubnet(): Prefix | undefined {
    if (this.phase === 'down') return undefined;
    const { lease } = this.status;
    const isHeld = lease !== null && (lease.state === 'held' || lease.state === 'renewing');
    return isHeld ? this.#parse(lease.subnet) : undefined;
  }

  get subnetFile(): string | undefined {
    return this.daemon.host.files.texts.get(SUBNET_FILE);
  }

  /** The subnet that its containers are in, by {@link subnetFile}. */
  get subnet(): Prefix | undefined {
    const text = /^FLANNEL_SUBNET=(.*)$/m.exec(this.subnetFile ?? '')?.[1];
    return text === undefined ? undefined : this.#parse(text);
  }

  /** MAC address of its VXLAN device, if it has one. */
  get vtepMac(): string | undefined {
    return [...this.daemon.host.kernel.links.values()].find(({ kind }) => kind === 'vxlan')?.mac;
  }

  /** Another text as soon as anything has changed that its packets depend on. */
  get version(): string {
    const { tunnels } = this.daemon.host;
    const tables = tunnels.map(({ generation, isClosed }) => (isClosed ? 0 : generation)).join();
    return `${this.#kernelEvents} ${tunnels.length} ${tables} ${this.address} ${this.subnetFile ?? ''}`;
  }

  /** Starts a process unless there is one. */
  start(): void {
    if (this.phase !== 'down') return;
    this.phase = 'up';
    this.generation++;
    this.#status = undefined;
    this.touch();
    const { generation } = this;
    this.daemon.start().catch((error: unknown) => {
      if (this.generation === generation && this.phase === 'up') this.options.onError(`${this.name} start`, error);
    });
  }

  /** Ends the daemon in order. */
  async stop(): Promise<void> {
    this.phase = 'stopping';
    const { generation } = this;
    this.touch();
    try {
      await this.daemon.stop();
    } catch (error) {
      this.options.onError(`${this.name} stop`, error);
    }
    if (this.generation === generation) this.phase = 'down';
  }

  kill(): void {
    this.phase = 'down';
    this.isPaused = false;
    this.touch();
    this.daemon.kill();
    this.#watchKernel();
  }

  /** As a power cut: process, kernel state and what lies in /run are gone. */
  reboot(): void {
    this.kill();
    this.daemon.host.reboot();
  }

  setPaused(isPaused: boolean): void {
    this.isPaused = isPaused;
    this.daemon.setPaused(isPaused);
  }

  renumber(address: string): void {
    this.touch();
    this.addresses.add(address);
    this.daemon.host.renumber(ip(address));
  }

  touch(): void {
    this.touchedMs = this.options.clock.monotonicMs();
  }

  /** A host has few subnets, which are asked for at every step. */
  #parse(text: string): Prefix {
    const known = this.#parsed.get(text);
    if (known !== undefined) return known;
    const subnet = Prefix.parse(text);
    this.#parsed.set(text, subnet);
    return subnet;
  }

  #watchKernel(): void {
    this.daemon.host.kernel.subscribe(() => this.#kernelEvents++);
  }
}
