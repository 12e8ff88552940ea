import type { SkippedPeer } from '../backend/backend.js';
import type { Logger } from '../log.js';

/** Tells about peers that cannot be reached: once each, again when the reason changes, and when it is over. */
export class SkippedPeers {
  private told: ReadonlyMap<string, string> = new Map();

  constructor(private readonly log: Logger) {}

  tell(skipped: readonly SkippedPeer[]): void {
    const now = new Map(skipped.map(({ lease, reason }) => [lease.subnet.toString(), reason]));
    for (const { lease, reason, hint } of skipped) {
      const peer = lease.subnet.toString();
      if (this.told.get(peer) === reason) continue;
      const publicIp = lease.attributes.publicIp.toString();
      this.log.warn('peer cannot be reached', { peer, publicIp, detail: reason, hint });
    }
    for (const peer of this.told.keys()) {
      if (!now.has(peer)) this.log.info('peer can be reached again, or is gone', { peer });
    }
    this.told = now;
  }
}
