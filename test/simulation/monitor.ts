import { describeError } from '../../src/errors.js';
import { Prefix } from '../../src/ip/prefix.js';
import { decodeAttributes } from '../../src/lease/attributes.js';
import type { LeaseAttributes } from '../../src/lease/lease.js';
import { parseSubnetKey } from '../../src/lease/subnet-key.js';
import { ip } from '../support/builders.js';
import { obstacle } from '../support/reach.js';
import type { SimFlannel } from '../support/sim-flannel.js';
import { CALL_TIMEOUT_MS, CONVERGE_MS, MAX_LINES, MAX_REQUESTS, WINDOW_MS } from './limits.js';
import type { SimHost } from './sim-host.js';
import type { StockHost } from './stock-host.js';

/** Address of etcd, see {@link TestDaemon}. */
const ETCD = ip('192.0.2.250');

/** An etcd lease that nothing needs goes at the next keep-alive, which comes within 375 s. */
const DISCARD_MS = 400_000;

/** A lease key that can be read. */
interface Key {
  readonly name: string;
  readonly subnet: Prefix;
  /** Undefined if the value cannot be read. */
  readonly attributes: LeaseAttributes | undefined;
  readonly createRevision: number;
}

/** Two hosts, one way. */
interface Pair {
  readonly from: SimHost;
  readonly to: SimHost;
  /** Both were what they are now, and connected, for as long as it takes for everybody to know. */
  isSettled: boolean;
  /** Packets got through when it was settled. */
  couldReach: boolean;
  /** Until when on the clock it was looked at, and what was seen. */
  version: string;
  obstacle: string | undefined;
}

/** The subnet that a host works with. */
interface SubnetInUse {
  readonly subnet: string;
  /** Since when, over restarts. */
  readonly sinceMs: number;
  /** Process of the host that was seen with it. */
  readonly generation: number;
}

/** The simulation, as far as it is looked at. */
export interface Watched {
  readonly nowMs: number;
  readonly cluster: SimFlannel;
  readonly hosts: readonly SimHost[];
  readonly stock: readonly StockHost[];
  readonly openFaults: number;
  readonly lastFaultMs: number;
  readonly wanted: { readonly length: number };
  readonly wantedNetwork: Prefix;
  readonly wantedBackend: string;
  readonly leaseOwners: ReadonlyMap<string, { readonly host: SimHost; readonly generation: number }>;
  readonly restoredOrphans: ReadonlySet<string>;
  /** Whether nothing has gone wrong for that long and every host has been connected meanwhile. */
  isCalmFor(ms: number): boolean;
  tell(line: string): void;
  fail(invariant: string, detail: string): void;
}

/**
 * Looks at a simulation and fails it as soon as an invariant is broken.
 *
 * 1. *One owner*: two hosts that believe to hold overlapping subnets, and are ready, are not both connected to etcd for
 *    longer than a reconnect takes.
 * 2. *Kept peers*: hosts that did not change themselves and could exchange packets go on to be able to, and keep their
 *    subnets, whatever becomes of etcd; unless somebody else holds their subnet by etcd's word.
 * 3. *Published*: what a ready host's key says is what the host is, once it has been connected for a while.
 * 4. *Bounded*: requests and log lines in each window.
 * 5. *Guarded*: no route and no tunnel entry of a host covers etcd's or a host's own address.
 * 6. *Convergence*: a while after the last fault every host is ready, reaches each other and owns its subnet alone;
 *    some minutes later no etcd lease is left over.
 * 7. *Exceptions*: none is left to a timer, a promise or the log's "not processed".
 */
export class Monitor {
  peakRequests = 0;
  peakLines = 0;
  /** Whether everything was well when it was looked at last. */
  isConverged = false;
  private readonly pairs: readonly Pair[];
  private readonly windows = new Map<SimHost, { startMs: number; requests: number; lines: number; total: number }>();
  private readonly subnets = new Map<SimHost, SubnetInUse>();
  private readonly guarded = new Map<SimHost, string>();
  private keys: readonly Key[] = [];
  private seenRevision = '';

  constructor(private readonly simulation: Watched) {
    const { hosts } = simulation;
    this.pairs = hosts.flatMap((from) =>
      hosts
        .filter((to) => to !== from)
        .map((to) => ({ from, to, isSettled: false, couldReach: false, version: '', obstacle: 'not looked at yet' })),
    );
  }

