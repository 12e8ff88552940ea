import type { Clock } from '../clock.js';
import { type Flag, type FlagValue, switchFlag } from '../config/flag-values.js';
import { FLAGS } from '../config/flags.js';
import { type ErrorCode, OverlayError, isOverlayError } from '../errors.js';
import type { OperatorStore } from '../lease/store.js';
import { AS_ROOT_HINT, isRefused } from './rights.js';
import type { FoundSettings } from './settings.js';

/** How a command ends, for scripts. */
export const EXIT = {
  ok: 0,
  failed: 1,
  usage: 2,
  differences: 3,
  unreachable: 4,
  refused: 5,
} as const;

/** One of the numbers in {@link EXIT}. */
export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** What each number of {@link EXIT} means, for help and manual. */
export const EXIT_MEANINGS: Readonly<Record<keyof typeof EXIT, string>> = {
  ok: 'done, and nothing to object to',
  failed: 'failed; the message says why and what to do',
  usage: 'the command line cannot be understood',
  differences: 'done, and there is something to look at: findings, unknown keys, changes that a dry run would make',
  unreachable: 'etcd, or the daemon on this host, does not answer',
  refused: 'nothing was changed: it needs a yes (--yes), or a daemon is running (--force)',
};

/** Flags of a command by their names on the command line. */
export type FlagTable = Readonly<Record<string, Flag<FlagValue>>>;

type CamelCase<Text extends string> = Text extends `${infer Head}-${infer Tail}`
  ? `${Head}${Capitalize<CamelCase<Tail>>}`
  : Text;

/** The values of a {@link FlagTable} under their names in camel case. */
export type ValuesOf<Flags> = {
  readonly [Name in keyof Flags as CamelCase<Name & string>]: Flags[Name] extends Flag<infer Value> ? Value : never;
};

/** A word that a command takes besides its flags. */
export interface Operand {
  readonly name: string;
  readonly isOptional: boolean;
  /** May be given several times; only the last one of a command. */
  readonly isRepeatable?: boolean;
  readonly help: string;
  /** What completion offers: files, the listed words, or nothing. */
  readonly values: 'file' | 'none' | readonly string[];
}

/** How to reach the store. */
export type StoreOptions = ValuesOf<typeof STORE_FLAGS>;

/** What the process gives to `runCtl`. */
export interface CtlHost {
  readonly stdout: (text: string) => void;
  readonly stderr: (text: string) => void;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** The environment file of the daemon's unit. */
  readonly environmentFile: string;
  readonly clock: Clock;
  /** Aborted by SIGINT and SIGTERM. */
  readonly signal: AbortSignal;
  /** Empties the terminal; undefined where standard output is none. */
  readonly clearScreen: (() => void) | undefined;
  /** Shows a text in place of the one before, and nothing for an empty one; undefined where standard error is no terminal. */
  readonly showProgress: ((text: string) => void) | undefined;
  /** Everything on standard input. */
  readInput(): Promise<string>;
  /** Asks the person at the terminal; undefined where there is none. */
  confirm(question: string): Promise<boolean | undefined>;
  /** Does not connect yet; the caller closes it. */
  openStore(options: StoreOptions): OperatorStore;
}

/** An output that shows what a terminal would obey, whoever chose the text. */
export interface TextSink {
  /** One line, without its line feed: one inside of the text does not begin another, and a very long one is cut. */
  line(text: string): void;
  /** Lines that the caller has laid out, such as a table or a JSON document; nothing is cut. */
  block(text: string): void;
}

/** What a command may use of the world around it. */
export interface CtlContext extends Omit<CtlHost, 'stdout' | 'stderr'> {
  readonly out: TextSink;
  readonly err: TextSink;
  /** Undefined for a command without the daemon's flags. */
  readonly settings: FoundSettings | undefined;
}

/** What a command was asked for. */
export interface Request<Flags> {
  /** As many as the command takes; optional ones may be missing. */
  readonly operands: readonly string[];
  readonly options: ValuesOf<Flags & typeof COMMON_FLAGS>;
}

