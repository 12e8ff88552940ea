import { type Clock, backoffMs } from '../clock.js';
import { CoalescingTask } from '../coalescing-task.js';
import type { CommandValues } from './command-text.js';
import { type CommandFailure, CommandRunner, type CommandRunnerOptions, describeFailure } from './command-runner.js';
import { type CommandKey, type HostCommands, type PeerInput, areSameCommands } from './host-commands.js';
import { PeerCommands } from './peer-commands.js';
import type { CommandsStatus, FailingCommand } from './status.js';

/** PreStartupCommand and PostStartupCommand: the host is cut off without them, so they are tried more often than peers'. */
const RETRY_BASE_MS = 1000;
const RETRY_CAP_MS = 30_000;

/** At the end of the daemon ShutdownCommand gets no longer than this, since systemd waits 15 s (TimeoutStopSec). */
const SHUTDOWN_MAX_MS = 8000;

const FAILING_SHOWN = 100;

/** What {@link BackendCommands.follow} is to bring about. */
export interface CommandTarget {
  readonly commands: HostCommands;
  /** What is told about this host's own lease; undefined while there is none to work with. */
  readonly own: CommandValues | undefined;
  readonly peers: readonly PeerInput[];
  /** What an earlier process may have left behind for peers, if this is the first that is asked for. */
  readonly former?: readonly PeerInput[];
}

/** The commands that are in use, from the beginning of PreStartupCommand to the end of ShutdownCommand. */
interface Session {
  readonly commands: HostCommands;
  readonly peerCommands: PeerCommands;
  /** What PreStartupCommand has written; undefined before it has succeeded. */
  startupOutput: string | undefined;
  /** What PostStartupCommand is told, or was told; undefined before it has begun. */
  own: CommandValues | undefined;
  hasStarted: boolean;
  isEnding: boolean;
}

/**
 * The commands of a backend on this host: which of them are to be run follows from what the daemon wants.
 *
 * ```
 *  PreStartup ─▶ (lease) ─▶ PostStartup ─▶ SubnetAdd, SubnetRemove of each peer ─▶ SubnetRemove of all ─▶ Shutdown
 *      ▲                                                                                                    │
 *      └──────────────── other commands, another lease of this host ────────────────────────────────────────┘
 * ```
 *
 * API: {@link start} before a lease is acquired, {@link follow} with every pass, {@link close} at the end, which runs
 * ShutdownCommand and leaves the peers' work as it is, as the kernel's state is left.
 * Errors: a command that fails or takes too long is tried again, later each time, and told in log, status and metrics.
 * Limits: one command of the host or eight of peers at a time.
 */
export class BackendCommands {
  readonly #clock: Clock;
  readonly #runner: CommandRunner;
  readonly #onChange: () => void;
  readonly #task: CoalescingTask;
  readonly #abort = new AbortController();
  #target: CommandTarget | undefined;
  #session: Session | undefined;
  #former: readonly PeerInput[] = [];
  #failing: { readonly what: FailingCommand; readonly retryAtMs: number } | undefined;
  #isClosed = false;

  /** @param options - `onChange` is called when {@link start} or {@link isStarting} would answer something else. */
  constructor({ onChange, ...options }: CommandRunnerOptions & { readonly onChange: () => void }) {
    this.#clock = options.clock;
    this.#runner = new CommandRunner(options);
    this.#onChange = onChange;
    this.#task = new CoalescingTask(options.clock, () => this.#advance());
  }

  /**
   * Has the commands of the configured backend started, in place of any others.
   *
   * @returns what PreStartupCommand has written, empty without one; undefined as long as it has not succeeded.
   */
  start(commands: HostCommands): string | undefined {
    if (this.#target === undefined || !areSameCommands(this.#target.commands, commands)) {
      this.#setTarget({ commands, own: undefined, peers: [] });
    }
    return this.#startupOutput;
  }

  /** Says what is wanted from now on; undefined: none of what commands have made. */
  follow(target: CommandTarget | undefined): void {
    this.#former = target?.former ?? this.#former;
    this.#setTarget(target);
  }

  /** Whether PostStartupCommand has still to succeed for the present lease. */
  get isStarting(): boolean {
    const { own, commands } = this.#target ?? {};
    if (own === undefined || commands?.words.PostStartupCommand === undefined) return false;
    const session = this.#session;
    return session === undefined || !session.hasStarted || !this.#isWanted(session);
  }

  /** Which command of the host has not succeeded, for readiness; undefined if none is waited for. */
  get notReadyBecause(): string | undefined {
    const isPrepared = this.#target === undefined || this.#startupOutput !== undefined;
    if (isPrepared && !this.isStarting) return undefined;
    const failing = this.#failing?.what;
    if (failing !== undefined) return `${failing.command} fails: ${describeFailure(failing)}`;
    return `${isPrepared ? 'PostStartupCommand' : 'PreStartupCommand'} has not ended yet`;
  }

