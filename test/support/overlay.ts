import assert from 'node:assert/strict';
import path from 'node:path';
import type { Daemon } from './daemon.js';
import type { DescriptorKeeper } from './descriptor-keeper.js';
import { Rig, type Container, type RigOptions } from './rig.js';
import { SteadyPing, type SteadyPingResult } from './steady-ping.js';
import { ping } from './traffic.js';
import { waitFor } from './wait.js';

/** The network most tests use; backend udp is the default. */
export const NETWORK = { Network: '10.5.0.0/16' } as const;

/** Between pings that only have to go on. */
const SPARSE_MS = 25;

/** What {@link Overlay.create} makes. */
export interface OverlayOptions extends RigOptions {
  /** Default {@link NETWORK}. */
  readonly config?: object;
  /** More flags for the daemon of each host, counted from 1. */
  readonly args?: (host: number) => readonly string[];
  /** What has what a run of a daemon leaves for the next one; gets the daemon's directory. Default nobody. */
  readonly keeper?: (directory: string) => DescriptorKeeper;
}

/** A {@link Rig} with a running daemon on every host, one container behind each, and packets going between all. */
export class Overlay {
  private constructor(
    readonly rig: Rig,
    readonly containers: readonly Container[],
  ) {}

  static async create(options: OverlayOptions = {}): Promise<Overlay> {
    const rig = await Rig.create(options);
    try {
      await rig.putConfig(options.config ?? NETWORK);
      const containers = await Promise.all(
        rig.hosts.map(async (host, index) => {
          const keeper = options.keeper?.(path.join(rig.directory, host.name));
          await host.startDaemon({ args: options.args?.(index + 1) ?? [], ...(keeper && { keeper }) });
          return host.addContainer();
        }),
      );
      const overlay = new Overlay(rig, containers);
      await overlay.waitUntilConnected();
      return overlay;
    } catch (error) {
      await rig.close();
      throw error;
    }
  }

  /**
   * The container behind the n-th host, counted from 1.
   *
   * @throws RangeError if there is none.
   */
  container(number: number): Container {
    const found = this.containers[number - 1];
    if (found === undefined) throw new RangeError(`no container ${number}`);
    return found;
  }

  /** The daemon of the n-th host. */
  daemon(number: number): Daemon {
    const { daemon } = this.rig.host(number);
    if (daemon === undefined) throw new Error(`host ${number} has no daemon`);
    return daemon;
  }

  /** Every ordered pair of different hosts. */
  get pairs(): readonly (readonly [number, number])[] {
    const numbers = this.containers.map((_, index) => index + 1);
    return numbers.flatMap((from) => numbers.filter((to) => to !== from).map((to) => [from, to] as const));
  }

  /** Waits until a ping crosses between every two containers. */
  async waitUntilConnected(): Promise<void> {
    await Promise.all(
      this.pairs.map(async ([from, to]) =>
        waitFor(
          async () =>
            (await ping(this.container(from).netns, this.container(to).address, { count: 1, waitSeconds: 1 }))
              .received === 1,
          { what: `a ping from host ${from} to host ${to}; log of host ${from}:\n${this.daemon(from).log}` },
        ),
      ),
    );
  }

  /** {@link withoutLoss} between the containers of the first two hosts. */
  async withoutLoss(action: () => Promise<void>): Promise<void> {
    await withoutLoss([this.container(1), this.container(2)], action);
  }

  async close(): Promise<void> {
    await this.rig.close();
  }
}

/**
 * Pings in both directions while something happens and for a while after it; not one may be lost.
 *
 * @param options.afterMs - for what only shows when the daemon looks again. Default 200.
 */
export async function withoutLoss(
  [near, far]: readonly [Container, Container],
  action: () => Promise<void>,
  options: { readonly intervalMs?: number; readonly afterMs?: number } = {},
): Promise<void> {
  const { intervalMs = 10, afterMs = 200 } = options;
  const pings = [
    SteadyPing.start(near.netns, far.address, { intervalMs }),
    SteadyPing.start(far.netns, near.address, { intervalMs }),
  ];
  const stop = async (): Promise<readonly SteadyPingResult[]> => Promise.all(pings.map((running) => running.stop()));
  try {
    await action();
    const count = Math.ceil(afterMs / SPARSE_MS);
    const after = await ping(near.netns, far.address, { count, intervalMs: SPARSE_MS });
    assert.equal(after.received, count, 'pings after it');
  } catch (error) {
    await stop();
    throw error;
  }
  for (const { sent, received } of await stop()) {
    assert.ok(sent >= 10, `only ${sent} pings`);
    assert.equal(received, sent, `${sent - received} of ${sent} pings lost`);
  }
}

/** Key of the lease that a subnet.env speaks of. */
export function leaseKey(rig: Rig, flannelSubnet: string | undefined): string {
  const [address = '', length = ''] = (flannelSubnet ?? '').split('/');
  const network = address.replace(/\.\d+$/, '.0');
  return `${rig.etcdPrefix}/subnets/${network}-${length}`;
}

/** How many lines of a log match. */
export function countLines(log: string, pattern: RegExp): number {
  return log.split('\n').filter((line) => pattern.test(line)).length;
}
