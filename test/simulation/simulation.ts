import { describeError } from '../../src/errors.js';
import { Prefix } from '../../src/ip/prefix.js';
import type { EtcdBackup } from '../support/sim-etcd/state.js';
import { SimClock } from '../support/sim-clock.js';
import { SimRandom } from '../support/sim-etcd/random.js';
import { SimFlannel } from '../support/sim-flannel.js';
import { BACKENDS, BAD_CONFIGS, type Fault, type History, JUNK, describeFault } from './history.js';
import { makeJunk } from './junk.js';
import { CALL_TIMEOUT_MS, CHECK_EVERY_MS, CONVERGE_MS } from './limits.js';
import { Monitor } from './monitor.js';
import { SimHost } from './sim-host.js';
import { StockHost } from './stock-host.js';
import { Violation } from './violation.js';

/** What came of a {@link History}. */
export interface Outcome {
  readonly violation: Violation | undefined;
  /** Simulated time. */
  readonly ms: number;
  readonly steps: number;
  /** The highest number of requests and log lines of one host in one window. */
  readonly peakRequests: number;
  readonly peakLines: number;
}

/** What the operator wants to be configured. */
interface Wanted {
  readonly second: number;
  readonly length: number;
  readonly backend: number;
  readonly vni: number;
}

interface Appointment {
  readonly atMs: number;
  readonly act: () => void;
}

const BACKUP_EVERY_MS = 4000;
const BACKUPS_KEPT = 12;
const LAG_MS = 3000;

/** Once all is well in a long tail, it is looked at less often. */
const IDLE_CHECK_MS = 5000;

/** After the last fault, a host may go on for that long to be what the fault made of it. */
const OVERWRITTEN_MS = 20_000;

/** So often it is looked at while nothing happens at all. */
const QUIET_CHECK_MS = 1000;

/** Runs a history to its end or to the first violation. @param trace - takes lines that tell all that happens. */
export async function runHistory(history: History, trace?: (line: string) => void): Promise<Outcome> {
  const simulation = new Simulation(history, trace);
  const onRejection = (error: unknown): void => {
    simulation.fail('exception', `unhandled rejection: ${describeError(error)}`);
  };
  process.on('unhandledRejection', onRejection);
  try {
    return await simulation.run();
  } finally {
    process.off('unhandledRejection', onRejection);
  }
}

/** One run: hosts with whole daemons, an etcd, an operator, and everything that goes wrong. */
export class Simulation {
  readonly clock: SimClock;
  readonly cluster: SimFlannel;
  readonly hosts: readonly SimHost[];
  readonly stock: readonly StockHost[];
  /** Faults of etcd itself that are going on. */
  etcdFaults = 0;
  /** Faults of any kind that are going on, and repairs that are still to come. */
  openFaults = 0;
  lastFaultMs = 0;
  wanted: Wanted;
  /** Whose etcd lease that is, by its id in decimal. */
  readonly leaseOwners = new Map<string, { readonly host: SimHost; readonly generation: number }>();
  /** Etcd leases without a key that came back with a backup. */
  readonly restoredOrphans = new Set<string>();
  private readonly monitor: Monitor;
  private readonly random: SimRandom;
  private readonly agenda: Appointment[] = [];
  private readonly junk = new Set<string>();
  private readonly links = new Map<SimHost, Record<'partition' | 'chance' | 'freeze', number>>();
  private backups: readonly EtcdBackup[] = [];
  private etcdTroubledUntilMs = 0;
  private compactedRevision = 0;
  private violation: Violation | undefined;

  constructor(
    readonly history: History,
    private readonly trace: ((line: string) => void) | undefined,
  ) {
    const { seed, members, startsMs, stockStartsMs, backend } = history;
    this.clock = new SimClock(seed);
    this.random = new SimRandom(`simulation ${seed}`);
    const targets = Array.from({ length: members }, (_, index) => `etcd-${index + 1}:2379`);
    this.cluster = new SimFlannel(this.clock, { seed, members: targets });
    this.wanted = { second: 5, length: 24, backend, vni: 1 };
    this.hosts = startsMs.map((_, index) => this.makeHost(index + 1));
    this.stock = stockStartsMs.map((_, index) => new StockHost(this.cluster, index + 1));
    this.monitor = new Monitor(this);
  }

