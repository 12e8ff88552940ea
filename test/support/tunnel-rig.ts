import path from 'node:path';
import { type FdPoller, pollFd } from '../../src/sys/fd-poller.js';
import {
  SYS,
  bind,
  close,
  errnoName,
  ifNameToIndex,
  recv,
  recvFrom,
  sendTo,
  setsockoptInt,
  sockaddrIn,
  sockaddrLl,
  socket,
} from '../../src/sys/libc.js';
import { onExit } from './cleanup.js';
import { inNamespace } from './in-namespace.js';
import { Netns, deleteNamespaces, sweepLeftovers } from './netns.js';
import { Program } from './program.js';
import type { OpenRequest, PlainSpec, TunnelState } from './tunnel-agent.js';

export type { PlainSpec, TunnelState } from './tunnel-agent.js';

/** The kinds of tunnel that must not be told apart by anything but speed. */
export const TUNNEL_KINDS = ['native', 'portable'] as const;

/** One of {@link TUNNEL_KINDS}. */
export type TunnelKind = (typeof TUNNEL_KINDS)[number];

/** Bytes of the largest inner packet on the rig's link of 1500. */
export const TUNNEL_MTU = 1472;

/** UDP port of all tunnels and foreign peers in the rig. */
export const PORT = 8285;

const ROOT = path.resolve(import.meta.dirname, '../..');
let serial = 0;

/**
 * Two hosts and a link, for tests of tunnels alone:
 *
 * ```
 *   namespace near                          namespace far
 *   flannel0 ── tunnel ── veth 192.0.2.1 ══ 192.0.2.2 veth ── tunnel, or plain UDP sockets as foreign peers
 *   cni0 ── container0                      192.0.2.3
 *                                           192.0.2.99
 * ```
 *
 * What near sends to its own subnet arrives at container0, where nobody lives.
 */
export class TunnelRig {
  private constructor(
    readonly near: TunnelHost,
    readonly far: TunnelHost,
    private readonly cleanUp: () => void,
  ) {}

  static async create(): Promise<TunnelRig> {
    sweepLeftovers();
    serial += 1;
    const names = ['near', 'far'].map((side) => `tsf${process.pid}-t${serial}${side}`);
    const remove = (): void => deleteNamespaces(names);
    const withdraw = onExit(remove);
    const cleanUp = (): void => {
      remove();
      withdraw();
    };
    try {
      const [near, far] = await Netns.create(names);
      if (near === undefined || far === undefined) throw new Error('there are no namespaces');
      for (const netns of [near, far]) {
        // Neighbour discovery on the TUN and forwarded copies would show up in exact counters.
        netns.setParameters({
          'net/ipv6/conf/all/disable_ipv6': 1,
          'net/ipv6/conf/default/disable_ipv6': 1,
          'net/ipv4/ip_forward': 0,
        });
      }
      await near.ip([
        `link add veth0 type veth peer name veth0 netns ${far.name}`,
        'address add 192.0.2.1/24 dev veth0',
      ]);
      await far.ip(['2', '3', '99'].map((last) => `address add 192.0.2.${last}/24 dev veth0`));
      for (const netns of [near, far]) await netns.ip(['link set veth0 up']);
      await near.ip([
        'link add cni0 type veth peer name container0',
        'link set cni0 arp off up',
        'link set container0 up',
        'route add 10.5.1.0/24 dev cni0',
      ]);
      const hosts = await Promise.all([
        TunnelHost.start(near, '192.0.2.1', '10.5.1.0'),
        TunnelHost.start(far, '192.0.2.2', '10.5.2.0'),
      ]);
      return new TunnelRig(hosts[0], hosts[1], cleanUp);
    } catch (error) {
      cleanUp();
      throw error;
    }
  }

  /** Whether the addon is there; without it the native tunnel cannot be tested. */
  async hasNative(): Promise<boolean> {
    try {
      await (await this.near.open('native')).close();
      return true;
    } catch (error) {
      if (error instanceof AgentError && error.code === 'ERR_ADDON_MISSING') return false;
      throw error;
    }
  }

  async close(): Promise<void> {
    await Promise.all([this.near.stop(), this.far.stop()]);
    this.cleanUp();
  }
}

/** What the agent's `OverlayError` said. */
export class AgentError extends Error {
  constructor(
    readonly code: string,
    message: string,
    readonly hint: string | undefined,
  ) {
    super(message);
  }
}

/** A namespace with a process in it that can open tunnels. */
export class TunnelHost {
  private nextId = 1;

  private constructor(
    readonly netns: Netns,
    readonly publicIp: string,
    /** Network address of its lease; what the TUN has as its own. */
    readonly overlayAddress: string,
    private readonly agent: Program,
  ) {}

