import { OverlayError, describeError } from '../errors.js';
import type { LogFields, Logger } from '../log.js';
import { cut } from '../printable.js';

/** A line of the log that asks for attention. */
export interface LoggedProblem {
  /** ISO 8601. */
  readonly at: string;
  readonly level: 'error' | 'warn';
  readonly message: string;
  /** The other fields as `key=value`. */
  readonly detail: string;
  readonly hint: string | null;
}

/** What fits on a status page; older ones are in the log. */
const KEPT = 20;

/** A logger that also remembers its latest warnings and errors, for those who look at the status and not at the log. */
export class ProblemLog implements Logger {
  private readonly kept: LoggedProblem[] = [];

  constructor(
    private readonly log: Logger,
    private readonly wallMs: () => number,
  ) {}

  /** Oldest first. */
  get problems(): readonly LoggedProblem[] {
    return [...this.kept];
  }

  error(message: string, fields?: LogFields): void {
    this.keep('error', message, fields);
    this.log.error(message, fields);
  }

  warn(message: string, fields?: LogFields): void {
    this.keep('warn', message, fields);
    this.log.warn(message, fields);
  }

  info(message: string, fields?: LogFields): void {
    this.log.info(message, fields);
  }

  debug(message: string, fields?: LogFields): void {
    this.log.debug(message, fields);
  }

  private keep(level: LoggedProblem['level'], message: string, fields: LogFields = {}): void {
    const { error, hint, ...rest } = fields;
    const pairs = Object.entries(rest).filter(([, value]) => value !== undefined);
    const texts = pairs.map(([key, value]) => `${key}=${String(value)}`);
    if (error !== undefined) texts.push(error instanceof OverlayError ? error.message : describeError(error));
    this.kept.push({
      at: new Date(this.wallMs()).toISOString(),
      level,
      message,
      detail: cut(texts.join(' ')),
      hint: hint ?? (error instanceof OverlayError ? error.hint : undefined) ?? null,
    });
    if (this.kept.length > KEPT) this.kept.shift();
  }
}
