import { type Clock, backoffMs } from '../clock.js';
import type { CommandFailure, CommandRunner } from './command-runner.js';
import { type CommandKey, type HostCommands, type PeerInput, areSameInputs } from './host-commands.js';
import type { FailingCommand } from './status.js';

/** Commands that run at the same time: enough to keep two processors busy, too few to starve a host of processes. */
const PARALLEL = 8;

/** What failed because something else was not ready is soon tried again, what keeps failing about once a minute. */
const RETRY_BASE_MS = 500;
const RETRY_CAP_MS = 60_000;

/** A removal that fails so often, within some ten seconds, fails because there is nothing to remove, or always will. */
const REMOVAL_ATTEMPTS = 5;

/** A peer, what is wanted for it and what was done. */
interface Entry {
  readonly subnet: string;
  wanted: PeerInput | undefined;
  /** What SubnetAddCommand was begun with last; undefined if nothing is left of that. */
  applied: PeerInput | undefined;
  /** Whether an earlier process has begun it: then it may have gone with that process. */
  isFormer: boolean;
  /** Whether that did what it was to do. */
  isDone: boolean;
  isBusy: boolean;
  /** Attempts in a row that have failed for what is wanted now. */
  attempts: number;
  failing: { readonly command: CommandKey; readonly failure: CommandFailure } | undefined;
  cancelRetry: (() => void) | undefined;
}

/** What {@link PeerCommands} need of whoever has made them. */
export interface PeerCommandsOptions {
  readonly commands: HostCommands;
  readonly runner: CommandRunner;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

/**
 * SubnetAddCommand and SubnetRemoveCommand of all peers: what is wanted for each is compared with what was done for it.
 *
 * API: {@link follow} with all peers whenever they have changed, {@link drain} to have everything removed.
 * Rules: never two commands at a time for one subnet. A peer that changed is removed with its former values and added
 * with the new ones; so is one whose SubnetAddCommand failed, since half of it may have been done, and `ip route add`
 * fails as long as the route is there. Adding is tried until it succeeds, removing some times, and what an earlier
 * process made once.
 * Limits: {@link PARALLEL} commands at a time, one timer for each peer that fails.
 */
export class PeerCommands {
  readonly #options: PeerCommandsOptions;
  readonly #entries = new Map<string, Entry>();
  readonly #queue = new Set<Entry>();
  #running = 0;
  #inputs: readonly PeerInput[] = [];
  #whenEmpty: (() => void) | undefined;

  constructor(options: PeerCommandsOptions) {
    this.#options = options;
  }

