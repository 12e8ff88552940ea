import { SKIP_CAUSES, type SkipCause, type SkippedPeer } from '../backend/backend.js';
import type { Clock } from '../clock.js';
import { Gatherer, LINE_PACE, type Some, listed, mergeSome, some } from '../gatherer.js';
import type { Logger } from '../log.js';

/**
 * Tells about peers that cannot be reached: once each, again when the reason changes, and when it is over; a line for
 * each of a few, one for many with the same cause.
 */
export class SkippedPeers {
  private told: ReadonlyMap<string, string> = new Map();
  private readonly skipped: Gatherer<SkipCause, Some<SkippedPeer>>;
  private readonly over: Gatherer<'over', Some<string>>;

  constructor(
    private readonly log: Logger,
    clock: Clock,
  ) {
    const tellSkipped = (cause: SkipCause, peers: Some<SkippedPeer>): void => this.writeSkipped(cause, peers);
    this.skipped = new Gatherer({ ...LINE_PACE, clock, merge: mergeSome, tell: tellSkipped });
    this.over = new Gatherer({ ...LINE_PACE, clock, merge: mergeSome, tell: (_, peers) => this.writeOver(peers) });
  }

  tell(skipped: readonly SkippedPeer[]): void {
    const before = this.told;
    const now = new Map(skipped.map(({ lease, reason }) => [lease.subnet.toString(), reason]));
    const fresh = skipped.filter(({ lease, reason }) => before.get(lease.subnet.toString()) !== reason);
    for (const each of SKIP_CAUSES) {
      const peers = fresh.filter(({ cause }) => cause === each);
      if (peers.length > 0) this.skipped.add(each, some(peers));
    }
    const over = [...before.keys()].filter((peer) => !now.has(peer));
    if (over.length > 0) this.over.add('over', some(over));
    this.told = now;
  }

  /** Tells what is still to be told and ends every timer. */
  close(): void {
    this.skipped.flush();
    this.over.flush();
  }

  private writeSkipped(cause: SkipCause, { count, first }: Some<SkippedPeer>): void {
    if (count === first.length) {
      for (const { lease, reason, hint } of first) {
        const publicIp = lease.attributes.publicIp.toString();
        this.log.warn('peer cannot be reached', { peer: lease.subnet.toString(), publicIp, detail: reason, hint });
      }
      return;
    }
    const examples = first.map(({ lease, reason }) => `${lease.subnet.toString()}: ${reason}`);
    const detail = listed({ count, first: examples });
    this.log.warn('peers cannot be reached', { kind: cause, count, detail, hint: first[0]?.hint });
  }

  private writeOver(peers: Some<string>): void {
    const { count, first } = peers;
    if (count === first.length)
      for (const peer of first) this.log.info('peer can be reached again, or is gone', { peer });
    else this.log.info('peers can be reached again, or are gone', { count, detail: listed(peers) });
  }
}
