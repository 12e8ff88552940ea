import { readFileSync } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import type { Clock } from '../clock.js';
import { describeError } from '../errors.js';
import { readGro, setGro } from '../sys/gro.js';
import { close, duplicate, errnoName } from '../sys/libc.js';
import { Turns } from '../turns.js';
import {
  KERNEL_COUNTERS,
  KERNEL_RECEIVERS,
  type KernelCounters,
  type KernelPath,
  type KernelPathDescriptors,
  type KernelPathReason,
  type KernelPathRefusal,
  type KernelPathState,
  type KernelReceiver,
  type KernelTraffic,
} from './kernel-path.js';
import {
  KERNEL_PROGRAMS_FILE,
  type KernelPathHandle,
  type KernelPathOptions,
  type NativeFailure,
  ipv4Number,
  isNativeFailure,
  openKernelPath,
  peersOf,
} from './native.js';
import type {
  OffloadState,
  OpenTunnel,
  Tunnel,
  TunnelCounters,
  TunnelEvent,
  TunnelOptions,
  TunnelPeerCounters,
} from './tunnel.js';
import type { TunnelSpec, TunnelUplink } from './tunnel-spec.js';

/** What stood in the way may be gone by then: another program, an MTU, a missing privilege. */
const RETRY_MS = 60_000;

/** A tunnel whose process hangs or ends keeps flows that stream for at most so long; then the kernel takes them, too. */
const BULK_MS = 2000;
const BULK_REFRESH_MS = 500;

/**
 * Between two looks whether the programs are still there. Somebody may remove them; and a device that takes the name and
 * the index of a deleted one, as those of containers do, is another one all the same.
 */
const CHECK_MS = 5000;

/** Kinds of devices on which datagrams arrive as they were sent; those of the hardware have none. */
const PLAIN_KINDS: ReadonlySet<string> = new Set(['', 'veth']);

/**
 * XDP pays for bulk alone: GRO behind it joins what is inside. Without bulk tc does as well, and the uplink stays as it
 * is: some drivers take their link down for a moment when they get a program.
 */
const RECEIVERS_WITHOUT_BULK: readonly KernelReceiver[] = ['tc'];

const NOTHING: KernelPathDescriptors = { maps: [], links: [] };

/** What is known of a device. */
export interface UplinkLink {
  readonly index: number;
  readonly kind: string;
  readonly mac: string | undefined;
  readonly masterIndex: number;
}

/** Remembers what a setting was before it was changed; kept until somebody puts it back. */
export interface FormerSettings {
  readonly entries: ReadonlyMap<string, { readonly former: string; readonly value: string }>;
  remember(name: string, value: { readonly former: string; readonly value: string }): void;
  forget(name: string): void;
}

/** What the kernel path needs of the host. */
export interface KernelPathHost {
  readonly clock: Clock;
  /** The device of that name as it is now. */
  readonly linkOf: (name: string) => UplinkLink | undefined;
  readonly former: FormerSettings;
  /** Whether a service manager keeps descriptors for the next process. */
  readonly keepsDescriptors: boolean;
  /** Whether flows that stream are left to the tunnel, or everything is taken that can be. */
  readonly leavesBulk: boolean;
  /** For tests. */
  readonly open?: (options: KernelPathOptions) => Promise<KernelPathHandle>;
  /** For tests: the object file of the programs. */
  readonly programsFile?: string;
  /** For tests. */
  readonly gro?: Gro;
}

/** Receive offload of a device, as src/sys/gro.ts has it. */
export interface Gro {
  readonly read: (device: string) => number;
  readonly set: (device: string, isOn: boolean) => number;
}

const KERNEL_GRO: Gro = { read: readGro, set: setGro };

/**
 * Opens native tunnels with the kernel path in front of them, which begins a moment later; unless another process has
 * left it at work, since what has been counted would be missing until then.
 *
 * @param openNative - opens the tunnel that carries what the kernel leaves.
 * @throws {@link OverlayError} those of the native tunnel; that the kernel carries nothing is no error.
 */