  get nowMs(): number {
    return this.clock.monotonicMs();
  }

  tell(line: string): void {
    this.trace?.(`${(this.nowMs / 1000).toFixed(3).padStart(8)} ${line}`);
  }

  /** Ends the run; the first one counts. */
  fail(invariant: string, detail: string): void {
    this.violation ??= new Violation(invariant, this.nowMs, detail);
  }

  async run(): Promise<Outcome> {
    const { history, clock } = this;
    this.configure();
    history.startsMs.forEach((atMs, index) => this.at(atMs, () => this.hosts[index]?.start()));
    history.stockStartsMs.forEach((atMs, index) => {
      this.at(atMs, () => this.stock[index]?.start(this.wanted.second, this.wanted.length));
    });
    this.at(BACKUP_EVERY_MS, () => this.backUp());
    for (const fault of history.faults) this.at(fault.atMs, () => this.begin(fault));
    // Everything that happens has an appointment by the time that its fault begins.
    const lastFaultMs = Math.max(0, ...history.faults.map(({ atMs }) => atMs), ...history.startsMs);
    let endMs = lastFaultMs + history.tailMs;
    let checkMs = 0;
    let checkedMs = 0;
    let checkedSteps = -1;
    try {
      while (this.nowMs < endMs && this.violation === undefined) {
        const next = Math.min(endMs, checkMs, ...this.agenda.map(({ atMs }) => atMs));
        if (next > this.nowMs) await clock.advance(next - this.nowMs);
        const due = this.agenda.findIndex(({ atMs }) => atMs <= this.nowMs);
        if (due >= 0) this.agenda.splice(due, 1)[0]?.act();
        const troubledUntilMs = Math.max(this.etcdTroubledUntilMs, ...this.hosts.map((host) => host.troubledUntilMs));
        if (this.openFaults > 0) endMs = Math.max(endMs, this.nowMs + history.tailMs);
        endMs = Math.max(endMs, troubledUntilMs + history.tailMs);
        // A host whose key somebody keeps writing over waits longer each time before it writes its own.
        const touchedMs = Math.max(...this.hosts.map((host) => host.touchedMs));
        endMs = Math.max(endMs, Math.min(touchedMs, this.lastFaultMs + OVERWRITTEN_MS) + history.tailMs);
        if (due >= 0 && this.agenda.some(({ atMs }) => atMs <= this.nowMs)) continue;
        this.noteConnections();
        // What depends on the time alone may wait for a moment.
        if (due >= 0 || clock.steps !== checkedSteps || this.nowMs - checkedMs >= QUIET_CHECK_MS) {
          this.monitor.check();
          checkedSteps = clock.steps;
          checkedMs = this.nowMs;
        }
        const isIdle = this.monitor.isConverged && this.nowMs - this.lastFaultMs > 4 * CONVERGE_MS;
        checkMs = this.nowMs + (isIdle ? IDLE_CHECK_MS : CHECK_EVERY_MS);
      }
      this.monitor.check();
      if (this.violation === undefined) this.monitor.checkEnd(history.tailMs);
      await this.end();
    } catch (error) {
      this.fail('exception', error instanceof Error ? (error.stack ?? error.message) : describeError(error));
    }
    const { peakRequests, peakLines } = this.monitor;
    return { violation: this.violation, ms: this.nowMs, steps: clock.steps, peakRequests, peakLines };
  }

  /** Whether nothing is wrong now, and has not been for that long. */
  isCalmFor(ms: number): boolean {
    const { nowMs } = this;
    if (this.openFaults > 0 || nowMs - this.lastFaultMs < ms) return false;
    return this.hosts.every(
      ({ isRunning, connectedSinceMs: since, touchedMs }) =>
        isRunning && since !== undefined && nowMs - Math.max(since, touchedMs) >= ms,
    );
  }

