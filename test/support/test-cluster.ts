import assert from 'node:assert/strict';
import { FakeClock } from './fake-clock.js';
import { obstacle } from './reach.js';
import { SimFlannel } from './sim-flannel.js';
import { TestDaemon, type TestDaemonOptions } from './test-daemon.js';

/** In which a daemon has a lease, the others know of it, and packets pass. */
const START_MS = 3000;
/** What the longest end takes: a command of the extension backend that does not end by itself is given ten seconds. */
const STOP_MS = 12_000;

/** What {@link TestCluster.add} needs to be told about a host. */
export type TestHostOptions = Omit<TestDaemonOptions, 'clock' | 'cluster' | 'number'>;

/** The configuration of a network with one backend, as an operator writes it. */
export function networkOf(type: string, more: Readonly<Record<string, unknown>> = {}): string {
  return JSON.stringify({ Network: '10.5.0.0/16', Backend: { Type: type, ...more } });
}

/** Hosts of one etcd on one clock. Whoever makes it closes it. */
export class TestCluster {
  readonly clock = new FakeClock();
  readonly etcd = new SimFlannel(this.clock);
  private readonly daemons: TestDaemon[] = [];

  /** A host whose daemon is not started yet. */
  add(number: number, options: TestHostOptions = {}): TestDaemon {
    const daemon = new TestDaemon({ clock: this.clock, cluster: this.etcd, number, ...options });
    this.daemons.push(daemon);
    return daemon;
  }

  /** @param withinMs - the time that passes, in which all of them have to get as far as `Daemon.start()` goes. */
  async start(daemons: readonly TestDaemon[], withinMs = START_MS): Promise<void> {
    const all = Promise.all(daemons.map((daemon) => daemon.start()));
    await this.clock.advance(withinMs);
    await all;
  }

  async stop(daemon: TestDaemon): Promise<void> {
    const stopped = daemon.stop();
    await this.clock.advance(STOP_MS);
    await stopped;
  }

  /** Stops every daemon. */
  async close(): Promise<void> {
    for (const daemon of this.daemons) await this.stop(daemon);
  }

  /** The value of the lease that a daemon holds, as it is written in etcd. */
  leaseOf({ subnet }: TestDaemon): string {
    return this.etcd.lease(subnet?.replace('/', '-') ?? '')?.value ?? assert.fail(`no lease of ${String(subnet)}`);
  }
}

/** That packets get from each host to each other one. */
export function assertReach(...all: readonly TestDaemon[]): void {
  for (const { host: from } of all) {
    for (const { host: to } of all) if (from !== to) assert.equal(obstacle(from, to), undefined);
  }
}