export function kernelTunnels(host: KernelPathHost, openNative: OpenTunnel): OpenTunnel {
  return async (options) => {
    const tunnel = new KernelTunnel(await openNative(options), host, options);
    const inherited = options.inherited?.kernelPath ?? NOTHING;
    const begun = tunnel.begin(inherited);
    if (inherited.maps.length > 0) await begun;
    return tunnel;
  };
}

/**
 * A native tunnel, and programs in the kernel that carry what is plain past it; see docs/kernel-path.md.
 *
 * API, Errors: see {@link Tunnel}; that the programs cannot be used is told as an event, and tried again every minute.
 * Threads: everything here runs on the event loop but attaching and detaching, which take the kernel tens of
 * milliseconds, one after the other. Counters: packets and bytes are those of both ways.
 * Limits: the programs are at one uplink; peers behind other devices and behind routers are the native tunnel's.
 */
class KernelTunnel implements Tunnel {
  readonly kind = 'native';
  private handle: KernelPathHandle | undefined;
  /** Where the programs of {@link handle} are. */
  private place: TunnelUplink | undefined;
  /** What had been counted when the programs left one place for another; while none are attached. */
  private counted: Counted | undefined;
  private state: KernelPathState | undefined;
  private descriptorsOfPath = NOTHING;
  private spec: TunnelSpec;
  private readonly onEvent: (event: TunnelEvent) => void;
  private readonly turns = new Turns();
  private isClosed = false;
  /** Of what comes next, a check or another try. */
  private cancelTimer: (() => void) | undefined;
  private cancelRefresh: (() => void) | undefined;

  constructor(
    private readonly native: Tunnel,
    private readonly host: KernelPathHost,
    { spec, onEvent }: TunnelOptions,
  ) {
    this.spec = spec;
    this.onEvent = onEvent;
  }

  /** @param inherited - is closed here. @returns when the programs are attached, or are known not to be. */
  async begin({ maps, links }: KernelPathDescriptors): Promise<void> {
    await this.inTurn(() => this.attach({ maps, links }));
    for (const fd of [...maps, ...links]) close(fd);
  }

  get device(): string {
    return this.native.device;
  }

  get offloads(): OffloadState {
    return this.native.offloads;
  }

  get workers(): number {
    return this.native.workers;
  }

  get generation(): number {
    return this.native.generation;
  }

  get kernelPath(): KernelPath {
    const { state, descriptorsOfPath: descriptors } = this;
    return { state, counters: () => this.count()?.total, descriptors };
  }

  update(spec: TunnelSpec): boolean {
    if (!this.native.update(spec)) return false;
    const { uplink } = this.spec;
    this.spec = spec;
    if (uplink?.device !== spec.uplink?.device || uplink?.index !== spec.uplink?.index) this.attachAgain();
    else this.setRoutes();
    return true;
  }

  counters(): TunnelCounters {
    const own = this.native.counters();
    const counted = this.count();
    if (counted === undefined) return own;
    const { sent, received } = counted.total;
    return {
      ...own,
      txPackets: own.txPackets + sent.packets,
      txBytes: own.txBytes + sent.bytes,
      rxPackets: own.rxPackets + received.packets,
      rxBytes: own.rxBytes + received.bytes,
    };
  }

  peerCounters(): ReadonlyMap<string, TunnelPeerCounters> {
    const own = this.native.peerCounters();
    const counted = this.count();
    if (counted === undefined) return own;
    const sums = new Map(own);
    for (const [peer, more] of counted.peers()) {
      const before = sums.get(peer);
      sums.set(peer, before === undefined ? more : sumOf(before, more));
    }
    return sums;
  }

  descriptors(): { readonly tun: readonly number[]; readonly socket: readonly number[] } {
    return this.native.descriptors();
  }

  async close(isProcessEnding = false): Promise<void> {
    this.isClosed = true;
    await this.turns.take(async () => {
      this.cancelTimer?.();
      if (isProcessEnding && this.host.keepsDescriptors) this.handOver();
      else await this.detach();
    });
    await this.native.close(isProcessEnding);
  }

  /** Unless the tunnel is closed by then. */
  private inTurn(action: () => Promise<void>): Promise<void> {
    return this.turns.take(async () => {
      if (!this.isClosed) await action();
    });
  }

