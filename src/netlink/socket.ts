import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Clock } from '../clock.js';
import { OverlayError } from '../errors.js';
import * as libc from '../sys/libc.js';
import { SYS } from '../sys/libc.js';
import { NLM_F, NLMSG } from './constants.js';
import { MessageReader, MessageWriter, readAcknowledgement } from './message.js';

/** `NETLINK_ROUTE`, the protocol number of rtnetlink. */
const NETLINK_ROUTE = 0;

/**
 * Bytes of one receive. The kernel puts at most 32 KiB into one part of a dump (`netlink_dump()` in
 * `net/netlink/af_netlink.c`); a single message is larger only for devices with hundreds of virtual functions.
 */
const RECEIVE_BYTES = 128 * 1024;

/** Time that a dump may hold the event loop before others get a turn. */
const TURN_MS = 4;

/** How often a dump is repeated that the kernel reports as interrupted by changes. */
const MAX_DUMP_ATTEMPTS = 10;

/**
 * Raw descriptor of a netlink socket with what all of them have in common.
 *
 * @param open - gives a socket of another network namespace.
 */
export function openNetlink(receiveBytes: number, open: () => number = openHere): number {
  const fd = open();
  const bound = libc.bind(fd, libc.sockaddrNl());
  if (bound < 0) {
    libc.close(fd);
    throw socketError('bind a netlink socket', bound);
  }
  // Without CAP_NET_ADMIN the plain option is what we get, capped by net.core.rmem_max.
  if (libc.setsockoptInt(fd, SYS.SOL_SOCKET, SYS.SO_RCVBUFFORCE, receiveBytes) < 0) {
    libc.setsockoptInt(fd, SYS.SOL_SOCKET, SYS.SO_RCVBUF, receiveBytes);
  }
  return fd;
}

function openHere(): number {
  const fd = libc.socket(SYS.AF_NETLINK, SYS.SOCK_RAW | SYS.SOCK_NONBLOCK, NETLINK_ROUTE);
  if (fd < 0) throw socketError('open a netlink socket', fd);
  return fd;
}

/** How a {@link NetlinkSocket} is made. */
export interface NetlinkSocketOptions {
  readonly clock: Clock;
  /** Longest duration of a dump, repetitions included. */
  readonly deadlineMs: number;
  /** Gives a non-blocking socket of another network namespace; throws what {@link NetlinkSocket.open} is to throw. */
  readonly openSocket?: (() => number) | undefined;
}

/**
 * Requests to rtnetlink and their answers.
 *
 * API: {@link request} for changes and look-ups, which the kernel answers before the send call returns, so the answer
 * is read at once; {@link dump} for lists, read in parts between which other work gets a turn.
 * Threads: none of its own. A socket serves one dump at a time and no request meanwhile; open one for each purpose.
 * Limits: a dump must end within the deadline. A message beyond 128 KiB is an error.
 * Errors: `ERR_NETLINK` with the errno's name as `context.errno` and the kernel's explanation in the message.
 */
export class NetlinkSocket {
  private readonly writer = new MessageWriter();
  private readonly reader = new MessageReader(new Uint8Array(RECEIVE_BYTES));
  private sequence = 0;
  private isDumping = false;

  private constructor(
    private fd: number,
    private readonly clock: Clock,
    private readonly deadlineMs: number,
  ) {}

  /**
   * @throws {@link OverlayError} `ERR_NETLINK`
   */
  static open(options: NetlinkSocketOptions): NetlinkSocket {
    const fd = openNetlink(1024 * 1024, options.openSocket);
    // 4.12, 4.2 and 4.20; older kernels answer without words, with longer errors, and with unfiltered dumps.
    for (const option of [SYS.NETLINK_EXT_ACK, SYS.NETLINK_CAP_ACK, SYS.NETLINK_GET_STRICT_CHK]) {
      libc.setsockoptInt(fd, SYS.SOL_NETLINK, option, 1);
    }
    return new NetlinkSocket(fd, options.clock, options.deadlineMs);
  }

  /**
   * Sends one request and reads its answer.
   *
   * @param flags - besides `NLM_F_REQUEST | NLM_F_ACK`.
   * @param onMessage - gets each message of the answer except the acknowledgement; the reader is valid only within the call.
   * @param what - the request in words, after *cannot*; only called for an error.
   * @throws {@link OverlayError} `ERR_NETLINK`
   */
  request(
    type: number,
    flags: number,
    what: () => string,
    fill: (writer: MessageWriter) => void,
    onMessage?: (reader: MessageReader) => void,
  ): void {
    if (this.isDumping) throw new TypeError('a netlink socket serves no request during a dump');
    const sequence = this.send(type, NLM_F.REQUEST | NLM_F.ACK | flags, what, fill);
    for (;;) {
      if (!this.receive(what)) {
        throw new OverlayError('ERR_NETLINK', `cannot ${what()}: the kernel gave no answer`, {
          context: { errno: 'ETIMEDOUT' },
          isRetryable: true,
        });
      }
      while (this.reader.next()) {
        if (this.reader.sequence !== sequence) continue; // left over from a request that failed half-way
        if (this.reader.type !== NLMSG.ERROR) {
          onMessage?.(this.reader);
          continue;
        }
        this.check(what);
        return;
      }
    }
  }

