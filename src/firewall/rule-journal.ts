import type { Clock } from '../clock.js';
import { describeError, isOverlayError } from '../errors.js';
import type { Logger } from '../log.js';
import { RateLimitedLog } from '../rate-limited-log.js';
import { DEVIATION_KINDS, type Deviation, type DeviationKind } from './iptables-plan.js';

/** Collects the notifications of one change. */
const SETTLE_MS = 200;

/** The same while somebody keeps undoing our repairs, so that the quarrel costs little. */
const QUARREL_SETTLE_MS = 5_000;

/** This many repairs within that time are a quarrel and not an accident. */
const QUARREL_REPAIRS = 3;
const QUARREL_MS = 15_000;

/** That nothing had to be repaired. */
export function noRepairs(): Record<DeviationKind, number> {
  return Object.fromEntries(DEVIATION_KINDS.map((kind) => [kind, 0])) as Record<DeviationKind, number>;
}

/** What became of rules that are looked after: counted, logged at most once a minute, and the reason to wait. */
export class RuleJournal {
  private readonly counts = noRepairs();
  private error: string | undefined;
  private readonly log: Logger;
  private readonly clock: Clock;
  private readonly repairs: RateLimitedLog;
  private readonly failures: RateLimitedLog;
  /** The last {@link QUARREL_REPAIRS}. */
  private recentRepairsMs: readonly number[] = [];

  constructor({ log, clock }: { readonly log: Logger; readonly clock: Clock }) {
    this.log = log;
    this.clock = clock;
    this.repairs = new RateLimitedLog(clock);
    this.failures = new RateLimitedLog(clock);
  }

  /** How often something had to be repaired since the start. */
  get repaired(): Readonly<Record<DeviationKind, number>> {
    return { ...this.counts };
  }

  /** Of the last look; undefined if it succeeded. */
  get lastError(): string | undefined {
    return this.error;
  }

  /** How long to wait between a notification and the look that it asks for. */
  get settleMs(): number {
    const since = this.clock.monotonicMs() - QUARREL_MS;
    const isQuarrel = this.recentRepairsMs.filter((atMs) => atMs > since).length === QUARREL_REPAIRS;
    return isQuarrel ? QUARREL_SETTLE_MS : SETTLE_MS;
  }

  noteRepairs(deviations: readonly Deviation[]): void {
    if (deviations.length === 0) return;
    for (const { kind } of deviations) this.counts[kind]++;
    this.recentRepairsMs = [...this.recentRepairsMs, this.clock.monotonicMs()].slice(-QUARREL_REPAIRS);
    this.repairs.tell((count) => {
      this.log.warn('repaired firewall rules that somebody else changed', {
        kind: [...new Set(deviations.map(({ kind }) => kind))].join(','),
        detail: [...new Set(deviations.map(({ object }) => object))].join(','),
        count,
        hint: 'if this repeats, find the program that rewrites the rules, such as a second flanneld or a firewall manager',
      });
    }, deviations.length);
  }

  noteSuccess(): void {
    if (this.error === undefined) return;
    this.log.info('firewall rules are in place again');
    this.error = undefined;
    this.failures.reset();
  }

  /** Keeps an error that somebody else tells. */
  noteError(error: unknown): void {
    this.error = describeError(error);
  }

  /** Keeps an error, and logs it. */
  tellError(error: unknown): void {
    this.noteError(error);
    const isTransient = isOverlayError(error) && error.isRetryable;
    this.failures.tell(() => {
      this.log[isTransient ? 'warn' : 'error']('cannot look after the firewall rules', { error });
    });
  }
}
