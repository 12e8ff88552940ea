import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import type { DaemonStatus } from '../../src/observe/status.js';
import { type Daemon, type DaemonOptions, ctlFile } from '../support/daemon.js';
import type { EtcdEntry, EtcdServer } from '../support/etcd.js';
import type { Output, RunOptions } from '../support/netns.js';
import { leaseKey } from '../support/overlay.js';
import { Relay } from '../support/relay.js';
import { type Container, MEMBER_PORTS, Rig, type RigOptions } from '../support/rig.js';
import { SteadyPing } from '../support/steady-ping.js';
import { ping, startStream } from '../support/traffic.js';
import { eventually, waitFor } from '../support/wait.js';

/** Backends that the faults are tried on: one whose packets the kernel carries, and one with a data plane of ours. */
export const BACKENDS = ['vxlan', 'udp'] as const;
/** One of {@link BACKENDS}. */
export type Backend = (typeof BACKENDS)[number];

/** The network of every bed. Its hosts get their subnets from the lower part, so that tests can make leases above. */
const NETWORK = { Network: '10.5.0.0/16', SubnetMin: '10.5.1.0', SubnetMax: '10.5.31.0' } as const;

/** What a {@link FaultBed} is made of. */
export interface BedOptions extends Omit<RigOptions, 'topology'> {
  readonly backend: Backend;
  /** More keys of the network configuration, such as `SubnetMin`. */
  readonly config?: object;
  /** Numbers of the hosts whose daemons are started; the others are started with {@link FaultBed.startHost}. */
  readonly start?: readonly number[];
  /** More flags for every daemon. */
  readonly args?: readonly string[];
  /** Environment of every daemon. */
  readonly env?: Readonly<Record<string, string>>;
  /** Called when etcd runs and holds the configuration, before the first daemon starts. */
  readonly prepare?: (rig: Rig) => Promise<void>;
}

/** What the checked traffic said. */
export interface TrafficResult {
  readonly sent: number;
  readonly lost: number;
  /** Longest time in which nothing came through between some two containers. */
  readonly longestGapMs: number;
  /** Of TCP, all of it compared by digest. */
  readonly bytes: number;
}

const PING_INTERVAL_MS = 5;

/** Several daemons start at once, on machines that have other things to do. */
const START_MS = 60_000;

/** First port of the relays between hosts and etcd; that of host n is n more. */
const FIRST_RELAY_PORT = 23_000;

/**
 * Hosts with daemons and containers around an etcd, made to be damaged: every host reaches etcd through a relay of its
 * own, and traffic between all containers is checked while something happens.
 */
export class FaultBed {
  readonly #containers = new Map<number, Container>();
  #lastTraffic: TrafficResult | undefined;

  private constructor(
    readonly rig: Rig,
    readonly options: BedOptions,
    private readonly relay: Relay | undefined,
  ) {}

  /** Makes the rig, starts the daemons and waits until packets go between all containers. */
  static async create(options: BedOptions): Promise<FaultBed> {
    const rig = await Rig.create({ hosts: 3, ...options });
    try {
      const bed = new FaultBed(rig, options, await startRelay(rig));
      await bed.putConfig();
      await options.prepare?.(rig);
      await Promise.all((options.start ?? bed.numbers).map(async (number) => bed.startHost(number)));
      await bed.waitUntilConnected();
      return bed;
    } catch (error) {
      await rig.close();
      throw error;
    }
  }

  get etcd(): EtcdServer {
    return this.rig.etcd;
  }

  /** Numbers of all hosts, started or not. */
  get numbers(): readonly number[] {
    return this.rig.hosts.map((_, index) => index + 1);
  }

