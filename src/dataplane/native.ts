import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { OverlayError } from '../errors.js';
import { IpAddress } from '../ip/address.js';
import { errnoName } from '../sys/libc.js';
import { tunnelError } from './tunnel-errors.js';
import {
  OFFLOADS,
  type Offload,
  type OffloadState,
  type OpenTunnel,
  type Tunnel,
  type TunnelCounters,
  type TunnelEvent,
  type TunnelOptions,
  type TunnelPeerCounters,
} from './tunnel.js';
import type { TunnelPeer, TunnelSpec, VerifySource } from './tunnel-spec.js';

/**
 * Must be that of `native/addon/addon.cc`: the two change together.
 *
 * @internal A test compares this and what follows with the C++ side.
 */
export const INTERFACE_VERSION = 5;

/**
 * The numbers of the source checks (`VerifySource` in `native/core/worker/forwarding_state.h`).
 *
 * @internal
 */
export const VERIFY_SOURCE: Readonly<Record<VerifySource, number>> = { off: 0, outer: 1, strict: 2 };

/**
 * The numbers that the addon gives of each peer, in their order.
 *
 * @internal
 */
export const PEER_COUNTERS = ['outer', 'txPackets', 'txBytes', 'rxPackets', 'rxBytes'] as const satisfies readonly (
  'outer' | keyof TunnelPeerCounters
)[];

/** What can change while packets flow, as the addon takes it; addresses are numbers. */
interface NativeState {
  /** Prefix, its length and the public address of its holder, one after the other for each peer. */
  readonly routes: Uint32Array;
  /** Prefix and its length, one after the other for each of `ownPrefixes`. */
  readonly own: Uint32Array;
  readonly mtu: number;
  readonly verifySource: number;
  readonly icmpSource: number;
}

interface NativeOptions extends NativeState {
  readonly device: string;
  readonly bindAddress: number;
  readonly port: number;
  readonly workers: number;
  /** Bit i: element i of {@link OFFLOADS}. */
  readonly disabledOffloads: number;
  readonly inheritedTun: readonly number[];
  readonly inheritedSockets: readonly number[];
}

interface NativeEvent {
  readonly type: Exclude<TunnelEvent['type'], 'kernel-path'>;
  readonly offload?: Offload;
  readonly operation: string;
  readonly errno: number;
}

/** Object of the addon; the constructor and `update` throw errors with the fields of {@link NativeFailure}. */
interface NativeHandle {
  update(state: NativeState): number;
  generation(): number;
  device(): string;
  offloads(): OffloadState;
  workers(): number;
  counters(): TunnelCounters;
  /** {@link PEER_COUNTERS}, one after the other for each peer. */
  peerCounters(): Float64Array;
  tunDescriptors(): number[];
  socketDescriptors(): number[];
  close(): Promise<void>;
}

/** What the addon attaches the kernel path with; addresses are numbers. */
export interface KernelPathOptions {
  /** The object file of the programs. */
  readonly programs: Uint8Array;
  /** Index of the device that carries the datagrams. */
  readonly uplink: number;
  /** Index of the tunnel's device. */
  readonly tun: number;
  /** The outer source. */
  readonly local: number;
  readonly port: number;
  /** Place in `KERNEL_RECEIVERS`. */
  readonly receiver: number;
  readonly routes: Uint32Array;
  readonly inheritedMaps: readonly number[];
  readonly inheritedLinks: readonly number[];
}

/** The kernel path as the addon has it; errors have the fields of {@link NativeFailure}. */
export interface KernelPathHandle {
  setRoutes(table: { readonly routes: Uint32Array }): void;
  /** Leaves flows that stream to the tunnel, for so long if it is not called again. */
  leaveBulk(ms: number): void;
  /** Packets and bytes of each of `KERNEL_COUNTERS`, one after the other. */
  counters(): Float64Array;
  /** As of a tunnel. */
  peerCounters(): Float64Array;
  mapDescriptors(): number[];
  linkDescriptors(): number[];
  /** Whether every program is still at its device, so far as the kernel tells. */
  isInPlace(): boolean;
  /** Removes the programs, whoever has their descriptors; from the call on, nothing is here any more. */
  detach(): Promise<void>;
  /** Lets the descriptors go. */
  close(): void;
}

/** What the addon throws. */
export interface NativeFailure {
  readonly operation: string;
  readonly errno: number;
  readonly detail: string;
}

