import { type Clock, backoffMs } from '../clock.js';
import { CoalescingTask } from '../coalescing-task.js';
import { isOverlayError } from '../errors.js';
import { guarded } from '../guard.js';
import type { IpAddress } from '../ip/address.js';
import { isSame } from '../ip/same.js';
import type { Logger } from '../log.js';
import { type HostNetwork, type RouteTo, type UnderlayRequest, selectUnderlay, usableAddresses } from './select.js';
import type { Underlay } from './underlay.js';

/** Where the watcher learns about the host. */
export interface HostNetworkSource {
  /** Devices and addresses; default routes only on request, as their list can be long. */
  read(options: { readonly withRoutes: boolean }): Promise<HostNetwork>;
  readonly routeTo: RouteTo;
  /**
   * Calls back after every change of a device, an address or a default route, with the index of the device, or
   * undefined when anything may have changed.
   *
   * @returns a function that ends it.
   */
  onChange(callback: (ifindex: number | undefined) => void): () => void;
}

/** The underlay, and whether packets can leave through it now. */
export interface UnderlayState {
  readonly underlay: Underlay;
  /** False while the device is gone, down or without its addresses: then `underlay` is the last one that worked. */
  readonly isUsable: boolean;
  /** Why it is not usable, undefined if it is. */
  readonly reason: string | undefined;
}

/** Everything {@link UnderlayWatcher.start} needs. */
export interface UnderlayWatcherOptions {
  readonly source: HostNetworkSource;
  readonly request: UnderlayRequest;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Called after each change; never from within {@link UnderlayWatcher.start}. */
  readonly onChange: (state: UnderlayState) => void;
}

/** Changes come in groups (a device goes up, gets an address, gets routes): wait until most of a group is there. */
const SETTLE_MS = 100;

/** A device that is re-created, or a DHCP client that restarts, is back sooner. The move gives the host a new identity. */
const MOVE_AFTER_MS = 10_000;

const RETRY_BASE_MS = 1000;
const RETRY_CAP_MS = 30_000;

/**
 * Keeps the underlay up to date.
 *
 * API: {@link start} chooses by the operator's flags, {@link state} is the present, `onChange` reports each change of
 * device, index, MTU, address or usability; {@link close} ends it.
 * Rules: the host's address is its identity for all others, so it is kept as long as it is there, also when another
 * one would now be chosen. While device or address is missing the last underlay stays, marked as not usable. Another
 * device is taken at once if it has got the same address (an interface put into a bridge), else after 10 s.
 * Errors: only {@link start} throws; later trouble with reading is logged and retried.
 */
export class UnderlayWatcher {
  private current: UnderlayState;
  private unusableSinceMs = 0;
  private failures = 0;
  private isClosed = false;
  private readonly checks: CoalescingTask;
  private readonly unsubscribe: () => void;
  private readonly onChange: (state: UnderlayState) => void;

  private constructor(
    private readonly options: UnderlayWatcherOptions,
    underlay: Underlay,
  ) {
    this.current = { underlay, isUsable: true, reason: undefined };
    const { clock, logger, source } = options;
    this.checks = new CoalescingTask(clock, () => this.check());
    const recover = (): void => this.checks.schedule(RETRY_BASE_MS);
    this.unsubscribe = source.onChange(
      guarded({ clock, logger, recover, what: 'changes of interfaces' }, (ifindex) => {
        const isOurs = ifindex === undefined || ifindex === this.current.underlay.ifindex || !this.current.isUsable;
        if (isOurs) this.checks.schedule(SETTLE_MS);
      }),
    );
    this.onChange = guarded({ clock, logger, what: 'a change of interface' }, options.onChange);
    // What changed between the first reading and the subscription.
    this.checks.schedule(SETTLE_MS);
  }

  /**
   * Chooses the underlay and starts to follow it.
   *
   * @throws {@link OverlayError} `ERR_UNDERLAY`, retryable: at boot an interface may come later.
   */
  static async start(options: UnderlayWatcherOptions): Promise<UnderlayWatcher> {
    const { source, request, logger } = options;
    const host = await source.read({ withRoutes: true });
    const { underlay, rejected } = selectUnderlay(host, request, source.routeTo);
    for (const candidate of rejected) logger.info('interface candidate does not fit', { detail: candidate });
    logger.info('interface chosen', describe(underlay));
    return new UnderlayWatcher(options, underlay);
  }

  get state(): UnderlayState {
    return this.current;
  }

