import dgram from 'node:dgram';
import { once } from 'node:events';
import { constants } from 'node:os';
import { errnoOf } from '../sys/errno.js';
import { pollFd, type FdPoller } from '../sys/fd-poller.js';
import {
  SYS,
  bind,
  close,
  connect,
  errnoName,
  getsockname,
  getsockopt,
  getsockoptInt,
  ioctl,
  open,
  read,
  sendTo,
  setNonBlocking,
  setsockoptInt,
  sockaddrIn,
  socket as openSocket,
  write,
} from '../sys/libc.js';
import { ForwardingTable } from './forwarding-table.js';
import {
  IPV4_HEADER,
  type IcmpError,
  MAX_PACKET,
  buildIcmpError,
  checkDatagram,
  checkPacket,
  decrementTtl,
  destinationOf,
  isDontFragment,
  mayAnswer,
  sourceOf,
  totalLengthOf,
  ttlOf,
} from './packet.js';
import { TokenBucket } from './token-bucket.js';
import { tunnelError } from './tunnel-errors.js';
import {
  BATCH_BUCKETS,
  DROP_REASONS,
  ICMP_ERRORS,
  type DropReason,
  OFFLOADS,
  type Offload,
  type OpenTunnel,
  type Tunnel,
  type TunnelCounters,
  type TunnelEvent,
  type TunnelOptions,
  type TunnelPeerCounters,
} from './tunnel.js';
import type { TunnelSpec } from './tunnel-spec.js';

const TUNSETIFF = 0x400454ca;
const TUNGETIFF = 0x800454d2;
const IFF_TUN = 0x0001;
const IFF_NO_PI = 0x1000;
const IFF_PERSIST = 0x0800;
const UDP_GRO = 104;

/** `IFNAMSIZ`: bytes of a device name with its terminator. */
const DEVICE_NAME_BYTES = 16;

/** Packets taken from the TUN per turn of the event loop, so that neither direction keeps the other waiting. */
const READS_PER_TURN = 64;

/** Datagrams that may wait for the socket: 256 of 1472 bytes are about two of the kernel's default send buffers. */
const MAX_QUEUED_SENDS = 256;

/** 4 MiB of socket buffer hold about 20 ms of what one event loop forwards; the force variant ignores `rmem_max`. */
const SOCKET_BUFFER_BYTES = 4 << 20;

/** ICMP errors per second and at once, the same as of the native tunnel; a test compares them. */
export const ICMP_LIMITS = {
  /** The kernel's own limit is 1000 with bursts of 50 (`icmp_msgs_per_sec`, ip-sysctl). */
  perSecond: 1000,
  burst: 50,
  /**
   * For "fragmentation needed", which Linux does not limit at all: a flood of other errors must not make a path MTU black
   * hole. One is enough for a sender to stop.
   */
  fragmentationNeededPerSecond: 10_000,
  fragmentationNeededBurst: 500,
} as const;

/** `SO_MEMINFO` and the place of `SK_MEMINFO_DROPS` among its numbers (uapi sock_diag.h, Linux 4.12). */
const SO_MEMINFO = 55;
const SK_MEMINFO_DROPS = 8;
const SK_MEMINFO_VARS = 9;

/** Bytes of outer IPv4 and UDP header. */
const OUTER_HEADERS = 28;

/** RFC 791: every host takes datagrams of 576 bytes; used where the path MTU of a refused datagram cannot be found out. */
const FALLBACK_PATH_MTU = 576;

/** Errors of a TUN that carries nothing any more: its device was deleted, or somebody closed the descriptor. */
const TUN_IS_DEAD: ReadonlySet<string> = new Set(['EBADFD', 'EBADF', 'ENODEV', 'ENXIO']);

/**
 * Opens a tunnel that runs on the event loop: a `dgram` socket, a TUN descriptor, one packet at a time. For hosts where the
 * addon cannot be built; an order of magnitude slower than the native tunnel, and it stops while the event loop is busy.
 *
 * Behaves like the native tunnel in everything a peer, a container or an operator sees. Datagrams carry DF, as flannel's
 * do; if the path turns out to be narrower, packets that carry DF themselves are answered with "fragmentation needed",
 * the others leave again in outer fragments.
 *
 * @throws {@link OverlayError} `ERR_NOT_PRIVILEGED`, `ERR_NO_TUN_DEVICE`, `ERR_DEVICE_TAKEN`, `ERR_PORT_IN_USE`, `ERR_TUNNEL`
 */
