import { OverlayError, describeError } from '../errors.js';
import type { LogFields, Logger } from '../log.js';
import { cut } from '../printable.js';
import { ENDED_BY, REPAIRED, TOLD_APART_BY } from './problem-ends.js';

/** A line of the log that asks for attention. */
export interface LoggedProblem {
  /** ISO 8601. */
  readonly at: string;
  readonly level: 'error' | 'warn';
  readonly message: string;
  /** The other fields as `key=value`. */
  readonly detail: string;
  readonly hint: string | null;
  /** When a later line said that it is over, ISO 8601; null as long as none did. */
  readonly resolvedAt: string | null;
}

interface Kept {
  readonly problem: LoggedProblem;
  readonly fields: LogFields;
}

/** What fits on a status page; older ones are in the log. */
const KEPT = 20;

/** A logger that also remembers its latest warnings and errors, for those who look at the status and not at the log. */
export class ProblemLog implements Logger {
  private kept: readonly Kept[] = [];

  constructor(
    private readonly log: Logger,
    private readonly wallMs: () => number,
  ) {}

  /** Oldest first. */
  get problems(): readonly LoggedProblem[] {
    return this.kept.map(({ problem }) => problem);
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
    this.resolve(message, fields);
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
    const at = new Date(this.wallMs()).toISOString();
    const problem: LoggedProblem = {
      at,
      level,
      message,
      detail: cut(texts.join(' ')),
      hint: hint ?? (error instanceof OverlayError ? error.hint : undefined) ?? null,
      resolvedAt: REPAIRED.includes(message) ? at : null,
    };
    this.kept = [...this.kept, { problem, fields: rest }].slice(-KEPT);
  }

  private resolve(message: string, fields: LogFields = {}): void {
    const ended = ENDED_BY[message];
    if (ended === undefined) return;
    const resolvedAt = new Date(this.wallMs()).toISOString();
    this.kept = this.kept.map((kept) => {
      const { problem } = kept;
      const isOver = problem.resolvedAt === null && ended.includes(problem.message) && isSame(kept.fields, fields);
      return isOver ? { ...kept, problem: { ...problem, resolvedAt } } : kept;
    });
  }
}

/** Whether both are about the same thing as far as they name it. */
function isSame(one: LogFields, other: LogFields): boolean {
  return TOLD_APART_BY.every((key) => one[key] === undefined || other[key] === undefined || one[key] === other[key]);
}
