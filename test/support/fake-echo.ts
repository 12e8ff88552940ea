import type { Family, IpAddress } from '../../src/ip/address.js';
import type { EchoPort, EchoReply, OpenEchoPort } from '../../src/reach/echo-socket.js';

/** Answers echoes like a network in which everybody is at hand, except those that are told not to. */
export class FakeEcho {
  /** Addresses that have been asked, in order. */
  readonly sent: string[] = [];
  /** Whether an address answers; default every one at once. */
  answers: (address: string) => boolean = () => true;
  /** What `send` returns for an address; default 0. */
  result: (address: string) => number = () => 0;
  /** Thrown when a port is opened. */
  refusal: Error | undefined;
  /** Replies are on their way until {@link arrive}, instead of there at once. */
  isSlow = false;
  /** Times that a port was asked for. */
  opens = 0;
  /** Ports that are open. */
  openPorts = 0;
  #travelling: (() => void)[] = [];
  #arrived: (() => void)[] = [];

  readonly open: OpenEchoPort = (family, onReply) => {
    this.opens++;
    if (this.refusal !== undefined) throw this.refusal;
    this.openPorts++;
    return new FakeEchoPort(this, family, onReply);
  };

  /** Puts the replies that are on their way into the socket, where nobody has noticed them yet. */
  arrive({ isReversed = false } = {}): void {
    const replies = this.#travelling.splice(0);
    this.#arrived.push(...(isReversed ? replies.reverse() : replies));
  }

  /** Hands out what is in the socket, as the event loop does. */
  deliver(): void {
    for (const reply of this.#arrived.splice(0)) reply();
  }

  /** Takes a request, as the kernel does. */
  take(address: IpAddress, reply: () => void): number {
    const text = address.toString();
    this.sent.push(text);
    const result = this.result(text);
    if (result === 0 && this.answers(text)) {
      if (this.isSlow) this.#travelling.push(reply);
      else reply();
    }
    return result;
  }
}

class FakeEchoPort implements EchoPort {
  #isClosed = false;

  constructor(
    private readonly echo: FakeEcho,
    private readonly family: Family,
    private readonly onReply: (reply: EchoReply) => void,
  ) {}

  send(address: IpAddress, sequence: number): number {
    if (address.family !== this.family) throw new TypeError(`${address.toString()} is no IPv${this.family} address`);
    return this.echo.take(address, () => {
      if (!this.#isClosed) this.onReply({ address, sequence });
    });
  }

  receive(): void {
    this.echo.deliver();
  }

  close(): void {
    if (!this.#isClosed) this.echo.openPorts--;
    this.#isClosed = true;
  }
}
