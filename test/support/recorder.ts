import type { LogFields, Logger, LogLevel } from '../../src/log.js';

/** One line that a {@link RecordingLogger} was given. */
export interface LogLine {
  readonly level: LogLevel;
  readonly message: string;
  readonly fields: LogFields;
}

/** A logger that keeps its lines for the test to look at. */
export class RecordingLogger implements Logger {
  readonly lines: LogLine[] = [];

  error(message: string, fields: LogFields = {}): void {
    this.lines.push({ level: 'error', message, fields });
  }

  warn(message: string, fields: LogFields = {}): void {
    this.lines.push({ level: 'warn', message, fields });
  }

  info(message: string, fields: LogFields = {}): void {
    this.lines.push({ level: 'info', message, fields });
  }

  debug(message: string, fields: LogFields = {}): void {
    this.lines.push({ level: 'debug', message, fields });
  }

  /** Lines whose message matches, at that level or at any. */
  find(message: RegExp, level?: LogLevel): readonly LogLine[] {
    return this.lines.filter((line) => message.test(line.message) && (level === undefined || line.level === level));
  }
}