interface Addon {
  readonly interfaceVersion: number;
  readonly Tunnel: new (options: NativeOptions, onEvent: (event: NativeEvent) => void) => NativeHandle;
  readonly KernelPath: new () => KernelPathHandle & { open(options: KernelPathOptions): Promise<void> };
}

const NATIVE_DIRECTORY = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../native');

/**
 * Where the addon may be: a build on this host comes before a prebuilt one, since somebody asked for it.
 *
 * @internal
 */
export const ADDON_FILES: readonly string[] = [
  path.join(NATIVE_DIRECTORY, 'build/Release/tsflannel.node'),
  path.join(NATIVE_DIRECTORY, `prebuilds/${process.platform}-${process.arch}/tsflannel.node`),
];

/**
 * Where the programs of the kernel path lie, the same for every processor.
 *
 * @internal
 */
export const KERNEL_PROGRAMS_FILE = path.join(NATIVE_DIRECTORY, 'prebuilds/kernel_path.bpf.o');

let loaded: Addon | undefined;

/** Whether {@link openNativeTunnel} has its addon on this host. */
export function isNativeAvailable(): boolean {
  try {
    loaded ??= loadAddon(ADDON_FILES);
    return true;
  } catch {
    // The reason is told by the one who goes on to open a native tunnel.
    return false;
  }
}

/**
 * Opens a tunnel whose packets are forwarded by threads of the addon and never pass through JavaScript.
 *
 * @throws {@link OverlayError} `ERR_ADDON_MISSING`, `ERR_NOT_PRIVILEGED`, `ERR_NO_TUN_DEVICE`, `ERR_DEVICE_TAKEN`,
 * `ERR_PORT_IN_USE`, `ERR_TUNNEL`
 */
// eslint-disable-next-line @typescript-eslint/require-await -- opening is quick, but the interface leaves room for more
export const openNativeTunnel: OpenTunnel = async (options) => {
  const addon = (loaded ??= loadAddon(ADDON_FILES));
  const { spec } = options;
  const nativeOptions: NativeOptions = {
    ...nativeState(spec),
    device: spec.device,
    bindAddress: ipv4Number(spec.bindAddress, 'bind the UDP socket to'),
    port: spec.port,
    workers: options.workers,
    disabledOffloads: options.disabledOffloads.reduce((bits, offload) => bits | (1 << OFFLOADS.indexOf(offload)), 0),
    inheritedTun: options.inherited?.tun ?? [],
    inheritedSockets: options.inherited?.socket ?? [],
  };
  const handle = refusedAs(spec, () => new addon.Tunnel(nativeOptions, toEvents(options)));
  return new NativeTunnel(spec, handle);
};

/**
 * Attaches the programs of the kernel path, on a thread. Descriptors are duplicated before this returns.
 *
 * @throws what {@link isNativeFailure} knows.
 */
export async function openKernelPath(options: KernelPathOptions): Promise<KernelPathHandle> {
  const handle = new (loaded ??= loadAddon(ADDON_FILES)).KernelPath();
  await handle.open(options);
  return handle;
}

/**
 * The first of the files that exists and fits.
 *
 * @internal
 * @throws {@link OverlayError} `ERR_ADDON_MISSING`
 */
export function loadAddon(files: readonly string[]): Addon {
  const hint =
    'build it with "npm run build:native" in the package (needs g++, make and python3), or use the portable tunnel';
  const file = files.find((candidate) => existsSync(candidate));
  if (file === undefined) {
    throw new OverlayError('ERR_ADDON_MISSING', 'cannot load the native packet path: it has not been built', { hint });
  }
  let addon: Addon;
  try {
    addon = createRequire(import.meta.url)(file) as Addon;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new OverlayError('ERR_ADDON_MISSING', `cannot load the native packet path: ${reason}`, { cause, hint });
  }
  if (addon.interfaceVersion !== INTERFACE_VERSION) {
    const versions = `it is of version ${String(addon.interfaceVersion)}, not ${INTERFACE_VERSION}`;
    throw new OverlayError('ERR_ADDON_MISSING', `cannot use the native packet path in ${file}: ${versions}`, { hint });
  }
  return addon;
}

/**
 * API, Errors: see {@link Tunnel}. Threads: everything here runs on the event loop; the workers belong to the addon and
 * go on forwarding while the event loop is busy. Limits: a tunnel that nobody closes ends when it is garbage
 * collected, and with its environment. Counters: read from the workers at each call, kept after closing.
 */