  /**
   * Lists objects. Repeated from the start when the kernel says that the list changed under its hands.
   *
   * @param onMessage - gets every message of the list; the reader is valid only within the call.
   * @returns what `start` returned for the attempt that came through.
   * @throws {@link OverlayError} `ERR_NETLINK`
   */
  async dump<T>(
    type: number,
    what: () => string,
    fill: (writer: MessageWriter) => void,
    collect: { readonly start: () => T; readonly onMessage: (reader: MessageReader, result: T) => void },
  ): Promise<T> {
    if (this.isDumping) throw new TypeError('a netlink socket serves one dump at a time');
    this.isDumping = true;
    try {
      const deadline = this.clock.monotonicMs() + this.deadlineMs;
      for (let attempt = 1; ; attempt++) {
        const result = collect.start();
        const isComplete = await this.dumpOnce(type, what, fill, deadline, (reader) => {
          collect.onMessage(reader, result);
        });
        if (isComplete) return result;
        if (attempt === MAX_DUMP_ATTEMPTS) {
          throw new OverlayError('ERR_NETLINK', `cannot ${what()}: interrupted by changes ${attempt} times in a row`, {
            context: { errno: 'EINTR' },
            isRetryable: true,
          });
        }
      }
    } finally {
      this.isDumping = false;
    }
  }

  /** Idempotent. */
  close(): void {
    if (this.fd >= 0) libc.close(this.fd);
    this.fd = -1;
  }

  /** @returns false if the list changed meanwhile. */
  private async dumpOnce(
    type: number,
    what: () => string,
    fill: (writer: MessageWriter) => void,
    deadline: number,
    onMessage: (reader: MessageReader) => void,
  ): Promise<boolean> {
    const sequence = this.send(type, NLM_F.REQUEST | NLM_F.DUMP, what, fill);
    let isConsistent = true;
    let turnEnds = this.clock.monotonicMs() + TURN_MS;
    for (;;) {
      const isReceived = this.receive(what);
      while (isReceived && this.reader.next()) {
        if (this.reader.sequence !== sequence) continue;
        if ((this.reader.flags & NLM_F.DUMP_INTR) !== 0) isConsistent = false;
        if (this.reader.type === NLMSG.DONE || this.reader.type === NLMSG.ERROR) {
          this.check(what);
          return isConsistent;
        }
        onMessage(this.reader);
      }
      if (this.clock.monotonicMs() > deadline) {
        throw new OverlayError('ERR_NETLINK', `cannot ${what()}: not complete after ${this.deadlineMs} ms`, {
          context: { errno: 'ETIMEDOUT' },
          isRetryable: true,
        });
      }
      if (isReceived && this.clock.monotonicMs() < turnEnds) continue;
      await nextTurn();
      turnEnds = this.clock.monotonicMs() + TURN_MS;
    }
  }

  /** @returns sequence number of the request. */
  private send(type: number, flags: number, what: () => string, fill: (writer: MessageWriter) => void): number {
    if (this.fd < 0) throw new OverlayError('ERR_NETLINK', `cannot ${what()}: the netlink socket is closed`);
    this.sequence = (this.sequence + 1) >>> 0;
    this.writer.start(type, flags, this.sequence);
    fill(this.writer);
    const sent = libc.send(this.fd, this.writer.finish());
    if (sent < 0) throw socketError(what(), sent);
    return this.sequence;
  }

  /** @returns false if there is nothing to receive. */
  private receive(what: () => string): boolean {
    if (this.fd < 0) throw new OverlayError('ERR_NETLINK', `cannot ${what()}: the netlink socket was closed`);
    const length = receiveInto(this.fd, this.reader);
    if (length >= 0) return true;
    const errno = libc.errnoName(length);
    if (errno === 'EAGAIN') return false;
    throw socketError(what(), length);
  }

  /** Throws if the acknowledgement that the reader stands on is an error. */
  private check(what: () => string): void {
    const { errno, explanation } = readAcknowledgement(this.reader);
    if (errno === 0) return;
    const name = libc.errnoName(errno);
    const words = explanation === undefined ? '' : ` (${explanation.replace(/\.$/, '')})`;
    throw new OverlayError('ERR_NETLINK', `cannot ${what()}: ${name}${words}`, {
      context: { errno: name },
      isRetryable: RETRYABLE.has(name),
      ...(name === 'EPERM' ? { hint: 'run it as root or with CAP_NET_ADMIN' } : {}),
    });
  }
}

/** Errors that go away without anybody changing the request. */
const RETRYABLE: ReadonlySet<string> = new Set([
  'EAGAIN',
  'EBUSY',
  'EINTR',
  'ENOBUFS',
  'ENOMEM',
  'ENETUNREACH',
  'ENODEV',
]);

/**
 * Receives one datagram into the reader and resets it.
 *
 * @returns bytes, or minus errno; -EMSGSIZE if the datagram was longer than the buffer.
 */
export function receiveInto(fd: number, reader: MessageReader): number {
  const length = libc.recv(fd, reader.bytes, SYS.MSG_DONTWAIT | SYS.MSG_TRUNC);
  if (length > reader.bytes.length) return -EMSGSIZE;
  if (length >= 0) reader.reset(length);
  return length;
}

const EMSGSIZE = 90;

/**
 * The error for a call on a netlink socket itself.
 *
 * @param what - what was tried, after *cannot*.
 * @param result - minus errno.
 */
export function socketError(what: string, result: number): OverlayError {
  const errno = libc.errnoName(result);
  return new OverlayError('ERR_NETLINK', `cannot ${what}: ${errno}`, { context: { errno }, isRetryable: true });
}

/**
 * The kernel's error behind an `ERR_NETLINK`.
 *
 * @returns name such as `EEXIST`; undefined for any other value.
 */
export function netlinkErrno(error: unknown): string | undefined {
  if (!(error instanceof OverlayError) || error.code !== 'ERR_NETLINK') return undefined;
  const { errno } = error.context;
  return typeof errno === 'string' ? errno : undefined;
}