  static async start(netns: Netns, publicIp: string, overlayAddress: string): Promise<TunnelHost> {
    const script = path.join(ROOT, 'test/support/tunnel-agent.ts');
    const agent = new Program(netns.command([process.execPath, '--import', 'tsx', script]), { cwd: ROOT });
    await agent.waitForLine(/^ready$/, 30_000);
    return new TunnelHost(netns, publicIp, overlayAddress, agent);
  }

  /** A second process in the same namespace. */
  async another(): Promise<TunnelHost> {
    return TunnelHost.start(this.netns, this.publicIp, this.overlayAddress);
  }

  /** Process that runs the tunnels. */
  get pid(): number {
    return this.agent.pid;
  }

  /** A specification with one /24 for every foreign address of the other side. */
  spec(changes: Partial<PlainSpec> = {}): PlainSpec {
    const peers: readonly (readonly [string, string])[] =
      this.publicIp === '192.0.2.1'
        ? [
            ['10.5.2.0/24', '192.0.2.2'],
            ['10.5.3.0/24', '192.0.2.3'],
          ]
        : [['10.5.1.0/24', '192.0.2.1']];
    return {
      device: 'flannel0',
      bindAddress: this.publicIp,
      port: PORT,
      mtu: TUNNEL_MTU,
      verifySource: 'outer',
      icmpSource: this.overlayAddress,
      ownPrefixes: [`${this.overlayAddress}/24`, `${this.publicIp}/32`],
      peers,
      ...changes,
    };
  }

  /** Opens a tunnel and brings its device up. */
  async open(
    kind: TunnelKind,
    changes: Partial<PlainSpec> = {},
    options: Partial<Omit<OpenRequest, 'kind' | 'spec'>> = {},
  ): Promise<RemoteTunnel> {
    const spec = this.spec(changes);
    const request: OpenRequest = { workers: 1, disabledOffloads: [], inherits: false, ...options, kind, spec };
    const handle = (await this.call('open', request)) as number;
    // A queue that holds a whole test's burst: what is dropped before it is read is not the tunnel's doing.
    await this.netns.ip([`link set ${spec.device} up mtu ${spec.mtu} txqueuelen 5000`]);
    return new RemoteTunnel(this, handle, spec);
  }

  async call(call: string, argument?: unknown): Promise<unknown> {
    const id = this.nextId++;
    const from = this.agent.mark();
    this.agent.write(`${JSON.stringify({ id, call, argument })}\n`);
    const [line] = await this.agent.waitForLine(new RegExp(`^\\{"id":${id},.*\\}$`), 20_000, from);
    const answer = JSON.parse(line) as { value?: unknown; error?: { code: string; message: string; hint?: string } };
    if (answer.error === undefined) return answer.value;
    throw new AgentError(answer.error.code, answer.error.message, answer.error.hint);
  }

  /** The packets of a TUN, seen from the kernel's side. */
  tap(device = 'flannel0'): TunTap {
    return inNamespace(this.netns.file, () => new TunTap(device));
  }

  /** Where packets for containers of near arrive. */
  containers(): TunTap {
    const ETHERNET = 14;
    return inNamespace(this.netns.file, () => new TunTap('container0', ETHERNET));
  }

  /** A UDP socket on the underlay. */
  socket(address = this.publicIp, port = PORT): ForeignPeer {
    return inNamespace(this.netns.file, () => new ForeignPeer(address, port));
  }

  async stop(): Promise<void> {
    await this.agent.kill();
  }
}

/** A tunnel in the agent's process. */
export class RemoteTunnel {
  constructor(
    private readonly host: TunnelHost,
    readonly handle: number,
    readonly spec: PlainSpec,
  ) {}

  async state(): Promise<TunnelState> {
    return (await this.host.call('state', this.handle)) as TunnelState;
  }

  async update(changes: Partial<PlainSpec>): Promise<boolean> {
    return (await this.host.call('update', { handle: this.handle, spec: { ...this.spec, ...changes } })) as boolean;
  }

  async close(): Promise<void> {
    await this.host.call('close', this.handle);
  }
}

/** Messages that arrived and nobody has asked for yet. */
class Inbox<T> {
  private readonly messages: T[] = [];
  private waiting: (() => void) | undefined;

  put(message: T): void {
    this.messages.push(message);
    this.waiting?.();
  }

  /** How many there are without waiting. */
  get size(): number {
    return this.messages.length;
  }

