import { createHash } from 'node:crypto';
import type { Clock } from '../../clock.js';
import { CoalescingTask } from '../../coalescing-task.js';
import { guarded } from '../../guard.js';
import type { Family } from '../../ip/address.js';
import type { Logger } from '../../log.js';
import { type RunCommand, runCommand } from '../../sys/command.js';
import { Turns } from '../../turns.js';
import type { Deviation, DeviationKind, FlannelChain, RuleWords } from '../iptables-plan.js';
import { Iptables } from '../iptables.js';
import { type StopWatching, type WatchNftables, watchNftables } from '../nft-events.js';
import { NFT_PACKAGE, listTable, removeTables } from '../nft-listing.js';
import { RuleJournal } from '../rule-journal.js';
import { runChecked } from '../run.js';
import { type ContainerRuleInput, containerRules, needsRules } from './container-rules.js';
import { type NftTable, tableComments, tableScript } from './nft-script.js';

/** Where the rules of one daemon are. */
export interface ContainerRulePlaces {
  /** Family and name. */
  readonly table: string;
  /** In the table `filter` of iptables, where there is one. */
  readonly chain: FlannelChain;
}

/** Places of the daemon of that instance: several on one host do not meet. */
export function containerRulePlaces(instance: string): ContainerRulePlaces {
  const id = createHash('sha256').update(instance).digest('hex').slice(0, 8);
  return {
    table: `inet tsflannel-${id}`,
    chain: { table: 'filter', chain: `TSFLANNEL-${id}`, parent: 'FORWARD', comment: 'tsflannel containers' },
  };
}

/** What status and metrics show. */
export interface ContainerFirewallStatus {
  readonly table: string;
  /** Whether the last look found, or put, everything in place; true where nothing is wanted. */
  readonly isInPlace: boolean;
  readonly repaired: Readonly<Record<DeviationKind, number>>;
  readonly lastError: string | undefined;
}

/** What a {@link ContainerFirewall} works with. */
export interface ContainerFirewallOptions {
  readonly log: Logger;
  readonly clock: Clock;
  readonly instance: string;
  /** Time between two looks; 0 looks only on change events. */
  readonly resyncMs: number;
  /** For tests; default the programs of this host. */
  readonly run?: RunCommand;
  /** For tests; default the kernel's notifications. */
  readonly watch?: WatchNftables;
}

const FAMILIES: readonly Family[] = [4, 6];

/** However quiet the kernel is, so often is looked whether notifications can be trusted. */
const UNPROMPTED_LOOK_MS = 60_000;

/** iptables-nft has the chain FORWARD in a table of this name. */
const IPTABLES_TABLE = 'filter';

/** Others rewrite the tables of iptables all the time; a FORWARD without our jump is put right after this. */
const IPTABLES_SETTLE_MS = 1_000;

/**
 * What Docker's policy DROP for FORWARD would take: the table of nftables has decided already who reaches whom, and
 * an `accept` there is not one here. By the names of our bridges, whatever networks there are.
 */
const forwardWords = ({ comment }: FlannelChain): readonly RuleWords[] =>
  ['-i', '-o'].map((side) => [side, 'tsfb-+', '-m', 'comment', '--comment', comment, '-j', 'ACCEPT']);

/**
 * The rules of routed container networks in this host's packet filter: puts them in place, looks after them, removes them.
 *
 * API: {@link apply} with what is wanted, {@link status}, {@link close}, {@link cleanup}.
 * Threads: work is done by child processes, one at a time; calls queue up behind each other.
 * Limits: what others drop stays dropped, except by the policy of FORWARD in iptables.
 * Errors: `ERR_FIREWALL`, `ERR_PROGRAM`. A failed {@link apply} is tried again at every look, so the caller may go on.
 * Counters: repairs by kind, in {@link status}.
 */
