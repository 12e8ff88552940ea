import type { Clock } from '../../clock.js';
import type { Logger } from '../../log.js';
import type { LinkInfo } from '../../netlink/link.js';
import { RateLimitedLog } from '../../rate-limited-log.js';
import { announcementFrames } from './announcement.js';
import type { Endpoint } from './network.js';

/** After which time each: neighbours may miss one, and some take none twice within a second. */
const AGAIN_MS = [900, 900] as const;

/** Sends frames with the MAC address of a container out of devices of this host. */
export interface AnnouncementPort {
  /**
   * Sends out of the interface of a container before it is moved there; it is up as long as that takes.
   *
   * @throws {@link OverlayError} `ERR_ANNOUNCEMENT`, `ERR_NETLINK`, `ERR_SYSCTL`
   */
  sendBriefly(link: LinkInfo, frames: readonly Uint8Array[]): void;
  /**
   * Sends out of a device that is up.
   *
   * @throws {@link OverlayError} `ERR_ANNOUNCEMENT`
   */
  send(link: LinkInfo, frames: readonly Uint8Array[]): void;
}

/** What an {@link Announcer} is made of. */
export interface AnnouncerOptions {
  readonly clock: Clock;
  readonly log: Logger;
  readonly port: AnnouncementPort;
}

/** The devices of this host by which the addresses of an endpoint are announced. */
export interface EndpointLinks {
  /** The interface of the container, not moved yet; undefined if there is none yet. */
  readonly own: LinkInfo | undefined;
  /** What it lies on, or will be a port of. */
  readonly parent: LinkInfo;
}

/** Numbers that only grow. */
export interface AnnouncerStatistics {
  /** Interfaces whose addresses were announced. */
  readonly announced: number;
  /** Interfaces whose addresses could not be. */
  readonly failed: number;
}

/**
 * Tells the network, and the containers beside it, which MAC address the addresses of a new interface have: an address
 * that moves would otherwise be sent to where it was until everybody's memory of it has run out.
 *
 * Everything is sent from the host's namespace, since entering another one takes `CAP_SYS_ADMIN`. At first out of the
 * interface itself, while it is here: macvlan hands a broadcast to the containers beside it as the mode says, and never
 * back. From any other device beside it the container would get its own announcements as well, which the kernel takes for
 * another machine's: it logs them (`ndisc_recv_na()`, `ip_handle_martian_source()`), and gives up an IPv6 address that is
 * still tentative. Then twice more out of the parent, which leads to the wire alone: nothing is lost on the way to
 * containers. On a bridge the parent leads to the containers, and nowhere else: there it is sent once, before the new one
 * is a port.
 *
 * API: {@link announce}, {@link cancel}, {@link close}.
 * Threads: none. An endpoint has one timer for two seconds.
 * Errors: what cannot be announced is logged, at most once a minute, and counted; it works without, only later.
 */
export class Announcer {
  /** What ends the announcement of an endpoint, by its id. */
  private readonly pending = new Map<string, () => void>();
  private readonly failures: RateLimitedLog;
  private announced = 0;
  private failed = 0;

  constructor(private readonly options: AnnouncerOptions) {
    this.failures = new RateLimitedLog(options.clock);
  }

  get statistics(): AnnouncerStatistics {
    return { announced: this.announced, failed: this.failed };
  }

  /** Announces the addresses of an endpoint, now and twice more within two seconds. */
  announce(endpoint: Endpoint, { own, parent }: EndpointLinks): void {
    const { port } = this.options;
    this.cancel(endpoint.id);
    const frames = endpoint.addresses.flatMap(({ address }) => announcementFrames(address, endpoint.mac));
    this.attempt(endpoint, () => {
      if (own === undefined) port.send(parent, frames);
      else port.sendBriefly(own, frames);
      this.repeat(endpoint, () => port.send(parent, frames), own === undefined ? [] : AGAIN_MS);
    });
  }

  /** The endpoint has gone. */
  cancel(endpointId: string): void {
    this.pending.get(endpointId)?.();
    this.pending.delete(endpointId);
  }

  /** Announces nothing more. Idempotent. */
  close(): void {
    for (const id of [...this.pending.keys()]) this.cancel(id);
  }

  private repeat(endpoint: Endpoint, send: () => void, [nextMs, ...laterMs]: readonly number[]): void {
    if (nextMs === undefined) {
      this.pending.delete(endpoint.id);
      this.announced++;
      return;
    }
    const cancelTimer = this.options.clock.after(nextMs, () => {
      this.attempt(endpoint, () => {
        send();
        this.repeat(endpoint, send, laterMs);
      });
    });
    this.pending.set(endpoint.id, cancelTimer);
  }

  private attempt(endpoint: Endpoint, work: () => void): void {
    try {
      work();
    } catch (error) {
      this.pending.delete(endpoint.id);
      this.failed++;
      this.failures.tell((count) => {
        const address = endpoint.addresses.map((each) => each.address.toString()).join(' ');
        this.options.log.warn('addresses of a container not announced', { address, count, error });
      });
    }
  }
}
