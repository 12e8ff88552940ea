import type { Clock } from '../clock.js';
import type { Logger } from '../log.js';
import { QUARANTINE_REASONS, type QuarantineReason, type Quarantined } from './admission.js';
import type { BadEntry } from './record.js';

/** How many of many are named in a line. */
const MAX_EXAMPLES = 3;

/** One line of a kind in that time; what came meanwhile is in the next one. */
const EVERY_MS = 60_000;

const HINTS: Readonly<Record<QuarantineReason, string>> = {
  'outside-network': 'a host that still has an earlier network moves by itself; else delete the key',
  'overlaps-own': 'delete the key, or release the own lease if the other host is the rightful owner',
  'covers-guarded': 'delete the key: routing it would cut this host off',
  'bad-public-ip': 'set --public-ip on the host that wrote it, or delete the key',
  'overlaps-peer': 'delete the key that no running host holds',
};

/** Tells about keys among the leases that are not believed: a line for each kind with examples, at most one a minute. */
export class LeaseComplaints {
  /** What was told or counted of each key, by revision and reason. */
  #told: ReadonlyMap<string, string> = new Map();
  readonly #nextMs = new Map<string, number>();
  readonly #untold = new Map<string, number>();

  constructor(
    private readonly log: Logger,
    private readonly clock: Clock,
  ) {}

  /** @param entries - those that became unreadable, or unreadable in another way. */
  tellBad(entries: readonly BadEntry[]): void {
    this.tell(
      'entries among the leases are unreadable and skipped',
      'unreadable',
      entries.map(({ key, reason }) => `${key}: ${reason}`),
      'delete the keys, or let their hosts write them again',
    );
  }

  /**
   * @param all - every lease that is not believed now.
   * @returns how many of them are new.
   */
  tellQuarantined(all: readonly Quarantined[]): number {
    const before = this.#told;
    this.#told = new Map(all.map(({ key, lease, reason }) => [key, `${lease.revision} ${reason}`]));
    const fresh = all.filter(({ key, lease, reason }) => before.get(key) !== `${lease.revision} ${reason}`);
    for (const reason of QUARANTINE_REASONS) {
      const examples = fresh.filter((each) => each.reason === reason).map(({ key, detail }) => `${key}: ${detail}`);
      this.tell('leases are not believed and not routed', reason, examples, HINTS[reason]);
    }
    if (before.size > 0 && all.length === 0) this.log.info('every lease in the store is believed again');
    return fresh.length;
  }

  private tell(message: string, kind: string, examples: readonly string[], hint: string): void {
    if (examples.length === 0) return;
    const count = (this.#untold.get(kind) ?? 0) + examples.length;
    const now = this.clock.monotonicMs();
    if (now < (this.#nextMs.get(kind) ?? 0)) {
      this.#untold.set(kind, count);
      return;
    }
    this.#untold.delete(kind);
    this.#nextMs.set(kind, now + EVERY_MS);
    this.log.warn(message, { kind, count, detail: examples.slice(0, MAX_EXAMPLES).join('; '), hint });
  }
}