  /** Null while no backend has commands. */
  get status(): CommandsStatus | null {
    const session = this.#session;
    if (session === undefined) return null;
    const own = this.#failing;
    const failing = [...(own === undefined ? [] : [own.what]), ...session.peerCommands.failing];
    const { done, waiting } = session.peerCommands.counts;
    return {
      state: session.isEnding ? 'ending' : session.hasStarted ? 'running' : 'starting',
      peersDone: done,
      peersWaiting: waiting,
      failing: failing.slice(0, FAILING_SHOWN),
      failingCount: failing.length,
      runs: this.#runner.runs,
    };
  }

  /** Ends what runs, then runs ShutdownCommand. Idempotent. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#abort.abort();
    this.#session?.peerCommands.close();
    await this.#task.close();
    if (this.#session !== undefined) await this.#shutDown(this.#session, new AbortController().signal, SHUTDOWN_MAX_MS);
    this.#runner.close();
  }

  get #startupOutput(): string | undefined {
    const session = this.#session;
    return session !== undefined && this.#isWanted(session) ? session.startupOutput : undefined;
  }

  #setTarget(target: CommandTarget | undefined): void {
    this.#target = target;
    if (target !== undefined || this.#session !== undefined) this.#task.schedule(0);
  }

  /** Whether a session is the one that the target asks for, as far as it has come. */
  #isWanted({ commands, own, isEnding }: Session): boolean {
    const target = this.#target;
    if (isEnding || target === undefined || !areSameCommands(commands, target.commands)) return false;
    return own === undefined || JSON.stringify(own) === JSON.stringify(target.own);
  }

  async #advance(): Promise<void> {
    while (!this.#isClosed && (await this.#step())) this.#onChange();
  }

  /** @returns whether something has become another that somebody may wait for. */
  async #step(): Promise<boolean> {
    const target = this.#target;
    const session = this.#session;
    if (session !== undefined && !this.#isWanted(session)) {
      await this.#end(session);
      return true;
    }
    if (target === undefined) return false;
    if (session === undefined) {
      this.#session = this.#newSession(target.commands);
      return true;
    }
    if (session.startupOutput === undefined) {
      session.startupOutput = await this.#attempt(session, 'PreStartupCommand', {});
      return session.startupOutput !== undefined;
    }
    if (target.own === undefined) return false;
    if (!session.hasStarted) {
      session.own = target.own;
      session.peerCommands.assume(this.#former);
      this.#former = [];
      session.hasStarted = (await this.#attempt(session, 'PostStartupCommand', target.own)) !== undefined;
      return session.hasStarted;
    }
    session.peerCommands.follow(target.peers);
    return false;
  }

  #newSession(commands: HostCommands): Session {
    const { signal } = this.#abort;
    const peerCommands = new PeerCommands({ commands, runner: this.#runner, clock: this.#clock, signal });
    return {
      commands,
      peerCommands,
      startupOutput: undefined,
      own: undefined,
      hasStarted: false,
      isEnding: false,
    };
  }

  /** Runs a command of the host, unless it failed a moment ago. @returns what it wrote if it succeeded. */
  async #attempt(session: Session, command: CommandKey, values: CommandValues): Promise<string | undefined> {
    const { signal } = this.#abort;
    const before = this.#failing;
    const waitMs = before === undefined ? 0 : before.retryAtMs - this.#clock.monotonicMs();
    if (waitMs > 0) {
      this.#task.schedule(waitMs);
      return undefined;
    }
    const result = await this.#runner.run(session.commands, { command, values, stdin: '', signal });
    if (signal.aborted) return undefined;
    if (result.failure === undefined) {
      this.#failing = undefined;
      if (before !== undefined) this.#runner.tellSuccess({ command });
      return result.stdout;
    }
    this.#fail(command, result);
    return undefined;
  }

  #fail(command: CommandKey, failure: CommandFailure): void {
    const before = this.#failing?.what;
    const isSame = before?.command === command && describeFailure(before) === describeFailure(failure);
    const attempts = before?.command === command ? before.attempts + 1 : 1;
    const delayMs = backoffMs(attempts, RETRY_BASE_MS, RETRY_CAP_MS, () => this.#clock.random());
    const what = { command, peer: null, ...failure, attempts };
    this.#failing = { what, retryAtMs: this.#clock.monotonicMs() + delayMs };
    if (!isSame) this.#runner.tellFailure({ command }, failure);
    this.#task.schedule(delayMs);
  }

  async #end(session: Session): Promise<void> {
    session.isEnding = true;
    this.#failing = undefined;
    await session.peerCommands.drain();
    if (this.#isClosed) return;
    await this.#shutDown(session, this.#abort.signal, session.commands.timeoutMs);
    this.#session = undefined;
  }

  async #shutDown({ commands, own = {} }: Session, signal: AbortSignal, maxMs: number): Promise<void> {
    const command = 'ShutdownCommand';
    const limited = { ...commands, timeoutMs: Math.min(commands.timeoutMs, maxMs) };
    const result = await this.#runner.run(limited, { command, values: own, stdin: '', signal });
    if (result.failure !== undefined) this.#runner.tellFailure({ command }, result, true);
  }
}
