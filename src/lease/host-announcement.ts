import type { Clock } from '../clock.js';
import { CoalescingTask } from '../coalescing-task.js';
import type { Logger } from '../log.js';
import { decodeHostStatus, encodeHostStatus, hostStatusPath } from './host-status.js';
import type { LeaseRecord } from './record.js';
import type { ValueStore } from './store.js';

/** What a {@link HostAnnouncement} is made of. */
export interface HostAnnouncementOptions {
  readonly store: ValueStore;
  readonly clock: Clock;
  readonly log: Logger;
  readonly hostName: string;
  /** Of the daemon. */
  readonly version: string;
}

/**
 * Tells the operator, through the store, which host holds a lease and since when.
 *
 * API: {@link announce} whenever the lease may be another one; it writes only if it is. The entry expires with the
 * lease, except that of a reservation, which stays like the reservation itself.
 * Errors: never thrown, since nothing depends on the entry; one that could not be written is tried again at the next call.
 */
export class HostAnnouncement {
  private lease: LeaseRecord | undefined;
  private announced: string | undefined;
  private readonly writes: CoalescingTask;

  constructor(private readonly options: HostAnnouncementOptions) {
    this.writes = new CoalescingTask(options.clock, () => this.update());
  }

  /** Resolves when the entry is as it should be, or could not be written; of leases that come together the last counts. */
  announce(lease: LeaseRecord): Promise<void> {
    this.lease = lease;
    return this.writes.runNow();
  }

  private async update(): Promise<void> {
    const { lease } = this;
    if (lease === undefined) return;
    const identity = `${lease.key} ${lease.attributes.publicIp.toString()} ${lease.etcdLeaseId ?? 'reservation'}`;
    if (identity === this.announced) return;
    try {
      await this.write(lease);
      this.announced = identity;
    } catch (error) {
      this.options.log.debug('host name not told to the store', { error });
    }
  }

  private async write(lease: LeaseRecord): Promise<void> {
    const { store, clock, hostName, version } = this.options;
    const path = hostStatusPath(lease.attributes.publicIp);
    const [entry] = (await store.listValues(path)).filter((each) => each.path === path);
    const before = entry === undefined ? undefined : decodeHostStatus(entry.text);
    // A restart keeps the lease, and so its age.
    const isSame = before?.hostName === hostName && before.leaseKey === lease.key;
    const leaseSince = isSame ? before.leaseSince : new Date(clock.wallMs()).toISOString();
    const text = encodeHostStatus({ hostName, version, leaseKey: lease.key, leaseSince });
    await store.putValue(path, text, { etcdLeaseId: lease.etcdLeaseId });
  }
}
