import { internetChecksum } from '../../src/ip/checksum.js';
import { SYS, bind, close, errnoName, recv, sendTo, setsockoptInt, sockaddrIn, socket } from '../../src/sys/libc.js';
import type { Netns } from './netns.js';
import { inNamespace } from './in-namespace.js';
import { waitFor } from './wait.js';

/** How a {@link SteadyPing} sends. */
export interface SteadyPingOptions {
  /** Default 5. */
  readonly intervalMs?: number;
  /** Source address; default: what the route says. */
  readonly source?: string;
}

/** What a {@link SteadyPing} saw. */
export interface SteadyPingResult {
  readonly sent: number;
  readonly received: number;
  /** Longest run of requests without an answer, as time; 0 if all were answered. */
  readonly longestGapMs: number;
}

const ICMP = { echoReply: 0, echoRequest: 8, header: 8, payloadBytes: 56 } as const;
/** Of IPv4 without options, as a raw socket shows it before the message. */
const IPV4_HEADER = 20;
/** uapi linux/icmp.h: a mask of the types that a raw socket does not get. */
const SOL_RAW = 255;
const ICMP_FILTER = 1;
const SEQUENCES = 65_536;
/** For the last answers; longer than one takes on a busy machine. */
const PATIENCE_MS = 1000;

let lastIdentifier = process.pid;

/**
 * ICMP echo requests from a namespace, many in a second, until told to stop.
 *
 * @remarks Instead of iputils' ping, which below 10 ms between two requests (`next <= 1000/HZ` in `pinger()`) asks for
 * answers without ever sleeping: each takes a whole processor from what is being tested.
 */
export class SteadyPing {
  readonly #fd: number;
  readonly #target: Uint8Array;
  readonly #intervalMs: number;
  readonly #identifier = ++lastIdentifier % SEQUENCES;
  readonly #request = Buffer.alloc(ICMP.header + ICMP.payloadBytes);
  readonly #buffer = Buffer.alloc(1024);
  /** Requests without an answer, counted from 0. */
  readonly #open = new Set<number>();
  readonly #timer: NodeJS.Timeout;
  #sent = 0;
  #lastAnswered = -1;
  #longestGap = 0;

  private constructor(from: Netns, address: string, { intervalMs = 5, source }: SteadyPingOptions) {
    this.#intervalMs = intervalMs;
    this.#target = sockaddrIn(bytesOf(address), 0);
    this.#fd = inNamespace(from.file, () =>
      check(socket(SYS.AF_INET, SYS.SOCK_RAW | SYS.SOCK_NONBLOCK, SYS.IPPROTO_ICMP), 'raw socket'),
    );
    check(setsockoptInt(this.#fd, SOL_RAW, ICMP_FILTER, ~(1 << ICMP.echoReply)), 'ICMP_FILTER');
    if (source !== undefined) check(bind(this.#fd, sockaddrIn(bytesOf(source), 0)), `bind to ${source}`);
    // Nobody waits for a test that failed and left it behind.
    this.#timer = setInterval(() => this.#turn(), intervalMs).unref();
    this.#turn();
  }

  /** @param address - IPv4. */
  static start(from: Netns, address: string, options: SteadyPingOptions = {}): SteadyPing {
    return new SteadyPing(from, address, options);
  }

  /** Ends it, and counts what has not been answered a second later as lost. */
  async stop(): Promise<SteadyPingResult> {
    clearInterval(this.#timer);
    const isAnswered = (): boolean => {
      this.#receive();
      return this.#lastAnswered === this.#sent - 1;
    };
    await waitFor(isAnswered, { what: 'the last answer', timeoutMs: PATIENCE_MS, intervalMs: 5 }).catch(() => false);
    close(this.#fd);
    const longestGap = Math.max(this.#longestGap, this.#sent - 1 - this.#lastAnswered);
    const received = this.#sent - this.#open.size;
    return { sent: this.#sent, received, longestGapMs: longestGap * this.#intervalMs };
  }

  #turn(): void {
    this.#receive();
    const request = this.#request.fill(0);
    request.writeUInt8(ICMP.echoRequest, 0);
    request.writeUInt16BE(this.#identifier, 4);
    request.writeUInt16BE(this.#sent % SEQUENCES, 6);
    request.writeUInt16BE(internetChecksum(request), 2);
    this.#open.add(this.#sent++);
    // What cannot be sent, for want of a route, is lost.
    sendTo(this.#fd, request, 0, this.#target);
  }

  #receive(): void {
    const buffer = this.#buffer;
    while (recv(this.#fd, buffer) >= IPV4_HEADER + ICMP.header) {
      if (buffer.readUInt16BE(IPV4_HEADER + 4) !== this.#identifier) continue;
      const last = this.#sent - 1;
      const behind = (last - buffer.readUInt16BE(IPV4_HEADER + 6)) % SEQUENCES;
      const serial = last - ((behind + SEQUENCES) % SEQUENCES);
      this.#open.delete(serial);
      // One that was overtaken is no gap.
      this.#longestGap = Math.max(this.#longestGap, serial - this.#lastAnswered - 1);
      this.#lastAnswered = Math.max(this.#lastAnswered, serial);
    }
  }
}

function bytesOf(address: string): Uint8Array {
  return Uint8Array.from(address.split('.'), Number);
}

function check(result: number, what: string): number {
  if (result < 0) throw new Error(`cannot ping: ${what}: ${errnoName(result)}`);
  return result;
}
