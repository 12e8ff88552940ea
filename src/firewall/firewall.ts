import { type Clock } from '../clock.js';
import { CoalescingTask } from '../coalescing-task.js';
import { type Family } from '../ip/address.js';
import { Prefix } from '../ip/prefix.js';
import { guarded } from '../guard.js';
import { type Logger } from '../log.js';
import { type RunCommand, runCommand } from '../sys/command.js';
import type { Deviation, DeviationKind, RemovalScope } from './iptables-plan.js';
import { Iptables, type IptablesVariant } from './iptables.js';
import { type StopWatching, type WatchNftables, watchNftables } from './nft-events.js';
import { NFT_TABLES, Nftables } from './nftables.js';
import { RuleJournal } from './rule-journal.js';
import { type FamilyRules, type FirewallNetwork, firewallRules, hasRules } from './rules.js';

/** Which kernel interface carries the rules (`EnableNFTables` of the network configuration). */
export type FirewallMode = 'iptables' | 'nftables';

/** What the host's packet filter is to contain. */
export interface FirewallSpec {
  readonly mode: FirewallMode;
  /** The overlay, at most one entry for each family. */
  readonly networks: readonly FirewallNetwork[];
  /** Networks this host belonged to before, from the old subnet file; rules left over for them are removed. */
  readonly previousNetworks: readonly Prefix[];
  readonly ipMasq: boolean;
  readonly forwardRules: boolean;
  /** False for `--ip-masq-fully-random-disable`. */
  readonly isFullyRandom: boolean;
}

/** What status and metrics show. */
export interface FirewallStatus {
  readonly mode: FirewallMode | undefined;
  /** Whether the last look found, or put, everything in place. */
  readonly isInPlace: boolean;
  /** How often something had to be repaired since the start. */
  readonly repaired: Readonly<Record<DeviationKind, number>>;
  readonly lastError: string | undefined;
}

/** Whoever puts the rules in place and looks after them; {@link Firewall} is the one of this host. */
export interface RuleKeeper {
  /**
   * Makes the packet filter what it should be.
   *
   * @throws {@link OverlayError} `ERR_FIREWALL`, `ERR_PROGRAM`; it is tried again without being asked.
   */
  apply(spec: FirewallSpec): Promise<void>;
  status(): FirewallStatus;
  /** Stops looking after the rules and leaves them in place. Idempotent. */
  close(): Promise<void>;
}

/** What a {@link Firewall} works with. */
export interface FirewallOptions {
  readonly log: Logger;
  readonly clock: Clock;
  /**
   * Time between two looks (`--iptables-resync`); 0 looks only when asked to and on change events. Rules of iptables-nft
   * that the kernel reports no change of are looked at once a minute.
   */
  readonly resyncMs: number;
  /** For tests; default the programs of this host. */
  readonly run?: RunCommand;
  /** For tests; default the kernel's notifications. */
  readonly watch?: WatchNftables;
}

const FAMILIES: readonly Family[] = [4, 6];

/** However quiet the kernel is, so often is looked whether notifications can be trusted. */
const UNPROMPTED_LOOK_MS = 60_000;

/** Tables of iptables-nft that our chains are in. */
const IPTABLES_TABLES: readonly string[] = ['nat', 'filter'];

/**
 * The rules of the overlay in this host's packet filter: puts them in place, looks after them and removes them.
 *
 * API: {@link apply} with what is wanted, {@link check} for a look at once, {@link status}, {@link close}, {@link cleanup}.
 * Threads: work is done by child processes, one at a time; calls queue up behind each other.
 * Limits: chains and tables have flannel's fixed names, so only one daemon on a host can own them.
 * Errors: `ERR_FIREWALL`, `ERR_PROGRAM`. A failed {@link apply} is tried again at every look, so the caller may go on.
 * Counters: repairs by kind, in {@link status}.
 */
export class Firewall implements RuleKeeper {
  private readonly log: Logger;
  private readonly clock: Clock;
  private readonly resyncMs: number;
  private readonly watch: WatchNftables;
  private readonly onChange: (tables: ReadonlySet<string> | undefined) => void;
  private readonly iptables: Iptables;
  private readonly nftables: Nftables;

  private spec: FirewallSpec | undefined;
  /** Rules as written, which later looks compare with; undefined until everything has been put in place once. */
  private installed: readonly FamilyRules[] | undefined;
  private queue: Promise<unknown> = Promise.resolve();
  private readonly looks: CoalescingTask;
  private stopWatching: StopWatching | undefined;
  /** Whether the kernel reports every change of the rules: those of iptables-legacy it does not. */
  private isReported = false;
  /** Something may have changed since the last look. */
  private mayHaveChanged = true;
  private lastLookMs = -Infinity;
  private isClosed = false;

  private readonly journal: RuleJournal;