  check(): void {
    this.readKeys();
    this.checkLogs();
    this.noteClaims();
    this.checkOwners();
    this.checkPairs();
    this.checkSubnets();
    this.checkPublished();
    this.checkGuarded();
    this.isConverged = this.simulation.isCalmFor(CONVERGE_MS);
    if (this.isConverged) this.checkConverged();
  }

  /** @param tailMs - how long nothing has happened. */
  checkEnd(tailMs: number): void {
    if (!this.isConverged) {
      const states = this.simulation.hosts.map(
        ({ name, phase, isPaused, connectedSinceMs: since }) =>
          `${name} ${phase}${isPaused ? ' paused' : ''} since ${String(since)}`,
      );
      this.fail('convergence', `faults are still open: ${this.simulation.openFaults}; ${states.join(', ')}`);
    }
    if (tailMs >= DISCARD_MS) this.checkOrphans();
  }

  private fail(invariant: string, detail: string): void {
    this.simulation.fail(invariant, detail);
  }

  /** How long ago something was done to a host or it was not connected. */
  private isSettledFor({ connectedSinceMs, touchedMs }: SimHost, ms: number): boolean {
    const { nowMs } = this.simulation;
    return connectedSinceMs !== undefined && nowMs - Math.max(connectedSinceMs, touchedMs) >= ms;
  }

  private readKeys(): void {
    const { etcd } = this.simulation.cluster;
    const revision = `${etcd.clusterId} ${etcd.revision} ${this.simulation.lastFaultMs}`;
    if (revision === this.seenRevision) return;
    this.seenRevision = revision;
    this.keys = this.simulation.cluster.leases.flatMap(({ name, value, createRevision }) => {
      try {
        return [{ name, subnet: parseSubnetKey(name).subnet, attributes: tryDecode(value), createRevision }];
      } catch {
        return []; // no lease key, which concerns nobody
      }
    });
    const texts = this.keys.map(({ name, attributes, createRevision }) => {
      return `${name}@${createRevision}=${attributes?.publicIp.toString() ?? '?'}/${attributes?.backendType ?? ''}`;
    });
    this.simulation.tell(`etcd: revision ${etcd.revision}: ${texts.join(' ')}`);
  }

  // 4 and 7

  private checkLogs(): void {
    const { nowMs, hosts } = this.simulation;
    for (const host of hosts) {
      const { lines } = host.daemon.log;
      for (const { level, message, fields } of lines.slice(host.seenLines)) {
        const { error, ...rest } = fields;
        const text = error === undefined ? '' : ` error=${describeError(error)}`;
        this.simulation.tell(`${host.name} ${level}: ${message} ${JSON.stringify(rest)}${text}`);
        if (/not processed/.test(message)) this.fail('exception', `${host.name} logs: ${message} ${text}`);
      }
      host.seenLines = lines.length;
      const { requestCount } = host.link;
      const window = this.windows.get(host);
      if (window === undefined || nowMs - window.startMs >= WINDOW_MS) {
        this.windows.set(host, { startMs: nowMs, requests: requestCount, lines: lines.length, total: 0 });
        continue;
      }
      const requests = requestCount - window.requests;
      const newLines = lines.length - window.lines;
      this.peakRequests = Math.max(this.peakRequests, requests);
      this.peakLines = Math.max(this.peakLines, newLines);
      const where = `${host.name} from ${window.startMs} ms on`;
      if (requests > MAX_REQUESTS) this.fail('bounded', `${where}: ${requests} requests`);
      if (newLines > MAX_LINES) this.fail('bounded', `${where}: ${newLines} log lines`);
    }
  }

  // 1

  private checkOwners(): void {
    const { hosts } = this.simulation;
    const holders = hosts.filter((host) => this.isSettledFor(host, CONVERGE_MS));
    for (const [index, a] of holders.entries()) {
      for (const b of holders.slice(index + 1)) {
        const [subnetA, subnetB] = [a.heldSubnet, b.heldSubnet];
        if (subnetA === undefined || subnetB?.overlaps(subnetA) !== true) continue;
        // Two hosts with one public address are one host to each other.
        if (!a.status.isReady || !b.status.isReady || a.address === b.address) continue;
        this.fail('one owner', `${a.name} holds ${subnetA.toString()}, ${b.name} ${subnetB.toString()}`);
      }
    }
  }

  // 2