export const openPortableTunnel: OpenTunnel = async (options) => {
  const table = new ForwardingTable(options.spec.peers, options.spec.ownPrefixes);
  const tun = openTun(options);
  let icmpFd: number | undefined;
  try {
    icmpFd = openIcmp(options);
    const socket = await openUdp(options);
    return new PortableTunnel(options, table, tun, socket, icmpFd);
  } catch (error) {
    close(tun.fd);
    if (icmpFd !== undefined) close(icmpFd);
    throw error;
  }
};

interface TunDevice {
  readonly fd: number;
  readonly name: string;
}

interface UdpSocket {
  readonly fd: number;
  readonly dgram: dgram.Socket;
}

interface PeerTotals {
  txPackets: number;
  txBytes: number;
  rxPackets: number;
  rxBytes: number;
}

/**
 * API: see {@link Tunnel}. Threads: none, everything happens on the event loop. Limits: {@link MAX_QUEUED_SENDS} datagrams
 * wait for the socket, what comes beyond is dropped; the TUN's own queue holds the rest. Errors: every refused packet is
 * counted by reason; a dead descriptor is told once and stops the loop. Counters: system calls are those the tunnel
 * causes, datagrams received count as one call each.
 */
class PortableTunnel implements Tunnel {
  readonly kind = 'portable';
  readonly device: string;
  readonly offloads = allOffloads(false);
  readonly workers = 0;

  private spec: TunnelSpec;
  private table: ForwardingTable;
  private adopted = 1;
  private icmpSource: number;
  private readonly poller: FdPoller;
  private readonly scratch = Buffer.alloc(MAX_PACKET);
  private readonly icmpLimit = new TokenBucket(ICMP_LIMITS.perSecond, ICMP_LIMITS.burst, () => performance.now());
  private readonly fragNeededLimit = new TokenBucket(
    ICMP_LIMITS.fragmentationNeededPerSecond,
    ICMP_LIMITS.fragmentationNeededBurst,
    () => performance.now(),
  );
  private readonly peers = new Map<string, PeerTotals>();
  private readonly onEvent: (event: TunnelEvent) => void;
  private hasFailed = false;
  private closing: Promise<void> | undefined;

  private readonly totals = { txPackets: 0, txBytes: 0, rxPackets: 0, rxBytes: 0, icmpLimited: 0, icmpFailed: 0 };
  private readonly calls = { tunReads: 0, tunWrites: 0, socketSends: 0, socketReceives: 0 };
  private readonly icmpSent = zeros(ICMP_ERRORS);
  private readonly drops = zeros(DROP_REASONS);
  /** Every call carries one packet, so each histogram is its first bucket. */
  private packetsRead = 0;
  private packetsWritten = 0;
  /** What the kernel says the socket has lost; it wraps at 2^32. */
  private overflowBefore: number;

  constructor(
    options: TunnelOptions,
    table: ForwardingTable,
    private readonly tun: TunDevice,
    private readonly socket: UdpSocket,
    private readonly icmpFd: number,
  ) {
    this.device = tun.name;
    this.spec = options.spec;
    this.table = table;
    this.icmpSource = Number(options.spec.icmpSource.value);
    this.onEvent = options.onEvent;
    this.overflowBefore = socketDrops(socket.fd) ?? 0;
    socket.dgram.on('message', (datagram, from) => this.receive(datagram, from.address));
    socket.dgram.on('error', (error: NodeJS.ErrnoException) => this.fail('recvmsg', error.code ?? error.message));
    this.poller = pollFd(tun.fd, () => this.drainTun());
  }

  update(spec: TunnelSpec): boolean {
    const { device, bindAddress, port } = this.spec;
    if (spec.device !== device || !spec.bindAddress.equals(bindAddress) || spec.port !== port) return false;
    this.table = new ForwardingTable(spec.peers, spec.ownPrefixes);
    this.icmpSource = Number(spec.icmpSource.value);
    this.spec = spec;
    this.adopted += 1;
    for (const host of this.peers.keys()) if (!this.table.isSender(host)) this.peers.delete(host);
    return true;
  }