  private async end(): Promise<void> {
    for (const host of this.hosts) {
      if (host.isPaused) host.setPaused(false);
      if (host.phase === 'up') void host.stop();
    }
    await this.clock.advance(2 * CALL_TIMEOUT_MS);
    if (this.violation !== undefined) {
      for (const host of this.hosts) host.kill();
      this.cluster.etcd.close();
      return;
    }
    for (const host of this.hosts) {
      if (host.phase !== 'down') this.fail('clean end', `${host.name} does not end`);
      if (host.daemon.pendingTimers > 0) {
        this.fail('clean end', `${host.name} leaves ${host.daemon.pendingTimers} timers behind`);
      }
    }
    this.cluster.etcd.close();
  }

  private makeHost(number: number): SimHost {
    const host: SimHost = new SimHost({
      clock: this.clock,
      cluster: this.cluster,
      number,
      newEtcdLeaseId: () => {
        const id = BigInt(this.random.id()) & 0x7fff_ffff_ffff_ffffn;
        this.leaseOwners.set(id.toString(), { host, generation: host.generation });
        return id;
      },
      onError: (what, error) => this.fail('exception', `${what}: ${describeError(error)}`),
    });
    this.links.set(host, { partition: 0, chance: 0, freeze: 0 });
    return host;
  }

  private at(atMs: number, act: () => void): void {
    this.agenda.push({ atMs, act });
  }

  private backUp(): void {
    this.backups = [...this.backups, this.cluster.etcd.backup()].slice(-BACKUPS_KEPT);
    this.at(this.nowMs + BACKUP_EVERY_MS, () => this.backUp());
  }

  // Configuration

  private configText({ second, length, backend, vni }: Wanted): string {
    const type = BACKENDS[backend] ?? 'udp';
    const more = type === 'vxlan' ? { VNI: vni } : {};
    return JSON.stringify({ Network: `10.${second}.0.0/16`, SubnetLen: length, Backend: { Type: type, ...more } });
  }

  /** Has the configuration written that the operator wants; hosts that go by another one will change. */
  private configure(): void {
    this.cluster.configure(this.configText(this.wanted));
    const { second, length } = this.wanted;
    for (const host of this.hosts) {
      if (host.generation === 0) continue;
      const { network } = host.status;
      const isSame = network?.ipv4 === `10.${second}.0.0/16` && network.subnetLen === length;
      if (!isSame || network.backend !== this.wantedBackend) host.touch();
    }
  }

  /** The network that is configured, or will be once a mistake is corrected. */
  get wantedNetwork(): Prefix {
    return Prefix.parse(`10.${this.wanted.second}.0.0/16`);
  }

  /** Type of the backend that is configured. */
  get wantedBackend(): string {
    return BACKENDS[this.wanted.backend] ?? 'udp';
  }

  private want(change: Partial<Wanted>): void {
    this.wanted = { ...this.wanted, ...change };
    this.configure();
    this.touchAll();
  }

  private badConfig(index: number): string {
    const network = (text: string): string => JSON.stringify({ Network: text });
    switch (BAD_CONFIGS[index] ?? 'no-json') {
      case 'no-json':
        return '{"Network": "10.5.0.0/16"';
      case 'no-network':
        return '{}';
      case 'unknown-backend':
        return '{"Network": "10.5.0.0/16", "Backend": {"Type": "pigeon"}}';
      case 'multicast':
        return network('224.0.0.0/4');
      case 'loopback':
        return network('127.0.0.0/8');
      case 'underlay':
        return network('192.0.0.0/8');
    }
  }

  // Faults

  private noteConnections(): void {
    for (const host of this.hosts) {
      const isConnected = host.isRunning && host.cuts === 0 && this.etcdFaults === 0;
      if (!isConnected) host.connectedSinceMs = undefined;
      else host.connectedSinceMs ??= Math.max(this.nowMs, host.troubledUntilMs, this.etcdTroubledUntilMs);
    }
  }

  /** Every host has to find its way back to etcd. */
  private disconnectAll(): void {
    for (const host of this.hosts) host.connectedSinceMs = undefined;
  }