  private async attach(inherited: KernelPathDescriptors): Promise<void> {
    const { spec } = this;
    const outcome = await this.tryToAttach(inherited).catch(refusalOf);
    this.counted = undefined;
    if ('reason' in outcome) {
      this.refuse(outcome);
      return;
    }
    this.become({ isActive: true, receiver: outcome.receiver });
    this.later(CHECK_MS, () => this.check());
    this.leaveBulk();
    if (this.spec !== spec) this.setRoutes();
  }

  /** What nobody waits for. What goes wrong with it is a refusal like others: it shows, and is tried again. */
  private inBackground(action: () => Promise<void>): void {
    this.inTurn(action).catch((error: unknown) => this.refuse(refusalOf(error)));
  }

  /** With what has been counted so far. */
  private attachAgain(): void {
    this.inBackground(async () => {
      const maps = this.descriptorsOfPath.maps.map(duplicate);
      const counted = this.count();
      const peers = counted?.peers();
      this.counted = counted && peers && { total: counted.total, peers: () => peers };
      try {
        await this.detach();
        await this.attach({ maps, links: [] });
      } finally {
        for (const fd of maps) close(fd);
      }
    });
  }

  private count(): Counted | undefined {
    const { handle } = this;
    if (handle === undefined) return this.counted;
    return { total: countersOf(handle.counters()), peers: () => peersOf(handle.peerCounters()) };
  }

  private setRoutes(): void {
    try {
      this.handle?.setRoutes({ routes: routesOf(this.spec) });
    } catch (error) {
      this.giveUp(error);
    }
  }

  /** While the uplink is gone there is nothing to do: an update tells of the next one. */
  private check(): void {
    const { uplink } = this.spec;
    const isThere = uplink !== undefined && this.host.linkOf(uplink.device)?.index === uplink.index;
    if (isThere && this.handle?.isInPlace() === false) this.attachAgain();
    else this.later(CHECK_MS, () => this.check());
  }

  private later(delayMs: number, action: () => void): void {
    this.cancelTimer?.();
    this.cancelTimer = this.host.clock.after(delayMs, action);
  }

  private async tryToAttach(
    inherited: KernelPathDescriptors,
  ): Promise<KernelPathRefusal | { readonly receiver: KernelReceiver }> {
    const { host } = this;
    const { open = openKernelPath, leavesBulk, linkOf, programsFile = KERNEL_PROGRAMS_FILE } = host;
    const { bindAddress, port, uplink } = this.spec;
    if (uplink === undefined) return refusal('uplink-kind', 'the uplink is not known');
    const link = linkOf(uplink.device);
    const unfit = whyUnfit(uplink.device, link);
    if (unfit !== undefined) return unfit;
    const tun = linkOf(this.device)?.index;
    if (tun === undefined) return refusal('kernel', `${this.device} is gone`);
    const programs = readPrograms(programsFile);
    if (typeof programs === 'string') return refusal('programs-missing', programs);
    const options = {
      programs,
      uplink: uplink.index,
      tun,
      local: ipv4Number(bindAddress, 'send from'),
      port,
      routes: routesOf(this.spec),
      inheritedMaps: inherited.maps,
      inheritedLinks: inherited.links,
    };
    let refused = refusal('driver', `${uplink.device} takes no program`);
    for (const receiver of leavesBulk ? RECEIVERS_WITHOUT_BULK : KERNEL_RECEIVERS) {
      try {
        this.handle = await open({ ...options, receiver: KERNEL_RECEIVERS.indexOf(receiver) });
      } catch (error) {
        if (!isNativeFailure(error)) throw error;
        refused = refusalOf(error);
        if (isOfPlace(error)) continue;
        return refused;
      }
      this.place = uplink;
      if (receiver !== 'xdp') restoreGro(host.former, host.gro, uplink.device);
      const groFault = receiver === 'xdp' ? this.switchGroOn(uplink.device) : undefined;
      if (groFault !== undefined) {
        await this.detach();
        return refusal('gro', `${uplink.device}: ${groFault}`);
      }
      this.descriptorsOfPath = { maps: this.handle.mapDescriptors(), links: this.handle.linkDescriptors() };
      return { receiver };
    }
    return refused;
  }

