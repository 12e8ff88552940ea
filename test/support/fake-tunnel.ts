import {
  DROP_REASONS,
  ICMP_ERRORS,
  OFFLOADS,
  type Tunnel,
  type TunnelCounters,
  type TunnelOptions,
  type TunnelPeerCounters,
} from '../../src/dataplane/tunnel.js';
import type { TunnelSpec } from '../../src/dataplane/tunnel-spec.js';
import type { FakeKernel } from './fake-kernel.js';

function all<K extends string, V>(keys: readonly K[], value: V): Record<K, V> {
  return Object.fromEntries(keys.map((key) => [key, value])) as Record<K, V>;
}

const NO_COUNTERS: TunnelCounters = {
  txPackets: 0,
  txBytes: 0,
  rxPackets: 0,
  rxBytes: 0,
  tunReads: 0,
  tunWrites: 0,
  socketSends: 0,
  socketReceives: 0,
  icmpSent: all(ICMP_ERRORS, 0),
  icmpLimited: 0,
  icmpFailed: 0,
  drops: all(DROP_REASONS, 0),
  downgrades: all(OFFLOADS, 0),
  trials: all(OFFLOADS, 0),
  packetsPerRead: [],
  packetsPerSend: [],
  packetsPerWrite: [],
  workerCpuSeconds: [],
};

/** A tunnel that has a device in a {@link FakeKernel}, takes tables in and carries nothing. */
export class FakeTunnel implements Tunnel {
  readonly kind = 'portable';
  readonly device: string;
  readonly offloads = all(OFFLOADS, false);
  readonly workers = 1;
  /** Every table that came in, the latest last. */
  readonly specs: TunnelSpec[];
  isClosed = false;

  /** @param index - of its device. */
  constructor(
    readonly options: TunnelOptions,
    private readonly kernel: FakeKernel,
    readonly index: number,
  ) {
    this.device = options.spec.device;
    this.specs = [options.spec];
  }

  /** Opens a tunnel whose device is new. */
  static open(options: TunnelOptions, kernel: FakeKernel): FakeTunnel {
    const { index } = kernel.addLink({ name: options.spec.device, kind: 'tun', mtu: 1500 });
    return new FakeTunnel(options, kernel, index);
  }

  /** The table in use. */
  get spec(): TunnelSpec {
    return this.specs.at(-1) ?? this.options.spec;
  }

  get generation(): number {
    return this.specs.length;
  }

  update(spec: TunnelSpec): boolean {
    const { bindAddress, device, port } = this.options.spec;
    if (spec.port !== port || spec.device !== device || !spec.bindAddress.equals(bindAddress)) return false;
    this.specs.push(spec);
    return true;
  }

  counters(): TunnelCounters {
    return NO_COUNTERS;
  }

  peerCounters(): ReadonlyMap<string, TunnelPeerCounters> {
    return new Map();
  }

  descriptors(): { readonly tun: readonly number[]; readonly socket: readonly number[] } {
    return { tun: [], socket: [] };
  }

  close(): Promise<void> {
    if (!this.isClosed && this.kernel.links.has(this.index)) this.kernel.delLink(this.index);
    this.isClosed = true;
    return Promise.resolve();
  }
}
