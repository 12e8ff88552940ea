import type { Clock } from '../clock.js';
import type { Logger } from '../log.js';
import { QUARANTINE_REASONS, type QuarantineReason, type Quarantined } from './admission.js';
import type { BadEntry } from './record.js';

/** How many of many are named in a line. */
const MAX_EXAMPLES = 3;

/** Lines of a kind that may come at once. */
const BURST = 10;

/** After a burst, one line of a kind in that time tells what came meanwhile. */
const EVERY_MS = 60_000;

const HINTS: Readonly<Record<QuarantineReason, string>> = {
  'outside-network': 'a host that still has an earlier network moves by itself; else delete the key',
  'overlaps-own': 'delete the key, or release the own lease if the other host is the rightful owner',
  'covers-guarded': 'delete the key: routing it would cut this host off',
  'bad-public-ip': 'set --public-ip on the host that wrote it, or delete the key',
  'overlaps-peer': 'delete the key that no running host holds',
};

/** What there is to tell of one kind. */
interface Topic {
  readonly message: string;
  readonly hint: string;
  count: number;
  examples: readonly string[];
  /** By when the lines told so far would have come one in {@link EVERY_MS}. */
  paidUntilMs: number;
  /** While what came meanwhile waits for its line. */
  cancelTimer: (() => void) | undefined;
}

/**
 * Tells about keys among the leases that are not believed: lines with examples, few at a time, and none untold for long.
 */
export class LeaseComplaints {
  /** What is not believed now: revision and reason by key. */
  #known: ReadonlyMap<string, string> = new Map();
  /** Whether the last line said that leases are not believed. */
  #isOpen = false;
  readonly #topics = new Map<string, Topic>();

  constructor(
    private readonly log: Logger,
    private readonly clock: Clock,
  ) {}

  /** @param entries - those that became unreadable, or unreadable in another way. */
  tellBad(entries: readonly BadEntry[]): void {
    this.#tell(
      'unreadable',
      'entries among the leases are unreadable and skipped',
      'delete the keys, or let their hosts write them again',
      entries.map(({ key, reason }) => `${key}: ${reason}`),
    );
  }

  /**
   * @param all - every lease that is not believed now.
   * @returns how many of them are new.
   */
  tellQuarantined(all: readonly Quarantined[]): number {
    const before = this.#known;
    this.#known = new Map(all.map(({ key, lease, reason }) => [key, `${lease.revision} ${reason}`]));
    const fresh = all.filter(({ key, lease, reason }) => before.get(key) !== `${lease.revision} ${reason}`);
    for (const reason of QUARANTINE_REASONS) {
      const examples = fresh.filter((each) => each.reason === reason).map(({ key, detail }) => `${key}: ${detail}`);
      this.#tell(reason, 'leases are not believed and not routed', HINTS[reason], examples);
    }
    this.#tellEnd();
    return fresh.length;
  }

  /** Ends every timer; what still waits for its line is not told. Idempotent. */
  close(): void {
    for (const { cancelTimer } of this.#topics.values()) cancelTimer?.();
    this.#topics.clear();
  }

  #tell(kind: string, message: string, hint: string, examples: readonly string[]): void {
    if (examples.length === 0) return;
    const topic = this.#topics.get(kind) ?? newTopic(message, hint);
    this.#topics.set(kind, topic);
    topic.count += examples.length;
    topic.examples = [...topic.examples, ...examples.slice(0, MAX_EXAMPLES)].slice(0, MAX_EXAMPLES);
    if (topic.cancelTimer !== undefined) return;
    const waitMs = topic.paidUntilMs - (BURST - 1) * EVERY_MS - this.clock.monotonicMs();
    if (waitMs <= 0) {
      this.#write(kind, topic);
      return;
    }
    topic.cancelTimer = this.clock.after(waitMs, () => {
      topic.cancelTimer = undefined;
      this.#write(kind, topic);
      this.#tellEnd();
    });
  }

  #write(kind: string, topic: Topic): void {
    const { message, hint, count, examples } = topic;
    this.log.warn(message, { kind, count, detail: examples.join('; '), hint });
    topic.paidUntilMs = Math.max(this.clock.monotonicMs(), topic.paidUntilMs) + EVERY_MS;
    topic.count = 0;
    topic.examples = [];
    if (kind in HINTS) this.#isOpen = true;
  }

  #tellEnd(): void {
    if (!this.#isOpen || this.#known.size > 0) return;
    this.#isOpen = false;
    this.log.info('every lease in the store is believed again');
  }
}

function newTopic(message: string, hint: string): Topic {
  return { message, hint, count: 0, examples: [], paidUntilMs: Number.NEGATIVE_INFINITY, cancelTimer: undefined };
}