  async next(what: string): Promise<T> {
    const TIMEOUT_MS = 5000;
    if (this.messages.length === 0) {
      await new Promise<void>((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error(`waited in vain for ${what}`)), TIMEOUT_MS);
        this.waiting = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      this.waiting = undefined;
    }
    return this.messages.shift()!;
  }
}

const SOL_PACKET = 263;
const PACKET_IGNORE_OUTGOING = 23;
const ETH_P_IP = 0x0800;
const BUFFER_BYTES = 64 << 20;

/**
 * A packet socket on a TUN device: what is sent, the tunnel reads; what the tunnel writes is received here. On another
 * device, what arrives there.
 */
export class TunTap {
  private readonly fd: number;
  private readonly index: number;
  private readonly poller: FdPoller;
  private readonly inbox = new Inbox<Buffer>();

  /**
   * @param headerBytes - of the link layer; left out.
   * @param protocol - what the device has handed up; of a bridge's port nothing but all (`ETH_P_ALL`).
   */
  constructor(device: string, headerBytes = 0, protocol = ETH_P_IP) {
    this.index = check(ifNameToIndex(device), `index of ${device}`);
    this.fd = check(socket(SYS.AF_PACKET, SYS.SOCK_RAW | SYS.SOCK_NONBLOCK, 0), 'packet socket');
    check(setsockoptInt(this.fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, 1), 'PACKET_IGNORE_OUTGOING');
    check(setsockoptInt(this.fd, SYS.SOL_SOCKET, SYS.SO_RCVBUFFORCE, BUFFER_BYTES), 'SO_RCVBUFFORCE');
    check(bind(this.fd, sockaddrLl(this.index, protocol)), `bind to ${device}`);
    const buffer = Buffer.alloc(65536);
    this.poller = pollFd(this.fd, () => {
      for (let length = recv(this.fd, buffer); length > 0; length = recv(this.fd, buffer)) {
        this.inbox.put(Buffer.from(buffer.subarray(headerBytes, length)));
      }
    });
  }

  /** Hands a packet, or any bytes, to the tunnel as the kernel would. */
  send(bytes: Uint8Array): void {
    check(sendTo(this.fd, bytes, 0, sockaddrLl(this.index, ETH_P_IP)), `send of ${bytes.length} bytes into the TUN`);
  }

  /** The next packet that arrived. */
  next(): Promise<Buffer> {
    return this.inbox.next('a packet');
  }

  get pending(): number {
    return this.inbox.size;
  }

  close(): void {
    this.poller.close();
    close(this.fd);
  }
}

/** A datagram with where it came from. */
export interface Datagram {
  readonly data: Buffer;
  readonly address: string;
  readonly port: number;
}

/** A peer that is a bare UDP socket. */
export class ForeignPeer {
  private readonly fd: number;
  private readonly poller: FdPoller;
  private readonly inbox = new Inbox<Datagram>();

  constructor(address: string, port: number) {
    this.fd = check(socket(SYS.AF_INET, SYS.SOCK_DGRAM | SYS.SOCK_NONBLOCK, 0), 'socket');
    check(setsockoptInt(this.fd, SYS.SOL_SOCKET, SYS.SO_RCVBUFFORCE, BUFFER_BYTES), 'SO_RCVBUFFORCE');
    const bound = bind(this.fd, sockaddrIn(bytesOf(address), port));
    if (bound < 0) {
      close(this.fd);
      check(bound, `bind to ${address}:${port}`);
    }
    const buffer = Buffer.alloc(65536);
    const from = Buffer.alloc(16);
    this.poller = pollFd(this.fd, () => {
      for (let length = recvFrom(this.fd, buffer, 0, from); length >= 0; length = recvFrom(this.fd, buffer, 0, from)) {
        const sender = [...from.subarray(4, 8)].join('.');
        this.inbox.put({
          data: Buffer.from(buffer.subarray(0, length)),
          address: sender,
          port: from.readUInt16BE(2),
        });
      }
    });
  }

  send(data: Uint8Array, address = '192.0.2.1'): void {
    check(sendTo(this.fd, data, 0, sockaddrIn(bytesOf(address), PORT)), `send of ${data.length} bytes`);
  }

  /** The next datagram that arrived. */
  next(): Promise<Datagram> {
    return this.inbox.next('a datagram');
  }

  get pending(): number {
    return this.inbox.size;
  }

  close(): void {
    this.poller.close();
    close(this.fd);
  }
}

function bytesOf(address: string): Uint8Array {
  return Uint8Array.from(address.split('.'), Number);
}

function check(result: number, what: string): number {
  if (result < 0) throw Object.assign(new Error(`${what}: ${errnoName(result)}`), { code: errnoName(result) });
  return result;
}
