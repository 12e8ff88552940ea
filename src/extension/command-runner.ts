import type { Clock } from '../clock.js';
import { Gatherer, LINE_PACE, type Some, listed, mergeSome, some } from '../gatherer.js';
import type { LogFields, Logger } from '../log.js';
import { oneLine } from '../printable.js';
import { type ProgramEnd, type RunProgram, STDOUT_BYTES_MAX } from '../sys/program-group.js';
import { type CommandValues, fillIn } from './command-text.js';
import { COMMAND_KEYS, type CommandKey, type HostCommands } from './host-commands.js';
import type { CommandRuns, FailingCommand } from './status.js';

/** What a {@link CommandRunner} is made of. */
export interface CommandRunnerOptions {
  readonly run: RunProgram;
  readonly clock: Clock;
  readonly log: Logger;
  /** What the daemon was started with; commands get it without the daemon's own settings, passwords among them. */
  readonly environment: Readonly<Record<string, string | undefined>>;
}

/** One run of a command. */
export interface CommandRun {
  readonly command: CommandKey;
  readonly values: CommandValues;
  readonly stdin: string;
  /** The subnet of the peer that it is for. */
  readonly peer?: string;
  readonly signal: AbortSignal;
}

/** Why a run did not do what it was to do. */
export type CommandFailure = Pick<FailingCommand, 'failure' | 'lastLine'>;

/** What came of a run. */
export type CommandResult =
  { readonly failure: undefined; /** What it wrote to standard output. */ readonly stdout: string } | CommandFailure;

/** A line of a terminal is 80 to 200 characters; this is the end of one that is far longer. */
const LAST_LINE_CHARACTERS = 400;

/** Where programs are on hosts whose service manager leaves the administrator's directories out of PATH. */
const SYSTEM_PATH = '/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin';

/** Variables that tell the daemon, and nobody else, what to do. */
const DAEMON_VARIABLES = /^(?:TS)?FLANNELD_|^(?:NOTIFY_SOCKET|NODE_OPTIONS|WATCHDOG_|LISTEN_)/;

interface Told extends LogFields {
  readonly kind: CommandKey;
  readonly peer?: string;
  readonly detail: string;
}

/**
 * Runs single commands of a backend, counts them, and writes about them to the log: at level debug what each of them
 * wrote, as a warning what is {@link tellFailure told} to have failed, gathered where it is much.
 */
export class CommandRunner {
  readonly runs: Readonly<Record<CommandKey, { -readonly [Name in keyof CommandRuns]: number }>>;
  readonly #options: CommandRunnerOptions;
  readonly #environment: Readonly<Record<string, string | undefined>>;
  readonly #lines: Gatherer<keyof typeof MESSAGES, Some<Told>>;

  constructor(options: CommandRunnerOptions) {
    this.#options = options;
    const own = Object.entries(options.environment).filter(([name]) => !DAEMON_VARIABLES.test(name));
    const inherited = Object.fromEntries(own);
    this.#environment = { ...inherited, PATH: [inherited['PATH'], SYSTEM_PATH].filter(Boolean).join(':') };
    const counts = COMMAND_KEYS.map((key) => [key, { succeeded: 0, failed: 0 }] as const);
    this.runs = Object.fromEntries(counts) as unknown as typeof this.runs;
    const { clock } = options;
    this.#lines = new Gatherer({
      ...LINE_PACE,
      clock,
      merge: mergeSome,
      tell: (topic, what) => this.#write(topic, what),
    });
  }

  /** Runs a command to its end; one that is not configured does nothing, and that well. */
  async run({ words, timeoutMs }: HostCommands, run: CommandRun): Promise<CommandResult> {
    const { command, peer, signal, stdin, values } = run;
    const [program, ...args] = fillIn(words[command] ?? [], values);
    if (program === undefined) return { failure: undefined, stdout: '' };
    const environment = { ...this.#environment, ...values };
    const end = await this.#options.run({ program, args, environment, stdin: `${stdin}\n`, timeoutMs, signal });
    const failure = failureOf(command, end);
    this.runs[command][failure === undefined ? 'succeeded' : 'failed']++;
    const lastLine = lastLineOf(end.output);
    this.#options.log.debug('command of the backend ended', {
      kind: command,
      peer,
      detail: `${failure ?? 'exit status 0'}${lastLine === '' ? '' : `: ${oneLine(end.output.trim())}`}`,
    });
    return failure === undefined ? { failure, stdout: end.stdout.trim() } : { failure, lastLine };
  }

  /** Has the log say that a command failed. */
  tellFailure(
    { command, peer }: Pick<CommandRun, 'command' | 'peer'>,
    failure: CommandFailure,
    isGivenUp = false,
  ): void {
    const detail = describeFailure(failure);
    this.#lines.add(isGivenUp ? 'given up' : 'failed', some([{ kind: command, ...(peer && { peer }), detail }]));
  }

  /** Has the log say that a command that had failed does no more, or need not be tried again. */
  tellSuccess({ command, peer }: Pick<CommandRun, 'command' | 'peer'>): void {
    this.#lines.add('works again', some([{ kind: command, ...(peer && { peer }), detail: '' }]));
  }

  /** Writes what is still to be told and ends every timer. */
  close(): void {
    this.#lines.flush();
  }

  #write(topic: keyof typeof MESSAGES, { count, first }: Some<Told>): void {
    const { log } = this.#options;
    const { level, one, many, hint } = MESSAGES[topic];
    if (count === first.length) {
      for (const { detail, ...fields } of first) {
        log[level](one, { ...fields, ...(detail !== '' && { detail }), hint });
      }
      return;
    }
    const texts = first.map(({ kind, peer, detail }) => [`${kind} ${peer ?? ''}`.trim(), detail].join(': '));
    log[level](many, { count, detail: listed({ count, first: texts }), hint });
  }
}

/** `exit status 2: RTNETLINK answers: File exists` */
export function describeFailure({ failure, lastLine }: CommandFailure): string {
  return lastLine === '' ? failure : `${failure}: ${lastLine}`;
}

const MESSAGES = {
  failed: {
    level: 'warn',
    one: 'command of the backend failed, trying again',
    many: 'commands of the backend failed, trying again',
    hint: 'run it by hand on this host with the variables that docs/extension.md lists; tsflannelctl log-level debug shows all that it writes',
  },
  'given up': {
    level: 'warn',
    one: 'command of the backend failed, not tried again',
    many: 'commands of the backend failed, not tried again',
    hint: 'what the other commands made may still be there: look, and remove it by hand',
  },
  'works again': {
    level: 'info',
    one: 'command of the backend works again, or is no longer needed',
    many: 'commands of the backend work again, or are no longer needed',
    hint: undefined,
  },
} as const;

function failureOf(command: CommandKey, { failure, isStdoutComplete }: ProgramEnd): string | undefined {
  if (failure !== undefined || isStdoutComplete || command !== 'PreStartupCommand') return failure;
  return `it wrote more than the ${STDOUT_BYTES_MAX} bytes that a lease has room for`;
}

function lastLineOf(output: string): string {
  const line =
    output
      .trimEnd()
      .split(/[\r\n]/)
      .at(-1) ?? '';
  return oneLine(line.trim(), LAST_LINE_CHARACTERS);
}