export class ContainerFirewall {
  private readonly places: ContainerRulePlaces;
  private readonly run: RunCommand;
  private readonly iptables: Iptables;
  private readonly journal: RuleJournal;
  private readonly turns = new Turns();
  private readonly looks: CoalescingTask;
  private readonly onChange: (tables: ReadonlySet<string> | undefined) => void;
  private stopWatching: StopWatching | undefined;

  private wanted: NftTable | undefined;
  /** What was listed right after the last write; undefined until then. */
  private written: string | undefined;
  /** Whether what an earlier process left, if nothing is wanted, is known to be gone. */
  private isRemoved = false;
  /** Whether what an earlier process left is there in place of what is wanted. */
  private isKept = false;
  private mayHaveChanged = true;
  private lastLookMs = -Infinity;
  /** Whether the kernel reports every change: those of iptables-legacy it does not. */
  private isReported = true;
  private isClosed = false;

  constructor(private readonly options: ContainerFirewallOptions) {
    const { clock, log } = options;
    this.places = containerRulePlaces(options.instance);
    this.run = options.run ?? runCommand;
    this.iptables = new Iptables(this.run, log);
    this.journal = new RuleJournal(options);
    this.looks = new CoalescingTask(clock, () => this.lookIfDue());
    const recover = (): void => void (this.mayHaveChanged = true);
    this.onChange = guarded({ logger: log, clock, what: 'changes of nftables', recover }, (tables) =>
      this.takeChange(tables),
    );
  }

  /**
   * Makes the packet filter what it should be; what is so already is not written again.
   *
   * @param input - undefined, or nothing to filter ({@link needsRules}): nothing of ours is there.
   * @param options.isProvisional - not everything is known yet: what an earlier process left is better.
   * @throws {@link OverlayError} `ERR_FIREWALL`, `ERR_PROGRAM`; it is logged, and tried again at every look.
   */
  apply(input: ContainerRuleInput | undefined, { isProvisional = false } = {}): Promise<void> {
    return this.turns.take(async () => {
      if (this.isClosed || (isProvisional && (await this.isLeftThere()))) return;
      const wanted = input !== undefined && needsRules(input) ? containerRules(this.places.table, input) : undefined;
      const isSame =
        wanted !== undefined && this.wanted !== undefined && tableScript(wanted) === tableScript(this.wanted);
      this.wanted = wanted;
      this.isKept = false;
      if (isSame && this.written !== undefined) return;
      this.written = undefined;
      this.scheduleLook();
      try {
        await this.look();
        this.journal.noteSuccess();
      } catch (error) {
        this.journal.tellError(error);
        throw error;
      }
    });
  }

  status(): ContainerFirewallStatus {
    const isInPlace = this.isKept || this.wanted === undefined || this.written !== undefined;
    const { lastError, repaired } = this.journal;
    return { table: this.places.table, isInPlace: isInPlace && lastError === undefined, repaired, lastError };
  }

  /** Stops looking after the rules and leaves them in place: containers go on. Idempotent. */
  async close(): Promise<void> {
    this.isClosed = true;
    this.stopWatching?.();
    this.stopWatching = undefined;
    await this.looks.close();
    await this.turns.take(() => Promise.resolve());
  }

  /**
   * Stops looking after the rules and removes them.
   *
   * @returns what was removed, for people.
   * @throws {@link OverlayError} `ERR_FIREWALL`, `ERR_PROGRAM`
   */
  async cleanup(): Promise<readonly string[]> {
    await this.close();
    return this.remove();
  }

  private async isLeftThere(): Promise<boolean> {
    if (this.wanted === undefined) {
      this.isKept = (await listTable(this.run, this.places.table).catch(() => undefined)) !== undefined;
    }
    return this.isKept;
  }

  private async remove(): Promise<readonly string[]> {
    const { table, chain } = this.places;
    const removed = [...(await removeTables(this.run, this.options.log, [table]))];
    for (const family of FAMILIES) removed.push(...(await this.iptables.removeChain(family, chain)));
    return removed;
  }