  /** Numbers of the hosts that have a container. */
  get started(): readonly number[] {
    return [...this.#containers.keys()].sort((a, b) => a - b);
  }

  /** The configuration, with other keys if given. */
  config(change: object = {}): object {
    return { ...NETWORK, Backend: { Type: this.options.backend }, ...this.options.config, ...change };
  }

  /** Writes the configuration, changed as asked for. */
  async putConfig(change: object = {}): Promise<void> {
    await this.rig.putConfig(this.config(change));
  }

  /** Makes and starts the daemon of a host, and a container behind it. */
  async startHost(number: number, options: Pick<DaemonOptions, 'diskBytes'> = {}): Promise<void> {
    const { clientTls } = this.etcd.options;
    const { caFile, certFile, keyFile } = clientTls ?? {};
    const tls = { cafile: caFile, certfile: certFile, keyfile: keyFile };
    const args = [
      `--etcd-endpoints=${this.endpointsOf(number)}`,
      ...Object.entries(tls).flatMap(([flag, file]) => (file === undefined ? [] : [`--etcd-${flag}=${file}`])),
      ...(this.options.args ?? []),
    ];
    const host = this.rig.host(number);
    await host.makeDaemon({ ...options, args, env: { ...this.options.env } }).startAndWait([], START_MS);
    this.#containers.set(number, await host.addContainer());
  }

  /** What `--etcd-endpoints` says on a host. */
  endpointsOf(number: number): string {
    const { etcdMembers } = this.rig;
    if (etcdMembers.length > 1) return etcdMembers.map(({ options }) => options.member?.clientUrl ?? '').join();
    const { scheme = 'http', address } = this.etcd.options;
    return `${scheme}://${address}:${FIRST_RELAY_PORT + number}`;
  }

  daemon(number: number): Daemon {
    const { daemon } = this.rig.host(number);
    if (daemon === undefined) throw new Error(`host ${number} has no daemon`);
    return daemon;
  }

  container(number: number): Container {
    const container = this.#containers.get(number);
    if (container === undefined) throw new Error(`host ${number} has no container`);
    return container;
  }

  /** What the last {@link traffic} said, even if what happened meanwhile failed. */
  get lastTraffic(): TrafficResult | undefined {
    return this.#lastTraffic;
  }

  /** The subnet of a host as FLANNEL_SUBNET has it. */
  subnetOf(number: number): string {
    return this.daemon(number).subnetEnv().FLANNEL_SUBNET ?? '';
  }

  /** Key of the lease that a host's subnet.env speaks of. */
  keyOf(number: number): string {
    return leaseKey(this.rig, this.subnetOf(number));
  }

  /** Key of any subnet, such as `10.5.7.0-24`. */
  leaseKey(name: string): string {
    return `${this.rig.etcdPrefix}/subnets/${name}`;
  }

  /** All leases in the store, bad ones included. */
  async leases(): Promise<EtcdEntry[]> {
    return this.etcd.list(`${this.rig.etcdPrefix}/subnets/`);
  }

  /** A value as another host would write it; for vxlan with a MAC that nobody has. */
  leaseValue(publicIp: string, change: object = {}): string {
    const vxlan = { BackendType: 'vxlan', BackendData: { VNI: 1, VtepMAC: macOf(publicIp) } };
    const backend = this.options.backend === 'vxlan' ? vxlan : {};
    return JSON.stringify({ PublicIP: publicIp, PublicIPv6: null, ...backend, ...change });
  }

  /** Runs `tsflannelctl` on a host, with the flags for its daemon and for etcd in the environment. */
  async ctl(number: number, args: readonly string[], options: RunOptions = {}): Promise<Output> {
    const { statusSocket, subnetFile } = this.daemon(number);
    const env = {
      FLANNELD_ETCD_ENDPOINTS: this.endpointsOf(number),
      FLANNELD_STATUS_SOCKET: statusSocket,
      FLANNELD_SUBNET_FILE: subnetFile,
    };
    return this.rig.host(number).netns.run([process.execPath, ctlFile(), ...args], { ...options, env });
  }

  /** Breaks the connection of a host to etcd until {@link heal}. */
  async cut(number: number): Promise<void> {
    await this.#relayed.cut(FIRST_RELAY_PORT + number);
  }

  async heal(number: number): Promise<void> {
    await this.#relayed.heal(FIRST_RELAY_PORT + number);
  }

  /** gRPC messages that a host has sent to etcd so far. */
  async requestsOf(number: number): Promise<number> {
    return this.#relayed.messages(FIRST_RELAY_PORT + number);
  }

  /** Damages the network of one member of a cluster. */
  memberRelay(index: number): { delay(ms: number): Promise<void>; heal(): Promise<void> } {
    const relay = this.rig.memberRelays[index];
    if (relay === undefined) throw new RangeError(`no relay ${index}`);
    const ports = Object.values(MEMBER_PORTS);
    const all = async (action: (port: number) => Promise<void>): Promise<void> => {
      for (const port of ports) await action(port);
    };
    return {
      delay: (ms) => all(async (port) => relay.delay(port, ms)),
      heal: () => all(async (port) => relay.heal(port)),
    };
  }

  /** Ends etcd, has its data changed while every daemon knows that it is away, and starts it. */
  async whileEtcdIsAway(change: () => Promise<void> | void, restart: readonly string[] = []): Promise<void> {
    const running = this.started.filter((number) => !isStopped(this.daemon(number)));
    const marks = running.map((number) => this.daemon(number).program.mark());
    await this.etcd.kill();
    await Promise.all(running.map(async (number, i) => this.daemon(number).waitForLog(/etcd lost/, 40_000, marks[i])));
    await change();
    await this.etcd.start(restart);
  }

  /** Waits until these daemons have etcd again after what is marked. @returns when the last one had it. */
  async reconnected(marks: ReadonlyMap<number, number>): Promise<number> {
    await Promise.all(
      [...marks].map(async ([number, mark]) => this.daemon(number).waitForLog(/etcd is back/, 40_000, mark)),
    );
    return performance.now();
  }

  /** Where the logs of the started daemons end now. */
  marks(numbers: readonly number[] = this.started): ReadonlyMap<number, number> {
    return new Map(numbers.map((number) => [number, this.daemon(number).program.mark()]));
  }

  /**
   * Waits until these hosts have their keys in the store, with their own public addresses.
   *
   * @param keys - default: those of the subnet.env files when called.
   */
  async waitUntilAsserted(
    numbers: readonly number[] = this.started,
    timeoutMs = 20_000,
    keys = numbers.map((number) => this.keyOf(number)),
  ): Promise<void> {
    await waitFor(
      async () => {
        const entries = new Map((await this.leases()).map(({ key, value }) => [key, value]));
        return numbers.every((number, index) => {
          const value = entries.get(keys[index] ?? '');
          return value !== undefined && publicIpOf(value) === this.rig.host(number).publicIp;
        });
      },
      { what: `the leases of hosts ${numbers.join(', ')}`, timeoutMs },
    );
  }

  /** Waits until daemons say that they are ready and the kernel is as desired. */
  async waitUntilReady(numbers: readonly number[] = this.started): Promise<void> {
    await Promise.all(numbers.map(async (number) => this.daemon(number).waitUntilReady()));
  }

  /** Waits until a ping crosses between every two containers. */
  async waitUntilConnected(numbers: readonly number[] = this.started, timeoutMs = 30_000): Promise<void> {
    await Promise.all(
      pairsOf(numbers).map(async ([from, to]) =>
        waitFor(async () => this.canPing(from, to), {
          what: `a ping from host ${from} to host ${to}; log of host ${from}:\n${this.daemon(from).log.slice(-4000)}`,
          timeoutMs,
        }),
      ),
    );
  }

  async canPing(from: number, to: number): Promise<boolean> {
    const options = { count: 1, waitSeconds: 1 };
    return (await ping(this.container(from).netns, this.container(to).address, options)).received === 1;
  }

  /**
   * Waits until the daemon follows the store: a lease that is written now appears among its peers, and goes again.
   *
   * @param writer - the etcd server that is asked to write it.
   */
  async waitUntilFollowing(number: number, timeoutMs = 10_000, writer = this.etcd): Promise<void> {
    const key = this.leaseKey(`10.5.${240 + number}.0-24`);
    const hasPeer = async (): Promise<boolean> => (await this.routeTo(number, `10.5.${240 + number}.9`)) === 'peer';
    // A cluster that is just electing a leader refuses.
    await eventually('etcd to take a lease', async () => writer.put(key, this.leaseValue(`198.51.100.${number}`)), {
      timeoutMs,
    });
    await waitFor(hasPeer, { what: `host ${number} to follow a new lease`, timeoutMs });
    await writer.delete(key);
    await waitFor(async () => !(await hasPeer()), { what: `host ${number} to follow a lease that went`, timeoutMs });
  }

  /** Whether a daemon has a peer for this address: by its route with vxlan, by its list of peers with udp. */
  async routeTo(number: number, address: string): Promise<'peer' | 'none'> {
    const { program } = this.daemon(number);
    assert.ok(program.isRunning, `the daemon of host ${number} ended: ${program.output.slice(-2000)}`);
    if (this.options.backend === 'vxlan') return isRoutedToPeer(program.pid, address) ? 'peer' : 'none';
    const subnet = address.replace(/\.\d+$/, '.0/24');
    const { peers } = await this.daemon(number).status();
    return peers.some((peer) => peer.subnet === subnet && peer.skipped === null) ? 'peer' : 'none';
  }

  /**
   * Runs traffic between containers while something happens and until it has been seen to go on afterwards: a ping
   * every 5 ms in every direction, and a TCP stream from each to the next whose digests are compared at both ends.
   *
   * @param options.among - hosts whose containers take part; default all that are started.
   * @param options.afterMs - how long pings must be seen afterwards. Default 500.
   */
  async traffic(
    action: () => Promise<void>,
    options: { readonly among?: readonly number[]; readonly afterMs?: number } = {},
  ): Promise<TrafficResult> {
    const { among = this.started, afterMs = 500 } = options;
    const ends = pairsOf(among).map(([from, to]) => [this.container(from), this.container(to)] as const);
    const streams = await Promise.all(
      among.map(async (from, index) => {
        const [near, far] = [this.container(from), this.container(among[(index + 1) % among.length] ?? from)];
        return startStream(near.netns, far.netns, far.address, { seed: from });
      }),
    );
    const pings = ends.map(([near, far]) =>
      SteadyPing.start(near.netns, far.address, { intervalMs: PING_INTERVAL_MS }),
    );
    let failure: { readonly error: unknown } | undefined;
    try {
      await action();
      await this.#observe(ends, afterMs);
    } catch (error) {
      failure = { error };
    }
    const answers = await Promise.all(pings.map(async (running) => running.stop()));
    const transfers = await Promise.allSettled(streams.map(async (stream) => stream.stop()));
    const sent = answers.reduce((sum, each) => sum + each.sent, 0);
    const received = answers.reduce((sum, each) => sum + each.received, 0);
    const result = {
      sent,
      lost: sent - received,
      longestGapMs: Math.max(...answers.map((each) => each.longestGapMs)),
      bytes: transfers.reduce((sum, each) => sum + (each.status === 'fulfilled' ? each.value.bytes : 0), 0),
    };
    this.#lastTraffic = result;
    if (failure !== undefined) throw failure.error;
    for (const each of transfers) if (each.status === 'rejected') throw each.reason;
    assert.ok(sent >= 50 * pings.length, `only ${sent} pings`);
    return result;
  }

  /** Has pings go on for a while that is measured by the pings themselves. */
  async observe(ms: number): Promise<void> {
    const [from = 1, to = 2] = this.started;
    await this.#observe([[this.container(from), this.container(to)]], ms);
  }

  async close(): Promise<void> {
    await this.rig.close();
  }

  get #relayed(): Relay {
    if (this.relay === undefined) throw new Error('a cluster has a relay before each member, not for each host');
    return this.relay;
  }