  /** How many peers there are whose commands have done what they are to do, and how many others. */
  get counts(): { readonly done: number; readonly waiting: number } {
    const done = [...this.#entries.values()].filter(isSettled).length;
    return { done, waiting: this.#entries.size - done };
  }

  get failing(): readonly FailingCommand[] {
    return [...this.#entries.values()].flatMap(({ subnet, failing, attempts }) =>
      failing === undefined ? [] : [{ command: failing.command, peer: subnet, ...failing.failure, attempts }],
    );
  }

  /** Says for which peers an earlier process may have left something behind; before the first {@link follow}. */
  assume(inputs: readonly PeerInput[]): void {
    for (const input of inputs) {
      const entry = this.#entryOf(input.subnet);
      entry.applied = input;
      entry.isFormer = true;
      this.#enqueue(entry);
    }
  }

  /** Says which peers there are from now on. */
  follow(inputs: readonly PeerInput[]): void {
    const { words } = this.#options.commands;
    if (inputs === this.#inputs || (words.SubnetAddCommand ?? words.SubnetRemoveCommand) === undefined) return;
    this.#inputs = inputs;
    const wanted = new Map(inputs.map((input) => [input.subnet, input]));
    for (const entry of this.#entries.values()) if (!wanted.has(entry.subnet)) this.#want(entry, undefined);
    for (const input of wanted.values()) this.#want(this.#entryOf(input.subnet), input);
    this.#fill();
  }

  /** Removes all peers; resolves when nothing is left of them but what could not be removed. */
  async drain(): Promise<void> {
    this.follow([]);
    if (this.#entries.size === 0) return;
    await new Promise<void>((resolve) => (this.#whenEmpty = resolve));
  }

  /** Nothing is run from now on; what runs is ended by the signal. */
  close(): void {
    for (const entry of this.#entries.values()) entry.cancelRetry?.();
    this.#queue.clear();
    this.#entries.clear();
    this.#whenEmpty?.();
  }

  #entryOf(subnet: string): Entry {
    const known = this.#entries.get(subnet);
    if (known !== undefined) return known;
    const entry: Entry = {
      subnet,
      wanted: undefined,
      applied: undefined,
      isFormer: false,
      isDone: false,
      isBusy: false,
      attempts: 0,
      failing: undefined,
      cancelRetry: undefined,
    };
    this.#entries.set(subnet, entry);
    return entry;
  }

  #want(entry: Entry, input: PeerInput | undefined): void {
    if (areSameInputs(entry.wanted, input)) return;
    entry.wanted = input;
    entry.attempts = 0;
    this.#enqueue(entry);
  }

  #enqueue(entry: Entry): void {
    entry.cancelRetry?.();
    entry.cancelRetry = undefined;
    if (!entry.isBusy) this.#queue.add(entry);
  }

  #fill(): void {
    for (const entry of this.#queue) {
      if (this.#running >= PARALLEL) return;
      this.#queue.delete(entry);
      this.#running++;
      entry.isBusy = true;
      void this.#bringUpToDate(entry).then(() => {
        this.#running--;
        entry.isBusy = false;
        this.#settle(entry);
        this.#fill();
      });
    }
  }

  /** One attempt to have done for a peer what is wanted. */
  async #bringUpToDate(entry: Entry): Promise<void> {
    const { wanted, applied } = entry;
    const isAsWanted = entry.isDone && areSameInputs(applied, wanted);
    if (applied !== undefined && !(areSameInputs(applied, wanted) && entry.attempts === 0)) {
      entry.isDone = false;
      const failure = await this.#run('SubnetRemoveCommand', applied);
      // On the way to something new it may fail: perhaps there was nothing, and whether there is too much shows then.
      if (wanted === undefined && failure !== undefined) {
        if (entry.isFormer) entry.applied = undefined;
        else if (entry.wanted === wanted) this.#fail(entry, 'SubnetRemoveCommand', failure);
        return;
      }
      entry.applied = undefined;
    }
    // What is wanted may be something else by now: that has its turn next.
    if (wanted !== undefined && !isAsWanted && entry.wanted === wanted) {
      entry.applied = wanted;
      entry.isFormer = false;
      const failure = await this.#run('SubnetAddCommand', wanted);
      if (failure !== undefined) {
        if (entry.wanted === wanted) this.#fail(entry, 'SubnetAddCommand', failure);
        return;
      }
      entry.isDone = true;
    }
    this.#succeed(entry);
  }

  async #run(
    command: CommandKey,
    { data: stdin, subnet: peer, values }: PeerInput,
  ): Promise<CommandFailure | undefined> {
    const { commands, runner, signal } = this.#options;
    const result = await runner.run(commands, { command, values, stdin, peer, signal });
    return result.failure === undefined ? undefined : result;
  }

  #fail(entry: Entry, command: CommandKey, failure: CommandFailure): void {
    const { runner, signal } = this.#options;
    if (signal.aborted) return;
    const { subnet: peer, failing } = entry;
    entry.attempts++;
    const isGivenUp = command === 'SubnetRemoveCommand' && entry.attempts >= REMOVAL_ATTEMPTS;
    if (isGivenUp) {
      entry.applied = undefined;
      entry.failing = undefined;
      runner.tellFailure({ command, peer }, failure, true);
      return;
    }
    const isNews =
      failing?.command !== command ||
      failing.failure.failure !== failure.failure ||
      failing.failure.lastLine !== failure.lastLine;
    entry.failing = { command, failure };
    if (isNews) runner.tellFailure({ command, peer }, failure);
  }

  #succeed(entry: Entry): void {
    const { failing, subnet: peer } = entry;
    entry.attempts = 0;
    entry.failing = undefined;
    if (failing !== undefined) this.#options.runner.tellSuccess({ command: failing.command, peer });
  }

  /** Sees to what is to come next for a peer that has just had its turn. */
  #settle(entry: Entry): void {
    const { clock, signal } = this.#options;
    if (signal.aborted) return;
    if (entry.wanted === undefined && entry.applied === undefined) {
      this.#entries.delete(entry.subnet);
      if (this.#entries.size === 0) this.#whenEmpty?.();
    } else if (!isSettled(entry)) {
      if (entry.attempts === 0) {
        this.#enqueue(entry);
        return;
      }
      const delayMs = backoffMs(entry.attempts, RETRY_BASE_MS, RETRY_CAP_MS, () => clock.random());
      entry.cancelRetry = clock.after(delayMs, () => {
        this.#enqueue(entry);
        this.#fill();
      });
    }
  }
}

/** Whether what was done for a peer is what is wanted. */
function isSettled({ wanted, applied, isDone }: Entry): boolean {
  return wanted === undefined ? applied === undefined : isDone && areSameInputs(applied, wanted);
}