  private async look(): Promise<void> {
    const { wanted } = this;
    this.mayHaveChanged = false;
    this.lastLookMs = this.options.clock.monotonicMs();
    if (wanted === undefined) {
      if (this.isRemoved) return;
      this.stopWatching?.();
      this.stopWatching = undefined;
      const removed = await this.remove();
      this.isRemoved = true;
      if (removed.length > 0)
        this.options.log.info('removed rules of container networks', { detail: removed.join(', ') });
      return;
    }
    this.isRemoved = false;
    this.startWatching();
    const isFirst = this.written === undefined;
    const deviations = [...(await this.putTable(wanted)), ...(await this.putChains())];
    if (!isFirst) this.journal.noteRepairs(deviations);
  }

  private async putTable(wanted: NftTable): Promise<readonly Deviation[]> {
    const object = wanted.name;
    const found: Deviation[] = [];
    if (this.written !== undefined) {
      const listing = await listTable(this.run, wanted.name);
      if (listing?.fingerprint === this.written) return [];
      found.push({ kind: listing === undefined ? 'table-missing' : 'table-changed', object });
    }
    await runChecked(this.run, {
      program: 'nft',
      args: ['-f', '-'],
      stdin: tableScript(wanted),
      task: 'write the rules of container networks',
      packageName: NFT_PACKAGE,
    });
    const after = await listTable(this.run, wanted.name);
    // Somebody who changed the table between writing and listing must not become what later looks compare with.
    this.written = after?.comments.join('\n') === tableComments(wanted).join('\n') ? after.fingerprint : undefined;
    return found;
  }

  private async putChains(): Promise<readonly Deviation[]> {
    const { chain } = this.places;
    const deviations: Deviation[] = [];
    this.isReported = true;
    for (const family of FAMILIES) {
      const features = await this.iptables.features(family);
      if (features === undefined) continue; // nobody has a policy there
      if (features.variant === 'legacy') this.isReported = false;
      deviations.push(...(await this.iptables.putChain(family, chain, forwardWords(chain))));
    }
    return deviations;
  }

  private async lookIfDue(): Promise<void> {
    if (this.isLookDue()) {
      await this.turns.take(async () => {
        if (this.isClosed) return;
        try {
          await this.look();
          this.journal.noteSuccess();
        } catch (error) {
          this.journal.tellError(error);
        }
      });
    }
    this.scheduleLook();
  }

  private scheduleLook(): void {
    const { resyncMs } = this.options;
    const isWanted = this.wanted !== undefined || !this.isRemoved;
    if (resyncMs > 0 && isWanted) this.looks.schedule(resyncMs);
  }

  /** A look at rules that nobody touched is spared where the kernel would have told. */
  private isLookDue(): boolean {
    const isRecent = this.options.clock.monotonicMs() - this.lastLookMs < UNPROMPTED_LOOK_MS;
    const isTold = this.stopWatching !== undefined && this.isReported;
    return (
      !isTold || !isRecent || this.mayHaveChanged || this.written === undefined || this.journal.lastError !== undefined
    );
  }

  private startWatching(): void {
    if (this.stopWatching !== undefined) return;
    try {
      this.stopWatching = (this.options.watch ?? watchNftables)(this.onChange);
    } catch (error) {
      this.options.log.warn('changes of firewall rules are noticed only by the timer', { error });
    }
  }

  private takeChange(tables: ReadonlySet<string> | undefined): void {
    const own = this.places.table.split(' ')[1] ?? '';
    if (tables === undefined || tables.has(own)) {
      this.mayHaveChanged = true;
      this.looks.schedule(this.journal.settleMs);
    } else if (tables.has(IPTABLES_TABLE)) {
      this.mayHaveChanged = true;
      this.looks.schedule(IPTABLES_SETTLE_MS);
    }
  }
}
