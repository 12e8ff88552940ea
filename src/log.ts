import { Writable } from 'node:stream';
import { pino } from 'pino';
import { OverlayError, describeError } from './errors.js';
import { LOG_LEVELS, type LogLevel, journalPrefix } from './log-level.js';
import { cut, escapeControls } from './printable.js';

export type { LogLevel } from './log-level.js';

/**
 * The keys a log line may carry besides its message. A line is `message + fixed keys`, so that one query finds
 * everything about a peer or a device whatever part of the daemon wrote it.
 */
export interface LogFields {
  readonly subnet?: string | undefined;
  readonly ipv6Subnet?: string | undefined;
  readonly peer?: string | undefined;
  readonly publicIp?: string | undefined;
  readonly dev?: string | undefined;
  readonly ifindex?: number | undefined;
  readonly address?: string | undefined;
  readonly route?: string | undefined;
  readonly mtu?: number | undefined;
  readonly port?: number | undefined;
  readonly vni?: number | undefined;
  readonly vtepMac?: string | undefined;
  readonly backend?: string | undefined;
  readonly key?: string | undefined;
  readonly endpoint?: string | undefined;
  readonly revision?: string | undefined;
  readonly etcdLeaseId?: string | undefined;
  readonly code?: string | undefined;
  readonly errno?: string | undefined;
  readonly attempt?: number | undefined;
  readonly delayMs?: number | undefined;
  readonly count?: number | undefined;
  readonly kind?: string | undefined;
  readonly file?: string | undefined;
  readonly from?: string | undefined;
  readonly to?: string | undefined;
  readonly detail?: string | undefined;
  readonly hint?: string | undefined;
  /** Any thrown value; becomes `detail`, `code` and `hint`. */
  readonly error?: unknown;
}

/**
 * Where the daemon tells what it does: `error` = someone must act, `warn` = degraded and self-healing,
 * `info` = a state change, once, `debug` = decisions. Messages are lower-case events without values.
 */
export interface Logger {
  error(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  debug(message: string, fields?: LogFields): void;
}

/** What waits to be written while it cannot be; lines beyond that are lost. */
const LOST_LINES_BYTES = 1024 * 1024;

/** `text` is for people and the journal, `json` for collectors. */
export type LogFormat = 'text' | 'json';

/** A logger whose level can be changed while it is in use. */
export interface LeveledLogger extends Logger {
  /** The least severe level that is still written. */
  level: LogLevel;
}

/** How {@link createLogger} writes. */
export interface LoggerOptions {
  /** `text`: `HH:MM:SS.mmm LEVEL message key=value …`, in local time as flannel does; `json`: pino's lines. */
  readonly format: LogFormat;
  readonly level: LogLevel;
  /** Whether journald reads the lines: then each begins with its priority, and text has no time, which journald adds. */
  readonly isJournal: boolean;
  /** Of this host and process, for JSON lines, which collectors mix with those of others. */
  readonly host: string;
  readonly pid: number;
  /** For tests; default standard error, written synchronously so that a crash loses nothing. */
  readonly destination?: NodeJS.WritableStream;
}

/** A logger on standard error. */
export function createLogger(options: LoggerOptions): LeveledLogger {
  const { format, isJournal, host, pid } = options;
  const sink = options.destination ?? standardError();
  const base = pino(
    {
      level: options.level,
      base: format === 'json' ? { host, pid } : null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (level) => ({ level }) },
    },
    lineStream(sink, (line) => {
      const text = format === 'json' ? printableJson(line) : formatTextLine(line, { hasClock: !isJournal });
      return isJournal ? journalPrefix(levelOf(line)) + text : text;
    }),
  );
  const write =
    (level: LogLevel) =>
    (message: string, fields?: LogFields): void => {
      base[level](fields === undefined ? {} : bounded(flatten(fields)), cut(message));
    };
  return {
    error: write('error'),
    warn: write('warn'),
    info: write('info'),
    debug: write('debug'),
    get level() {
      return base.level as LogLevel;
    },
    set level(level) {
      base.level = level;
    },
  };
}

/** A full disk or a reader that has gone costs lines, not the daemon. */
function standardError(): NodeJS.WritableStream {
  const sink = pino.destination({ dest: 2, sync: true, maxLength: LOST_LINES_BYTES });
  sink.on('error', () => {});
  return sink as unknown as NodeJS.WritableStream;
}

/** A logger that drops everything; for tests and one-shot tools. */
export const silentLogger: Logger = { error: () => {}, warn: () => {}, info: () => {}, debug: () => {} };

function flatten(fields: LogFields): Record<string, unknown> {
  const { error, ...rest } = fields;
  if (error === undefined) return rest;
  if (!(error instanceof OverlayError)) return { ...rest, detail: rest.detail ?? describeError(error) };
  const { hint, code, message } = error;
  // pino does not look for a second key of the same name, and whoever reads the line takes the last one.
  const context = Object.entries(error.context).filter(([key]) => !PINO_KEYS.includes(key));
  return {
    ...Object.fromEntries(context),
    ...rest,
    detail: rest.detail ?? message,
    code,
    ...(hint === undefined ? {} : { hint }),
  };
}

const PINO_KEYS: readonly string[] = ['level', 'time', 'host', 'pid', 'msg'];

/** pino begins each line with its level. */
function levelOf(json: string): LogLevel {
  return LOG_LEVELS.find((level) => json.startsWith(`{"level":"${level}"`)) ?? 'error';
}

/** Whatever a value came from, it takes a bounded place in the log. */
function bounded(fields: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(fields).map(([key, value]) => [key, boundedValue(value)]));
}

function boundedValue(value: unknown): unknown {
  if (value === undefined || typeof value === 'number' || typeof value === 'boolean') return value;
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  const short = cut(text);
  return short === text ? value : short;
}

/** pino leaves DEL, C1 and bidirectional controls as they are, which JSON allows and a terminal obeys. */
function printableJson(line: string): string {
  return `${escapeControls(line.trimEnd())}\n`;
}

function lineStream(sink: { write(text: string): unknown }, format: (line: string) => string): Writable {
  return new Writable({
    decodeStrings: false,
    write(line: string | Buffer, _encoding, done) {
      sink.write(format(String(line)));
      done();
    },
  });
}

/**
 * One pino line as text for people.
 *
 * @internal
 */
export function formatTextLine(json: string, { hasClock }: { readonly hasClock: boolean }): string {
  const { level, time, msg, ...fields } = JSON.parse(json) as Record<string, unknown>;
  const pairs = Object.entries(fields).map(([key, value]) => ` ${key}=${quoteIfNeeded(value)}`);
  const event = `${String(level).padEnd(5)} ${String(msg)}${pairs.join('')}`;
  return `${escapeControls(hasClock ? `${timeOfDay(String(time))} ${event}` : event)}\n`;
}

/** `HH:MM:SS.mmm` in local time. */
function timeOfDay(iso: string): string {
  const at = new Date(iso);
  const pad = (value: number, width = 2): string => String(value).padStart(width, '0');
  return `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}.${pad(at.getMilliseconds(), 3)}`;
}

function quoteIfNeeded(value: unknown): string {
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  return /^[^\s"=]+$/.test(text) ? text : JSON.stringify(text);
}