  /** To the tunnel, again and again as long as this process lives. */
  private leaveBulk(): void {
    const { clock, leavesBulk } = this.host;
    try {
      this.handle?.leaveBulk(leavesBulk ? BULK_MS : 0); // it may have been taken over from one that did
    } catch (error) {
      this.giveUp(error);
      return;
    }
    this.cancelRefresh = leavesBulk ? clock.after(BULK_REFRESH_MS, () => this.leaveBulk()) : undefined;
  }

  /** Leaves everything to the kernel until the next process is there. */
  private handOver(): void {
    this.cancelRefresh?.();
    this.handle?.leaveBulk(0);
    this.handle?.close();
    this.handle = undefined;
    this.descriptorsOfPath = NOTHING;
  }

  private async detach(): Promise<void> {
    const { handle, host, place: uplink = this.spec.uplink } = this;
    this.cancelRefresh?.();
    this.handle = undefined;
    this.place = undefined;
    this.descriptorsOfPath = NOTHING;
    try {
      await handle?.detach();
    } catch (error) {
      if (!isNativeFailure(error)) throw error; // else it went with its device
    }
    if (uplink === undefined) return;
    // Another device of that name has settings of its own.
    if (host.linkOf(uplink.device)?.index === uplink.index) restoreGro(host.former, host.gro, uplink.device);
    else host.former.forget(groName(uplink.device));
  }

  /** XDP hands every frame over by itself; without GRO behind it, bulk would stay cut up. @returns why it is not on. */
  private switchGroOn(device: string): string | undefined {
    const { former, gro = KERNEL_GRO } = this.host;
    const now = gro.read(device);
    if (now > 0) return undefined;
    if (now < 0) return errnoName(now);
    try {
      former.remember(groName(device), { former: '0', value: '1' });
    } catch (error) {
      return describeError(error); // nobody could put it back
    }
    const result = gro.set(device, true);
    return result < 0 ? errnoName(result) : undefined;
  }

  /** What the programs know is not what they should: better nothing. */
  private giveUp(error: unknown): void {
    this.inBackground(async () => {
      await this.detach();
      this.refuse(refusalOf(error));
    });
  }

  private refuse(why: KernelPathRefusal): void {
    this.become({ isActive: false, isDemanded: !this.host.leavesBulk, ...why });
    this.later(RETRY_MS, () => this.attachAgain());
  }

  private become(state: KernelPathState): void {
    const isNew = !isDeepStrictEqual(this.state, state);
    this.state = state;
    if (state.isActive || isNew) this.onEvent({ type: 'kernel-path', state });
  }
}

/** What the programs have counted. */
interface Counted {
  readonly total: KernelCounters;
  readonly peers: () => ReadonlyMap<string, TunnelPeerCounters>;
}

/** Puts back what receive offload was, unless somebody has changed it since. @param device - default all. */
export function restoreGro(former: FormerSettings, gro: Gro = KERNEL_GRO, device?: string): readonly string[] {
  const restored: string[] = [];
  for (const [name, { value }] of [...former.entries]) {
    const each = name.slice(GRO_PREFIX.length);
    if (device !== undefined && each !== device) continue;
    if (gro.read(each) === Number(value) && gro.set(each, false) >= 0) restored.push(each);
    former.forget(name);
  }
  return restored;
}

const GRO_PREFIX = 'gro ';

function groName(device: string): string {
  return `${GRO_PREFIX}${device}`;
}

/** @returns why they cannot be had, as text. */
function readPrograms(file: string): Uint8Array | string {
  try {
    return new Uint8Array(readFileSync(file));
  } catch (error) {
    return describeError(error);
  }
}

function whyUnfit(device: string, link: UplinkLink | undefined): KernelPathRefusal | undefined {
  if (link === undefined) return refusal('uplink-kind', `${device} is gone`);
  if (link.masterIndex !== 0) return refusal('uplink-kind', `${device} is a port of another device`);
  if (!PLAIN_KINDS.has(link.kind)) return refusal('uplink-kind', `${device} is of kind ${link.kind}`);
  if (link.mac === undefined) return refusal('uplink-kind', `${device} carries no Ethernet frames`);
  return undefined;
}