  private touchAll(): void {
    for (const host of this.hosts) host.touch();
  }

  /** A fault goes on for that time; then it is healed. */
  private lasting(ms: number, heal: () => void): void {
    this.openFaults++;
    this.at(this.nowMs + ms, () => {
      this.tell('healed');
      this.openFaults--;
      this.lastFaultMs = this.nowMs;
      heal();
    });
  }

  private etcdFault(ms: number, heal: () => void, aftermathMs = 0): void {
    this.etcdFaults++;
    this.lasting(ms, () => {
      this.etcdFaults--;
      this.etcdTroubledUntilMs = Math.max(this.etcdTroubledUntilMs, this.nowMs + aftermathMs);
      heal();
    });
  }

  private linkFault(
    host: SimHost,
    kind: 'partition' | 'chance' | 'freeze',
    ms: number,
    heal: () => void,
    aftermathMs = 0,
  ): void {
    const going = this.links.get(host);
    if (going === undefined) return;
    host.cuts++;
    going[kind]++;
    this.lasting(ms, () => {
      host.cuts--;
      host.troubledUntilMs = Math.max(host.troubledUntilMs, this.nowMs + aftermathMs);
      if (--going[kind] === 0) heal();
    });
  }

  private begin(fault: Fault): void {
    this.tell(`fault: ${describeFault(fault)}`);
    this.lastFaultMs = this.nowMs;
    this.carryOut(fault);
  }

  private hostOf({ host }: { readonly host: number }): SimHost {
    const found = this.hosts[host % this.hosts.length];
    if (found === undefined) throw new Error(`there is no host ${host}`);
    return found;
  }

  private carryOut(fault: Fault): void {
    const { etcd } = this.cluster;
    switch (fault.kind) {
      case 'outage':
        this.cluster.setDown(true);
        this.etcdFault(fault.ms, () => this.cluster.setDown(false));
        return;
      case 'leaderless':
        etcd.loseLeader({ answer: fault.isKnown ? 'no leader' : 'request timed out' });
        this.etcdFault(fault.ms, () => etcd.electLeader(), CALL_TIMEOUT_MS);
        return;
      case 'member':
        this.memberFault(fault);
        return;
      case 'compact':
        if (etcd.revision > this.compactedRevision) etcd.compact();
        this.compactedRevision = etcd.revision;
        return;
      case 'wipe':
        etcd.wipe({ hasNewClusterId: fault.hasNewId });
        this.disconnectAll();
        this.lasting(fault.ms, () => this.configure());
        return;
      case 'restore':
        this.restore(fault);
        return;
      case 'partition':
      case 'one-way': {
        const host = this.hostOf(fault);
        if (fault.kind === 'partition') host.link.partition(fault.how);
        else host.link.partition('hang', { direction: fault.direction });
        this.linkFault(host, 'partition', fault.ms, () => host.link.heal());
        return;
      }
      case 'freeze': {
        const host = this.hostOf(fault);
        host.link.freezeStreams();
        this.linkFault(host, 'freeze', fault.ms, () => host.link.reset());
        return;
      }
      case 'slow':
      case 'loss': {
        const host = this.hostOf(fault);
        if (fault.kind === 'slow') host.link.setFaults('both', { latencyMs: [0, fault.latencyMs] });
        else host.link.setFaults('both', { loss: fault.share });
        const heal = (): void => host.link.setFaults('both', { latencyMs: [0, 0], loss: 0 });
        this.linkFault(host, 'chance', fault.ms, heal, CALL_TIMEOUT_MS);
        return;
      }
      case 'reset': {
        const host = this.hostOf(fault);
        host.connectedSinceMs = undefined;
        host.link.reset();
        return;
      }
      case 'pause':
      case 'kill':
      case 'reboot':
      case 'restart':
      case 'renumber':
      case 'swap':
      case 'same-address':
      case 'forget-routes':
        this.hostFault(fault);
        return;
      case 'backend':
        this.want({ backend: fault.backend, vni: fault.vni });
        return;
      case 'subnet-length':
        this.want({ length: fault.length });
        for (const stock of this.stock) stock.end();
        return;
      case 'network':
        this.want({ second: fault.second });
        for (const stock of this.stock) stock.end();
        return;
      case 'wrong-network':
        this.touchAll();
        this.cluster.configure(this.configText({ ...this.wanted, second: 99 }));
        this.lasting(fault.ms, () => {
          this.configure();
          this.touchAll();
        });
        return;
      case 'bad-config':
        this.cluster.configure(this.badConfig(fault.config));
        this.lasting(fault.ms, () => this.configure());
        return;
      case 'delete-key':
      case 'expire':
      case 'overwrite':
      case 'reserve':
      case 'unreserve':
        this.keyFault(fault);
        return;
      case 'junk':
        this.putJunk(fault);
        return;
      case 'stock-renew':
        for (const stock of this.stock) stock.renew();
        return;
    }
  }

