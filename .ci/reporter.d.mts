import type { MochaOptions, Runner, reporters } from 'mocha';

/** What the reporter leaves in the file that its option `totals` names. */
export interface Totals {
  readonly passed: number;
  readonly failed: number;
  /** Full titles. */
  readonly failures: readonly string[];
  readonly skipped: readonly { readonly title: string; readonly reason?: string }[];
  readonly retried: readonly { readonly title: string; readonly error: string }[];
}

declare const TotalsReporter: new (runner: Runner, options: MochaOptions) => reporters.Base;
export default TotalsReporter;