  async #observe(ends: readonly (readonly [Container, Container])[], ms: number): Promise<void> {
    const intervalMs = 20;
    const count = Math.max(1, Math.ceil(ms / intervalMs));
    await Promise.all(ends.map(async ([near, far]) => ping(near.netns, far.address, { count, intervalMs })));
  }
}

async function startRelay(rig: Rig): Promise<Relay | undefined> {
  if (rig.etcdMembers.length > 1) return undefined;
  const { netns, address } = rig.etcd.options;
  const routes = new Map(rig.hosts.map((_, index) => [FIRST_RELAY_PORT + index + 1, 2379]));
  return Relay.start(netns, address, routes);
}

function pairsOf(numbers: readonly number[]): readonly (readonly [number, number])[] {
  return numbers.flatMap((from) => numbers.filter((to) => to !== from).map((to) => [from, to] as const));
}

function macOf(publicIp: string): string {
  const bytes = publicIp.split('.').map((byte) => Number(byte).toString(16).padStart(2, '0'));
  return `02:00:${bytes.join(':')}`;
}

/**
 * Whether the /24 of an address is routed into the overlay, in the network namespace of a process. Asked every few
 * milliseconds, so not with `ip`.
 */
function isRoutedToPeer(pid: number, address: string): boolean {
  // proc_net(5): device, destination, gateway, flags, three counters, mask; addresses as the processor has them.
  const routes = readFileSync(`/proc/${pid}/net/route`, 'latin1').split('\n');
  const [a = 0, b = 0, c = 0] = address.split('.').map(Number);
  const destination = Buffer.of(0, c, b, a).toString('hex').toUpperCase();
  return routes
    .map((route) => route.split('\t'))
    .some((words) => words[0]?.startsWith('flannel') && words[1] === destination && words[7] === '00FFFFFF');
}