  get generation(): number {
    return this.adopted;
  }

  counters(): TunnelCounters {
    this.countOverflow();
    const histogram = (count: number): number[] => [count, ...Array<number>(BATCH_BUCKETS - 1).fill(0)];
    return {
      ...this.totals,
      ...this.calls,
      icmpSent: { ...this.icmpSent },
      drops: { ...this.drops },
      downgrades: zeros(OFFLOADS),
      trials: zeros(OFFLOADS),
      packetsPerRead: histogram(this.packetsRead),
      packetsPerSend: histogram(this.totals.txPackets),
      packetsPerWrite: histogram(this.packetsWritten),
      workerCpuSeconds: [],
    };
  }

  peerCounters(): ReadonlyMap<string, TunnelPeerCounters> {
    return new Map([...this.peers].map(([host, totals]) => [host, { ...totals }]));
  }

  descriptors(): { readonly tun: readonly number[]; readonly socket: readonly number[] } {
    return this.closing === undefined ? { tun: [this.tun.fd], socket: [this.socket.fd] } : { tun: [], socket: [] };
  }

  close(): Promise<void> {
    this.closing ??= this.shutDown();
    return this.closing;
  }

  private async shutDown(): Promise<void> {
    this.poller.close();
    this.countOverflow();
    this.socket.dgram.removeAllListeners('message');
    const closed = once(this.socket.dgram, 'close');
    this.socket.dgram.close();
    await closed;
    close(this.tun.fd);
    close(this.icmpFd);
  }

  private get isStopped(): boolean {
    return this.hasFailed || this.closing !== undefined;
  }

  private fail(operation: string, errno: string): void {
    if (this.isStopped) return;
    this.hasFailed = true;
    this.poller.setInterest({ readable: false, writable: false });
    this.onEvent({ type: 'failed', operation, errno });
  }

  private drainTun(): void {
    for (let i = 0; i < READS_PER_TURN && !this.isStopped; i++) {
      const length = read(this.tun.fd, this.scratch);
      this.calls.tunReads += 1;
      if (length < 0) {
        const errno = errnoName(length);
        if (errno !== 'EAGAIN' && errno !== 'EINTR') this.fail('read', errno);
        return;
      }
      this.packetsRead += 1;
      this.forward(this.scratch.subarray(0, length));
    }
  }

  /** @param bytes - from the TUN; valid until the next read. */
  private forward(bytes: Buffer): void {
    const reason = checkPacket(bytes);
    if (reason !== undefined) {
      this.drop(reason);
      return;
    }
    const packet = bytes.subarray(0, totalLengthOf(bytes));
    const host = this.table.lookup(destinationOf(packet));
    if (host === undefined) {
      this.answer(packet, { kind: 'unreachable-net' });
      this.drop('no-route');
      return;
    }
    if (ttlOf(packet) <= 1) {
      this.answer(packet, { kind: 'time-exceeded' });
      this.drop('ttl-expired');
      return;
    }
    if (packet.length > this.spec.mtu) {
      if (isDontFragment(packet)) this.answer(packet, { kind: 'frag-needed', mtu: this.spec.mtu });
      this.drop('oversize');
      return;
    }
    // The kernel's copy of a queued datagram is made later, the scratch buffer is needed at once.
    const datagram = Buffer.from(packet);
    decrementTtl(datagram);
    this.send(datagram, host);
  }

  private send(datagram: Buffer, host: string): void {
    if (this.socket.dgram.getSendQueueCount() >= MAX_QUEUED_SENDS) {
      this.drop('send-blocked');
      return;
    }
    this.calls.socketSends += 1;
    this.socket.dgram.send(datagram, this.spec.port, host, (error: NodeJS.ErrnoException | null) => {
      if (error === null) this.countSent(host, datagram.length);
      else if (error.code === 'EMSGSIZE') this.resendFragmented(datagram, host);
      else this.dropUnsent(error.code ?? error.message);
    });
  }