  /**
   * A key of somebody else that is older than a host's own, or there in its absence, is proof that it has lost; one
   * with its address, or with its device and a foreign one, under a subnet that nobody has, in the absence of its own,
   * that it has moved.
   */
  private noteClaims(): void {
    const { hosts } = this.simulation;
    const isForged = ({ attributes, subnet }: Key, { address, addresses, vtepMac }: SimHost): boolean => {
      const publicIp = attributes?.publicIp.toString() ?? '';
      const isCopy = vtepMac !== undefined && vtepMacOf(attributes) === vtepMac && !addresses.has(publicIp);
      return (publicIp === address || isCopy) && !hosts.some((host) => host.subnet?.equals(subnet) === true);
    };
    for (const host of hosts) {
      const now = host.subnet;
      const before = this.subnets.get(host)?.subnet;
      if (now === undefined) continue;
      const subnets = before === undefined ? [now] : [now, Prefix.parse(before)];
      const isOwn = ({ attributes }: Key): boolean =>
        attributes !== undefined && host.addresses.has(attributes.publicIp.toString());
      const isClaimed = subnets.some((subnet) => {
        const own = this.keys.find((key) => key.subnet.equals(subnet) && isOwn(key));
        const isOlder = ({ createRevision }: Key): boolean => own === undefined || createRevision < own.createRevision;
        const isRival = (key: Key): boolean => key.subnet.overlaps(subnet) && !isOwn(key) && isOlder(key);
        return this.keys.some(isRival) || (own === undefined && this.keys.some((key) => isForged(key, host)));
      });
      if (isClaimed) host.touch();
    }
  }

  private checkPairs(): void {
    for (const pair of this.pairs) {
      const { from, to } = pair;
      if (from.generation === 0 || to.generation === 0) continue;
      const version = `${from.version} / ${to.version}`;
      if (version !== pair.version) {
        const before = pair.obstacle;
        pair.version = version;
        pair.obstacle = obstacle(from.daemon.host, to.daemon.host);
        if (before !== pair.obstacle) {
          this.simulation.tell(`${from.name} to ${to.name}: ${pair.obstacle ?? 'packets get through'}`);
        }
      }
      const isTouched = [from, to].some(({ touchedMs, connectedSinceMs: since }) => {
        return !pair.isSettled && (since === undefined || since < touchedMs);
      });
      const isChanged = [from, to].some(({ touchedMs }) => this.simulation.nowMs - touchedMs < CONVERGE_MS);
      // Two hosts that work with one subnet under one address take turns in the one key that there is.
      const isDoubled = [from, to].some((host) => this.hasDouble(host));
      if (isChanged || isDoubled) pair.isSettled = pair.couldReach = false;
      else if (!isTouched && [from, to].every((host) => this.isSettledFor(host, CONVERGE_MS))) pair.isSettled = true;
      if (!pair.isSettled) continue;
      if (pair.obstacle === undefined) pair.couldReach = true;
      else if (pair.couldReach) this.fail('kept peers', pair.obstacle);
    }
  }

  private hasDouble(host: SimHost): boolean {
    const subnet = host.subnet?.toString();
    return this.simulation.hosts.some(
      (other) => other !== host && other.address === host.address && other.subnet?.toString() === subnet,
    );
  }

  private checkSubnets(): void {
    for (const host of this.simulation.hosts) {
      const subnet = host.subnet?.toString();
      if (subnet === undefined) continue;
      const before = this.subnets.get(host);
      if (before?.subnet === subnet && before.generation === host.generation) continue;
      const hadToMove = before !== undefined && !this.isWanted(Prefix.parse(before.subnet));
      const isTouched = this.simulation.nowMs - host.touchedMs < CONVERGE_MS + CALL_TIMEOUT_MS;
      const isExcused = hadToMove || isTouched || this.wasCutOff(host);
      if (before !== undefined && before.subnet !== subnet && !isExcused && !this.hadItBefore(host, before)) {
        this.fail('kept subnet', `${host.name} had ${before.subnet} and has ${subnet} without need`);
      }
      const sinceMs = before?.subnet === subnet ? before.sinceMs : this.simulation.nowMs;
      this.subnets.set(host, { subnet, sinceMs, generation: host.generation });
    }
  }

  /** Whether a subnet is one of those that the configuration has, or will have once a mistake is corrected. */
  private isWanted(subnet: Prefix): boolean {
    const { wanted, wantedNetwork } = this.simulation;
    return wantedNetwork.covers(subnet) && subnet.length === wanted.length;
  }

  /** Whether another host has worked with that subnet for longer: one that came to its address took it for its own. */
  private hadItBefore(host: SimHost, { subnet, sinceMs }: SubnetInUse): boolean {
    return [...this.subnets].some(
      ([other, own]) => other !== host && own.subnet === subnet && own.sinceMs < sinceMs && other.isRunning,
    );
  }