function isStopped(daemon: Daemon): boolean {
  if (!daemon.program.isRunning) return true;
  return /\) T /.test(readFileSync(`/proc/${daemon.program.pid}/stat`, 'utf8'));
}

/** `PublicIP` of a lease's value; undefined if it cannot be read. */
export function publicIpOf(value: string): string | undefined {
  try {
    return (JSON.parse(value) as { PublicIP?: string }).PublicIP;
  } catch {
    return undefined;
  }
}

/** Whether a host says that it holds this subnet, given as FLANNEL_SUBNET has it, and that all is well. */
export function claims({ isReady, lease }: DaemonStatus, flannelSubnet: string): boolean {
  return isReady && lease?.state === 'held' && lease.subnet === flannelSubnet.replace(/\.\d+\//, '.0/');
}

/**
 * Not one ping without an answer.
 *
 * @throws AssertionError with how many were lost, and for how long nothing came through.
 */
export function assertNothingLost({ sent, lost, longestGapMs }: TrafficResult): void {
  assert.equal(lost, 0, `${lost} of ${sent} pings lost, nothing came through for ${longestGapMs} ms`);
}

/** How many requests each of the started hosts sent to etcd while something happened. */
export async function requestsDuring(bed: FaultBed, action: () => Promise<void>): Promise<readonly number[]> {
  const count = async (): Promise<number[]> => Promise.all(bed.started.map(async (number) => bed.requestsOf(number)));
  const before = await count();
  await action();
  return (await count()).map((total, index) => total - (before[index] ?? 0));
}
