import { SimRandom } from '../support/sim-etcd/random.js';

/** Backends that the simulated hosts use. */
export const BACKENDS = ['udp', 'vxlan', 'host-gw'] as const;

/** Values for keys below `subnets/` that no host of ours would write; see `junk.ts`. */
export const JUNK = [
  'covers-etcd',
  'covers-underlay',
  'covers-own-address',
  'inside-own',
  'around-all',
  'outside',
  'unspecified-ip',
  'multicast-ip',
  'loopback-ip',
  'broadcast-ip',
  'overlay-ip',
  'own-ip',
  'same-mac',
  'no-key',
  'no-json',
  'deep',
  'binary',
  'huge',
] as const;

/** Configurations that a daemon has to refuse. */
export const BAD_CONFIGS = ['no-json', 'no-network', 'unknown-backend', 'multicast', 'loopback', 'underlay'] as const;

/** Something that happens to etcd, the way to it, a host, or the data. `host` is an index, `ms` how long it lasts. */
export type FaultAction =
  // etcd
  | { readonly kind: 'outage'; readonly ms: number }
  | { readonly kind: 'leaderless'; readonly ms: number; readonly isKnown: boolean }
  | {
      readonly kind: 'member';
      readonly member: number;
      readonly how: 'stop' | 'pause' | 'isolate' | 'lag';
      readonly ms: number;
    }
  | { readonly kind: 'compact' }
  /** `ms` until the configuration is there again. */
  | { readonly kind: 'wipe'; readonly ms: number; readonly hasNewId: boolean }
  /** To one of the backups made every few seconds, `age` back; other writers then make `writes` revisions at once. */
  | { readonly kind: 'restore'; readonly age: number; readonly writes: number; readonly hasNewId: boolean }
  // the way to it, of one host
  | { readonly kind: 'partition'; readonly host: number; readonly how: 'hang' | 'refuse'; readonly ms: number }
  | { readonly kind: 'one-way'; readonly host: number; readonly direction: 'request' | 'answer'; readonly ms: number }
  | { readonly kind: 'freeze'; readonly host: number; readonly ms: number }
  | { readonly kind: 'slow'; readonly host: number; readonly latencyMs: number; readonly ms: number }
  | { readonly kind: 'loss'; readonly host: number; readonly share: number; readonly ms: number }
  | { readonly kind: 'reset'; readonly host: number }
  // a host
  | { readonly kind: 'pause' | 'kill' | 'restart'; readonly host: number; readonly ms: number }
  /** Without etcd for `awayMs` after the start, if that is not 0. */
  | { readonly kind: 'reboot'; readonly host: number; readonly ms: number; readonly awayMs: number }
  | { readonly kind: 'renumber'; readonly host: number; readonly number: number }
  | { readonly kind: 'swap'; readonly host: number; readonly other: number }
  | { readonly kind: 'same-address'; readonly host: number; readonly other: number; readonly ms: number }
  | { readonly kind: 'forget-routes'; readonly host: number }
  // data
  | { readonly kind: 'backend'; readonly backend: number; readonly vni: number }
  | { readonly kind: 'subnet-length'; readonly length: number }
  | { readonly kind: 'network'; readonly second: number }
  | { readonly kind: 'wrong-network'; readonly ms: number }
  | { readonly kind: 'bad-config'; readonly config: number; readonly ms: number }
  | { readonly kind: 'delete-key' | 'expire'; readonly host: number }
  | { readonly kind: 'junk'; readonly junk: number; readonly host: number; readonly ms: number }
  | { readonly kind: 'overwrite'; readonly host: number; readonly how: 'other-ip' | 'other-type' | 'unreadable' }
  | { readonly kind: 'reserve' | 'unreserve'; readonly host: number }
  | { readonly kind: 'stock-renew'; readonly host: number };

/** A {@link FaultAction} and when it is done. */
export type Fault = FaultAction & { readonly atMs: number };

/** Everything about one run that its seed decides. */
export interface History {
  readonly seed: number;
  /** When each host's daemon is started first. */
  readonly startsMs: readonly number[];
  /** Hosts that run flannel's own daemon, and when they are started. */
  readonly stockStartsMs: readonly number[];
  readonly members: number;
  readonly backend: number;
  readonly faults: readonly Fault[];
  /** How long it goes on after the last fault is over. */
  readonly tailMs: number;
}

/** When the first fault may come: every host that starts with the cluster is ready by then. */
const CALM_MS = 6000;

/** Most histories end as soon as everything has to be well again; some wait for what may take minutes. */
const SHORT_TAIL_MS = 8000;
const LONG_TAIL_MS = 420_000;
const LONG_TAIL_SHARE = 0.04;

/** Etcd's own disasters, which each other and the hosts' make worse, are drawn most often. */
const WEIGHTS: Readonly<Record<FaultAction['kind'], number>> = {
  outage: 5,
  leaderless: 3,
  member: 3,
  compact: 4,
  wipe: 5,
  restore: 8,
  partition: 6,
  'one-way': 4,
  freeze: 2,
  slow: 4,
  loss: 4,
  reset: 2,
  pause: 4,
  kill: 5,
  restart: 4,
  reboot: 4,
  renumber: 4,
  swap: 2,
  'same-address': 1,
  'forget-routes': 1,
  backend: 3,
  'subnet-length': 1,
  network: 1,
  'wrong-network': 2,
  'bad-config': 2,
  'delete-key': 3,
  expire: 2,
  junk: 6,
  overwrite: 3,
  reserve: 1,
  unreserve: 1,
  'stock-renew': 2,
};