  /** No callback comes after it. Idempotent. */
  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    void this.checks.close();
    this.unsubscribe();
  }

  /** Never rejects. */
  private async check(): Promise<void> {
    try {
      await this.readAndDecide();
      this.failures = 0;
    } catch (error) {
      this.failures++;
      const delayMs = backoffMs(this.failures, RETRY_BASE_MS, RETRY_CAP_MS, () => this.options.clock.random());
      if (this.failures === 1) this.options.logger.warn('interfaces cannot be read', { error, delayMs });
      this.checks.schedule(delayMs);
    }
  }

  private async readAndDecide(): Promise<void> {
    const { source, request } = this.options;
    const quick = judge(await source.read({ withRoutes: false }), request, this.current.underlay);
    if (quick.kind === 'kept') {
      this.adopt(quick.underlay);
      return;
    }
    const host = await source.read({ withRoutes: true });
    const judgement = judge(host, request, this.current.underlay);
    if (judgement.kind === 'lost') {
      this.chooseAgain(host, judgement.reason);
      return;
    }
    const better = judgement.kind === 'kept' ? undefined : selectAgain(host, request, source.routeTo);
    const isOnSameDevice = better?.device === judgement.underlay.device;
    this.adopt(isOnSameDevice ? better : judgement.underlay);
  }

  /** @param reason - why the present underlay cannot stay as it is. */
  private chooseAgain(host: HostNetwork, reason: string): void {
    const { clock, request, source } = this.options;
    const { underlay: former } = this.current;
    const next = selectAgain(host, request, source.routeTo);
    if (next === undefined) {
      this.loseUse(reason);
      return;
    }
    const isNear = next.device === former.device || isSameHost(next, former);
    const isUp = host.links.find(({ index }) => index === next.ifindex)?.isUp === true;
    const waitedMs = this.current.isUsable ? 0 : clock.monotonicMs() - this.unusableSinceMs;
    if (isUp && (isNear || waitedMs >= MOVE_AFTER_MS)) {
      this.adopt(next);
      return;
    }
    this.loseUse(reason);
    if (isUp) this.checks.schedule(MOVE_AFTER_MS - waitedMs);
  }

  private adopt(underlay: Underlay): void {
    const former = this.current;
    const hasChanged = !isSameUnderlay(underlay, former.underlay);
    if (this.isClosed || (!hasChanged && former.isUsable)) return;
    this.current = { underlay, isUsable: true, reason: undefined };
    const { logger } = this.options;
    if (hasChanged)
      logger.info('interface changed', {
        ...describe(underlay),
        from: summary(former.underlay),
        to: summary(underlay),
      });
    if (!former.isUsable) logger.info('interface is usable again', { dev: underlay.device });
    this.onChange(this.current);
  }

  private loseUse(reason: string): void {
    if (this.isClosed || !this.current.isUsable) return;
    const { clock, logger } = this.options;
    const { underlay } = this.current;
    this.current = { underlay, isUsable: false, reason };
    this.unusableSinceMs = clock.monotonicMs();
    logger.warn('interface cannot be used, keeping its last state', { dev: underlay.device, detail: reason });
    this.onChange(this.current);
  }
}

/** Whether nothing that the overlay depends on differs. */
function isSameUnderlay(left: Underlay, right: Underlay): boolean {
  return (
    left.device === right.device &&
    left.ifindex === right.ifindex &&
    left.mtu === right.mtu &&
    isSame(left.address, right.address) &&
    isSame(left.addressV6, right.addressV6) &&
    isSame(left.publicIp, right.publicIp) &&
    isSame(left.publicIpv6, right.publicIpv6)
  );
}

/** What has become of an underlay: as good as before, usable although a better address has come, or lost. */
type Judgement =
  | { readonly kind: 'kept' | 'improvable'; readonly underlay: Underlay }
  | { readonly kind: 'lost'; readonly reason: string };

/** Looks at the same device and addresses again; takes over the present index and MTU. */
function judge(host: HostNetwork, request: UnderlayRequest, underlay: Underlay): Judgement {
  const link = host.links.find(({ name }) => name === underlay.device);
  if (link === undefined) return { kind: 'lost', reason: 'the device is gone' };
  if (!link.isUp) return { kind: 'lost', reason: 'the device is down or has no carrier' };
  let kind: 'kept' | 'improvable' = 'kept';
  for (const family of request.families) {
    const former = family === 4 ? underlay.address : underlay.addressV6;
    const [best, ...others] = usableAddresses(host, link.index, family);
    const isThere = host.addresses.some(({ ifindex, address }) => ifindex === link.index && address.equals(former));
    if (former === undefined || !isThere) return { kind: 'lost', reason: `it has no IPv${family} address any more` };
    // An address that was fixed, such as one on the loopback device, need not be one that would be chosen.
    const isUsable = best === undefined || best.equals(former) || others.some((address) => address.equals(former));
    if (!isUsable || (former.isLinkLocal && best?.isGlobalUnicast === true)) kind = 'improvable';
  }
  return { kind, underlay: { ...underlay, ifindex: link.index, mtu: link.mtu } };
}

function selectAgain(host: HostNetwork, request: UnderlayRequest, routeTo: RouteTo): Underlay | undefined {
  try {
    return selectUnderlay(host, request, routeTo).underlay;
  } catch (error) {
    if (isOverlayError(error, 'ERR_UNDERLAY')) return undefined; // a state: the caller reports why the former is lost
    throw error;
  }
}

/** Whether peers would take both for the same host. */
function isSameHost(left: Underlay, right: Underlay): boolean {
  return isSame(left.address, right.address) && isSame(left.addressV6, right.addressV6);
}

function describe(underlay: Underlay): {
  dev: string;
  ifindex: number;
  mtu: number;
  address: string;
  publicIp: string;
} {
  return {
    dev: underlay.device,
    ifindex: underlay.ifindex,
    mtu: underlay.mtu,
    address: both(underlay.address, underlay.addressV6),
    publicIp: both(underlay.publicIp, underlay.publicIpv6),
  };
}

function summary(underlay: Underlay): string {
  return `${underlay.device} ${both(underlay.address, underlay.addressV6)} mtu ${underlay.mtu}`;
}

function both(v4: IpAddress | undefined, v6: IpAddress | undefined): string {
  return [v4, v6].filter((address) => address !== undefined).join(',');
}
