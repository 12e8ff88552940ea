import type { Clock } from '../clock.js';
import type { Offload, OpenTunnel, Tunnel, TunnelEvent, TunnelOptions } from '../dataplane/tunnel.js';
import type { TunnelSpec } from '../dataplane/tunnel-spec.js';

/** How tunnels are opened. */
export interface TunnelSettings {
  readonly open: OpenTunnel;
  /** 0 chooses. */
  readonly workers: number;
  readonly disabledOffloads: readonly Offload[];
  /** Descriptors kept over a restart, by device; used for the first opening only. */
  readonly inherited?: ReadonlyMap<string, NonNullable<TunnelOptions['inherited']>>;
  /** The kernel path of a tunnel begins or ceases to carry packets. */
  readonly onKernelPath?: () => void;
}

/** For what is carried by no tunnel. */
export const NO_TUNNELS: TunnelSettings = {
  open: () => Promise.reject(new TypeError('no tunnel is desired here')),
  workers: 1,
  disabledOffloads: [],
};

/** What {@link TunnelSet.ensure} did. */
export type TunnelChange = 'none' | 'updated' | 'opened' | 'replaced';

interface OpenedTunnel {
  spec: TunnelSpec;
  readonly tunnel: Tunnel;
  readonly openedAtMs: number;
  isLost: boolean;
}

/** A tunnel that lives at least this long has not failed because of how it was opened. */
const STABLE_MS = 10_000;

/** The open userspace tunnels, by device. */
export class TunnelSet {
  private readonly opened = new Map<string, OpenedTunnel>();
  private readonly inherited: Map<string, NonNullable<TunnelOptions['inherited']>>;
  /** How often in a row a tunnel was lost soon after it was opened. */
  private readonly losses = new Map<string, number>();

  /** @param onEvent - gets the events of tunnels that are still in use, `failed` at most once each. */
  constructor(
    private readonly settings: TunnelSettings,
    private readonly clock: Clock,
    private readonly onEvent: (device: string, event: TunnelEvent) => void,
  ) {
    this.inherited = new Map(settings.inherited);
  }

  /** Devices of the tunnels that are open and not lost. */
  get devices(): ReadonlySet<string> {
    return new Set([...this.opened].filter(([, { isLost }]) => !isLost).map(([device]) => device));
  }

  get tunnels(): readonly Tunnel[] {
    return Array.from(this.opened.values(), ({ tunnel }) => tunnel);
  }

  /**
   * Marks a tunnel whose device or socket is gone: the next {@link ensure} opens it anew.
   *
   * @returns how often in a row it was lost soon after opening; undefined if there is no tunnel that was not lost yet.
   */
  markLost(device: string): number | undefined {
    const entry = this.opened.get(device);
    if (entry === undefined || entry.isLost) return undefined;
    entry.isLost = true;
    const isShortLived = this.clock.monotonicMs() - entry.openedAtMs < STABLE_MS;
    const losses = isShortLived ? (this.losses.get(device) ?? 0) + 1 : 1;
    this.losses.set(device, losses);
    return losses;
  }

  /**
   * Makes the tunnel be as specified: opened, updated in place, or closed and opened anew.
   *
   * @throws {@link OverlayError} of the data plane.
   */
  async ensure(spec: TunnelSpec): Promise<TunnelChange> {
    const entry = this.opened.get(spec.device);
    if (entry !== undefined && !entry.isLost) {
      if (entry.spec === spec) return 'none';
      if (entry.tunnel.update(spec)) {
        entry.spec = spec;
        return 'updated';
      }
    }
    // One device name serves one tunnel at a time, so the old one has to go first.
    if (entry !== undefined) await this.close(spec.device);
    await this.open(spec);
    return entry === undefined ? 'opened' : 'replaced';
  }

  /** Closes tunnels that are not wanted. @returns their devices. */
  async retire(isWanted: (device: string) => boolean): Promise<string[]> {
    const unwanted = [...this.opened.keys()].filter((device) => !isWanted(device));
    await Promise.all(unwanted.map((device) => this.close(device)));
    return unwanted;
  }

  /** Closes everything at the end of the process: what the service manager keeps for the next one goes on. */
  async leave(): Promise<void> {
    await Promise.all([...this.opened.keys()].map((device) => this.close(device, true)));
  }

  private async open(spec: TunnelSpec): Promise<void> {
    const { device } = spec;
    const inherited = this.inherited.get(device);
    this.inherited.delete(device);
    let opened: OpenedTunnel | undefined = undefined;
    const early: TunnelEvent[] = [];
    const tunnel = await this.settings.open({
      spec,
      workers: this.settings.workers,
      disabledOffloads: this.settings.disabledOffloads,
      onEvent: (event) => {
        if (opened === undefined) early.push(event);
        else if (this.opened.get(device) === opened && !opened.isLost) this.onEvent(device, event);
      },
      ...(inherited === undefined ? {} : { inherited }),
    });
    opened = { spec, tunnel, openedAtMs: this.clock.monotonicMs(), isLost: false };
    this.opened.set(device, opened);
    for (const event of early) this.onEvent(device, event);
  }

  private async close(device: string, isProcessEnding = false): Promise<void> {
    const entry = this.opened.get(device);
    this.opened.delete(device);
    await entry?.tunnel.close(isProcessEnding);
  }
}