  private memberFault({ member, how, ms }: Fault & { kind: 'member' }): void {
    const { etcd } = this.cluster;
    const target = etcd.members[member % etcd.members.length]?.target ?? '';
    const set = (isOn: boolean): void => {
      if (how === 'stop' && isOn) etcd.stopMember(target);
      else if (how === 'stop') etcd.startMember(target);
      else if (how === 'pause') etcd.setPaused(target, isOn);
      else if (how === 'isolate') etcd.setIsolated(target, isOn);
      else etcd.setLag(target, isOn ? LAG_MS : 0);
    };
    set(true);
    this.etcdFault(ms, () => set(false), CALL_TIMEOUT_MS);
  }

  /** The value under the key of the subnet that a host works with. */
  private leaseTextOf(host: SimHost): string | undefined {
    const name = host.generation === 0 ? undefined : host.daemon.subnet?.replace('/', '-');
    return name === undefined ? undefined : this.cluster.lease(name)?.value.toString();
  }

  private restore({ age, writes, hasNewId }: Fault & { kind: 'restore' }): void {
    const { etcd } = this.cluster;
    const backup = this.backups.at(-age) ?? this.backups[0];
    if (backup === undefined) return;
    const leases = new Map(this.hosts.map((host) => [host, this.leaseTextOf(host)]));
    etcd.restore(backup, { hasNewClusterId: hasNewId });
    for (const { id } of etcd.orphanLeases()) this.restoredOrphans.add(id);
    for (let n = 0; n < writes; n++) etcd.put(`/registry/${n}`, `${this.nowMs}`);
    this.disconnectAll();
    const config = etcd.get('/coreos.com/network/config')?.value;
    const isOther = config !== this.configText(this.wanted);
    if (isOther) this.touchAll();
    // The backup may tell of a former address, or what somebody wrote over the lease, until the host has written its own
    // again.
    for (const [host, before] of leases) {
      const now = this.leaseTextOf(host);
      if (host.addresses.size > 1 || (now !== undefined && now !== before)) host.touch();
    }
    const hasJunk = [...this.junk].some((name) => this.cluster.lease(name) !== undefined);
    if (!isOther && !hasJunk) return;
    this.lasting(2000, () => {
      for (const name of this.junk) this.removeJunk(name);
      if (!isOther) return;
      this.configure();
      this.touchAll();
    });
  }

  /** Whether another host has the same address for now. */
  private isShared(host: SimHost): boolean {
    return this.hosts.some((each) => each !== host && each.address === host.address);
  }