  constructor(options: FirewallOptions) {
    this.log = options.log;
    this.clock = options.clock;
    this.journal = new RuleJournal(options);
    this.resyncMs = options.resyncMs;
    this.looks = new CoalescingTask(this.clock, () => this.lookIfDue());
    this.watch = options.watch ?? watchNftables;
    const run = options.run ?? runCommand;
    const guard = { logger: this.log, clock: this.clock, what: 'changes of nftables' };
    const recover = (): void => void (this.mayHaveChanged = true);
    this.onChange = guarded({ ...guard, recover }, (tables) => this.takeChange(tables));
    this.iptables = new Iptables(run, options.log);
    this.nftables = new Nftables(run, options.log);
  }

  /**
   * Makes the packet filter what it should be. What a former mode, network or release left behind is removed after the
   * new rules are in place.
   *
   * @throws {@link OverlayError} `ERR_FIREWALL`, `ERR_PROGRAM` if wanted rules could not be written; it is tried again at every look.
   * A failure to remove leftovers is only logged.
   */
  async apply(spec: FirewallSpec): Promise<void> {
    await this.enqueue(async () => {
      if (this.isClosed) return;
      const before = this.spec?.mode;
      if (before !== undefined && before !== spec.mode) {
        this.log.info('firewall mode changes', { from: before, to: spec.mode });
      }
      const isSame = JSON.stringify(this.spec) === JSON.stringify(spec);
      this.spec = spec;
      if (!isSame) this.installed = undefined;
      this.scheduleLook();
      try {
        await this.look(spec);
        this.journal.noteSuccess();
      } catch (error) {
        this.journal.noteError(error);
        throw error;
      }
    });
  }

  /**
   * Looks at the rules now and repairs what somebody else changed. Failures are logged and shown by {@link status}.
   *
   * @returns what had to be repaired.
   */
  async check(): Promise<readonly Deviation[]> {
    return this.enqueue(async () => {
      const { spec } = this;
      if (spec === undefined || this.isClosed) return [];
      try {
        const deviations = await this.look(spec);
        this.journal.noteSuccess();
        return deviations;
      } catch (error) {
        this.journal.tellError(error);
        return [];
      }
    });
  }

  status(): FirewallStatus {
    return {
      mode: this.spec?.mode,
      isInPlace: this.installed !== undefined && this.journal.lastError === undefined,
      repaired: this.journal.repaired,
      lastError: this.journal.lastError,
    };
  }

  /** Stops looking after the rules and leaves them in place, as flannel does. Idempotent. */
  async close(): Promise<void> {
    this.isClosed = true;
    this.stopWatching?.();
    this.stopWatching = undefined;
    await this.looks.close();
    await this.queue;
  }

  /**
   * Stops looking after the rules and removes everything of ours in both modes: chains, jumps and tables, also those
   * that flannel left.
   *
   * @param networks - networks this host is known to belong to or to have belonged to; rules of flannel before 0.11,
   * which carry no comment, are removed for these only.
   * @returns what was removed, for people.
   * @throws {@link OverlayError} `ERR_FIREWALL`, `ERR_PROGRAM` if something could not be removed, after trying everything.
   */
  async cleanup(networks: readonly Prefix[] = []): Promise<readonly string[]> {
    await this.close();
    const removed: string[] = [];
    const errors: unknown[] = [];
    const steps = [
      ...FAMILIES.map((family) => () => {
        const direct = { directRulesOf: ofFamily(networks, family), allCommentedDirectRules: true };
        return this.iptables.remove(family, { direct });
      }),
      () => this.nftables.remove(FAMILIES),
    ];
    for (const step of steps) {
      try {
        removed.push(...(await step()));
      } catch (error) {
        errors.push(error);
      }
    }
    if (errors.length > 0) throw errors[0];
    return removed;
  }

  private async look(spec: FirewallSpec): Promise<readonly Deviation[]> {
    this.mayHaveChanged = false;
    this.lastLookMs = this.clock.monotonicMs();
    return this.installed === undefined ? this.install(spec) : this.repair(this.installed);
  }

  private async install(spec: FirewallSpec): Promise<readonly Deviation[]> {
    const networks = [...spec.networks.map(({ network }) => network), ...spec.previousNetworks];
    const stale = (family: Family): StaleRules => ({
      directRulesOf: ofFamily(uniquePrefixes(networks), family),
      allCommentedDirectRules: false,
    });
    const { rules, deviations } =
      spec.mode === 'nftables' ? await this.installNftables(spec, stale) : await this.installIptables(spec, stale);
    this.installed = rules;
    return deviations;
  }

