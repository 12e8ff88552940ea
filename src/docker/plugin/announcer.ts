import type { Clock } from '../../clock.js';
import { OverlayError } from '../../errors.js';
import type { Logger } from '../../log.js';
import { RateLimitedLog } from '../../rate-limited-log.js';
import { announcementFrames } from './announcement.js';
import { type Endpoint, linkNameOf } from './network.js';

/** How often, and after how long each time: neighbours may miss one, and some take none twice within a second. */
const TIMES_MS = [0, 900, 900] as const;

/** Docker has moved the interface and given it its addresses by then; a start of many containers takes long. */
const PATIENCE_MS = 15_000;

const LOOK_MS = 20;

/** Sends frames from inside a container. */
export interface SandboxPort {
  /** @throws {@link OverlayError} `ERR_NETNS` */
  send(frames: readonly Uint8Array[]): void;
  close(): void;
}

/**
 * Opens the interface with the endpoint's MAC address in its network namespace.
 *
 * @returns undefined as long as there is none that is up.
 * @throws {@link OverlayError} `ERR_NETNS`
 */
export type OpenSandboxPort = (endpoint: JoinedEndpoint) => Promise<SandboxPort | undefined>;

type JoinedEndpoint = Endpoint & { readonly sandbox: string };

/** An announcement under way. */
interface Pending {
  isCancelled: boolean;
  cancelTimer: () => void;
  port: SandboxPort | undefined;
}

/** What an {@link Announcer} is made of. */
export interface AnnouncerOptions {
  readonly clock: Clock;
  readonly log: Logger;
  readonly open: OpenSandboxPort;
  /** Whether the interface is still in the namespace of the host. */
  readonly isHere: (linkName: string) => boolean;
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
 * API: {@link announce}, {@link cancel}, {@link close}.
 * Threads: none. An endpoint has one timer and, for two seconds, one socket.
 * Errors: what cannot be announced is logged, at most once a minute, and counted; it works without, only later.
 */
export class Announcer {
  private readonly pending = new Map<string, Pending>();
  private readonly failures: RateLimitedLog;
  private announced = 0;
  private failed = 0;

  constructor(private readonly options: AnnouncerOptions) {
    this.failures = new RateLimitedLog(options.clock);
  }

  get statistics(): AnnouncerStatistics {
    return { announced: this.announced, failed: this.failed };
  }

  /** Announces the addresses of an endpoint as soon as its interface is in the container. */
  announce(endpoint: Endpoint): void {
    const { sandbox } = endpoint;
    if (sandbox === undefined) return;
    this.cancel(endpoint.id);
    const pending: Pending = { isCancelled: false, cancelTimer: () => {}, port: undefined };
    this.pending.set(endpoint.id, pending);
    void this.look({ ...endpoint, sandbox }, pending, this.options.clock.monotonicMs() + PATIENCE_MS);
  }

  /** The endpoint has gone. */
  cancel(endpointId: string): void {
    const pending = this.pending.get(endpointId);
    if (pending !== undefined) this.end(endpointId, pending);
  }

  /** Announces nothing more. Idempotent. */
  close(): void {
    for (const id of [...this.pending.keys()]) this.cancel(id);
  }

  private async look(endpoint: JoinedEndpoint, pending: Pending, untilMs: number): Promise<void> {
    const { clock, isHere, open } = this.options;
    try {
      const port = isHere(linkNameOf(endpoint.id)) ? undefined : await open(endpoint);
      pending.port = port;
      if (pending.isCancelled) port?.close();
      else if (port !== undefined) this.send(endpoint, pending, port, 0);
      else if (clock.monotonicMs() < untilMs) {
        pending.cancelTimer = clock.after(LOOK_MS, () => void this.look(endpoint, pending, untilMs));
      } else {
        const why = `it is not up in ${endpoint.sandbox} after ${PATIENCE_MS / 1000} s`;
        throw new OverlayError('ERR_NETNS', `cannot find the interface ${endpoint.mac}: ${why}`);
      }
    } catch (error) {
      if (!pending.isCancelled) this.fail(endpoint, pending, error);
    }
  }

  private send(endpoint: JoinedEndpoint, pending: Pending, port: SandboxPort, turn: number): void {
    port.send(endpoint.addresses.flatMap(({ address }) => announcementFrames(address, endpoint.mac)));
    const nextMs = TIMES_MS[turn + 1];
    if (nextMs === undefined) {
      this.end(endpoint.id, pending);
      this.announced++;
      return;
    }
    pending.cancelTimer = this.options.clock.after(nextMs, () => {
      try {
        this.send(endpoint, pending, port, turn + 1);
      } catch (error) {
        this.fail(endpoint, pending, error);
      }
    });
  }

  private end(endpointId: string, pending: Pending): void {
    pending.isCancelled = true;
    pending.cancelTimer();
    pending.port?.close();
    pending.port = undefined;
    if (this.pending.get(endpointId) === pending) this.pending.delete(endpointId);
  }

  private fail(endpoint: Endpoint, pending: Pending, error: unknown): void {
    this.end(endpoint.id, pending);
    this.failed++;
    this.failures.tell((count) => {
      const address = endpoint.addresses.map((each) => each.address.toString()).join(' ');
      this.options.log.warn('addresses of a container not announced', { address, count, error });
    });
  }
}
