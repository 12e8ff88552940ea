import { randomBytes } from 'node:crypto';
import { OverlayError } from '../errors.js';
import { type Family, IpAddress } from '../ip/address.js';
import { type FdPoller, pollFd } from '../sys/fd-poller.js';
import * as libc from '../sys/libc.js';
import { SYS } from '../sys/libc.js';
import { echoReplyFilter, encodeEchoRequest, readEchoReply } from './echo-message.js';

/** Sends echo requests from this host; see {@link OpenEchoPort}. */
export interface EchoPort {
  /**
   * Sends one echo request.
   *
   * @param sequence - 16 bits; comes back in the reply.
   * @returns 0, or minus errno.
   */
  send(address: IpAddress, sequence: number): number;
  /** Hands out the replies that have arrived by now, without waiting for the event loop to notice them. */
  receive(): void;
  /** No reply is handed out any more. Idempotent. */
  close(): void;
}

/** An answer to a request of the same {@link EchoPort}. */
export interface EchoReply {
  /** Who sent it; compare it with whom was asked. */
  readonly address: IpAddress;
  readonly sequence: number;
}

/**
 * Opens a port for one address family.
 *
 * @param onReply - must not throw.
 * @throws {@link OverlayError} `ERR_ECHO_SOCKET`
 */
export type OpenEchoPort = (family: Family, onReply: (reply: EchoReply) => void) => EchoPort;

/** Makes a stranger's reply, or that to another program, unlikely to be taken for ours. */
const PAYLOAD_BYTES = 8;

/**
 * `SO_MARK` by which the kernel path tells what asks for the tunnel (native/core/kernel_path/layout.h): a host whose port
 * is blocked would answer past it, and every large transfer would stand still.
 */
export const PROBE_MARK = 0x66c;

/** IPv4 header with options (60), ICMP header (8) and payload; what is longer is not ours. */
const RECEIVE_BYTES = 60 + 8 + PAYLOAD_BYTES;

/** Replies that are handed out before others get a turn; the rest waits in the socket. */
const RECEIVE_BATCH = 256;

const PROTOCOLS: Readonly<Record<Family, { readonly domain: number; readonly protocol: number }>> = {
  4: { domain: SYS.AF_INET, protocol: SYS.IPPROTO_ICMP },
  6: { domain: SYS.AF_INET6, protocol: SYS.IPPROTO_ICMPV6 },
};

/**
 * An ICMP socket: raw with CAP_NET_RAW, else the kernel's ping socket where the group is in `net.ipv4.ping_group_range`
 * (icmp(7), 3.0).
 *
 * API: {@link EchoPort}. Threads: the event loop, which never waits for it. Limits: one socket for any number of
 * addresses; a filter in the kernel passes nothing but replies to this socket. Errors: `send` returns them, `open` throws.
 */
export class EchoSocket implements EchoPort {
  private readonly payload: Uint8Array = randomBytes(PAYLOAD_BYTES);
  private readonly buffer = new Uint8Array(RECEIVE_BYTES);
  private readonly sender: Uint8Array;
  private poller: FdPoller | undefined;
  private isClosed = false;

  private constructor(
    private readonly family: Family,
    private readonly fd: number,
    private readonly isRaw: boolean,
    private readonly identifier: number,
    private readonly onReply: (reply: EchoReply) => void,
  ) {
    this.sender = libc.sockaddrIn(IpAddress.fromValue(family, 0n).toBytes(), 0);
  }

  /** See {@link OpenEchoPort}. */
  static readonly open: OpenEchoPort = (family, onReply) => {
    const { domain, protocol } = PROTOCOLS[family];
    const identifier = randomBytes(2).readUInt16BE();
    let fd = libc.socket(domain, SYS.SOCK_RAW | SYS.SOCK_NONBLOCK, protocol);
    const isRaw = fd >= 0;
    if (!isRaw) {
      const refusal = libc.errnoName(fd);
      fd = libc.socket(domain, SYS.SOCK_DGRAM | SYS.SOCK_NONBLOCK, protocol); // gets replies to its own requests only
      if (fd < 0) throw refused(family, refusal);
    } else {
      const filtered = libc.attachFilter(fd, echoReplyFilter(family, identifier));
      if (filtered < 0) {
        libc.close(fd);
        throw refused(family, libc.errnoName(filtered));
      }
    }
    // Only who may change the network may set it (socket(7)); others ask by whatever way there is.
    libc.setsockoptInt(fd, SYS.SOL_SOCKET, SYS.SO_MARK, PROBE_MARK);
    const socket = new EchoSocket(family, fd, isRaw, identifier, onReply);
    socket.poller = pollFd(fd, () => socket.receive());
    return socket;
  };

  send(address: IpAddress, sequence: number): number {
    const request = encodeEchoRequest(this.family, this.identifier, sequence, this.payload);
    return Math.min(0, libc.sendTo(this.fd, request, SYS.MSG_DONTWAIT, libc.sockaddrIn(address.toBytes(), 0)));
  }

  receive(): void {
    for (let count = 0; count < RECEIVE_BATCH && !this.isClosed; count++) {
      const length = libc.recvFrom(this.fd, this.buffer, SYS.MSG_DONTWAIT | SYS.MSG_TRUNC, this.sender);
      if (length < 0) return; // EAGAIN: drained; anything else was the error of an earlier request, which is lost then
      if (length > this.buffer.length) continue;
      const hasIpHeader = this.isRaw && this.family === 4;
      const sequence = readEchoReply(this.family, this.buffer.subarray(0, length), {
        hasIpHeader,
        payload: this.payload,
      });
      if (sequence !== undefined) this.onReply({ address: this.senderAddress(), sequence });
    }
  }

  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.poller?.close();
    libc.close(this.fd);
  }

  private senderAddress(): IpAddress {
    return IpAddress.fromBytes(this.family === 4 ? this.sender.slice(4, 8) : this.sender.slice(8, 24));
  }
}

function refused(family: Family, errno: string): OverlayError {
  return new OverlayError('ERR_ECHO_SOCKET', `cannot open an ICMP socket for IPv${family}: ${errno}`, {
    context: { errno },
    hint: 'run it as root or with CAP_NET_RAW, or have the group in net.ipv4.ping_group_range',
  });
}