  /** What was done to the host may not have taken effect before it was connected again. */
  private wasCutOff({ connectedSinceMs: since, touchedMs }: SimHost): boolean {
    return since === undefined || (since > touchedMs && this.simulation.nowMs - since < CONVERGE_MS);
  }

  // 3

  private checkPublished(): void {
    for (const host of this.simulation.hosts) {
      if (!this.isSettledFor(host, CONVERGE_MS) || !this.simulation.isCalmFor(0)) continue;
      const subnet = host.heldSubnet;
      if (subnet === undefined || !host.status.isReady) continue;
      const name = `${subnet.address.toString()}-${subnet.length}`;
      const key = this.keys.find((each) => each.name === name);
      const type = key?.attributes?.backendType;
      const backend = type === '' ? 'udp' : type;
      const says = `${key?.attributes?.publicIp.toString() ?? 'nothing'} ${backend ?? ''}`;
      const is = `${host.address} ${this.simulation.wantedBackend}`;
      if (says !== is) this.fail('published', `${host.name} is ready as ${is}, but ${name} says ${says}`);
    }
  }

  // 5

  private checkGuarded(): void {
    for (const host of this.simulation.hosts) {
      const { version } = host;
      if (this.guarded.get(host) === version) continue;
      this.guarded.set(host, version);
      const { kernel, tunnels } = host.daemon.host;
      const addresses = [ETCD, host.daemon.host.address];
      for (const address of addresses) {
        const route = host.daemon.host.routeTo(address);
        const device = kernel.links.get(route?.index ?? 0)?.name;
        if (device !== 'eth0') {
          this.fail('guarded', `${host.name} sends to ${address.toString()} by ${device ?? 'no device'}`);
        }
        const entries = tunnels.filter(({ isClosed }) => !isClosed).flatMap(({ spec }) => spec.peers);
        if (entries.some(({ subnet }) => subnet.contains(address))) {
          this.fail('guarded', `${host.name} has a tunnel entry that covers ${address.toString()}`);
        }
      }
    }
  }

  // 6

  private checkConverged(): void {
    const { hosts, stock } = this.simulation;
    for (const host of hosts) {
      const { isReady, notReadyBecause, peers } = host.status;
      if (!isReady) this.fail('convergence', `${host.name} is not ready: ${notReadyBecause.join('; ')}`);
      for (const { key, address } of stock) {
        const entry = this.keys.find(({ name, attributes }) => {
          return name === key && attributes?.publicIp.toString() === address;
        });
        const isClear = !this.keys.some((other) => other !== entry && entry?.subnet.overlaps(other.subnet) === true);
        const isKnown = peers.some(
          ({ publicIp, subnet }) => publicIp === address && subnet === entry?.subnet.toString(),
        );
        if (entry !== undefined && isClear && !isKnown) {
          this.fail('convergence', `${host.name} does not know ${entry.name} of ${address}`);
        }
      }
    }
    const subnets = hosts.map((host) => ({ host, subnet: host.heldSubnet }));
    for (const [index, a] of subnets.entries()) {
      for (const b of subnets.slice(index + 1)) {
        if (a.subnet !== undefined && b.subnet?.overlaps(a.subnet) === true) {
          this.fail('convergence', `${a.host.name} and ${b.host.name} both hold ${a.subnet.toString()}`);
        }
      }
    }
    const blocked = this.pairs.find((pair) => pair.obstacle !== undefined);
    if (blocked?.obstacle !== undefined) this.fail('convergence', blocked.obstacle);
  }

  private checkOrphans(): void {
    const { cluster, leaseOwners, restoredOrphans } = this.simulation;
    for (const { id } of cluster.etcd.orphanLeases()) {
      const owner = leaseOwners.get(id);
      if (owner === undefined || restoredOrphans.has(id)) continue;
      // What a process had not given up when it ended is known to nobody.
      if (owner.generation !== owner.host.generation) continue;
      this.fail('convergence', `${owner.host.name} has left the etcd lease ${BigInt(id).toString(16)} without a key`);
    }
  }
}

function tryDecode(value: string): LeaseAttributes | undefined {
  try {
    return decodeAttributes(value);
  } catch {
    return undefined; // counts as taken by somebody
  }
}

/** What a lease says of the VXLAN device of its host. */
function vtepMacOf(attributes: LeaseAttributes | undefined): unknown {
  return (attributes?.backendData as { readonly VtepMAC?: unknown } | null | undefined)?.VtepMAC;
}
