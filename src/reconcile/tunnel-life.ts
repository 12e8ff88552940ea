import type { Clock } from '../clock.js';
import type { KernelPathState } from '../dataplane/kernel-path.js';
import type { Tunnel, TunnelEvent } from '../dataplane/tunnel.js';
import type { TunnelSpec } from '../dataplane/tunnel-spec.js';
import { OverlayError } from '../errors.js';
import { guarded } from '../guard.js';
import type { Logger } from '../log.js';
import type { LinkInfo } from '../netlink/link.js';
import type { Kernel } from './kernel.js';
import { tunnelKey } from './kinds/tunnel.js';
import type { Ledger } from './ledger.js';
import { type TunnelChange, type TunnelSettings, TunnelSet } from './tunnels.js';

/** Bounds the delay after a tunnel's device was deleted again and again: 400 ms and jitter. */
const MAX_DELETION_ATTEMPT = 3;

const VERBS = { opened: 'add', replaced: 'replace', updated: 'set' } as const satisfies Partial<
  Record<TunnelChange, string>
>;

/** Input of {@link TunnelLife}. */
export interface TunnelLifeOptions {
  readonly settings: TunnelSettings;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly kernel: Pick<Kernel, 'getLink'>;
  readonly ledger: Ledger;
  /** A tunnel was opened on a device, or closed: what is known of the device does not hold any more. */
  readonly onDevice: () => void;
  /** A tunnel was lost, and is to be opened again when the ledger says so. */
  readonly onLost: () => void;
}

/** The life of tunnels: opened when they are desired, opened again when they are lost, closed when they are not desired. */
export class TunnelLife {
  private readonly set: TunnelSet;
  /** Index of the device that each tunnel was opened on. */
  private readonly indexes = new Map<string, number>();

  constructor(private readonly options: TunnelLifeOptions) {
    const { settings, clock, logger } = options;
    // Called by the addon, to which an exception must not go back: the process would not survive it.
    const takeEvent = guarded({ clock, logger, what: 'events of tunnels' }, (device: string, event: TunnelEvent) => {
      this.takeEvent(device, event);
    });
    this.set = new TunnelSet(settings, clock, takeEvent);
  }

  get tunnels(): readonly Tunnel[] {
    return this.set.tunnels;
  }

  /** Devices of the tunnels that are open and not lost. */
  get devices(): ReadonlySet<string> {
    return this.set.devices;
  }

  /** Opens, and updates, what is desired, except what failed a moment ago. */
  async open(specs: Iterable<TunnelSpec>): Promise<void> {
    for (const spec of specs) await this.ensure(spec);
  }

  /** Closes what is not desired. */
  async close(isDesired: (device: string) => boolean): Promise<void> {
    for (const device of await this.set.retire(isDesired)) {
      this.indexes.delete(device);
      this.options.ledger.did({ key: tunnelKey(device), device: undefined, verb: 'del', reason: 'unexpected' });
      this.options.onDevice();
    }
  }

  /** Closes everything, without telling: the end of the process. */
  async closeAll(): Promise<void> {
    await this.set.leave();
  }

  /** A device was deleted; perhaps one of a tunnel. */
  takeDeletion({ name, index }: LinkInfo): void {
    if (this.indexes.get(name) === index) this.lose(name, 'ENODEV', 'device deleted');
  }

  /** A new list says which devices there are. */
  takeDevices(exists: (device: string) => boolean): void {
    for (const device of this.devices) if (!exists(device)) this.lose(device, 'ENODEV', 'device missing');
  }

  private async ensure(spec: TunnelSpec): Promise<void> {
    const { kernel, ledger, onDevice } = this.options;
    const { device } = spec;
    const key = tunnelKey(device);
    if (ledger.isHeld(key, 'whole')) return;
    try {
      const change = await this.set.ensure(spec);
      const isRecovery = ledger.clearTunnel(device);
      if (change === 'none') return;
      ledger.did({ key, device, verb: VERBS[change], reason: 'altered' });
      if (isRecovery) ledger.tunnelRecovered(device);
      if (change === 'updated') return;
      onDevice();
      this.indexes.set(device, kernel.getLink(device)?.index ?? 0);
    } catch (error) {
      ledger.tunnelFailed(device, error);
    }
  }

  private takeEvent(device: string, event: TunnelEvent): void {
    const { logger } = this.options;
    if (event.type === 'failed') {
      this.lose(device, event.errno, event.operation);
    } else if (event.type === 'trial') {
      logger.info('offload of the tunnel tried again', { dev: device, kind: event.offload });
    } else if (event.type === 'kernel-path') {
      this.takeKernelPath(device, event.state);
    } else {
      const { offload, errno } = event;
      logger.warn('offload of the tunnel switched off', { dev: device, kind: offload, errno });
    }
  }

  private takeKernelPath(device: string, state: KernelPathState): void {
    const { logger, settings } = this.options;
    if (state.isActive) {
      logger.info('the kernel path carries what it can', { dev: device, kind: state.receiver });
    } else {
      const { isDemanded, reason: kind, detail, hint } = state;
      const level = isDemanded ? 'warn' : 'info';
      logger[level]('no kernel path, the tunnel carries everything', { dev: device, kind, detail, hint });
    }
    settings.onKernelPath?.();
  }

  private lose(device: string, errno: string, operation: string): void {
    const losses = this.set.markLost(device);
    if (losses === undefined) return;
    const { kernel, ledger, logger, onLost } = this.options;
    const wasDeleted = kernel.getLink(device)?.index !== this.indexes.get(device);
    this.indexes.delete(device);
    const message = `cannot use the tunnel on ${device} any more: ${operation}: ${errno}`;
    const error = new OverlayError('ERR_TUNNEL', message, { context: { dev: device, errno }, isRetryable: true });
    logger.warn('tunnel lost, opening it again', { error });
    // A tunnel that fails by itself may do so for ever; whoever deletes its device does not, and soon is soon enough.
    ledger.lostTunnel(device, error, wasDeleted ? Math.min(losses, MAX_DELETION_ATTEMPT) : losses);
    onLost();
  }
}