/** One command: parsing, help, completion and manual all come from this. */
export interface Command<Flags = FlagTable> {
  /** One or two words. */
  readonly name: string;
  /** One line. */
  readonly summary: string;
  /** Further sentences for help and manual. */
  readonly description?: string;
  readonly operands: readonly Operand[];
  readonly flags: Flags;
  /** Names of the exit codes it can end with besides `ok`, `failed` and `usage`. */
  readonly exits: readonly (keyof typeof EXIT)[];
  /** Takes everything behind its name as it is, without flags of ours. */
  readonly isRaw?: boolean;
  run(context: CtlContext, request: Request<Flags>): Promise<ExitCode>;
}

/** Gives `run` the types of the flags, then forgets them so that all commands fit in one table. */
export function defineCommand<const Flags extends FlagTable>(command: Command<Flags>): Command {
  return command; // the parser fills `options` from exactly this table
}

/** Flags of every command. */
export const COMMON_FLAGS = {
  json: switchFlag(false, { group: 'observe', help: 'Print one JSON document instead of text for people.' }),
  verbose: switchFlag(false, {
    group: 'observe',
    help: 'Say on standard error which settings of the daemon are used, and where they come from.',
  }),
} as const satisfies FlagTable;

/** How to reach etcd: the daemon's flags and variables, and whom to ask for those that were not given. */
export const STORE_FLAGS = {
  'etcd-endpoints': FLAGS['etcd-endpoints'],
  'etcd-prefix': FLAGS['etcd-prefix'],
  'etcd-keyfile': FLAGS['etcd-keyfile'],
  'etcd-certfile': FLAGS['etcd-certfile'],
  'etcd-cafile': FLAGS['etcd-cafile'],
  'etcd-username': FLAGS['etcd-username'],
  'etcd-password': FLAGS['etcd-password'],
  'etcd-password-file': FLAGS['etcd-password-file'],
  'status-socket': FLAGS['status-socket'],
} as const satisfies FlagTable;

/** Where the daemon of this host leaves its traces: its own flags. */
export const HOST_FLAGS = {
  'status-socket': FLAGS['status-socket'],
  'subnet-file': FLAGS['subnet-file'],
} as const satisfies FlagTable;

/** For commands that change something others depend on. */
export const YES_FLAG = {
  yes: switchFlag(false, { group: 'observe', help: 'Do not ask.' }),
} as const satisfies FlagTable;

/**
 * Runs `use` with a store and closes it.
 *
 * @throws {@link OverlayError} what `use` throws; errors that settings may have caused tell whose settings those are.
 */
export async function withStore<T>(
  context: CtlContext,
  options: StoreOptions,
  use: (store: OperatorStore) => Promise<T>,
): Promise<T> {
  if (context.settings?.storeProblem !== undefined) throw context.settings.storeProblem;
  let store: OperatorStore | undefined;
  try {
    store = context.openStore(options);
    return await use(store);
  } catch (error) {
    throw isOverlayError(error) ? withOrigin(error, context.settings) : error;
  } finally {
    await store?.close();
  }
}

/** Errors that other settings may fix. */
const BY_SETTINGS: ReadonlySet<ErrorCode> = new Set([
  'ERR_ETCD_UNAVAILABLE',
  'ERR_ETCD_AUTH',
  'ERR_TLS_FILE',
  'ERR_PASSWORD_FILE',
]);

function withOrigin(error: OverlayError, settings: FoundSettings | undefined): OverlayError {
  const { code, message, cause, context, hint, isRetryable } = error;
  if (!BY_SETTINGS.has(code)) return error;
  const advice = isRefused(cause) && process.geteuid?.() !== 0 ? AS_ROOT_HINT : hint;
  const origin = settings?.isStoreFound === true ? ` (${settings.origin})` : '';
  return new OverlayError(code, message, {
    cause,
    context,
    isRetryable,
    hint: `${advice ?? 'check the flags'}${origin}`,
  });
}

/** Prints a JSON document. */
export function printJson(context: CtlContext, document: unknown): void {
  context.out.block(`${JSON.stringify(document, undefined, 2)}\n`);
}
