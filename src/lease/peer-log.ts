import type { Clock } from '../clock.js';
import { Gatherer, LINE_PACE, type Some, listed, mergeSome, some } from '../gatherer.js';
import type { LogFields, Logger } from '../log.js';
import type { Lease } from './lease.js';

/** What can happen to a peer. */
export type PeerChange = 'joined' | 'changed' | 'left';

/** Tells which peers joined, changed and left: a line for each of a few, one for many. */
export class PeerLog {
  private readonly gatherer: Gatherer<PeerChange, Some<Lease>>;

  constructor(
    private readonly log: Logger,
    clock: Clock,
  ) {
    const tell = (change: PeerChange, peers: Some<Lease>): void => this.write(change, peers);
    this.gatherer = new Gatherer({ ...LINE_PACE, clock, merge: mergeSome, tell });
  }

  tell(change: PeerChange, peers: readonly Lease[]): void {
    if (peers.length > 0) this.gatherer.add(change, some(peers));
  }

  /** Tells what is still to be told and ends every timer. */
  close(): void {
    this.gatherer.flush();
  }

  private write(change: PeerChange, peers: Some<Lease>): void {
    const { count, first } = peers;
    if (count === first.length) for (const peer of first) this.log.info(`peer ${change}`, fieldsOf(peer));
    else this.log.info(`peers ${change}`, { count, detail: listed({ count, first: first.map(nameOf) }) });
  }
}

function fieldsOf({ subnet, ipv6Subnet, attributes }: Lease): LogFields {
  return {
    subnet: subnet.toString(),
    ipv6Subnet: ipv6Subnet?.toString(),
    publicIp: attributes.publicIp.toString(),
    backend: attributes.backendType === '' ? undefined : attributes.backendType,
  };
}

function nameOf({ subnet, attributes }: Lease): string {
  return `${subnet.toString()} at ${attributes.publicIp.toString()}`;
}