  private async installNftables(spec: FirewallSpec, stale: StaleRulesOf): Promise<Installation> {
    const rules = firewallRules(spec);
    this.isReported = true;
    this.updateWatch();
    if (rules.some(hasRules)) await this.nftables.put(rules);
    const unused = rules.filter((family) => !hasRules(family)).map(({ family }) => family);
    await this.removeLeftovers(() => this.nftables.remove(unused));
    for (const family of FAMILIES) {
      await this.removeLeftovers(() => this.iptables.remove(family, { direct: stale(family) }));
    }
    return { rules, deviations: [] };
  }

  private async installIptables(spec: FirewallSpec, stale: StaleRulesOf): Promise<Installation> {
    const installed: FamilyRules[] = [];
    const deviations: Deviation[] = [];
    const kept = new Map<Family, IptablesVariant>();
    this.mayHaveChanged = true; // the watch begins when everything is in place
    for (const family of FAMILIES) {
      const features = await this.iptables.features(family);
      const isFullyRandom = spec.isFullyRandom && features?.isModern === true;
      const rules = firewallRules({ ...spec, isFullyRandom }).filter((candidate) => candidate.family === family);
      for (const wanted of rules.filter(hasRules)) {
        deviations.push(...(await this.iptables.put(wanted, stale(family).directRulesOf)));
        installed.push(wanted);
        if (features !== undefined) kept.set(family, features.variant);
      }
    }
    for (const family of FAMILIES) {
      await this.removeLeftovers(() => this.iptables.remove(family, { direct: stale(family), keep: kept.get(family) }));
    }
    await this.removeLeftovers(() => this.nftables.remove(FAMILIES));
    this.isReported = [...kept.values()].every((variant) => variant === 'nf_tables');
    this.updateWatch();
    return { rules: installed, deviations };
  }

  private async removeLeftovers(remove: () => Promise<readonly string[]>): Promise<void> {
    try {
      for (const object of await remove()) this.log.info('removed a rule that is no longer wanted', { detail: object });
    } catch (error) {
      this.log.warn('rules that are no longer wanted stay in place', { error });
    }
  }

  private async repair(rules: readonly FamilyRules[]): Promise<readonly Deviation[]> {
    const deviations: Deviation[] = [];
    if (this.spec?.mode === 'nftables') {
      deviations.push(...(await this.nftables.check(rules)));
    } else {
      for (const family of rules) deviations.push(...(await this.iptables.check(family)));
    }
    this.journal.noteRepairs(deviations);
    return deviations;
  }

  private async lookIfDue(): Promise<void> {
    if (this.isLookDue()) await this.check();
    this.scheduleLook();
  }

  private scheduleLook(): void {
    if (this.resyncMs > 0) this.looks.schedule(this.resyncMs);
  }

  /** A look at rules that nobody touched is spared where the kernel would have told. */
  private isLookDue(): boolean {
    const isTold = this.spec?.mode === 'iptables' && this.stopWatching !== undefined;
    const isRecent = this.clock.monotonicMs() - this.lastLookMs < UNPROMPTED_LOOK_MS;
    return (
      !isTold ||
      !isRecent ||
      this.mayHaveChanged ||
      this.installed === undefined ||
      this.journal.lastError !== undefined
    );
  }

  private updateWatch(): void {
    if (this.spec === undefined || (this.spec.mode === 'iptables' && !this.isReported)) {
      this.stopWatching?.();
      this.stopWatching = undefined;
      return;
    }
    if (this.stopWatching !== undefined) return;
    try {
      this.stopWatching = this.watch(this.onChange);
    } catch (error) {
      this.log.warn('changes of firewall rules are noticed only by the timer', { error });
    }
  }

  private takeChange(tables: ReadonlySet<string> | undefined): void {
    if (this.spec?.mode === 'iptables') {
      // For the next look: kube-proxy rewrites its chains all the time.
      if (tables === undefined || IPTABLES_TABLES.some((name) => tables.has(name))) this.mayHaveChanged = true;
      return;
    }
    const isOurs = tables === undefined || OWN_TABLE_NAMES.some((name) => tables.has(name));
    if (!isOurs) return;
    this.looks.schedule(this.journal.settleMs);
  }

  private enqueue<T>(task: () => Promise<T>): Promise<T> {
    const result = this.queue.then(task);
    this.queue = result.catch(() => {});
    return result;
  }
}

type StaleRules = Omit<RemovalScope, 'unwantedChains'>;
type StaleRulesOf = (family: Family) => StaleRules;

interface Installation {
  readonly rules: readonly FamilyRules[];
  readonly deviations: readonly Deviation[];
}

const OWN_TABLE_NAMES: readonly string[] = Object.values(NFT_TABLES).map((table) => table.split(' ')[1] ?? '');

const ofFamily = (prefixes: readonly Prefix[], family: Family): readonly Prefix[] =>
  prefixes.filter((prefix) => prefix.family === family);

function uniquePrefixes(prefixes: readonly Prefix[]): readonly Prefix[] {
  return [...new Map(prefixes.map((prefix) => [prefix.toString(), prefix])).values()];
}