  /** The path is narrower than the device: let the sender know, or let the outer packet be fragmented. */
  private resendFragmented(datagram: Buffer, host: string): void {
    if (this.isStopped) {
      this.drop('send-error');
      return;
    }
    if (isDontFragment(datagram)) {
      const pathMtu = pathMtuTo(host) ?? FALLBACK_PATH_MTU;
      this.answer(datagram, { kind: 'frag-needed', mtu: Math.max(pathMtu - OUTER_HEADERS, 0) });
      this.drop('oversize');
      return;
    }
    setsockoptInt(this.socket.fd, SYS.IPPROTO_IP, SYS.IP_MTU_DISCOVER, SYS.IP_PMTUDISC_DONT);
    const result = sendTo(this.socket.fd, datagram, SYS.MSG_DONTWAIT, sockaddrIn(ipv4Bytes(host), this.spec.port));
    setsockoptInt(this.socket.fd, SYS.IPPROTO_IP, SYS.IP_MTU_DISCOVER, SYS.IP_PMTUDISC_DO);
    this.calls.socketSends += 1;
    if (result < 0) this.dropUnsent(errnoName(result));
    else this.countSent(host, datagram.length);
  }

  private dropUnsent(errno: string): void {
    this.drop(errno === 'EAGAIN' || errno === 'ENOBUFS' ? 'send-blocked' : 'send-error');
    if (errno === 'EBADF') this.fail('sendmsg', errno);
  }

  private countSent(host: string, bytes: number): void {
    this.totals.txPackets += 1;
    this.totals.txBytes += bytes;
    const peer = this.peerTotals(host);
    if (peer === undefined) return;
    peer.txPackets += 1;
    peer.txBytes += bytes;
  }

  private receive(datagram: Buffer, host: string): void {
    if (this.isStopped) return;
    this.calls.socketReceives += 1;
    const reason =
      (datagram.length === 0 ? 'short' : undefined) ??
      this.table.checkSender(this.spec.verifySource, host) ??
      checkDatagram(datagram) ??
      this.table.checkInnerSource(this.spec.verifySource, host, sourceOf(datagram)) ??
      (ttlOf(datagram) <= 1 ? 'ttl-expired' : undefined);
    if (reason !== undefined) {
      this.drop(reason);
      return;
    }
    decrementTtl(datagram);
    if (!this.writeTun(datagram)) return;
    this.totals.rxPackets += 1;
    this.totals.rxBytes += datagram.length;
    const peer = this.peerTotals(host);
    if (peer === undefined) return;
    peer.rxPackets += 1;
    peer.rxBytes += datagram.length;
  }

  /** Answers the container on this host that sent the packet, if that is allowed and the limit leaves room. */
  private answer(packet: Buffer, error: IcmpError): void {
    if (!mayAnswer(packet, error.kind)) return;
    const limit = error.kind === 'frag-needed' ? this.fragNeededLimit : this.icmpLimit;
    if (!limit.take()) {
      this.totals.icmpLimited += 1;
      return;
    }
    const answer = buildIcmpError(packet, error, this.icmpSource);
    const receiver = sockaddrIn(answer.subarray(16, IPV4_HEADER), 0);
    if (sendTo(this.icmpFd, answer, SYS.MSG_DONTWAIT, receiver) < 0) this.totals.icmpFailed += 1;
    else this.icmpSent[error.kind] += 1;
  }

  private countOverflow(): void {
    if (this.closing !== undefined) return;
    const now = socketDrops(this.socket.fd) ?? this.overflowBefore;
    this.drops['receive-overflow'] += (now - this.overflowBefore) >>> 0;
    this.overflowBefore = now;
  }

  /** @returns false if the device refused it; that is counted. */
  private writeTun(packet: Buffer): boolean {
    const result = write(this.tun.fd, packet);
    this.calls.tunWrites += 1;
    if (result >= 0) {
      this.packetsWritten += 1;
      return true;
    }
    const errno = errnoName(result);
    this.drop(errno === 'EAGAIN' || errno === 'ENOBUFS' ? 'tun-blocked' : 'tun-error');
    if (TUN_IS_DEAD.has(errno)) this.fail('write', errno);
    return false;
  }

  private drop(reason: DropReason): void {
    this.drops[reason] += 1;
  }