/** Rows of prefix, length, public address and MTU; 0 as MTU: the tunnel sends to that peer. */
function routesOf({ mtu, ownPrefixes, peers }: TunnelSpec): Uint32Array {
  const rows = new Uint32Array((ownPrefixes.length + peers.length) * 4);
  let at = 0;
  const add = (...row: readonly number[]): void => {
    rows.set(row, at);
    at += row.length;
  };
  for (const { subnet, publicIp, isKernelPeer = false } of peers) {
    const outer = ipv4Number(publicIp, 'reach a peer at');
    add(ipv4Number(subnet.address, 'forward packets to'), subnet.length, outer, isKernelPeer ? mtu : 0);
  }
  // Of equal prefixes the last one counts: nobody else has what is this host's.
  for (const { address, length } of ownPrefixes) add(ipv4Number(address, 'guard the address'), length, 0, 0);
  return rows;
}

/** That one place takes no program says nothing of the other one: a driver without XDP, a kernel without TCX. */
function isOfPlace({ operation, errno }: NativeFailure): boolean {
  if (operation === 'attach tc program') return true;
  return operation === 'attach XDP program' && !isForeign(errno) && !isDeniedErrno(errno);
}

/** `EBUSY`: another program; `EEXIST`: another one by way of the kernel's stand-in for drivers (`dev_xdp_attach()`). */
function isForeign(errno: number): boolean {
  return ['EBUSY', 'EEXIST'].includes(errnoName(errno));
}

function isDeniedErrno(errno: number): boolean {
  return ['EPERM', 'EACCES'].includes(errnoName(errno));
}

function refusalOf(error: unknown): KernelPathRefusal {
  if (!isNativeFailure(error)) return refusal('kernel', describeError(error));
  const { operation, errno, detail } = error;
  const text = `${operation}: ${errnoName(errno)}${detail === '' ? '' : ` (${detail})`}`;
  // The verifier, too, says EACCES; to who is not permitted the kernel says EPERM before it looks.
  if (errnoName(errno) === 'EPERM') return refusal('not-permitted', text);
  if (operation === 'attach XDP program' && isForeign(errno)) return refusal('foreign-program', text);
  if (operation === 'attach tc program') return refusal('driver', text);
  return refusal('kernel', text);
}

const HINTS: Readonly<Record<KernelPathReason, string>> = {
  'programs-missing': 'use a package of tsflannel, or install clang and run "npm rebuild tsflannel"',
  'not-permitted': 'run the daemon as root, or with CAP_BPF and CAP_NET_ADMIN',
  kernel: 'use Linux 6.1 or newer with CONFIG_BPF_SYSCALL and CONFIG_NET_CLS_BPF',
  driver: 'lower the MTU of the uplink if its driver has native XDP, or use a kernel with CONFIG_NET_CLS_BPF',
  'foreign-program': 'find it with "ip -details link show" and remove it if nobody needs it',
  'uplink-kind': 'name a physical interface or a veth with --iface',
  gro: 'see whether "ethtool -K DEVICE gro on" works',
};

function refusal(reason: KernelPathReason, detail: string): KernelPathRefusal {
  return { reason, detail, hint: HINTS[reason] };
}

function countersOf(numbers: Float64Array): KernelCounters {
  const traffic = (index: number): KernelTraffic => ({
    packets: numbers[2 * index] ?? 0,
    bytes: numbers[2 * index + 1] ?? 0,
  });
  return Object.fromEntries(KERNEL_COUNTERS.map((name, index) => [name, traffic(index)])) as KernelCounters;
}

function sumOf(a: TunnelPeerCounters, b: TunnelPeerCounters): TunnelPeerCounters {
  return {
    txPackets: a.txPackets + b.txPackets,
    txBytes: a.txBytes + b.txBytes,
    rxPackets: a.rxPackets + b.rxPackets,
    rxBytes: a.rxBytes + b.rxBytes,
  };
}