class NativeTunnel implements Tunnel {
  readonly kind = 'native';
  readonly device: string;
  readonly workers: number;
  private closing: Promise<void> | undefined;

  constructor(
    private spec: TunnelSpec,
    private readonly handle: NativeHandle,
  ) {
    this.device = handle.device();
    this.workers = handle.workers();
  }

  get offloads(): OffloadState {
    return this.handle.offloads();
  }

  get generation(): number {
    return this.handle.generation();
  }

  update(spec: TunnelSpec): boolean {
    const { device, bindAddress, port } = this.spec;
    if (spec.device !== device || !spec.bindAddress.equals(bindAddress) || spec.port !== port) return false;
    const state = nativeState(spec);
    refusedAs(spec, () => this.handle.update(state));
    this.spec = spec;
    return true;
  }

  counters(): TunnelCounters {
    return this.handle.counters();
  }

  peerCounters(): ReadonlyMap<string, TunnelPeerCounters> {
    return peersOf(this.handle.peerCounters());
  }

  descriptors(): { readonly tun: readonly number[]; readonly socket: readonly number[] } {
    if (this.closing !== undefined) return { tun: [], socket: [] };
    return { tun: this.handle.tunDescriptors(), socket: this.handle.socketDescriptors() };
  }

  close(): Promise<void> {
    this.closing ??= this.handle.close();
    return this.closing;
  }
}

/** Reads the rows that the addon gives of peers, by their public addresses. */
export function peersOf(rows: Float64Array): ReadonlyMap<string, TunnelPeerCounters> {
  const width = PEER_COUNTERS.length;
  const peers = new Map<string, TunnelPeerCounters>();
  for (let at = 0; at < rows.length; at += width) {
    const value = (name: (typeof PEER_COUNTERS)[number]): number => rows[at + PEER_COUNTERS.indexOf(name)] ?? 0;
    peers.set(IpAddress.fromValue(4, BigInt(value('outer'))).toString(), {
      txPackets: value('txPackets'),
      txBytes: value('txBytes'),
      rxPackets: value('rxPackets'),
      rxBytes: value('rxBytes'),
    });
  }
  return peers;
}

function nativeState(spec: TunnelSpec): NativeState {
  return {
    routes: routesOf(spec.peers),
    own: Uint32Array.from(
      spec.ownPrefixes.flatMap(({ address, length }) => [ipv4Number(address, 'guard the address'), length]),
    ),
    mtu: spec.mtu,
    verifySource: VERIFY_SOURCE[spec.verifySource],
    icmpSource: ipv4Number(spec.icmpSource, 'send ICMP errors from'),
  };
}

function routesOf(peers: readonly TunnelPeer[]): Uint32Array {
  const routes = new Uint32Array(peers.length * 3);
  for (const [index, { subnet, publicIp }] of peers.entries()) {
    const prefix = ipv4Number(subnet.address, 'forward packets to');
    routes.set([prefix, subnet.length, ipv4Number(publicIp, 'reach a peer at')], index * 3);
  }
  return routes;
}

/** @throws {@link OverlayError} `ERR_TUNNEL` */
export function ipv4Number(address: IpAddress, purpose: string): number {
  if (address.family === 4) return Number(address.value);
  throw new OverlayError(
    'ERR_TUNNEL',
    `cannot ${purpose} ${address.toString()}: the tunnel carries IPv4 over IPv4 only`,
    {
      hint: 'use backend vxlan for IPv6',
    },
  );
}

/** Must not refer to the tunnel: the addon holds on to it, and a tunnel that nobody holds has to be collectable. */
function toEvents({ onEvent }: TunnelOptions): (event: NativeEvent) => void {
  return ({ type, offload, operation, errno }) => {
    if (type === 'failed' || offload === undefined) onEvent({ type: 'failed', operation, errno: errnoName(errno) });
    else if (type === 'trial') onEvent({ type, offload });
    else onEvent({ type, offload, errno: errnoName(errno) });
  };
}

function refusedAs<T>(spec: TunnelSpec, call: () => T): T {
  try {
    return call();
  } catch (cause) {
    if (!isNativeFailure(cause)) throw cause;
    throw tunnelError({
      operation: cause.operation,
      errno: errnoName(cause.errno),
      device: spec.device,
      bindAddress: spec.bindAddress.toString(),
      port: spec.port,
      cause,
    });
  }
}

/** Whether the addon has thrown it. */
export function isNativeFailure(error: unknown): error is NativeFailure {
  return error instanceof Error && 'operation' in error && 'errno' in error;
}