  /** Undefined for hosts without a lease: strangers must not be able to fill the map. */
  private peerTotals(host: string): PeerTotals | undefined {
    let totals = this.peers.get(host);
    if (totals === undefined && this.table.isSender(host)) {
      totals = { txPackets: 0, txBytes: 0, rxPackets: 0, rxBytes: 0 };
      this.peers.set(host, totals);
    }
    return totals;
  }
}

function allOffloads(value: boolean): Readonly<Record<Offload, boolean>> {
  return Object.fromEntries(OFFLOADS.map((offload) => [offload, value])) as Record<Offload, boolean>;
}

function refused(options: TunnelOptions, operation: string, result: number): Error {
  const { device, bindAddress, port } = options.spec;
  return tunnelError({ operation, errno: errnoName(result), device, bindAddress: bindAddress.toString(), port });
}

function openTun(options: TunnelOptions): TunDevice {
  const { device } = options.spec;
  const inherited = takeFirst(options.inherited?.tun ?? [], (fd) => isPlainTun(fd, device));
  if (inherited !== undefined) return { fd: inherited, name: device };

  const fd = open('/dev/net/tun', SYS.O_RDWR | SYS.O_NONBLOCK);
  if (fd < 0) throw refused(options, 'open-tun', fd);
  const request = interfaceRequest(device, IFF_TUN | IFF_NO_PI);
  const result = request === undefined ? -constants.errno.EINVAL : ioctl(fd, TUNSETIFF, request);
  if (request === undefined || result < 0) {
    close(fd);
    throw refused(options, 'create-device', result);
  }
  return { fd, name: nameIn(request) };
}

/** Whether it is a TUN of that name without a header before each packet; a device's flags cannot be changed later. */
function isPlainTun(fd: number, device: string): boolean {
  const request = Buffer.alloc(40);
  if (ioctl(fd, TUNGETIFF, request) < 0) return false;
  const flags = new Int16Array(request.buffer, request.byteOffset + DEVICE_NAME_BYTES, 1)[0] ?? 0;
  return nameIn(request) === device && (flags & ~IFF_PERSIST) === (IFF_TUN | IFF_NO_PI) && setNonBlocking(fd) >= 0;
}

/** `struct ifreq` with name and flags, or undefined if the name is too long for one. */
function interfaceRequest(device: string, flags: number): Buffer | undefined {
  const name = Buffer.from(device);
  if (name.length === 0 || name.length >= DEVICE_NAME_BYTES) return undefined;
  const request = Buffer.alloc(40);
  request.set(name);
  new Int16Array(request.buffer, request.byteOffset + DEVICE_NAME_BYTES, 1)[0] = flags;
  return request;
}

function nameIn(request: Buffer): string {
  return request.toString('latin1', 0, request.indexOf(0));
}

/**
 * The socket is made and bound here and only then given to dgram: the kernel's errors stay what they are, options can
 * be set, and the address is not shared, which dgram would allow.
 */
async function openUdp(options: TunnelOptions): Promise<UdpSocket> {
  const { bindAddress, port } = options.spec;
  const address = sockaddrIn(bindAddress.toBytes(), port);
  const inherited = takeFirst(options.inherited?.socket ?? [], (fd) => isBoundTo(fd, address));
  const fd = inherited ?? openSocket(SYS.AF_INET, SYS.SOCK_DGRAM | SYS.SOCK_NONBLOCK, 0);
  if (fd < 0) throw refused(options, 'socket', fd);
  try {
    const bound = inherited === undefined ? bind(fd, address) : 0;
    if (bound < 0) throw refused(options, 'bind-socket', bound);
    setUp(fd, options);
  } catch (error) {
    close(fd);
    throw error;
  }
  return { fd, dgram: await adopt(fd, options) };
}

function setUp(fd: number, options: TunnelOptions): void {
  const discover = setsockoptInt(fd, SYS.IPPROTO_IP, SYS.IP_MTU_DISCOVER, SYS.IP_PMTUDISC_DO);
  if (discover < 0) throw refused(options, 'IP_MTU_DISCOVER', discover);
  // An inherited socket may have it on. Kernels before 5.0 do not know it, and then it is off.
  setsockoptInt(fd, SYS.IPPROTO_UDP, UDP_GRO, 0);
  // Without privilege the limit of the system holds; the tunnel works with any size.
  for (const [force, plain] of [
    [SYS.SO_RCVBUFFORCE, SYS.SO_RCVBUF],
    [SYS.SO_SNDBUFFORCE, SYS.SO_SNDBUF],
  ] as const) {
    if (setsockoptInt(fd, SYS.SOL_SOCKET, force, SOCKET_BUFFER_BYTES) < 0) {
      setsockoptInt(fd, SYS.SOL_SOCKET, plain, SOCKET_BUFFER_BYTES);
    }
  }
}

