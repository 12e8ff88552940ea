import type { Clock } from '../clock.js';
import { Gatherer, type Some, mergeSome, some } from '../gatherer.js';
import type { Logger } from '../log.js';
import { QUARANTINE_REASONS, type QuarantineReason, type Quarantined } from './admission.js';
import type { BadEntry } from './record.js';

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

/** What there is to tell of. */
type Kind = QuarantineReason | 'unreadable';

/**
 * Tells about keys among the leases that are not believed: lines with examples, few at a time, and none untold for long.
 */
export class LeaseComplaints {
  /** What is not believed now: revision and reason by key. */
  #known: ReadonlyMap<string, string> = new Map();
  /** Whether the last line said that leases are not believed. */
  #isOpen = false;
  readonly #log: Logger;
  readonly #gatherer: Gatherer<Kind, Some<string>>;

  constructor(log: Logger, clock: Clock) {
    this.#log = log;
    const tell = (kind: Kind, entries: Some<string>): void => this.#write(kind, entries);
    this.#gatherer = new Gatherer({ clock, burst: BURST, everyMs: EVERY_MS, merge: mergeSome, tell });
  }

  /** @param entries - those that became unreadable, or unreadable in another way. */
  tellBad(entries: readonly BadEntry[]): void {
    this.#tell(
      'unreadable',
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
      this.#tell(
        reason,
        fresh.filter((each) => each.reason === reason).map(({ key, detail }) => `${key}: ${detail}`),
      );
    }
    this.#tellEnd();
    return fresh.length;
  }

  /** Tells what is still to be told and ends every timer. Idempotent. */
  close(): void {
    this.#gatherer.flush();
  }

  #tell(kind: Kind, entries: readonly string[]): void {
    if (entries.length > 0) this.#gatherer.add(kind, some(entries));
  }

  #write(kind: Kind, { count, first }: Some<string>): void {
    const detail = first.join('; ');
    if (kind === 'unreadable') {
      const hint = 'delete the keys, or let their hosts write them again';
      this.#log.warn('entries among the leases are unreadable and skipped', { kind, count, detail, hint });
      return;
    }
    this.#log.warn('leases are not believed and not routed', { kind, count, detail, hint: HINTS[kind] });
    this.#isOpen = true;
    this.#tellEnd(); // it may be over by the time that it is told
  }

  #tellEnd(): void {
    if (!this.#isOpen || this.#known.size > 0) return;
    this.#isOpen = false;
    this.#log.info('every lease in the store is believed again');
  }
}