  private hostFault(
    fault: Fault & {
      kind: 'pause' | 'kill' | 'reboot' | 'restart' | 'renumber' | 'swap' | 'same-address' | 'forget-routes';
    },
  ): void {
    const host = this.hostOf(fault);
    switch (fault.kind) {
      case 'pause':
        if (!host.isRunning) return;
        host.setPaused(true);
        this.lasting(fault.ms, () => {
          if (host.isPaused) host.setPaused(false);
        });
        return;
      case 'kill':
        if (host.phase === 'down') return;
        host.kill();
        this.lasting(fault.ms, () => host.start());
        return;
      case 'reboot': {
        if (host.phase === 'down') return;
        host.reboot();
        const { awayMs, ms } = fault;
        if (awayMs > 0) {
          host.link.partition('hang');
          this.linkFault(host, 'partition', ms + awayMs, () => host.link.heal());
        }
        this.lasting(ms, () => host.start());
        return;
      }
      case 'restart': {
        if (!host.isRunning) return;
        let isStopped = false;
        const { generation } = host;
        void host.stop().then(() => (isStopped = true));
        const startWhenDown = (): void => {
          if (host.generation !== generation || host.phase === 'up') return;
          if (host.phase === 'down' && isStopped) host.start();
          else if (host.phase === 'stopping') this.lasting(CHECK_EVERY_MS, startWhenDown);
        };
        this.lasting(fault.ms, startWhenDown);
        return;
      }
      case 'renumber': {
        const address = `192.0.2.${100 + fault.number}`;
        if (host.isPaused || this.isShared(host) || this.hosts.some((each) => each.address === address)) return;
        host.renumber(address);
        return;
      }
      case 'swap': {
        const other = this.hostOf({ host: fault.other });
        if (host === other || host.isPaused || other.isPaused) return;
        if (this.isShared(host) || this.isShared(other)) return;
        const { address } = host;
        host.renumber(other.address);
        other.renumber(address);
        return;
      }
      case 'same-address': {
        const other = this.hostOf({ host: fault.other });
        if (host === other || host.isPaused || this.isShared(host) || this.isShared(other)) return;
        const before = host.address;
        host.renumber(other.address);
        other.touch();
        this.lasting(fault.ms, () => {
          host.renumber(before);
          other.touch();
        });
        return;
      }
      case 'forget-routes':
        if (host.isPaused) return;
        host.touch();
        for (const route of [...host.daemon.host.kernel.routes.values()].flat()) {
          if (route.destination.length > 0) host.daemon.host.kernel.delRoute(route);
        }
    }
  }

  private keyFault(fault: Fault & { kind: 'delete-key' | 'expire' | 'overwrite' | 'reserve' | 'unreserve' }): void {
    const host = this.hostOf(fault);
    if (host.generation === 0) return;
    const name = host.daemon.subnet?.replace('/', '-');
    const entry = name === undefined ? undefined : this.cluster.lease(name);
    if (name === undefined || entry === undefined) return;
    host.touch();
    const { etcd } = this.cluster;
    switch (fault.kind) {
      case 'delete-key':
        this.cluster.deleteLease(name);
        return;
      case 'expire':
        if (entry.leaseId !== '0') etcd.revokeLease(entry.leaseId);
        return;
      case 'overwrite': {
        const values = {
          'other-ip': '{"PublicIP":"198.51.100.7","PublicIPv6":null}',
          'other-type': JSON.stringify({ PublicIP: host.address, PublicIPv6: null, BackendType: 'pigeon' }),
          unreadable: '{"PublicIP":',
        };
        this.cluster.putLease(name, values[fault.how], entry.leaseId);
        return;
      }
      case 'reserve':
        this.cluster.putLease(name, entry.value, '0');
        return;
      case 'unreserve':
        if (entry.leaseId === '0') this.cluster.putLease(name, entry.value, etcd.grantLease(86_400));
    }
  }

  private putJunk(fault: Fault & { kind: 'junk' }): void {
    const host = this.hostOf(fault);
    const { vtepMac } = host;
    const subnet = host.generation === 0 ? undefined : host.daemon.subnet;
    const { name, value } = makeJunk(JUNK[fault.junk] ?? 'no-key', { subnet, address: host.address, vtepMac });
    if (this.cluster.lease(name) !== undefined) return;
    this.cluster.putLease(name, value);
    this.junk.add(name);
    this.lasting(fault.ms, () => this.removeJunk(name));
  }

  private removeJunk(name: string): void {
    // A host that found its own address there may have taken it.
    for (const host of this.hosts)
      if (host.generation > 0 && host.daemon.subnet?.replace('/', '-') === name) host.touch();
    this.cluster.deleteLease(name);
  }
}