const KINDS = Object.keys(WEIGHTS) as readonly FaultAction['kind'][];
const TOTAL_WEIGHT = Object.values(WEIGHTS).reduce((sum, weight) => sum + weight, 0);

/** @param hosts - how many, if the seed shall not say. */
export function makeHistory(seed: number, hosts?: number): History {
  const random = new SimRandom(`history ${seed}`);
  const count = hosts ?? pick(random, [2, 2, 3, 3, 3, 3, 4, 4, 5, 6]);
  const startsMs = Array.from({ length: count }, (_, index) =>
    index > 1 && random.chance(0.2) ? Math.round(random.between(CALM_MS, 40_000)) : random.below(1000),
  );
  const stockStartsMs = random.chance(0.25) ? [1000 + random.below(3000)] : [];
  const members = random.chance(0.3) ? 3 : 1;
  const backend = random.below(BACKENDS.length);
  const faults: Fault[] = [];
  let atMs = CALM_MS;
  for (let left = 1 + random.below(8); left > 0; left--) {
    // Close together, so that one meets the consequences of another; sometimes after everything has settled.
    atMs += Math.round(random.chance(0.25) ? random.between(5000, 20_000) : random.between(0, 4000));
    faults.push({ atMs, ...makeFaultAction(random, count, members) });
  }
  const tailMs = random.chance(LONG_TAIL_SHARE) ? LONG_TAIL_MS : SHORT_TAIL_MS;
  return { seed, startsMs, stockStartsMs, members, backend, faults, tailMs };
}

function makeFaultAction(random: SimRandom, hosts: number, members: number): FaultAction {
  const kind = drawKind(random);
  const host = random.below(hosts);
  const other = (host + 1 + random.below(Math.max(1, hosts - 1))) % hosts;
  const ms = Math.round(pick(random, [500, 2000, 5000, 12_000, 30_000]) * random.between(0.5, 1.5));
  const hasNewId = random.chance(0.3);
  switch (kind) {
    case 'outage':
      return { kind, ms };
    case 'leaderless':
      return { kind, ms: Math.min(ms, 15_000), isKnown: random.chance(0.7) };
    case 'member':
      return { kind, member: random.below(members), how: pick(random, ['stop', 'pause', 'isolate', 'lag']), ms };
    case 'wipe':
      return { kind, ms: random.chance(0.3) ? 0 : Math.min(ms, 20_000), hasNewId };
    case 'restore':
      return {
        kind,
        age: 1 + random.below(6),
        writes: random.chance(0.5) ? 0 : 1 + random.below(30),
        hasNewId,
      };
    case 'partition':
      return { kind, host, how: pick(random, ['hang', 'refuse']), ms };
    case 'one-way':
      return { kind, host, direction: pick(random, ['request', 'answer']), ms };
    case 'slow':
      return { kind, host, latencyMs: pick(random, [20, 200, 1000, 3000]), ms };
    case 'loss':
      return { kind, host, share: pick(random, [0.05, 0.3, 0.7]), ms: Math.min(ms, 15_000) };
    case 'reboot':
      return { kind, host, ms, awayMs: random.chance(0.5) ? 0 : Math.round(random.between(500, 20_000)) };
    case 'freeze':
    case 'pause':
    case 'kill':
    case 'restart':
      return { kind, host, ms };
    case 'renumber':
      return { kind, host, number: random.below(20) };
    case 'swap':
      return { kind, host, other };
    case 'same-address':
      return { kind, host, other, ms: Math.min(ms, 8000) };
    case 'backend':
      return { kind, backend: random.below(BACKENDS.length), vni: 1 + random.below(3) };
    case 'subnet-length':
      return { kind, length: 22 + random.below(5) };
    case 'network':
      return { kind, second: 5 + random.below(3) };
    case 'wrong-network':
      return { kind, ms: Math.min(ms, 4000) };
    case 'bad-config':
      return { kind, config: random.below(BAD_CONFIGS.length), ms };
    case 'junk':
      return { kind, junk: random.below(JUNK.length), host, ms };
    case 'overwrite':
      return { kind, host, how: pick(random, ['other-ip', 'other-type', 'unreadable']) };
    case 'reset':
    case 'forget-routes':
    case 'delete-key':
    case 'expire':
    case 'reserve':
    case 'unreserve':
    case 'stock-renew':
      return { kind, host };
    case 'compact':
      return { kind };
  }
}

function drawKind(random: SimRandom): FaultAction['kind'] {
  let ticket = random.between(0, TOTAL_WEIGHT);
  for (const kind of KINDS) {
    ticket -= WEIGHTS[kind];
    if (ticket < 0) return kind;
  }
  return 'compact';
}

function pick<T>(random: SimRandom, all: readonly T[]): T {
  const one = all[random.below(all.length)];
  if (one === undefined) throw new Error('there is nothing to choose from');
  return one;
}

/** A fault on one line. */
export function describeFault({ atMs, kind, ...rest }: Fault): string {
  const details = Object.entries(rest).map(([name, value]) => `${name}=${String(value)}`);
  return [`${(atMs / 1000).toFixed(1)} s`, kind, ...details].join(' ');
}