/** Gives the descriptor to dgram, which closes it from then on. */
async function adopt(fd: number, options: TunnelOptions): Promise<dgram.Socket> {
  const socket = dgram.createSocket({
    type: 'udp4',
    // Addresses are never names; the answer at once keeps dgram from deferring every send to a later tick.
    lookup: (host, _options, callback) => callback(null, host, 4),
  });
  const listening = once(socket, 'listening');
  socket.bind({ fd, exclusive: true });
  try {
    await listening;
  } catch (error) {
    close(fd);
    const errno = errnoOf(error) ?? 'EIO';
    const { device, bindAddress, port } = options.spec;
    throw tunnelError({ operation: 'bind', errno, device, bindAddress: bindAddress.toString(), port, cause: error });
  }
  // libuv switches it on for descriptors it is given, which would let a second socket take the same port.
  const reuse = setsockoptInt(fd, SYS.SOL_SOCKET, SYS.SO_REUSEADDR, 0);
  if (reuse < 0) {
    socket.close();
    throw refused(options, 'SO_REUSEADDR', reuse);
  }
  return socket;
}

function isBoundTo(fd: number, address: Uint8Array): boolean {
  const actual = new Uint8Array(16);
  return getsockname(fd, actual) === 16 && Buffer.compare(actual, address) === 0;
}

/** The first descriptor that fits. The others are closed: they are ours and would keep device and port occupied. */
function takeFirst(descriptors: readonly number[], fits: (fd: number) => boolean): number | undefined {
  const chosen = descriptors.find(fits);
  for (const fd of descriptors) if (fd !== chosen) close(fd);
  return chosen;
}

/**
 * The raw socket that ICMP errors leave through, as the kernel's own do: one that came out of the TUN would have an
 * address of this host as its source, which the kernel takes for spoofed.
 */
function openIcmp(options: TunnelOptions): number {
  const fd = openSocket(SYS.AF_INET, SYS.SOCK_RAW | SYS.SOCK_NONBLOCK, SYS.IPPROTO_RAW);
  if (fd < 0) throw refused(options, 'open-icmp', fd);
  // Nobody reads it: keep the kernel from storing packets of protocol 255.
  setsockoptInt(fd, SYS.SOL_SOCKET, SYS.SO_RCVBUF, 1);
  return fd;
}

/** Datagrams that the kernel has discarded at the socket; undefined if it does not tell. */
function socketDrops(fd: number): number | undefined {
  const values = new Uint32Array(SK_MEMINFO_VARS);
  const length = getsockopt(fd, SYS.SOL_SOCKET, SO_MEMINFO, new Uint8Array(values.buffer));
  return length > 0 ? values[SK_MEMINFO_DROPS] : undefined;
}

/** What the kernel knows of the path after it refused a datagram, in bytes; undefined if it does not tell. */
function pathMtuTo(host: string): number | undefined {
  const fd = openSocket(SYS.AF_INET, SYS.SOCK_DGRAM, 0);
  if (fd < 0) return undefined;
  const DISCARD_PORT = 9; // connecting sends nothing, any port will do
  const isConnected = connect(fd, sockaddrIn(ipv4Bytes(host), DISCARD_PORT)) === 0;
  const mtu = isConnected ? getsockoptInt(fd, SYS.IPPROTO_IP, SYS.IP_MTU) : -1;
  close(fd);
  return mtu > 0 ? mtu : undefined;
}

function ipv4Bytes(host: string): Uint8Array {
  return Uint8Array.from(host.split('.'), Number);
}

function zeros<Name extends string>(names: readonly Name[]): Record<Name, number> {
  return Object.fromEntries(names.map((name) => [name, 0])) as Record<Name, number>;
}
